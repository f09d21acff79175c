"""A search that runs out of time: replays that are given up, plans that are not looked at, and what is told of both."""

import math
import time
from itertools import pairwise
from typing import Any

import pytest

from rpucluster.cluster import Cluster
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.projection.step import Estimate, estimate
from rpucluster.projection.timing import timed
from rpucluster.projection.unrolled import as_columns
from rpucluster.search import search as module
from rpucluster.search.search import search
from rpucluster.timeline import clock
from tests.specs import make_cluster, make_job

OVER = 0.0
"""A moment of `time.perf_counter` that has gone by."""


def case() -> tuple[Job, Cluster]:
    job = make_job(model={"sizes": [16, 24, 20, 10]}, train={"minibatch": 64, "microbatch": 1})
    return job, make_cluster(4, bandwidth="1 GB/s", contention="fair", tiles=60)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_replay_that_looks_at_the_clock_has_the_same_outcome_or_is_given_up(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_LEASE", 100)
    job, cluster = case()
    parallel = {"tensor": 2, "pipeline": 2, "data": 1}
    job = job.model_copy(update={"parallel": job.parallel.model_copy(update=parallel)})
    plan = partition(job, cluster)
    columns = as_columns(lower(plan, job))
    assert len(columns.of) > 1000  # and as many events or more, so the loop pauses
    free = timed(columns, plan, cluster, None, compiled=compiled)
    assert timed(columns, plan, cluster, None, compiled=compiled, deadline=time.perf_counter() + 1000) == free
    with pytest.raises(TimeoutError):
        timed(columns, plan, cluster, None, compiled=compiled, deadline=OVER)


def test_a_step_too_long_to_end_in_time_is_not_even_written_down() -> None:
    job, cluster = case()
    with pytest.raises(TimeoutError, match="would take longer"):
        estimate(job, cluster, deadline=OVER)


def only_with_turns(most: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let replays of more turns than that take too long; returns the turns of those that are begun."""
    begun = []

    def perhaps(job: Job, cluster: Cluster, *, deadline: float) -> Estimate:
        parallel = job.parallel
        begun.append(job.train.minibatch // job.train.microbatch * parallel.pipeline * parallel.virtual_stages)
        if begun[-1] > most:
            raise TimeoutError
        return estimate(job, cluster)

    monkeypatch.setattr(module, "estimate", perhaps)
    return begun


def test_where_replays_take_too_long_shorter_ones_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    job, cluster = case()
    begun = only_with_turns(math.inf, monkeypatch)
    whole = search(job, cluster, keep=["data"], budget_s=1e6)
    most = begun[0] - 1
    monkeypatch.undo()
    begun = only_with_turns(most, monkeypatch)
    found = search(job, cluster, keep=["data"], budget_s=1e6)
    first = next(i for i, turns in enumerate(begun) if turns <= most)
    assert first >= 1
    assert all(after <= before / 4 for before, after in pairwise(begun[: first + 1]))
    # those that were given up may be better, as far as anybody knows
    assert found.fitting - found.bounded >= len(begun)
    assert found.unsettled_s is not None
    assert found.unsettled_s <= whole.found[0].modelled_s <= found.found[0].modelled_s


def test_where_no_replay_ends_the_search_says_which_budget_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    job, cluster = case()
    begun = only_with_turns(0, monkeypatch)
    with pytest.raises(
        PlanError, match=r"^no plan of small on small could be replayed in 0 s .*; write --budget-s 60,"
    ):
        search(job, cluster, budget_s=0)
    assert len(begun) <= 2  # one more where the first took all of the time


def test_plans_that_are_not_looked_at_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    job, cluster = case()
    whole = search(job, cluster, budget_s=1e6)
    assert whole.unseen == 0
    cut = search(job, cluster, budget_s=0)
    assert cut.timed == 1
    assert cut.found[0].candidate.accelerators == 4  # those that leave some idle come last
    assert 0 < cut.unseen < cut.plans == whole.plans
    assert (cut.unsettled_s, cut.gap) == (0.0, 1.0)
    assert whole.unsettled_s is None


def test_a_front_takes_no_longer_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of accelerators has a share of the time; once that is over, the others go without."""
    job, cluster = case()
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def slow(job: Job, cluster: Cluster, **options: Any) -> Estimate:
        now[0] += 4.0
        return estimate(job, cluster)

    monkeypatch.setattr(module, "estimate", slow)
    found = search(job, cluster, by="pareto", budget_s=7)
    assert now[0] <= 8.0
    assert found.timed == 2
    assert found.gap < math.inf
