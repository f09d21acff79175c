"""Every legal way to spread a job over GPUs or CPUs: `shapes`, each with the `Choice`s that it leaves."""

from collections.abc import Collection, Iterator
from itertools import product
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.conventional import Chain
from rpucluster.job import Job
from rpucluster.schedule import Schedule
from rpucluster.search.space import Candidate, Kept, Recompute, divisors, held, placements, ranks_tried, stages_tried

RUNS: Final = (2, 3, 4, 6, 8, 12)
"""Runs of layers a stage that are tried where schedules interleave."""


class Choice(NamedTuple):
    """What is chosen besides the shape."""

    microbatch: int
    recompute: Recompute
    sequence_parallel: bool


class Shape(NamedTuple):
    """Plans of the same degrees and runs of layers.

    GPipe is not among them: it takes as long as 1F1B and holds more.
    """

    tensor: int
    pipeline: int
    data: int
    minibatch: int
    schedule: Schedule
    virtual_stages: int
    placements: tuple[tuple[str, ...], ...]

    def plan(self, choice: Choice, placement: tuple[str, ...] | None = None) -> Candidate:
        """One of them; without a placement the first."""
        return Candidate(
            self.tensor, self.pipeline, self.data, 1, self.minibatch, choice.microbatch, self.schedule,
            self.virtual_stages, "gradient", self.placements[0] if placement is None else placement,
            choice.recompute, choice.sequence_parallel,
        )  # fmt: skip

    def microbatches(self, choices: tuple[Choice, ...]) -> NDArray[np.int64]:
        """Of a step, by choice; 0 where it is no legal one."""
        sizes = np.array([choice.microbatch for choice in choices], np.int64)
        count = np.where(self.minibatch % sizes == 0, self.minibatch // sizes, 0)
        if self.schedule == "interleaved":
            count = np.where(count % self.pipeline == 0, count, 0)
        if self.tensor == 1:  # one rank shares nothing, so there is one choice
            first = choices[0].sequence_parallel
            count = np.where([choice.sequence_parallel == first for choice in choices], count, 0)
        return count


def choices_of(job: Job, network: Chain, keep: Collection[Kept]) -> tuple[Choice, ...]:
    """Microbatches that divide the global batch, what is recomputed, and whether sequences are shared."""
    options = job.conventional
    sizes = held(keep, "microbatch", job.train.microbatch, divisors(job.train.minibatch * job.parallel.data))
    # without attention, what is selected is nothing
    attends = any(work.scores for work in network.kinds)
    redone = held(keep, "recompute", options.recompute, ["selective", "none", "full"] if attends else ["none", "full"])
    shared = held(keep, "sequence_parallel", options.sequence_parallel, [True, False])
    return tuple(Choice(*each) for each in product(sizes, redone, shared))


def shapes(job: Job, cluster: Cluster, network: Chain, keep: Collection[Kept] = ()) -> Iterator[Shape]:
    """All of them, each once: ranks and stages as for RPUs, replicas that divide the global batch.

    Tensor ranks share layers, and the heads of attention, in equal parts; the vocabulary is filled up to that, as
    Megatron-LM does.
    """
    parallel, total = job.parallel, job.train.minibatch * job.parallel.data
    samples, blocks, stages = divisors(total), len(network.blocks), stages_tried(job, cluster, network.blocks)
    ranks = [ranks for ranks in ranks_tried(job, cluster) if _divides(ranks, network)]
    for tensor in held(keep, "tensor", parallel.tensor, ranks):
        for pipeline in held(keep, "pipeline", parallel.pipeline, stages):
            room = cluster.accelerators // (tensor * pipeline)
            for data in held(keep, "data", parallel.data, [d for d in samples if d <= room]):
                if data > room:
                    continue
                sizes = {"tensor": tensor, "pipeline": pipeline, "data": data}
                orders = held(keep, "placement", tuple(parallel.placement), placements(sizes))
                for schedule, runs in _schedules(job, pipeline, blocks, keep):
                    yield Shape(tensor, pipeline, data, total // data, schedule, runs, tuple(orders))


def _divides(tensor: int, network: Chain) -> bool:
    for work in network.kinds:
        layer = work.layer
        if layer.kind != "logits" and (layer.rows if work.split == "output" else work.lines) % tensor:
            return False
        if work.scores and work.scores // layer.positions**2 % tensor:
            return False
    return True


def _schedules(job: Job, pipeline: int, blocks: int, keep: Collection[Kept]) -> Iterator[tuple[Schedule, int]]:
    if "schedule" in keep:
        if pipeline * job.parallel.virtual_stages <= blocks:
            yield job.parallel.schedule, job.parallel.virtual_stages
        return
    yield "1f1b", 1
    if pipeline > 1:
        for runs in RUNS:
            if pipeline * runs <= blocks:
                yield "interleaved", runs
