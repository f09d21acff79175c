"""The search against trying everything, and its bounds against what a replay finds."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpucluster.cli import main
from rpucluster.cluster import Cluster
from rpucluster.errors import CapacityError, PlanError
from rpucluster.job import Job
from rpucluster.projection.step import estimate
from rpucluster.search.bounds import Bounds, Mesh
from rpucluster.search.found import Found, replayed
from rpucluster.search.search import search
from rpucluster.search.space import Candidate, Kept, arrangement, batches, strides, with_plan
from tests.specs import make_cluster, make_job

DECODER: dict[str, Any] = {"preset": "gpt", "layers": 2, "hidden": 16, "heads": 2, "sequence": 8, "vocabulary": 24}


def case(seed: int) -> tuple[Job, Cluster]:
    """Small networks on four accelerators, with links and digital units from negligible to what holds all up."""
    model: dict[str, Any] = {"sizes": [16, 24, 20, 10]} if seed % 2 else DECODER | {"sizes": None}
    job = make_job(model=model, train={"minibatch": 4, "microbatch": 2}, parallel={"average_every": 2})
    chip: dict[str, Any] = {"tiles": 60, "active_tiles": [60, 4][seed // 2 % 2]}
    chip["digital_rate"] = ["1e12 op/s", "1e9 op/s"][seed // 4 % 2]
    chip["layer_streaming"] = seed % 5 == 0
    kind = ["switch", "ring", "fully_connected"][seed % 3]
    contention = ["fifo", "fair"][seed // 3 % 2]
    bandwidth, latency = [("1 TB/s", "1 ns"), ("1 GB/s", "100 ns")][seed // 8 % 2]
    return job, make_cluster(4, kind=kind, bandwidth=bandwidth, latency=latency, contention=contention, **chip)


def candidates(job: Job, cluster: Cluster, keep: Sequence[Kept] = ()) -> list[Candidate]:
    found = list(batches(job, cluster, keep))
    plans = [plan for batch in found for plan in batch]
    assert len(plans) == sum(batch.plans for batch in found)
    return plans


def everything(job: Job, cluster: Cluster) -> list[tuple[float, Found]]:
    """What every legal plan takes, beside its bound."""
    bounds, found = Bounds(job, cluster), []
    for plan in candidates(job, cluster):
        changed = with_plan(job, plan)
        fits = bounds.fits(plan.tensor, plan.pipeline, plan.virtual_stages)
        try:
            step = estimate(changed, cluster)
        except PlanError:
            assert not fits, plan
            continue
        assert fits, plan
        least = bounds.least(plan, Mesh(*strides(plan)), (plan.microbatch,))
        each = replayed(plan, changed, step, float(least.seconds[0]))
        found.append((float(least.joules[0]), each))
    return found


@pytest.mark.parametrize("seed", range(16))
def test_no_plan_is_quicker_or_thriftier_than_its_bound_and_the_best_is_found(seed: int) -> None:
    job, cluster = case(seed)
    tried = everything(job, cluster)
    assert len(tried) > 40
    for joules, each in tried:
        assert each.bound_s <= each.modelled_s * (1 + 1e-9), each.candidate
        assert joules <= each.energy_J * (1 + 1e-9), each.candidate
    quickest = search(job, cluster, replays=10**6, budget_s=1e6)
    assert quickest.unsettled_s is None
    assert quickest.found[0].modelled_s == min(each.modelled_s for _, each in tried)
    thriftiest = search(job, cluster, by="energy", replays=10**6, budget_s=1e6)
    assert thriftiest.found[0].energy_J == min(each.energy_J for _, each in tried)
    counted = quickest.bounded + quickest.timed + quickest.refused
    assert counted <= quickest.fitting <= quickest.plans
    assert quickest.refused == 0


def test_the_front_has_what_nothing_beats_in_time_energy_and_accelerators() -> None:
    job, cluster = case(1)
    found = search(job, cluster, by="pareto", replays=10**6, budget_s=1e6)
    figures = [(each.modelled_s, each.energy_J, each.candidate.accelerators) for each in found.found]
    for i, mine in enumerate(figures):
        for j, other in enumerate(figures):
            assert i == j or not all(a <= b for a, b in zip(other, mine, strict=True))
    assert {accelerators for *_, accelerators in figures} >= {1}
    best = search(job, cluster).found[0].modelled_s
    assert figures[0][0] == best


def test_what_is_kept_stays() -> None:
    job, cluster = case(1)
    plans = candidates(job, cluster, ["tensor", "schedule", "data_sync", "placement", "microbatch"])
    assert {(p.tensor, p.schedule, p.data_sync, p.microbatch) for p in plans} == {(1, "gpipe", "factors", 2)}
    assert {p.data for p in plans} == {1, 2}  # of a global batch of four in microbatches of two
    assert len(plans) == len(set(plans))


def test_the_global_batch_stays_whatever_the_plan() -> None:
    job, cluster = case(0)
    assert {plan.minibatch * plan.data for plan in candidates(job, cluster)} == {4}


def test_replays_that_run_out_are_told_with_what_the_rest_may_take() -> None:
    job, cluster = case(9)
    whole, cut = search(job, cluster), search(job, cluster, replays=1)
    assert cut.timed == 1
    assert whole.timed > 1
    assert cut.unsettled_s is not None
    assert cut.unsettled_s <= whole.found[0].modelled_s <= cut.found[0].modelled_s
    assert cut.gap >= 1 - whole.found[0].modelled_s / cut.found[0].modelled_s
    assert search(job, cluster, budget_s=0).timed == 1
    assert search(job, cluster, replays=10**6, budget_s=1e6).gap == 0


def test_plans_that_are_looked_at_once_take_the_same() -> None:
    """Which places of a switch a group takes does not matter, so their replays agree to the last bit of rounding."""
    job, _ = case(0)
    axis = {"kind": "switch", "size": 2, "bandwidth": "1 GB/s", "latency": "100 ns"}
    chip = {"tile_rows": 8, "tile_cols": 8, "tiles": 60}
    axes = [axis | {"name": "node"}, axis | {"name": "rail", "size": 4, "contention": "fair", "bandwidth": "200 MB/s"}]
    cluster = Cluster.model_validate({"name": "pod", "accelerator": chip, "network": {"axis": axes}})
    alike: dict[object, list[float]] = {}
    for plan in candidates(job, cluster, ["schedule", "microbatch"]):
        if plan.accelerators == 8 and max(plan.tensor, plan.pipeline, plan.data) < 8:
            key = arrangement((plan.tensor, plan.pipeline, plan.data), plan.placement, cluster.network)
            seconds = estimate(with_plan(job, plan), cluster).step.modelled_s
            alike.setdefault((plan._replace(placement=()), str(key)), []).append(seconds)
    several = [seconds for seconds in alike.values() if len(seconds) > 1]
    assert len(several) >= 9
    assert all(max(seconds) <= min(seconds) * (1 + 1e-9) for seconds in several)
    assert len(alike) > len({key[0] for key in alike})  # type: ignore[index]


@pytest.mark.parametrize("keep", [(), ("tensor", "data")])
def test_a_network_without_room_is_refused_with_what_would_do(keep: tuple[Kept, ...]) -> None:
    job = make_job(model={"sizes": [64, 640, 640, 10]})
    takes = -(-(80 * 9 + 80 * 81 + 2 * 81) // 40)  # tiles of 8 x 8, with a bias column each
    said = (
        rf"^no plan fits: small has 458,250 weights and small holds 10,240 in 4 .*; it takes {takes} such accelerators"
    )
    with pytest.raises(CapacityError, match=said) as caught:
        search(job, make_cluster(4, tiles=40, active_tiles=40), keep=keep)
    enough = re.search(r"or write \[accelerator\] tiles = (\d+) or more$", str(caught.value))
    assert enough is not None
    tiles = int(enough[1])
    assert search(job, make_cluster(4, tiles=tiles), keep=keep, replays=1).fitting > 0
    with pytest.raises(CapacityError):
        search(job, make_cluster(4, tiles=tiles - 1), keep=keep)


def test_what_is_kept_may_be_why_nothing_fits_or_is_legal() -> None:
    job = make_job(model={"sizes": [64, 64, 64, 64]}, parallel={"tensor": 1, "pipeline": 3, "schedule": "1f1b"})
    cluster = make_cluster(4, tiles=60)
    assert search(job, cluster).fitting > 0
    with pytest.raises(CapacityError, match=r"would fit on 4, but not .* leave out --keep tensor,pipeline, or write"):
        search(job, cluster, keep=["tensor", "pipeline"])
    wide = job.model_copy(update={"parallel": job.parallel.model_copy(update={"tensor": 8})})
    with pytest.raises(
        PlanError, match=r"^no plan is legal: small has 4 acc.*tensor = 8 is kept; keep less, or change"
    ):
        search(wide, cluster, keep=["tensor"])


def test_the_command_prints_a_table_or_json_and_leaves_parquet(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "plans.parquet"
    assert main(["search", "digits", "--cluster", "laptop", "--out", str(path)]) == 0
    assert re.search(r"\d+ legal plans: 0 do not fit, \d+ ruled out by a bound, \d+ replayed", capsys.readouterr().out)
    assert main(["search", "digits", "--cluster", "laptop", "--keep", "data_sync", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plans_evaluated"] == told["plans_bounded"] + told["plans_replayed"] > 10
    steps = [row["modelled_step_s"] for row in told["rows"]]
    assert steps == sorted(steps)
    table = pq.read_table(path)
    units = {name: table.schema.field(name).metadata[b"unit"] for name in ("modelled_step_s", "link_bytes", "tiles")}
    assert units == {"modelled_step_s": b"s", "link_bytes": b"B", "tiles": b"1"}
    assert main(["search", "digits", "--cluster", "laptop", "--keep", "replicas"]) == 2
    assert "--keep replicas: write tensor, pipeline, data" in capsys.readouterr().err


def test_as_many_stages_as_the_job_has_or_layers_that_are_alike_have_are_tried() -> None:
    """Though these do not divide the accelerators.  Plans that lie across the axes are told for themselves."""
    job = make_job(model={"sizes": [16, *[12] * 6, 10]}, parallel={"pipeline": 3}, train={"microbatch": 2})
    axis = {"kind": "switch", "size": 2, "bandwidth": "1 GB/s", "latency": "1 us"}
    axes = [axis | {"name": name} for name in ("board", "rack")]
    cluster = Cluster.model_validate({"name": "two", "accelerator": make_cluster().chip, "network": {"axis": axes}})
    assert {plan.pipeline for plan in candidates(job, cluster)} == {1, 2, 3, 4}
    other = job.model_copy(update={"parallel": make_job().parallel})
    assert {plan.pipeline for plan in candidates(other, cluster)} == {1, 2, 4}
    whole = search(job, cluster, replays=10**6, budget_s=1e6)
    assert (whole.vague, whole.unsettled_s) == (0, None)
    assert whole.found[0].modelled_s == min(each.modelled_s for _, each in everything(job, cluster))
    cut = search(job, cluster, replays=1)
    assert 0 < cut.vague <= cut.fitting - cut.bounded
