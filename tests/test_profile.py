"""A profile accounts for every second and joule of the step, and names what holds it up."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster import coordinator
from rpucluster.cluster import Cluster
from rpucluster.lowering import lower
from rpucluster.metrics import seconds_on_path, summarise
from rpucluster.partitioner import partition
from rpucluster.profile import bottlenecks, breakdown
from rpucluster.profile.step import profile, specs_of_run
from rpucluster.program import Op, Read
from rpucluster.timeline import Counted, Timeline, replay
from rpucluster.waits import Wait, wait_of
from tests.bottlenecks import CASES, Case
from tests.ops import collective, digital, program, read, send
from tests.run_fixtures import timeline
from tests.specs import make_cluster, make_job

NS = 1e-9


def simple(**chip: object) -> Cluster:
    """1 us and 1 GB/s per hop; digital operations of 1 ns."""
    return make_cluster(
        4, kind="ring", bandwidth="1 GB/s", latency="1 us", tile=16, **({"digital_rate": "1 Gop/s"} | chip)
    )


# --- why operations wait ---


def test_why_each_operation_began_when_it_did() -> None:
    ops: list[Op] = [
        read(0, 0),  # 0 to 80 ns
        read(1, 0),  # the same arrays, 80 to 160
        digital(2, 0, 100, [0]),  # its input, 80 to 180
        digital(3, 0, 50, [1]),  # digital units, 180 to 230
        send(4, 0, 1, 200, [2]),  # 180: on the link until 380
        send(5, 0, 1, 200, [3]),  # 230: waits for the link until 380
    ]
    timed = replay(program(*ops), simple())
    waits = [wait_of(timed, op) for op in range(len(ops))]
    assert [(wait.reason, wait.op) for wait in waits] == [
        ("start", -1), ("arrays", 0), ("dependency", 0), ("digital", 2), ("dependency", 2), ("link", 4),
    ]  # fmt: skip
    assert [wait.seconds for wait in waits] == pytest.approx([0, 80 * NS, 0, 20 * NS, 0, 150 * NS])


def test_layers_that_may_not_be_active_together_wait_for_tiles() -> None:
    ops = [read(0, 0, tiles=2), read(1, 0, layer=1, tiles=2)]
    assert wait_of(replay(program(*ops), simple(active_tiles=2)), 1) == Wait("tiles", 0, pytest.approx(80 * NS))
    assert wait_of(replay(program(*ops), simple(active_tiles=4)), 1) == Wait("start", -1, 0.0)


# --- everything adds up ---


def test_seconds_on_the_path_add_up_to_the_step() -> None:
    timed = timeline(4)
    on_path = seconds_on_path(timed)
    assert math.fsum(on_path.values()) == pytest.approx(timed.makespan_s, rel=1e-12)
    assert tuple(on_path) == timed.critical_path()
    sums = breakdown.by_accelerator_and_layer(timed, on_path)
    assert math.fsum(each.critical_s for each in sums.values()) == pytest.approx(timed.makespan_s, rel=1e-12)


def test_a_transfer_that_waits_for_a_later_link_counts_from_the_start_of_who_holds_it() -> None:
    ops = [
        send(0, 1, 2, 1500),  # has link 1 -> 2 until 1500 ns
        digital(1, 1, 100),
        send(2, 1, 2, 100, [1]),  # waits for it, and has it from 1500 to 1600
        digital(3, 0, 550),
        send(4, 0, 2, 500, [3]),  # begins at 600, to reach that link, a hop of 1000 ns away, at 1600
    ]
    timed = replay(program(*ops), simple())
    assert [timed.start_s[op] for op in (0, 2, 4)] == pytest.approx([0, 1500 * NS, 600 * NS])
    assert timed.critical_path() == (0, 2, 4)
    on_path = seconds_on_path(timed)
    assert list(on_path.values()) == pytest.approx([1500 * NS, 0, timed.makespan_s - 1500 * NS])


def test_joules_of_accelerators_and_layers_add_up_to_the_components() -> None:
    timed = timeline(4)
    metrics = summarise(timed)
    whole = breakdown.added(list(breakdown.by_accelerator_and_layer(timed, {}).values())).to_dict()
    for component, joules in metrics.energy_by_component_J.items():
        if component != "idle":
            assert whole[f"energy_{component}_J"] == pytest.approx(joules, rel=1e-12)
    assert math.fsum(use.energy_J for use in metrics.accelerators) == pytest.approx(metrics.energy_J, rel=1e-12)


spans = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 40), st.integers(0, 15)), max_size=30)


def placed(cases: list[tuple[int, int, int, int]]) -> Timeline:
    """Operations at given whole seconds: digital work, and two kinds of transfer."""
    ops: list[Op] = []
    for accelerator, what, _, _ in cases:
        pair = [accelerator, (accelerator + 1) % 4]
        ops.append(
            digital(len(ops), accelerator, 3)
            if what == 0
            else collective(len(ops), "all_gather", sorted(pair), 8)
            if what == 1
            else send(len(ops), *pair, 8)
        )
    return replace(
        replay(program(*ops), simple(idle_power="1 W")),
        start_s=tuple(float(start) for _, _, start, _ in cases),
        finish_s=tuple(float(start + length) for _, _, start, length in cases),
    )


@given(spans)
def test_exposed_communication_of_all_collectives_is_that_of_the_step(cases: list[tuple[int, int, int, int]]) -> None:
    timed = placed(cases)
    metrics = summarise(timed)
    rows = breakdown.exposed(timed)
    assert math.fsum(row["exposed_fraction"] for row in rows) == pytest.approx(
        metrics.exposed_communication_fraction, abs=1e-12
    )
    assert all(row["exposed_s"] >= 0 for row in rows)
    assert sum(row["operations"] for row in rows) == sum(what > 0 for _, what, _, _ in cases)


@given(spans)
def test_power_is_energy_moment_by_moment(cases: list[tuple[int, int, int, int]]) -> None:
    """Against adding the operations of whole seconds up one by one."""
    timed = placed(cases)
    makespan = int(timed.makespan_s)
    for use in summarise(timed).accelerators:
        mine = [op for op in timed.program if use.accelerator in op.accelerators]
        drawn = [0.0] * makespan
        for second in range(makespan):
            running = [op for op in mine if timed.start_s[op.id] <= second < timed.finish_s[op.id]]
            drawn[second] = math.fsum(
                math.fsum(timed.energy_J[op.id]) / len(op.accelerators) / (timed.finish_s[op.id] - timed.start_s[op.id])
                for op in running
            ) + (not any(len(op.accelerators) == 1 for op in running))
        assert use.peak_power_W == pytest.approx(max(drawn, default=0.0), rel=1e-9)
        instant = math.fsum(
            math.fsum(timed.energy_J[op.id]) / len(op.accelerators)
            for op in mine
            if timed.start_s[op.id] == timed.finish_s[op.id]
        )
        assert use.energy_J == pytest.approx(math.fsum(drawn) + instant, rel=1e-9)
        assert use.mean_power_W * makespan == pytest.approx(use.energy_J, rel=1e-9) or not makespan


def test_resources_are_busy_as_long_as_their_operations() -> None:
    ops = [read(0, 0, tiles=2), digital(1, 0, 100, [0]), read(2, 0, [1], layer=1, tiles=3), read(3, 1, vectors=2)]
    rows = breakdown.resources(replay(program(*ops), simple()))
    assert [(row["accelerator"], row["resource"], row["layer"], row["tiles"]) for row in rows] == [
        (0, "digital_units", None, None), (0, "tiles", 0, 2), (0, "tiles", 1, 3), (1, "tiles", 0, 1),
    ]  # fmt: skip
    assert [row["busy_s"] for row in rows] == pytest.approx([100 * NS, 80 * NS, 80 * NS, 160 * NS])
    assert rows[0]["utilisation"] == pytest.approx(100 / 260)


# --- the whole ---


def test_a_profile_is_plain_json_and_accounts_for_the_step() -> None:
    job, cluster = make_job(parallel={"tensor": 2, "pipeline": 2}), make_cluster(4)
    found = profile(job, cluster, ["train.microbatch=/2", "network.axis.board.latency=/2"])
    content = found.content
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [answer["changes"] for answer in content["what_if"]] == [
        ["train.microbatch=/2"],
        ["network.axis.board.latency=/2"],
        ["train.microbatch=/2", "network.axis.board.latency=/2"],
    ]
    path = content["critical_path"]
    assert math.fsum(row["on_path_s"] for row in path) == pytest.approx(content["modelled_step_s"])
    for before, after in pairwise(path):
        assert after["waited_for_op"] == before["op"]
    for row in content["accelerators"]:
        parts = row["compute_s"] + row["exposed_communication_s"] + row["idle_s"]
        assert parts == pytest.approx(content["modelled_step_s"])
        assert row["idle_before_s"] + row["idle_after_s"] <= row["idle_s"] * (1 + 1e-12)
        assert row["mean_power_W"] <= row["peak_power_W"]
    every = content["bottlenecks"] + content["no_bottlenecks"]
    gains = [each["gain"] for each in every]
    assert gains == sorted(gains, reverse=True)
    assert all(each["gain"] > 0.01 for each in content["bottlenecks"])


def test_a_what_if_is_the_step_of_the_changed_job() -> None:
    job, cluster = make_job(parallel={"tensor": 2}), make_cluster(4)
    other = make_cluster(4, bandwidth="100 GB/s")
    (answer,) = profile(job, cluster, ["network.axis.board.bandwidth=x2"]).content["what_if"]
    assert answer["before_s"] == profile(job, cluster).content["modelled_step_s"]
    assert answer["after_s"] == profile(job, other).content["modelled_step_s"]


def test_what_is_printed_can_be_repeated_as_a_what_if() -> None:
    job, cluster = make_job(parallel={"tensor": 2, "pipeline": 2}), make_cluster(4)
    content = profile(job, cluster).content
    every = content["bottlenecks"] + content["no_bottlenecks"]
    assert {each["resource"] for each in every} >= {
        "bandwidth",
        "latency",
        "forward",
        "digital_units",
        "pipeline_bubble",
    }
    for each in every:
        answer = profile(job, cluster, each["changes"]).content["what_if"][-1]
        assert answer["changes"] == each["changes"]
        assert answer == {key: each[key] for key in answer}


def test_long_programs_are_replayed_for_what_the_critical_path_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bottlenecks, "SHORT", 0)
    case = next(case for case in CASES if case.resource == "bandwidth")
    content = profile(case.job(), case.machine()).content
    replayed = {each["resource"] for each in content["bottlenecks"] + content["no_bottlenecks"]}
    assert replayed == {"bandwidth", "microbatch_size"}
    assert {"forward passes twice as fast", "digital units x2", "on-chip network x2"} <= set(content["not_tried"])


def test_steps_of_more_samples_are_compared_by_sample() -> None:
    """On one accelerator with one layer samples follow one another, so a sample takes what it took."""
    job = make_job(model={"preset": "mlp", "sizes": [64, 10]}, train={"minibatch": 8, "microbatch": 8})
    (answer,) = profile(job, make_cluster(1), ["train.minibatch=x8"]).content["what_if"]
    assert (answer["samples_before"], answer["samples_after"]) == (8, 64)
    assert answer["after_s"] > 7 * answer["before_s"]
    assert 0 < answer["gain"] < 0.08  # the digital units work on one microbatch while the arrays read the next


def test_repeats_of_the_run_lengthen_the_passes_and_fewer_slots_shorten_the_updates() -> None:
    job, cluster = make_job(parallel={"tensor": 2}, update={"bit_length": 10}), make_cluster(2)
    without = profile(job, cluster).content
    content = profile(job, cluster, counted=Counted(0.5, 2.0, 2.5)).content
    assert content["counted"] == {
        "repeats_per_forward_pass": 0.5,
        "repeats_per_backward_pass": 2.0,
        "slots_per_cycle": 2.5,
        "step_without_s": without["modelled_step_s"],
    }
    assert without["counted"] is None
    for row, before in zip(content["layers"], without["layers"], strict=True):
        # each pass is analog, 80 ns, and outlasts what goes on beside it
        assert row["forward_s"] == pytest.approx(1.5 * before["forward_s"])
        assert row["backward_s"] == pytest.approx(3 * before["backward_s"])
        assert row["digital_s"] == pytest.approx(before["digital_s"])
        assert row["update_s"] == pytest.approx(0.25 * before["update_s"])


def test_a_run_says_how_often_passes_were_repeated(tmp_path: Path) -> None:
    """With bounds so narrow that every pass clips at first; only forward passes manage them."""
    job = make_job(parallel={"tensor": 2}, data={"name": "digits", "train_samples": 16, "test_samples": 20})
    cluster = make_cluster(2, tile=32, forward={"output_bound": 0.01})
    run = coordinator.run(job, cluster, executor="local", out=tmp_path / "run")
    counts = run.summary["counts"]
    program = lower(partition(job, cluster), job)
    reads = [op for op in program if isinstance(op, Read)]
    forward = 2 * sum(op.vectors * op.tiles for op in reads if op.direction == "forward")  # two steps of 8
    evaluated = 20 / 8 * sum(op.vectors * op.tiles for op in reads if op.direction == "forward")
    assert counts["repeats"] > 0
    assert counts["repeats_per_forward_pass"] == pytest.approx(counts["repeats"] / (forward + evaluated))
    assert counts["repeats_per_backward_pass"] == 0
    counted = Counted(counts["repeats_per_forward_pass"], 0.0)
    assert specs_of_run(run.directory.path) == (job, cluster, counted)


def test_a_run_says_how_many_slots_its_update_cycles_took(tmp_path: Path) -> None:
    job = make_job(
        data={"name": "digits", "train_samples": 16, "test_samples": 20},
        update={"bit_length": 31, "update_management": True, "dynamic_bit_length": True},
    )
    run = coordinator.run(job, make_cluster(1), executor="local", out=tmp_path / "run")
    counted = specs_of_run(run.directory.path)[2]
    counts = run.summary["counts"]
    assert 0 < counted.slots_per_cycle < 31
    assert counted.slots_per_cycle == pytest.approx(counts["pulse_slots"] / counts["update_cycles"])


def star(**keys: str) -> Cluster:
    """Four accelerators around a switch, link by link."""
    links = [{"from": n, "to": "hub"} | {"bandwidth": "50 GB/s", "latency": "100 us"} | keys for n in range(4)]
    chip = make_cluster(1).accelerator.model_dump(mode="json")
    return Cluster.model_validate({"name": "star", "accelerator": chip, "network": {"accelerators": 4, "link": links}})


def test_links_that_are_written_out_are_made_faster_together() -> None:
    job = make_job(parallel={"tensor": 4, "tensor_split": "input"}, train={"minibatch": 1, "microbatch": 1})
    content = profile(job, star(), ["network.link.1->hub.latency=/2"]).content
    first = content["bottlenecks"][0]
    assert (first["name"], first["resource"]) == ("tensor links latency /2", "latency")
    assert first["changes"] == [f"network.link.{n}->hub.latency=/2" for n in range(4)]
    assert first["gain"] == pytest.approx(0.5, abs=0.01)
    assert {row["axes"] for row in content["exposed_communication"]} == {"links"}
    assert content["what_if"][0]["gain"] == pytest.approx(0)  # every round waits for the others


def test_a_failed_link_is_mended_as_a_what_if() -> None:
    """On a ring of four whose link 0 -> 1 has failed, what went over it takes the long way."""
    job = make_job(parallel={"tensor": 4, "tensor_split": "input"}, train={"minibatch": 1, "microbatch": 1})
    whole = make_cluster(4, kind="ring", latency="100 us")
    tables = whole.model_dump(mode="json") | {"faults": {"failed_links": ["board:0->1"]}}
    content = profile(job, Cluster.model_validate(tables)).content
    mended = next(each for each in content["bottlenecks"] if each["resource"] == "failed_links")
    assert mended["name"] == "failed link board:0->1 as the others"
    assert mended["after_s"] == profile(job, whole).content["modelled_step_s"]
    assert mended["gain"] > 0.1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_bottleneck_by_construction_is_named_first(case: Case) -> None:
    first, *others = profile(case.job(), case.machine()).content["bottlenecks"]
    assert first["resource"] == case.resource
    assert first["gain"] == pytest.approx(case.gain, abs=0.03)
    assert all(other["gain"] < first["gain"] for other in others)
    assert case.resource not in {other["resource"] for other in others}
