"""What a search finds: `Found`, a plan that was timed, and `Search`, the best of all with how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rpucluster.conventional import ConventionalStep
from rpucluster.job import Job
from rpucluster.projection.figures import conventional_figures, figures
from rpucluster.projection.step import Estimate
from rpucluster.search.space import Candidate

Objective = Literal["time", "energy", "pareto"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A plan that was timed: replayed on RPUs, priced in closed form on GPUs and CPUs."""

    candidate: Candidate
    job: Job
    bound_s: float
    modelled_s: float
    """Seconds of a step, with its share of an averaging of the replicas."""
    energy_J: float
    """Joules of a step, with its share of an averaging."""
    figures: dict[str, Any]
    """The columns of a projection."""

    @property
    def row(self) -> dict[str, Any]:
        """Its columns: those of a projection, and what makes the plan."""
        plan = self.candidate
        keys: dict[str, Any] = {
            "minibatch": plan.minibatch,
            "schedule": plan.schedule,
            "virtual_stages": plan.virtual_stages,
            "data_sync": plan.data_sync if plan.data > 1 or plan.data_sync == "gradient" else None,
            "placement": list(plan.placement),
            "bound_s": self.bound_s,
            # what the averagings of a training add to each of its steps
            "modelled_step_s": self.modelled_s,
            "modelled_energy_J": self.energy_J,
            "samples_per_s": plan.minibatch * plan.data / self.modelled_s if self.modelled_s else None,
        }
        if plan.recompute is not None:
            keys |= {"recompute": plan.recompute, "sequence_parallel": plan.sequence_parallel}
        return self.figures | keys

    @property
    def why_not_exact(self) -> str | None:
        """Why a replay of all accelerators may find something else; None where it does not."""
        why: str | None = self.figures["why_not_exact"]
        return why


def replayed(plan: Candidate, job: Job, found: Estimate, bound_s: float) -> Found:
    """A plan on RPUs."""
    average, every = found.average, job.parallel.average_every
    return Found(
        candidate=plan,
        job=job,
        bound_s=bound_s,
        modelled_s=found.step.modelled_s + (average.modelled_s / every if average else 0.0),
        energy_J=found.step.all_J + (average.all_J / every if average else 0.0),
        figures=figures(job, found),
    )


def priced(plan: Candidate, job: Job, step: ConventionalStep, bound_s: float) -> Found:
    """A plan on GPUs or CPUs."""
    return Found(
        candidate=plan,
        job=job,
        bound_s=bound_s,
        modelled_s=step.modelled_step_s,
        energy_J=step.energy_J,
        figures=conventional_figures(job, step),
    )


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found."""

    found: tuple[Found, ...]
    """Best first; of ``"pareto"`` those that no other one beats in time, energy and accelerators used, by time."""
    plans: int
    """Legal plans."""
    fitting: int
    """Of these, those whose tiles, or whose weights, state and activations, fit."""
    bounded: int
    """Of these, those that a bound ruled out."""
    alike: int
    """Of the fitting ones, those whose accelerators are another one's with other numbers, and which are thus told."""
    timed: int
    """Of the fitting ones, those that were replayed or priced in full."""
    unseen: int
    """Of the legal ones, those for whose bounds the time did not suffice."""
    vague: int
    """Of the fitting ones, those that are left with bounds that know nothing of their transfers, since their groups lie
    across the axes of the network."""
    refused: int
    """Of those that were to be timed, those that the partitioner refused."""
    unsettled_s: float | None
    """Where replays ran out, the least seconds that one of the others may take, but for the vague ones; None where none
    of them is better, and for energies."""
    unsettled_J: float | None
    """The same of joules, by energy."""
    wall_s: float

    @property
    def gap(self) -> float:
        """By how much less than the best found another plan may take, as a share of that; 0 where none of them does.

        Of the vague ones nothing is said.
        """
        if self.unsettled_J is not None:
            return 1 - self.unsettled_J / self.found[0].energy_J
        return 0.0 if self.unsettled_s is None else max(0.0, 1 - self.unsettled_s / self.found[0].modelled_s)


def best_first(found: Sequence[Found], by: Objective) -> tuple[Found, ...]:
    """By time or energy; of the front, those that no other one equals or beats in time, energy and accelerators."""
    ordered = sorted(found, key=lambda each: each.energy_J if by == "energy" else each.modelled_s)
    if by != "pareto":
        return tuple(ordered)
    front: list[Found] = []
    for each in ordered:  # ascending by time
        here = each.energy_J, each.candidate.accelerators
        if not any(other.energy_J <= here[0] and other.candidate.accelerators <= here[1] for other in front):
            front.append(each)
    return tuple(front)
