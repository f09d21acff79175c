"""What is said where arrays do not fit this machine: what it proposes fits."""

import os
import re
from typing import Any

import pytest

from rpucluster.errors import CapacityError
from rpucluster.host_memory import check_memory
from rpucluster.partitioner import partition
from tests.specs import make_cluster, make_job

TOLD = re.compile(
    r"write (?:parallel\.data = (?P<data>\d+))?(?: and )?(?P<lean>run\.tolerances = \"recomputed\")?"
    r"(?: and parallel\.data = (?P<alone>\d+))?(?: and \[model\] sizes of (?P<weights>[\d,]+) weights or fewer)?"
)
SIDE, REPLICAS = 400, 4
WEIGHTS = 2 * SIDE * SIDE


def refused(side: int, data: int, run: dict[str, Any]) -> str:
    """What is said of two square layers on so many replicas, or nothing."""
    job = make_job(
        model={"sizes": [side] * 3, "bias": "none"}, parallel={"data": data}, run={"tolerances": "stored"} | run
    )
    try:
        check_memory(job, partition(job, make_cluster(4, tiles=6000)), "local")
    except CapacityError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("percent", [2, 10, 20, 30, 40, 60, 80, 99])
def test_what_is_proposed_fits(percent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what all replicas need, 12 bytes a weight with stored tolerances and 4 without, so much is there."""
    there = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 12 * REPLICAS * WEIGHTS * percent // 100}
    monkeypatch.setattr(os, "sysconf", there.__getitem__)
    said = refused(SIDE, REPLICAS, {})
    told = TOLD.search(said)
    assert told is not None
    side, data, run = SIDE, int(told["data"] or told["alone"] or REPLICAS), {}
    if told["lean"]:
        run = {"tolerances": "recomputed"}
    if told["weights"]:
        weights = int(told["weights"].replace(",", ""))
        side = int((weights / 2) ** 0.5)
        assert weights > 0.95 * there["SC_PHYS_PAGES"] / 4  # and not much is left over
    assert not refused(side, data, run)
    assert bool(told["weights"]) == (percent < 100 / 12)
    assert (data == REPLICAS) == (percent >= 100 / 3)


def test_all_that_is_needed_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 12 * REPLICAS * WEIGHTS}.__getitem__)
    assert not refused(SIDE, REPLICAS, {})
