"""What plans on GPUs or CPUs take at least, and in full: `Prices`.

The closed form of `rpucluster.conventional` without transfers is found for all choices of a shape at once; with the
collectives of tensor ranks for those plans that this leaves a chance; and in full for those that are still left.
"""

from collections.abc import Hashable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.collective import CollectiveKind
from rpucluster.conventional import Chain, ConventionalStep, Links, Setting, baseline, setting_of
from rpucluster.conventional.links import Spent
from rpucluster.conventional.memory import Held, bytes_per_parameter, held
from rpucluster.conventional.step import optimizer_traffic
from rpucluster.conventional.times import layer_times
from rpucluster.job import Job
from rpucluster.job.training import ParallelSpec
from rpucluster.schedule import Schedule, in_flight
from rpucluster.search.processor_space import Choice, Shape
from rpucluster.search.space import Candidate, with_plan

Floats = NDArray[np.float64]


class Least(NamedTuple):
    """Bounds by choice."""

    seconds: Floats
    joules: Floats


class _Slots(NamedTuple):
    """What layers of each kind take for one microbatch: (kinds, choices)."""

    seconds: Floats
    link_joules: Floats


class _Layout(NamedTuple):
    """The layers on the stages of a pipeline."""

    layers_of: NDArray[np.int64]
    """(stages, kinds)"""
    parameters: Floats
    """Of each stage, on one rank."""
    waiting: Floats
    """Bytes of a sample: (stages, choices)."""
    working: Floats


class _Free(Links):
    """Links over which nothing takes time or energy."""

    def tensor(self, kind: CollectiveKind, setting: Setting, nbytes: float) -> Spent:
        return Spent()


class Prices:
    """Prices of the plans of a job on a cluster; what plans have in common is found once."""

    def __init__(self, job: Job, cluster: Cluster, network: Chain, choices: tuple[Choice, ...]) -> None:
        self._job, self._cluster, self._network, self._choices = job, cluster, network, choices
        self._links, self._free = Links(cluster.network), _Free(cluster.network)
        self._widths = setting_of(job.model_copy(update={"parallel": ParallelSpec(expert=job.parallel.expert)}))
        self._with_ranks: dict[Hashable, _Slots] = {}
        self._alone = cache(self._alone_of)
        self._layout = cache(self._layout_of)
        self._in_flight = cache(self._in_flight_of)

    def memory(self, shape: Shape) -> Floats:
        """Bytes on the fullest accelerator, by choice."""
        layout, count = (
            self._layout(shape.tensor, shape.pipeline, shape.virtual_stages),
            shape.microbatches(self._choices),
        )
        kinds = shape.schedule, shape.pipeline, shape.virtual_stages
        flying = np.array([self._in_flight(*kinds, each) for each in np.maximum(count, 1).tolist()]).T
        samples = np.array([choice.microbatch for choice in self._choices])
        fixed = layout.parameters[:, None] * bytes_per_parameter(self._widths)
        found: Floats = (fixed + samples * (flying * layout.waiting + layout.working)).max(axis=0)
        return found

    def least(self, shape: Shape) -> Least:
        """Bounds without transfers, by choice."""
        return self._least(shape, self._alone(shape.tensor), np.maximum(shape.microbatches(self._choices), 1))

    def closer(self, shape: Shape, plan: Candidate) -> Least:
        """Those of one plan, with the collectives of its tensor ranks."""
        setting = self._setting(plan)
        # groups that lie alike are priced alike, whatever else the plan is
        lying = tuple(self._links.tensor_groups(setting)) if plan.tensor > 1 else ()
        key = plan.tensor, plan.microbatch, plan.recompute, plan.sequence_parallel, lying
        if key not in self._with_ranks:
            self._with_ranks[key] = self._slots([setting], self._links)
        return self._least(shape, self._with_ranks[key], np.array([plan.microbatches]))

    def full(self, job: Job) -> ConventionalStep:
        """A plan by its job.  Raises what `baseline` raises."""
        return baseline(job, self._cluster, self._links, self._network)

    def _least(self, shape: Shape, slots: _Slots, count: NDArray[np.int64]) -> Least:
        layout, processor = self._layout(shape.tensor, shape.pipeline, shape.virtual_stages), self._cluster.processor
        by_stage = layout.layers_of @ slots.seconds
        slowest, together = by_stage.max(axis=0), by_stage.sum(axis=0)
        flush = processor.stream_s(float(layout.parameters.max()) * optimizer_traffic(self._widths))
        seconds = count * slowest + (together - slowest) / shape.virtual_stages + flush
        busy = count * together + shape.pipeline * flush
        # waiting draws idle power, so that of the two which is less is drawn all the time
        always = min(processor.busy_power, processor.idle_power)
        board = always * shape.pipeline * seconds + (processor.busy_power - always) * busy
        links = count * (layout.layers_of @ slots.link_joules).sum(axis=0)
        return Least(seconds, shape.data * (shape.tensor * board + links))

    def _alone_of(self, tensor: int) -> _Slots:
        shape = Shape(tensor, 1, 1, 1, "1f1b", 1, (("tensor", "pipeline", "data"),))
        plans = [shape.plan(choice)._replace(minibatch=choice.microbatch) for choice in self._choices]
        return self._slots([self._setting(plan) for plan in plans], self._free)

    def _slots(self, settings: list[Setting], links: Links) -> _Slots:
        processor, kinds = self._cluster.processor, self._network.kinds
        times = [[layer_times(work, setting, processor, links) for setting in settings] for work in kinds]
        return _Slots(
            np.array([[sum(each[:4]) for each in row] for row in times]),
            np.array([[each.link_energy_J for each in row] for row in times]),
        )

    def _layout_of(self, tensor: int, pipeline: int, runs: int) -> _Layout:
        network, cuts = self._network, self._network.cuts(pipeline * runs)
        shape = Shape(
            tensor,
            pipeline,
            1,
            pipeline,
            "1f1b" if runs == 1 else "interleaved",
            runs,
            (("tensor", "pipeline", "data"),),
        )
        found: dict[Hashable, Held] = {}
        for choice in self._choices:  # in proportion to the microbatch, so that one of a sample tells all
            if choice[1:] not in found:
                found[choice[1:]] = held(network, cuts, self._setting(shape.plan(choice._replace(microbatch=1))))
        by_choice = [found[choice[1:]] for choice in self._choices]
        return _Layout(
            network.per_run(cuts).reshape(runs, pipeline, -1).sum(axis=0),
            by_choice[0].parameters,
            np.array([each.waiting for each in by_choice]).T,
            np.array([each.working for each in by_choice]).T,
        )

    @staticmethod
    def _in_flight_of(schedule: Schedule, stages: int, runs: int, microbatches: int) -> NDArray[np.int64]:
        return np.array([in_flight(schedule, stage, stages, microbatches, runs) for stage in range(stages)])

    def _setting(self, plan: Candidate) -> Setting:
        return setting_of(with_plan(self._job, plan))
