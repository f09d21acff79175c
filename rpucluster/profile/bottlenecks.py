"""What holds a step up: candidates are replayed, and ranked by what they gain."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rpucluster.cluster import Cluster
from rpucluster.errors import InputError
from rpucluster.job import Job
from rpucluster.profile.candidates import Candidate
from rpucluster.profile.what_if import changed
from rpucluster.timeline import Timeline

WORTH = 0.01
"""The share of the step that a candidate has to gain to be named, and in a long program must be able to take away to
be tried."""

SHORT = 5000
"""Operations of a program up to which every candidate is tried: a replay takes a tenth of a second at most, and now and
then a change gains by letting transfers go in another order, which the critical path cannot tell."""

Replay = Callable[[Job, Cluster], Timeline]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What some changes do to the step, by a replay of the changed program on the changed cluster."""

    changes: tuple[str, ...]
    before_s: float
    after_s: float
    samples_before: int
    """Samples of a step; where the changes alter them, the gain is that of the time per sample."""
    samples_after: int

    @property
    def gain(self) -> float:
        """How much less time a sample takes, as a share of what it took; negative where it takes more."""
        if not self.before_s:
            return 0.0
        return 1 - self.after_s / self.samples_after / (self.before_s / self.samples_before)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with units in the names."""
        return {
            "changes": list(self.changes),
            "before_s": self.before_s,
            "after_s": self.after_s,
            "samples_before": self.samples_before,
            "samples_after": self.samples_after,
            "gain": self.gain,
        }


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """One candidate that was replayed."""

    candidate: Candidate
    outcome: Outcome

    @property
    def why(self) -> str:
        """A sentence without its full stop: what the critical path has to do with the gain."""
        gained_s = self.outcome.gain * self.outcome.before_s
        if gained_s <= self.candidate.most_s + WORTH * self.outcome.before_s:
            return self.candidate.why
        return f"{self.candidate.why}; most of the gain is another order in which operations take their turns"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with units in the names."""
        return {
            "name": self.candidate.name,
            "resource": self.candidate.resource,
            "why": self.why,
            **self.outcome.to_dict(),
        }


def outcome(job: Job, cluster: Cluster, changes: Sequence[str], before: Timeline, replay: Replay) -> Outcome:
    """Make the changes and replay; raises `InputError` where they cannot be made."""
    after = replay(*changed(job, cluster, changes))
    return Outcome(
        changes=tuple(changes),
        before_s=before.makespan_s,
        after_s=after.makespan_s,
        samples_before=before.program.samples,
        samples_after=after.program.samples,
    )


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of the candidates."""

    replayed: tuple[Bottleneck, ...]
    """The one that gains most first."""
    too_small: tuple[Candidate, ...]
    """Not replayed, since too little of the step depends on them."""
    refused: tuple[tuple[Candidate, str], ...]
    """What the job or the cluster does not allow, and the message that says why."""


def bottlenecks(job: Job, cluster: Cluster, before: Timeline, tried: Sequence[Candidate], replay: Replay) -> Tried:
    """Replay every candidate, of a long program those that are worth it."""
    worth = WORTH * before.makespan_s if len(before.program) > SHORT else -math.inf
    found, refused = [], []
    for candidate in tried:
        if candidate.most_s > worth:
            try:
                after = outcome(job, cluster, candidate.changes, before, replay)
            except InputError as error:
                refused.append((candidate, str(error)))
                continue
            found.append(Bottleneck(candidate=candidate, outcome=after))
    return Tried(
        replayed=tuple(sorted(found, key=lambda each: -each.outcome.gain)),
        too_small=tuple(candidate for candidate in tried if candidate.most_s <= worth),
        refused=tuple(refused),
    )
