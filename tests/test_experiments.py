"""The declared experiments: every setting can be run, and equal settings, and only those, share a run."""

from itertools import pairwise
from pathlib import Path

import pytest

from rpucluster.errors import ConfigError, RunDirectoryError
from rpucluster.experiments.catalogue import FIGURES, panels_of
from rpucluster.experiments.confidence import Confidence
from rpucluster.experiments.points import NEAR, Panel, Point
from rpucluster.experiments.records import Record, Records
from rpucluster.experiments.request import Request
from rpucluster.experiments.results import panel_result
from rpucluster.experiments.schedule import Cost, choose_epochs, ordered, recorded, until
from rpucluster.experiments.settings import BASE_POINT, CONTROL_POINT
from rpucluster.experiments.tables import error_rows
from rpucluster.experiments.trials import Budget, Trial, settings_sha256, trials_of
from rpucluster.experiments.work import Work
from tests.idx_files import write_mnist

PANELS = panels_of(tuple(FIGURES))
POINTS = [(panel, point) for panel in PANELS for point in (panel.control, *panel.points)]


ONCE = Budget(seeds=1)


def trial(*sets: str, point: Point = BASE_POINT, budget: Budget = ONCE, data: str = "data") -> Trial:
    return trials_of(PANELS[0], point, budget, "paper_chip", sets, data)[0]


def trials(count: int) -> list[Trial]:
    return trials_of(PANELS[0], BASE_POINT, Budget(seeds=count), "paper_chip", (), "data")


def record(of: Trial, error: float, epochs: int = 2, wall_s: float = 10.0) -> Record:
    return Record(
        label=of.label, seed=of.seed, sha256=of.sha256, sets=of.sets, epochs=epochs, train_samples=60_000,
        test_errors=(*[0.5] * (epochs - 1), error), train_losses=(0.1,) * epochs, wall_s=wall_s, train_wall_s=wall_s,
        version="0",
    )  # fmt: skip


# --- the declaration ---


@pytest.mark.parametrize(("panel", "point"), POINTS, ids=lambda x: getattr(x, "id", getattr(x, "label", "")))
def test_every_point_can_be_run(panel: Panel, point: Point) -> None:
    first, second = trials_of(panel, point, Budget(seeds=2), "paper_chip", (), "data")
    assert (first.job.train.seed, second.job.train.seed) == (panel.first_seed, panel.first_seed + 1)
    assert first.sha256 != second.sha256
    assert first.job.train.epochs == 30
    assert first.job.train.learning_rate == ((0, 0.01), (10, 0.005), (20, 0.0025))
    assert first.job.train.minibatch == 1
    assert (first.job.data.validation is not None) == (panel.name == "validation")


def test_labels_are_unique_in_a_panel_and_settings_in_it_too() -> None:
    for panel in PANELS:
        points = (panel.control, *panel.points)
        assert len({point.label for point in points}) == len(points)
        hashes = {trials_of(panel, point, Budget(seeds=1), "paper_chip", (), "")[0].sha256 for point in points}
        assert len(hashes) == len(points), panel.id


def test_sweeps_go_from_mild_to_severe_and_enclose_the_expected_threshold() -> None:
    for panel in PANELS:
        values = [point.value for point in panel.points]
        if not panel.swept:
            continue
        assert panel.threshold is not None
        sign = -1 if panel.threshold_sign == ">=" else 1
        assert all(a is not None and b is not None and sign * a < sign * b for a, b in pairwise(values)), panel.id
        at = panel.threshold.value
        assert at is not None
        near = sorted(point.value or 0 for point in panel.points if point.priority == NEAR)
        assert near[0] < at < near[-1], panel.id
        assert at in near


def test_no_recalled_value_is_called_the_papers() -> None:
    for panel, point in POINTS:
        for reference in (point.reference, panel.threshold):
            if reference is not None and reference.code not in (Confidence.READ, Confidence.RESTATED):
                assert "paper" not in reference.code.short


def test_the_stress_tests_change_one_thing_each() -> None:
    """What a stress test writes besides the base settings names one device parameter (of a pair) or the noise."""
    expected = {
        "A": {"device.dw_min"},
        "B": {"device.w_max", "device.w_min"},
        "C": {"device.dw_min_std"},
        "D": {"device.dw_min_dtod"},
        "Ds": {"device.fold", "device.dw_min_dtod"},
        "E": {"device.w_max", "device.w_min", "device.w_max_dtod", "device.w_min_dtod"},
        "Es": {"device.fold", "device.w_max", "device.w_min", "device.w_max_dtod", "device.w_min_dtod"},
        "F": {"device.up_down"},
        "G": {"device.up_down"},
        "H": {"device.up_down_dtod"},
        "I": {"accelerator.forward.read_noise", "accelerator.backward.read_noise"},
    }
    for panel in FIGURES["fig3"]:
        for point in panel.points:
            assert point.sets[: len(BASE_POINT.sets)] == BASE_POINT.sets
            changed = {item.partition("=")[0] for item in point.sets[len(BASE_POINT.sets) :]}
            assert changed == expected[panel.name], (panel.id, point.label)


def test_asymmetries_have_the_ratio_that_they_are_called_after() -> None:
    for name, sign in (("F", 1), ("G", -1)):
        for point in next(panel for panel in FIGURES["fig3"] if panel.name == name).points:
            device = trial(point=point).job.device_of(0)
            assert sign * device.up_down == pytest.approx(1 - (point.value or 0))  # type: ignore[attr-defined]


def test_the_gain_is_one_at_the_first_rate_for_every_pulse_length() -> None:
    """Gain^2 = rate / (BL dw_min)."""
    for point in FIGURES["fig2"][0].points:
        job = trial(point=point).job
        assert job.update.bit_length * job.device_of(0).dw_min == pytest.approx(0.01)


def test_panels_by_name() -> None:
    assert [panel.id for panel in panels_of(("fig3",), ("A", "fig3.I"))] == ["fig3.A", "fig3.I"]
    with pytest.raises(
        ConfigError, match="--only J: no such panel of fig3; panels are A, B, C, D, Ds, E, Es, F, G, H, I"
    ):
        panels_of(("fig3",), ("J",))


# --- the hash ---


@pytest.mark.parametrize(
    "change",
    [
        "train.minibatch=2", "train.epochs=29", "train.shuffle=false", "train.initial_scale=0.5", "model.bias=digital",
        "data.train_samples=100", "data.validation=10000", "device.dw_min=0.0011", "device.up_down_dtod=0.001",
        "update.bit_length=9", "backward.noise_management=abs_max", "accelerator.forward.read_noise=0.01",
        "accelerator.backward.input_bits=5", "accelerator.tile_rows=128", "evaluate.every=2",
    ],
)  # fmt: skip
def test_the_hash_changes_with_a_setting(change: str) -> None:
    assert trial(change).sha256 != trial().sha256


@pytest.mark.parametrize(
    "change",
    ["data.path=/elsewhere", "run.checkpoint_every=1 s", "accelerator.tiles=200", "accelerator.forward_time=90 ns"],
)
def test_the_hash_does_not_change_with_what_cannot_matter(change: str) -> None:
    assert trial(change).sha256 == trial().sha256


def test_the_hash_knows_the_data_and_the_parameters_behind_a_preset() -> None:
    assert trial(data="other").sha256 != trial().sha256
    by_name = trial("device.preset=rpu-baseline", point=CONTROL_POINT)
    written_out = trial(
        *(f"device.{name}=0.3" for name in ("dw_min_dtod", "dw_min_std", "w_max_dtod", "w_min_dtod")),
        *("device.preset=ideal", "device.up_down_dtod=0.01"),
        point=CONTROL_POINT,
    )
    assert by_name.sha256 == written_out.sha256
    renamed = by_name.job.model_copy(update={"name": "other"})
    assert settings_sha256(renamed, by_name.cluster, "data") == by_name.sha256


def test_shorter_runs_keep_the_shape_of_the_schedule() -> None:
    for epochs, rates in ((3, ((0, 0.01), (1, 0.005), (2, 0.0025))), (10, ((0, 0.01), (3, 0.005), (7, 0.0025)))):
        assert trial(budget=Budget(epochs=epochs, seeds=1)).job.train.learning_rate == rates
    assert trial(budget=Budget(epochs=1, seeds=1)).job.train.learning_rate_at(0) in (0.01, 0.005)


def test_what_is_not_the_papers_budget_says_so() -> None:
    assert Budget().text == "30 epochs of all training images, 3 seeds a point: the paper's budget"
    for budget in (Budget(epochs=10), Budget(train_samples=500), Budget(changes=("train.minibatch=2",))):
        assert "NOT the paper's budget" in budget.text


def test_a_default_that_is_written_out_changes_no_hash_and_other_physics_changes_every(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a setting that a later version adds leaves finished runs valid."""
    before = trial().sha256
    assert trial("update.noise_per=sample", "evaluate.every=1", "device.w_max_dtod=0.0").sha256 == before
    assert trial("device.w_max_dtod=0.1").sha256 != before
    monkeypatch.setattr("rpucluster.experiments.trials.PHYSICS", 2)
    assert trial().sha256 != before


# --- order and time ---


def test_the_cost_is_that_of_runs_as_long() -> None:
    kept = [record(t, 0.02, epochs=30, wall_s=wall) for t, wall in zip(trials(3), (100.0, 180.0, 400.0), strict=True)]
    short = record(trials(4)[3], 0.02, epochs=2, wall_s=1000.0)
    cost = recorded([*kept, short], trial())
    assert cost is not None
    assert cost.wall_s(30, 60_000) == pytest.approx(180.0)  # the median
    assert recorded([short], trial()) is None


def test_runs_of_equal_settings_are_made_once_with_the_most_urgent_priority() -> None:
    every = [t for panel, point in POINTS for t in trials_of(panel, point, Budget(), "paper_chip", (), "data")]
    order = ordered(every)
    assert len(order) == len({t.sha256 for t in every}) < len(every)
    assert [t.priority for t in order] == sorted(t.priority for t in order)
    most_urgent: dict[str, int] = {}
    for t in every:
        most_urgent[t.sha256] = min(t.priority, most_urgent.get(t.sha256, 99))
    assert all(t.priority == most_urgent[t.sha256] for t in order)
    assert order[0].label.startswith("mnist.validation")


@pytest.mark.parametrize(
    ("errors", "deciding"),
    [
        ({0.0056: 0.021, 0.01: 0.0245, 0.018: 0.03}, (0.0056, 0.01)),
        ({0.001: 0.02, 0.018: 0.03}, (0.001, 0.0032, 0.0056, 0.01, 0.018)),  # those between are not known
        ({0.0056: 0.02, 0.018: 0.022}, (0.018, 0.032)),  # beyond
        ({0.0056: 0.03, 0.018: 0.04}, (0.0032, 0.0056)),  # before
        ({0.001: 0.03, 0.1: 0.04}, (0.001,)),  # outside of the sweep
        ({0.001: 0.02, 0.1: 0.02}, (0.1,)),
        ({0.0056: 0.03}, ()),
    ],
)
def test_points_beside_the_threshold_decide(errors: dict[float, float], deciding: tuple[float, ...]) -> None:
    panel = FIGURES["fig3"][0]
    runs = {point.label: [record(trial(), errors[point.value])] for point in panel.points if point.value in errors}
    assert panel_result(panel, runs).deciding == ()  # compared with nothing
    found = panel_result(panel, runs | {panel.control.label: [record(trial(), 0.02)]}).deciding
    assert tuple(point.value for point in found) == deciding


def test_deciding_runs_come_after_the_controls_and_before_the_others(tmp_path: Path) -> None:
    pictures = write_mnist(tmp_path / "mnist", train=60, test=20)
    request = Request(figures=("fig3",), out=tmp_path, data=str(pictures), only=("fig3.A",), epochs=1)
    work = Work(request, panels_of(("fig3",), ("fig3.A",)), Records(tmp_path / "runs"))
    every = work.missing(work.budget)
    for label, error in (("floating point", 0.02), ("0.018", 0.021)):
        work.records.add(record(next(t for t in every if t.label == f"fig3.A {label}"), error))
    work.records.add(record(next(t for t in every if t.label == "fig3.A 0.01"), 0.02))
    order = [t.label.removeprefix("fig3.A ") for t in work.missing(work.budget)]
    assert order == [
        *["floating point"] * 2, *["0.018"] * 2, *["0.032"] * 3, *["0.0056", "0.0056", "0.01", "0.0056", "0.01"],
        *order[12:],
    ]  # fmt: skip


def test_a_budget_of_hours_takes_the_most_epochs_that_fit() -> None:
    near = trials(10)
    cost = Cost(sample_wall_s=1e-4, source="")  # 6 s an epoch of 60,000, so 180 s a run of 30

    def left(budget: Budget) -> list[Trial]:
        return near

    for seconds, jobs, epochs in ((1800, 1, 30), (1799, 1, 20), (900, 2, 30), (1199, 1, 10), (1, 1, 10)):
        assert choose_epochs(left, Budget(), cost, 60_000, seconds, jobs) == epochs


def test_no_run_starts_that_would_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    started = []
    for one in until(trials(10), 10.0, lambda _: 3.0):
        started.append(one.seed)
        now[0] += 3.0
    assert len(started) == 3  # at 0, 3 and 6; one more would end at 12


# --- records ---


def test_records_are_found_again_by_their_settings(tmp_path: Path) -> None:
    kept, one = Records(tmp_path / "runs"), trial()
    assert kept.find(one.sha256) is None
    kept.add(record(one, 0.02))
    again = Records(tmp_path / "runs")
    assert again.find(one.sha256) == record(one, 0.02)
    assert [path.name.rpartition("-")[2] for path in (tmp_path / "runs").iterdir()] == [f"{one.sha256[:12]}.json"]


def test_a_foreign_file_among_the_records(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"label": "x"}')
    with pytest.raises(RunDirectoryError, match=r"other\.json: not a record of a run"):
        Records(tmp_path)
    (tmp_path / "other.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"other\.json: cannot be read"):
        Records(tmp_path)


def test_rows_have_our_value_its_interval_and_the_mark_of_the_reference() -> None:
    panel = FIGURES["fig3"][0]
    runs = {
        point.label: [
            record(t, 0.02 + 0.0001 * t.seed + 0.3 * (point.value or 0))
            for t in trials_of(panel, point, Budget(), "paper_chip", (), "data")
        ]
        for point in (panel.control, *panel.points)
    }
    rows = error_rows(panel_result(panel, runs))
    assert [row.kind for row in rows] == ["error"] * (1 + len(panel.points)) + ["threshold"]
    for row in rows[:-1]:
        mean = 0.0202 + 0.3 * (row.parameter_value or 0)
        assert row.ours == pytest.approx(mean)
        # three runs 0.0001 apart: 4.303 * 0.0001 / sqrt(3)
        assert row.high == pytest.approx(mean + 4.303e-4 / 3**0.5)
        assert row.seeds == (1, 2, 3)
    # the shift that the runs of a seed share cancels in the penalty
    assert rows[4].penalty == pytest.approx(rows[4].penalty_low) == pytest.approx(0.3 * (rows[4].parameter_value or 0))
    assert (rows[0].confidence, rows[0].reference_value) == ("B", 0.02)
    assert rows[-1].ours == pytest.approx(0.01, rel=0.05)
    assert (rows[-1].reference, rows[-1].confidence) == ("<= 0.01", "B")
