"""What single layers of a job take, from the operations that `rpucluster.lowering` writes for them: `Pieces`."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.lowering.draft import Draft
from rpucluster.lowering.passes import backward_run, forward_run
from rpucluster.lowering.updates import accumulate, average_shard, update
from rpucluster.partitioner import cut
from rpucluster.plan import LayerPlan, Plan, covers, length
from rpucluster.program import Collective, CollectiveKind, Digital, Op, Read
from rpucluster.search.space import Sync
from rpucluster.timeline.prices import price_of

Floats = NDArray[np.float64]


class Shared(NamedTuple):
    """A collective among tensor ranks, or among replicas."""

    kind: CollectiveKind
    members: tuple[int, ...]
    """By their rank, or by their replica."""
    nbytes: tuple[float, ...]


class Passed(NamedTuple):
    """A microbatch in one direction; arrays over sites and ranks, in seconds."""

    before: Floats
    """Digital work before the arrays."""
    read: Floats
    behind: Floats
    """Digital work behind them."""
    digital: Floats
    """For how long the digital units work, also beside a read."""
    on_chip: Floats
    """The same of the network on the chip."""
    sums: list[Shared | None]
    """What ranks add up behind the arrays, by site."""
    gathers: list[Shared | None]
    """What they gather before, where the neighbour is on the same accelerators."""


class Passes(NamedTuple):
    """A microbatch forward and back, and what its dense gradients take."""

    forward: Passed
    backward: Passed
    gradient: Floats
    """Digital work that adds it to the dense gradients, seconds by site and rank."""
    joules: Floats
    """Of all ranks of a replica, by site, without transfers."""
    gradient_joules: Floats


class Updated(NamedTuple):
    """An update, or an averaging, and what replicas exchange for it."""

    exchange: list[list[Shared | None]]
    """By site and rank."""
    seconds: Floats
    """Of the arrays, by site and rank."""
    joules: Floats
    """Of all ranks of a replica, by site, without the exchange."""


class Crossing(NamedTuple):
    """What of a sample goes from a stage to the next between two layers, in one direction."""

    nbytes: Floats
    """That each rank gets, 0 where it gets none."""
    own: NDArray[np.bool_]
    """Whether it comes from the same rank."""


class Pieces:
    """The layers of a job, as so many tensor ranks share them.

    A *site* is a layer with its neighbours: layers at the same site differ in their names only.  Ranks with blocks of
    the same shapes are alike, and one of them is looked at.
    """

    def __init__(self, job: Job, cluster: Cluster, tensor: int) -> None:
        parallel = job.parallel.model_copy(update={"tensor": tensor, "pipeline": 1, "virtual_stages": 1})
        self._job = job.model_copy(update={"parallel": parallel})
        self._cluster, self.tensor = cluster, tensor
        self.layers = cut(self._job, cluster, [0] * len(job.network.layers))
        kinds: dict[object, int] = {}
        kind = [-1, *(kinds.setdefault(_anonymous(layer), len(kinds)) for layer in self.layers), -1]
        sites: dict[tuple[int, ...], int] = {}
        self.site = np.array([sites.setdefault(tuple(kind[i : i + 3]), len(sites)) for i in range(len(self.layers))])
        """Of each layer."""
        self.example = [int(np.argmax(self.site == site)) for site in range(len(sites))]
        """A layer of each site."""
        shapes = [tuple(self.layers[i].sides(rank) for i in self.example) for rank in range(tensor)]
        first: dict[tuple[tuple[int, ...] | None, ...], int] = {}
        for rank, shape in enumerate(shapes):
            first.setdefault(shape, rank)
        self.ranks = tuple(first.values())
        """One of those that are alike, ascending."""
        alike = Counter(shapes)
        self.alike = np.array([alike[shape] for shape in first])
        """How many each of these stands for."""
        self.tiles = self._by_rank(lambda layer, rank: 0 if (b := layer.blocks[rank]) is None else b.tiles)
        """By site and rank."""
        self.holds = self.tiles.min(axis=0) > 0
        """Which ranks have tiles of every layer."""
        self.passes = cache(self._passes)
        self.updated = cache(self._updated)
        self.averaged = cache(self._averaged)
        self.crossing = cache(self._crossing)

    @property
    def splits(self) -> bool:
        """Whether any layer can be split at all, as more than one rank needs."""
        return self.tensor == 1 or any(len(self.layers[i].holders) > 1 for i in self.example)

    def _by_rank(self, value: Callable[[LayerPlan, int], int]) -> NDArray[np.int64]:
        return np.array([[value(self.layers[i], rank) for rank in self.ranks] for i in self.example], np.int64)

    def _zeros(self) -> Floats:
        return np.zeros((len(self.example), len(self.ranks)))

    def _nothing(self) -> Passed:
        before, read, behind, digital, on_chip = (self._zeros() for _ in range(5))
        none: list[Shared | None] = [None] * len(self.example)
        return Passed(before, read, behind, digital, on_chip, [*none], [*none])

    def _draft(self, sync: Sync, *, data: int = 1, microbatches: int = 1, samples: int = 1) -> Draft:
        chip, parallel = self._cluster.accelerator, self._job.parallel
        plan = Plan(
            layers=self.layers,
            tensor=self.tensor,
            pipeline=1,
            data=data,
            expert=parallel.expert,
            placement=("tensor", "pipeline", "data"),
            tile_rows=chip.tile_rows,
            tile_cols=chip.tile_cols,
            tiles_available=chip.tiles,
            accelerators_available=self._cluster.accelerators,
        )
        job = self._job.model_copy(update={"parallel": parallel.model_copy(update={"data_sync": sync})})
        return Draft(plan, job, "train", microbatches, samples, range(data), self.ranks)

    def _passes(self, microbatch: int) -> Passes:
        forward, backward = self._nothing(), self._nothing()
        gradient, joules, gradient_joules = self._zeros(), *np.zeros((2, len(self.example)))
        for site, i in enumerate(self.example):
            layer = [self.layers[i]]
            for passed, run in ((forward, forward_run), (backward, backward_run)):
                draft = self._draft("gradient", samples=microbatch)
                run(draft, layer, range(1), 0)
                joules[site] += self._take(passed, site, draft.ops)
            draft = self._draft("gradient", samples=microbatch)
            accumulate(draft, layer, 0, 0)
            for op in draft.ops:
                rank, price = self._rank(op), price_of(op, self._cluster)
                gradient[site, rank] += price.seconds
                gradient_joules[site] += sum(price.energy) * self.alike[rank]
        return Passes(forward, backward, gradient, joules, gradient_joules)

    def _take(self, passed: Passed, site: int, ops: Iterable[Op]) -> float:
        """Add operations to what a site has; their joules."""
        joules, read = 0.0, False
        for op in ops:
            if isinstance(op, Collective):
                if op.payload in ("partial_output", "partial_error"):
                    passed.sums[site] = self._shared(op, 1)
                elif op.payload in ("activation", "error") and not read:
                    passed.gathers[site] = self._shared(op, 1)
                continue
            rank, price = self._rank(op), price_of(op, self._cluster)
            joules += sum(price.energy) * self.alike[rank]
            passed.digital[site, rank] += price.digital_s
            passed.on_chip[site, rank] += price.on_chip_s
            if isinstance(op, Read):
                read = True
                passed.read[site, rank] += price.seconds
            elif isinstance(op, Digital) and op.kind in ("prepare", "derivative"):
                passed.before[site, rank] += price.seconds
            else:
                passed.behind[site, rank] += price.seconds
        return joules

    def _updated(self, sync: Sync, data: int, samples: int) -> Updated:
        """By so many samples of each replica."""

        def write(draft: Draft, layer: LayerPlan) -> None:
            update(draft, [layer])

        return self._written(sync, data, samples, write)

    def _averaged(self, data: int) -> Updated:
        def write(draft: Draft, layer: LayerPlan) -> None:
            for rank in draft.ranks(layer):
                average_shard(draft, layer, rank)

        return self._written("average", data, 1, write)

    def _written(self, sync: Sync, data: int, samples: int, write: Callable[[Draft, LayerPlan], None]) -> Updated:
        found = Updated([[None] * len(self.ranks) for _ in self.example], self._zeros(), np.zeros(len(self.example)))
        for site, i in enumerate(self.example):
            draft = self._draft(sync, data=data, samples=samples)
            for rank in draft.ranks(self.layers[i]):
                draft.touched[(i, rank)] = []
            write(draft, self.layers[i])
            for op in draft.ops:
                if isinstance(op, Collective):
                    rank = self.ranks.index(op.members[0] % self.tensor)
                    found.exchange[site][rank] = self._shared(op, self.tensor)
                    continue
                rank, price = self._rank(op), price_of(op, self._cluster)
                found.joules[site] += sum(price.energy) * self.alike[rank]
                if not isinstance(op, Digital):
                    found.seconds[site, rank] += price.seconds
        return found

    def _crossing(self, forward: bool) -> list[Crossing]:
        """By the site of the layer before the boundary; of the last layer it says nothing."""
        return [self._crossed(i, forward) for i in self.example]

    def _crossed(self, i: int, forward: bool) -> Crossing:
        nbytes, own = np.zeros(len(self.ranks)), np.ones(len(self.ranks), bool)
        if i + 1 == len(self.layers):
            return Crossing(nbytes, own)
        before, after = self.layers[i], self.layers[i + 1]
        have, need = (before.gives, after.needs) if forward else (after.needs, before.gives)
        holders = before.holders if forward else after.holders
        missing = any(span is not None and not any(covers([h], [span]) for h in have) for span in need)
        for k, rank in enumerate(self.ranks):
            span = need[rank]
            if span is not None:
                nbytes[k] = (length(span) + before.shape.carried) * self._job.words.factor_bits / 8
                own[k] = rank in holders if missing else covers([have[rank]], [span])
        return Crossing(nbytes, own)

    def _rank(self, op: Op) -> int:
        return self.ranks.index(op.accelerators[0] % self.tensor)

    @staticmethod
    def _shared(op: Collective, stride: int) -> Shared:
        return Shared(op.kind, tuple(member // stride for member in op.members), op.bytes)


def _anonymous(layer: LayerPlan) -> object:
    return layer.shape.nameless, layer.split, layer.blocks
