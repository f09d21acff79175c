"""Every legal way to spread a job over a cluster: `candidates`."""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator
from itertools import permutations, product
from typing import Any, Final, Literal, NamedTuple, get_args

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.schedule import Schedule
from rpucluster.topology import Network

Sync = Literal["factors", "gradient", "average"]
Recompute = Literal["none", "selective", "full"]
Kept = Literal[
    "tensor", "pipeline", "data", "microbatch", "schedule", "data_sync", "placement", "recompute", "sequence_parallel"
]
KEPT: Final[tuple[Kept, ...]] = get_args(Kept)
"""What may be held at what the job says."""
OF_RPUS: Final = frozenset({"data_sync"})
"""Of these, what only RPUs have."""
OF_PROCESSORS: Final = frozenset({"recompute", "sequence_parallel"})
"""Of these, what only GPUs and CPUs have."""


class Candidate(NamedTuple):
    """A plan by its keys; the global batch is that of the job, whatever `data` is."""

    tensor: int
    pipeline: int
    data: int
    expert: int
    minibatch: int
    microbatch: int
    schedule: Schedule
    virtual_stages: int
    data_sync: Sync
    placement: tuple[str, ...]
    recompute: Recompute | None = None
    """None on RPUs, which recompute nothing."""
    sequence_parallel: bool | None = None
    """None on RPUs."""

    @property
    def accelerators(self) -> int:
        """Accelerators that it takes."""
        return self.tensor * self.pipeline * self.data

    @property
    def microbatches(self) -> int:
        """Microbatches of a step."""
        return self.minibatch // self.microbatch


class Batch(NamedTuple):
    """Plans that differ in data_sync, schedule and placement only."""

    degrees: tuple[int, int, int]
    """Tensor, pipeline, data."""
    expert: int
    minibatch: int
    microbatch: int
    syncs: tuple[Sync, ...]
    schedules: tuple[tuple[Schedule, int], ...]
    placements: tuple[tuple[str, ...], ...]

    @property
    def plans(self) -> int:
        """How many there are."""
        return len(self.syncs) * len(self.schedules) * len(self.placements)

    def __iter__(self) -> Iterator[Candidate]:  # type: ignore[override]
        for sync, (schedule, chunks), placement in product(self.syncs, self.schedules, self.placements):
            yield Candidate(
                *self.degrees, self.expert, self.minibatch, self.microbatch, schedule, chunks, sync, placement
            )


def with_plan(job: Job, plan: Candidate) -> Job:
    """The job with the keys of a plan."""
    parallel = {
        "tensor": plan.tensor,
        "pipeline": plan.pipeline,
        "data": plan.data,
        "schedule": plan.schedule,
        "virtual_stages": plan.virtual_stages,
        "data_sync": plan.data_sync,
        "placement": plan.placement,
    }
    changed: dict[str, Any] = {
        "parallel": job.parallel.model_copy(update=parallel),
        "train": job.train.model_copy(update={"minibatch": plan.minibatch, "microbatch": plan.microbatch}),
    }
    if plan.recompute is not None:
        options = {"recompute": plan.recompute, "sequence_parallel": plan.sequence_parallel}
        changed["conventional"] = job.conventional.model_copy(update=options)
    return job.model_copy(update=changed)


def batches(job: Job, cluster: Cluster, keep: Collection[Kept] = ()) -> Iterator[Batch]:
    """All plans, each once: tensor ranks and stages as `ranks_tried` and `stages_tried` say, replicas and microbatches
    that divide the global batch.

    Tensor, pipeline and replicas may leave accelerators idle.  What one replica alone would not tell apart (data_sync)
    and what a single microbatch or stage would not (schedule, order of the axes) is there once.
    """
    parallel, total = job.parallel, job.train.minibatch * job.parallel.data
    samples, layers = divisors(total), len(job.network.layers)
    stages = stages_tried(job, cluster, (layer.nameless for layer in job.network.layers))
    for tensor in held(keep, "tensor", parallel.tensor, ranks_tried(job, cluster)):
        for pipeline in held(keep, "pipeline", parallel.pipeline, stages):
            room = cluster.accelerators // (tensor * pipeline)
            for data in held(keep, "data", parallel.data, [d for d in samples if d <= room]):
                if data > room or data % parallel.expert:
                    continue
                minibatch = total // data
                orders = placements({"tensor": tensor, "pipeline": pipeline, "data": data})
                syncs: list[Any] = ["factors", "gradient", "average"] if data > 1 else [_alone(job)]
                for microbatch in held(keep, "microbatch", job.train.microbatch, samples):
                    if minibatch % microbatch:
                        continue
                    yield Batch(
                        (tensor, pipeline, data),
                        parallel.expert,
                        minibatch,
                        microbatch,
                        tuple(held(keep, "data_sync", parallel.data_sync, syncs)),
                        tuple(_schedules(job, pipeline, minibatch // microbatch, layers, keep)),
                        tuple(held(keep, "placement", tuple(parallel.placement), orders)),
                    )


def ranks_tried(job: Job, cluster: Cluster) -> list[int]:
    """Tensor ranks: divisors of the number of accelerators, and what the job says."""
    return sorted({*divisors(cluster.accelerators), job.parallel.tensor})


def stages_tried(job: Job, cluster: Cluster, layers: Iterable[Hashable]) -> list[int]:
    """Stages: divisors of the number of accelerators, those of the layers of the commonest kind, which make stages
    alike, and what the job says."""
    kinds = Counter(layers)
    tried = {*divisors(cluster.accelerators), *divisors(max(kinds.values())), job.parallel.pipeline}
    return sorted(stages for stages in tried if stages <= kinds.total())


def _alone(job: Job) -> Sync:
    """How a single replica updates: nothing is shared, but a dense gradient is another update."""
    return "gradient" if job.parallel.data_sync == "gradient" else "factors"


def _schedules(
    job: Job, pipeline: int, microbatches: int, layers: int, keep: Collection[Kept]
) -> Iterator[tuple[Schedule, int]]:
    if "schedule" in keep:
        schedule, chunks = job.parallel.schedule, job.parallel.virtual_stages
        if schedule != "interleaved" or (microbatches % pipeline == 0 and pipeline * chunks <= layers):
            yield schedule, chunks
        return
    yield "gpipe", 1
    if pipeline == 1 or microbatches == 1:
        return  # there is one order only
    yield "1f1b", 1
    yield "async", 1
    if microbatches % pipeline == 0:
        for chunks in (2, 4, 8):
            if pipeline * chunks <= layers:
                yield "interleaved", chunks


def placements(degrees: dict[str, int]) -> list[tuple[str, ...]]:
    """Orders of the axes that differ: those of size 1 take no place, so they stand last."""
    used = [name for name, size in degrees.items() if size > 1]
    rest = [name for name, size in degrees.items() if size == 1]
    return [(*order, *rest) for order in permutations(used)]


def arrangement(degrees: tuple[int, int, int], placement: tuple[str, ...], network: Network) -> object:
    """What a placement comes to on a network: placements with equal arrangements differ in the numbers of accelerators
    only, since it does not matter which places of a switch a group has."""
    sizes = dict(zip(("tensor", "pipeline", "data"), degrees, strict=True))
    rooms = [axis.size for axis in network.axis]
    lies: list[list[tuple[str, int]]] = [[] for _ in rooms]
    k = 0
    for name in placement:
        left = sizes[name]
        while left > 1:
            while k < len(rooms) and rooms[k] == 1:
                k += 1
            if k == len(rooms):
                return placement
            here = math.gcd(left, rooms[k])
            if here == 1 or (here < left and here < rooms[k]):
                return placement  # groups do not divide the axes
            lies[k].append((name, here))
            left, rooms[k] = left // here, rooms[k] // here
    if network.product is None:
        return placement
    return tuple(
        tuple(sorted(each) if axis.kind == "switch" else each) for axis, each in zip(network.axis, lies, strict=True)
    )


def strides(plan: Candidate) -> tuple[int, int, int]:
    """What one step along tensor, pipeline and data adds to an accelerator's number."""
    sizes = {"tensor": plan.tensor, "pipeline": plan.pipeline, "data": plan.data}
    found, stride = {}, 1
    for name in plan.placement:
        found[name] = stride
        stride *= sizes[name]
    return found["tensor"], found["pipeline"], found["data"]


def held(keep: Collection[Kept], name: Kept, value: Any, options: list[Any]) -> list[Any]:
    """What a key may be: what the job says where that is kept, else all options."""
    return [value] if name in keep else options


def divisors(number: int) -> list[int]:
    """All of a number, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]
