"""Jobs and clusters whose bottleneck is known by construction: one thing is made so scarce that it is most of the step.

The network is made of four equal dense layers without activation work that counts, so what a relief gains has a closed
form: halving what is nearly all of the step gains nearly a half, and p stages with m microbatches take (m + p - 1) / m.
"""

from dataclasses import dataclass, field
from typing import Any

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from tests.specs import make_cluster, make_job


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job on one cluster."""

    name: str
    resource: str
    """What `profile` has to name first."""
    built: str
    """How it was made the bottleneck, in words."""
    gain: float
    """What relieving it should gain, as a share of the step, by the closed form."""
    parallel: dict[str, Any]
    train: dict[str, Any]
    cluster: dict[str, Any]
    faults: dict[str, Any] = field(default_factory=dict)

    def job(self) -> Job:
        return make_job(
            model={"preset": "mlp", "sizes": [32] * 5, "activation": "tanh"},
            update={"bit_length": 1, "update_management": False},
            parallel=self.parallel,
            train=self.train,
        )

    def machine(self) -> Cluster:
        tables = make_cluster(4, **self.cluster).model_dump(mode="json")
        return Cluster.model_validate(tables | {"faults": self.faults})


_FREE_LINKS = {"bandwidth": "inf GB/s", "latency": "0 s"}
_MANY = {"minibatch": 8, "microbatch": 1}

CASES = (
    Case(
        name="link bandwidth",
        resource="bandwidth",
        built="tensor 4 on a ring of 1 MB/s without latency; each all-reduce of sums takes ms, each read 80 ns",
        gain=0.5,
        parallel={"tensor": 4, "tensor_split": "input"},
        train=_MANY,
        cluster={"kind": "ring", "bandwidth": "1 MB/s", "latency": "0 s"},
    ),
    Case(
        name="link latency",
        resource="latency",
        built="tensor 4 on a ring of endless bandwidth and 100 µs a hop, one sample at a time",
        gain=0.5,
        parallel={"tensor": 4, "tensor_split": "input"},
        train={"minibatch": 1, "microbatch": 1},
        cluster={"kind": "ring", "bandwidth": "inf GB/s", "latency": "100 us"},
    ),
    Case(
        name="digital units",
        resource="digital_units",
        built="one accelerator with 1 Mop/s, so that 32 activations take 32 µs and a read 80 ns",
        gain=0.5,
        parallel={},
        train=_MANY,
        cluster={"digital_rate": "1 Mop/s", "tile": 64, **_FREE_LINKS},
    ),
    Case(
        name="slow accelerator",
        resource="slow_accelerator",
        built="tensor 4 with free links, and accelerator 3 takes 3 times as long as the others, which wait for it at "
        "every collective",
        gain=1 - 1 / 3,
        parallel={"tensor": 4, "tensor_split": "input"},
        train=_MANY,
        cluster={"digital_rate": "1 Pop/s", **_FREE_LINKS},
        faults={"slow_accelerators": {"3": 3.0}},
    ),
    Case(
        name="slow link",
        resource="slow_links",
        built="tensor 4 on a ring of 1 MB/s, one of whose links is 100 times slower, so that each round waits for it",
        gain=1 - 1 / 100,
        parallel={"tensor": 4, "tensor_split": "input"},
        train={"minibatch": 1, "microbatch": 1},
        cluster={"kind": "ring", "bandwidth": "1 MB/s", "latency": "0 s"},
        faults={"slow_links": {"board:1->2": 100.0}},
    ),
    Case(
        name="pipeline bubble",
        resource="pipeline_bubble",
        built="four equal stages, free links, and one microbatch of 8: three of four stages always idle; two "
        "microbatches take 5/2 of a stage's work instead of 4",
        gain=1 - 2.5 / 4,
        parallel={"pipeline": 4},
        train={"minibatch": 8, "microbatch": 8},
        cluster={"digital_rate": "1 Pop/s", "tile": 64, **_FREE_LINKS},
    ),
)
