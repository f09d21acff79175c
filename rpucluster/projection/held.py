"""What accelerators hold outside of tiles in a long step, from one microbatch of it: `uses_of_representatives`.

Every microbatch makes and uses the same values in its turns, so what a turn adds, and how high it goes meanwhile, is
found once for each kind of turn; the order of the turns then says what all microbatches hold at once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.buffers import KINDS, BufferUse, Events, Moment, Value, bits_of, is_of_a_pass
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Op
from rpucluster.projection.score import FLUSH, Key, score_of
from rpucluster.projection.symmetry import Symmetry
from rpucluster.schedule import interleave

MOST_TURNS: Final = 10_000_000
"""Turns that are put in their order, some microseconds and a hundred bytes each."""
Ints = NDArray[np.int64]
_NAMES = tuple(dict.fromkeys(KINDS.values()))
_PLACE = {name: _NAMES.index(kind) for name, kind in KINDS.items()}


def uses_of_representatives(plan: Plan, job: Job, symmetry: Symmetry) -> tuple[BufferUse, ...]:
    """What `buffer_uses` finds for the representatives in a step of more than two microbatches, ascending.

    O(operations of one microbatch + turns).  Raises `PlanError` for more than `MOST_TURNS`.
    """
    score = score_of(plan, job, symmetry.written, passed=1)
    ranks = {plan.accelerator(0, stage, rank): rank for stage in range(plan.pipeline) for rank in symmetry.written}
    mine: dict[int, dict[Key, list[Op]]] = {accelerator: {} for accelerator in ranks}
    for key, part in score.parts.items():
        for op in part.ops:
            for accelerator in op.accelerators:
                if accelerator in mine:
                    mine[accelerator].setdefault(key, []).append(op)
    turns = _Turns(plan, job, score.microbatches)
    uses = []
    for accelerator, parts in sorted(mine.items()):
        if parts:
            events = Events(plan, job, accelerator, ranks[accelerator], 1)
            uses.append(_use(accelerator, parts, turns, events, bits_of(job), score.microbatches))
    return tuple(uses)


def for_all(uses: Sequence[BufferUse], plan: Plan, symmetry: Symmetry) -> Iterator[BufferUse]:
    """The same of all accelerators for which the representatives stand."""
    of = {use.accelerator: use for use in uses}
    for replica in range(symmetry.replicas):
        for stage in range(plan.pipeline):
            for ranks in symmetry.classes:
                use = of.get(plan.accelerator(0, stage, ranks[0]))
                if use is not None:
                    yield from (replace(use, accelerator=plan.accelerator(replica, stage, rank)) for rank in ranks)


class _Turns:
    """The turns of a step in the order of the program."""

    def __init__(self, plan: Plan, job: Job, microbatches: int) -> None:
        count = 2 * plan.pipeline * plan.virtual_stages * microbatches
        if count > MOST_TURNS:
            raise PlanError(
                f"{job.name}: {microbatches:,} microbatches over {plan.pipeline} stages pass in {count:,} turns, and "
                f"what accelerators hold meanwhile is found for at most {MOST_TURNS:,}; raise [train] microbatch or "
                f"lower minibatch"
            )
        turns = interleave(job.parallel.schedule, plan.pipeline, microbatches, plan.virtual_stages)
        self.at: dict[Key, list[int]] = {}
        for i, turn in enumerate(turns):
            self.at.setdefault(turn[:3], []).append(i)

    def in_order(self, keys: Collection[Key]) -> list[Key]:
        """Some kinds of turns in the order in which a microbatch takes them."""
        return sorted(keys, key=lambda key: self.at[key][0])

    def of(self, keys: Sequence[Key]) -> Ints:
        """The turns of these kinds, in their order, by the number of their kind."""
        kind = np.repeat(np.arange(len(keys)), [len(self.at[key]) for key in keys])
        return kind[np.argsort(np.concatenate([self.at[key] for key in keys]))]


class _Climb(NamedTuple):
    """What a turn adds to what is held, in bits and then in elements by `_NAMES`, when it holds most and at its end."""

    most: Ints
    end: Ints


class _Held:
    """What is held while moments pass; those of one microbatch stand for so many."""

    def __init__(self, last: Mapping[Value, int], bits: Mapping[str, int]) -> None:
        self._last, self._bits = last, bits
        self.sizes: dict[Value, int] = {}

    def climb(self, moments: Sequence[tuple[int, Moment]], times: int = 1, flush: bool = False) -> _Climb:
        """Let numbered moments pass.  Values of the whole minibatch stay until the flush."""
        now = np.zeros(1 + len(_NAMES), np.int64)
        most = now.copy()
        for i, (made, used) in moments:
            for value, size in made.items():
                more = size - self.sizes.get(value, 0)
                if more > 0:  # a gather adds to what is there
                    self.sizes[value] = size
                    self._count(now, value, more)
            if now[0] > most[0]:
                most = now.copy()
            for value in (*made, *used):
                if self._last[value] == i and value in self.sizes and (flush or value[2] >= 0):
                    self._count(now, value, -self.sizes.pop(value) * (times if value[2] >= 0 else 1))
        return _Climb(most, now)

    def _count(self, now: Ints, value: Value, elements: int) -> None:
        now[0] += elements * self._bits[value[0]]
        now[1 + _PLACE[value[0]]] += elements


def _use(
    accelerator: int, parts: Mapping[Key, list[Op]], turns: _Turns, events: Events, bits: Mapping[str, int], times: int
) -> BufferUse:
    keys = turns.in_order([key for key in parts if key != FLUSH])
    moments: list[list[tuple[int, Moment]]] = []
    last: dict[Value, int] = {}
    number = 0
    for key in [*keys, FLUSH]:
        moments.append([])
        for op in parts.get(key, ()):
            made, used = moment = events.of(op)
            last |= dict.fromkeys((*made, *used), number)
            moments[-1].append((number, moment))
            number += 1
    held = _Held(last, bits)
    # the first microbatch also makes what is then there for all
    first = [held.climb(each) for each in moments[:-1]]
    held.sizes = {value: size for value, size in held.sizes.items() if value[2] < 0}
    later = [held.climb(each) for each in moments[:-1]]
    kinds = turns.of(keys)
    which = kinds + len(keys)
    begins = np.unique(kinds, return_index=True)[1]
    which[begins] = kinds[begins]
    ends, highs = (np.array([climb[i] for climb in (*first, *later)])[which] for i in (1, 0))
    highs += np.cumsum(ends, axis=0) - ends
    most, flush = highs[highs[:, 0].argmax()], held.climb(moments[-1], times, flush=True)
    top = ends.sum(axis=0) + flush.most
    if top[0] > most[0]:
        most = top
    return BufferUse(
        accelerator=accelerator,
        in_flight=_in_flight(kinds, keys, parts),
        elements=dict(zip(_NAMES, most[1:].tolist(), strict=True)),
        peak_bytes=int(most[0]) / 8,
    )


def _in_flight(kinds: Ints, keys: Sequence[Key], parts: Mapping[Key, list[Op]]) -> int:
    """Most microbatches between their first and their last pass; one that has no pass back is there in its own turn."""
    passes = [any(map(is_of_a_pass, parts[key])) for key in keys]
    back = {key[1:] for key, has in zip(keys, passes, strict=True) if key[0] == "backward" and has}
    begins = np.array([has and key[0] == "forward" for key, has in zip(keys, passes, strict=True)], np.int64)
    stays = begins * [key[1:] in back for key in keys]
    leaves = np.array([has and key[0] == "backward" for key, has in zip(keys, passes, strict=True)], np.int64)
    flying = np.cumsum((stays - leaves)[kinds]) - (stays - leaves)[kinds]
    return int((flying + begins[kinds]).max(initial=0))
