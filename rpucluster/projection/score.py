"""A training step as a pattern: the operations of each turn once, and what they follow: `score_of`.

The turns of a schedule repeat with every microbatch.  One is lowered, by the functions that lower every program, or
two where a turn takes something from the last turn before it (new weights, a gradient that is added up): the second
shows what that is and what is of the same microbatch, the flush what it takes from every microbatch.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from rpucluster.job import Job
from rpucluster.lowering.draft import Draft
from rpucluster.lowering.passes import backward_run, forward_run
from rpucluster.lowering.updates import accumulate, update
from rpucluster.plan import Plan
from rpucluster.program import Op, Read, Update
from rpucluster.timeline.order import COUNTS

SAME, LATEST, EVERY = range(3)
"""Which turn a dependency goes to: that of the same microbatch, the last one before, or those of all microbatches."""
FLUSH: Final = ("flush", 0, 0)
Key = tuple[str, int, int]  # action, stage, chunk


class Edge(NamedTuple):
    """What an operation of a turn follows: an operation of another, by position in its turn."""

    key: Key
    position: int
    which: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """The operations of one turn, and what each follows."""

    ops: tuple[Op, ...]
    edges: tuple[tuple[Edge, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A training step as parts that repeat with each microbatch, and the flush (if there is one)."""

    parts: dict[Key, Part]
    microbatches: int


def score_of(plan: Plan, job: Job, ranks: Collection[int] | None = None, passed: int | None = None) -> Score:
    """Write down one turn of each kind of the step that `lower` writes for the same arguments.

    What is left out: dependencies of an update on all but the last read of its shard, which the order of the shard's
    own operations implies.  `passed` = 1 leaves out what a turn takes from those before it, if it does.
    """
    if passed is None:
        passed = 2 if job.parallel.schedule == "async" or job.parallel.data_sync == "gradient" else 1
    recorder = _Recorder(plan, job, ranks, passed)
    draft = recorder.draft
    runs = [(s, k, plan.chunk_layers(s, k)) for k in range(plan.virtual_stages) for s in range(plan.pipeline)]
    written = draft.written_replicas
    groups = [written[first : first + plan.expert] for first in range(0, len(written), plan.expert)]
    for m in draft.passed:
        for stage, chunk, layers in runs:
            for replicas in groups:
                forward_run(draft, layers, replicas, m)
            recorder.ends(("forward", stage, chunk), m)
        for stage, chunk, layers in reversed(runs):
            for replicas in groups:
                backward_run(draft, layers, replicas, m)
                for replica in replicas if job.parallel.data_sync == "gradient" else ():
                    accumulate(draft, layers, replica, m)
            recorder.ends(("backward", stage, chunk), m)
            if job.parallel.schedule == "async":
                update(draft, layers, m)
                recorder.ends(("update", stage, chunk), m)
    if job.parallel.schedule != "async":
        update(draft, plan.layers)
        recorder.ends(FLUSH, 0)
    return recorder.score()


class _Recorder:
    """Remembers which of the operations that are lowered belong to which turn."""

    def __init__(self, plan: Plan, job: Job, written: Collection[int] | None, passed: int) -> None:
        size, count = job.train.microbatch, job.train.microbatches
        self.draft = Draft(plan, job, "train", count, size, range(plan.data), written)
        self.draft.passed = range(min(passed, count))
        self.turns: dict[tuple[Key, int], tuple[int, int]] = {}
        self.owner: list[tuple[Key, int]] = []

    def ends(self, key: Key, microbatch: int) -> None:
        """What has been lowered since the turn before is the turn of this key and microbatch."""
        first, last = len(self.owner), self.draft.next_id
        self.turns[key, microbatch] = first, last
        self.owner += [(key, microbatch)] * (last - first)

    def score(self) -> Score:
        """The pattern.  Raises `ValueError` where the two microbatches do not repeat one another."""
        last = len(self.draft.passed) - 1
        parts = {}
        for key in dict.fromkeys(key for key, _ in self.turns):
            microbatch = 0 if key == FLUSH else last
            part = self._part(key, microbatch)
            if microbatch and _counted(part.ops) != _counted(self._ops(key, 0)):
                raise ValueError(f"turns {key} of two microbatches differ")
            parts[key] = part
        return Score(parts=parts, microbatches=self.draft.microbatches)

    def _ops(self, key: Key, microbatch: int) -> tuple[Op, ...]:
        return tuple(self.draft.ops[slice(*self.turns[key, microbatch])])

    def _part(self, key: Key, microbatch: int) -> Part:
        ops = self._ops(key, microbatch)
        return Part(ops=ops, edges=tuple(tuple(self._edges(op, key, microbatch)) for op in ops))

    def _edges(self, op: Op, key: Key, microbatch: int) -> list[Edge]:
        last = len(self.draft.passed) - 1
        found: dict[Edge, None] = {}
        seen: dict[tuple[Key, int], set[int]] = {}
        for dep in op.deps:
            owner, of = self.owner[dep]
            position = dep - self.turns[owner, of][0]
            if owner == key and of == microbatch:
                found[Edge(owner, position, SAME)] = None
            elif key[0] in ("update", "flush") and isinstance(self.draft.ops[dep], Read):
                # the reads of a shard follow one another, so the last one stands for all
                if not (isinstance(op, Update) and _same_arrays(op, self.draft.ops[dep])):
                    found[Edge(owner, position, LATEST)] = None
                    if key != FLUSH:
                        found[Edge(owner, position, SAME)] = None
            elif key != FLUSH:
                found[Edge(owner, position, SAME if of == microbatch else LATEST)] = None
            else:
                seen.setdefault((owner, position), set()).add(of)
        for (owner, position), of_both in seen.items():
            if last not in of_both:
                raise ValueError(f"{op.label} takes something from the first microbatch alone")
            every = len(of_both) == len(self.draft.passed)
            found[Edge(owner, position, EVERY if every else LATEST)] = None
        return list(found)


def _same_arrays(one: Op, other: Op) -> bool:
    return one.layer == other.layer and one.accelerators == other.accelerators


def _counted(ops: tuple[Op, ...]) -> list[object]:
    return [(type(op), COUNTS[type(op)](op)) for op in ops]
