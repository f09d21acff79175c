"""Networks and machines for the tests of conventional training."""

from typing import Any

from rpucluster.cluster import Cluster
from rpucluster.conventional import Setting
from rpucluster.job.conventional import ConventionalSpec
from rpucluster.job.training import ParallelSpec, WordsSpec

PLAIN = {
    "recompute": "none",
    "sequence_parallel": False,
    "overlap_tensor": False,
    "fused_accumulation": True,
}
"""Everything that could hide or repeat work is off."""


def setting(
    *, minibatch: int = 4, microbatch: int = 1, options: dict[str, Any] | None = None, bits: int = 16, **parallel: Any
) -> Setting:
    chosen = {"schedule": "1f1b"} | parallel
    if chosen.get("virtual_stages", 1) > 1:
        chosen["schedule"] = "interleaved"
    return Setting(
        parallel=ParallelSpec(**chosen),
        minibatch=minibatch,
        microbatch=microbatch,
        options=ConventionalSpec(**(PLAIN | (options or {}))),
        words=WordsSpec(factor_bits=16, gradient_bits=bits),
    )


def machine(accelerators: int = 64, *, network: dict[str, Any] | None = None, **chip: Any) -> Cluster:
    """So many GPUs on a switch without latency and end of bandwidth, whose memory neither fills up nor takes time."""
    wire = {"name": "all", "kind": "switch", "size": accelerators, "bandwidth": "inf GB/s", "latency": "0 s"}
    keys = {
        "kind": "gpu",
        "peak_rate": "100 TFLOP/s",
        "memory": "1e9 GB",
        "memory_bandwidth": "1e15 GB/s",
        "efficiency": 0.5,
        "busy_power": "400 W",
        "idle_power": "50 W",
    }
    return Cluster.model_validate(
        {"name": "test", "accelerator": keys | chip, "network": {"axis": [wire | (network or {})]}}
    )
