"""What is timed is what was performed: the counts of plans beside those of accelerators in Ray actors."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from rpucluster.pool import LocalPool, ray_session

pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    try:
        import one_description
    finally:
        sys.path.pop(0)
    return one_description


def test_accelerators_on_ray_count_what_the_plan_says(benchmark: ModuleType) -> None:
    """Operation by operation, giver by giver; tensor ranks, stages, and replicas by factors, gradients and averages."""
    with ray_session(None):
        rows = [row for case in benchmark.CASES for row in benchmark.compare(case, 2)]
    assert {row["count"] for row in rows} == set(benchmark.KINDS)
    assert {row["job"] for row in rows} == {case.name for case in benchmark.CASES}
    assert [row for row in rows if row["differ"]] == []
    assert all(row["planned"] > 0 for row in rows)


def test_one_step_more_or_less_is_seen(benchmark: ModuleType) -> None:
    """Every count grows with every step, so a comparison with another number of steps differs throughout."""
    _, program, _, found = next(benchmark.perform(benchmark.CASES[0], 2, LocalPool))
    for kind, expected in benchmark.planned(program, 3).items():
        assert all(found[kind][key] < number for key, number in expected.items())
