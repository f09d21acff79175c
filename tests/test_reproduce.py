"""`rpucluster reproduce` as people and scripts meet it, on small pictures: runs, resumes, survives a killed process."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rpucluster import cli
from rpucluster.experiments.catalogue import FIGURES
from rpucluster.experiments.executors import Failed, Finished, Started, in_processes, with_ray
from rpucluster.experiments.points import Panel
from rpucluster.experiments.settings import CONTROL_POINT
from rpucluster.experiments.trials import Budget, Trial, perform, trials_of
from tests.idx_files import write_mnist

Captured = pytest.CaptureFixture[str]
PULSES: Panel = FIGURES["fig2"][0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"), train=60, test=20)


def arguments(pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        *("reproduce", "fig2", "--only", "A", "--data", str(pictures), "--out", str(out), "--executor", "local"),
        *("--jobs", "2", "--seeds", "1", "--epochs", "1", "--json", *more),
    ]


def results(capsys: Captured, command: list[str], code: int = 0) -> dict[str, Any]:
    assert cli.main(command) == code
    captured = capsys.readouterr()
    found: dict[str, Any] = json.loads(captured.out)  # nothing but JSON
    return found


def trials(pictures: Path, seeds: int = 1) -> list[Trial]:
    sets = (f"data.path={json.dumps(str(pictures))}",)
    return trials_of(PULSES, CONTROL_POINT, Budget(epochs=2, seeds=seeds), "paper_chip", sets, "data")


# --- whole ---


def test_runs_are_made_once_and_a_call_continues_where_the_last_one_stopped(
    capsys: Captured, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = results(capsys, arguments(pictures, out))
    assert (first["runs_made"], first["runs_left"], first["failures"]) == (4, 0, [])
    assert not first["budget"]["is_the_papers"]
    records = sorted((out / "runs").iterdir())
    assert len(records) == 4
    for path in records:
        assert str(pictures) not in path.read_text()  # what is kept says nothing of this machine's folders
    records[0].unlink()
    again = results(capsys, arguments(pictures, out))
    assert (again["runs_made"], again["runs_left"]) == (1, 0)
    # the run that was made again ends as it did: results depend on the settings alone
    assert [row["errors"] for row in again["figures"]["fig2"]["rows"]] == [
        row["errors"] for row in first["figures"]["fig2"]["rows"]
    ]
    reported = results(capsys, arguments(pictures, out, "--budget-hours", "0", "--seeds", "2"))
    assert (reported["runs_made"], reported["runs_left"]) == (0, 4)
    # other settings are other runs, and the first ones stay
    changed = results(capsys, arguments(pictures, out, "--set", "update.bit_length=5", "--budget-hours", "0"))
    assert changed["runs_left"] == 4
    assert "with update.bit_length=5" in changed["budget"]["text"]
    assert len(list((out / "runs").iterdir())) == 4


def test_the_files_of_a_figure(capsys: Captured, pictures: Path, tmp_path: Path) -> None:
    found = results(capsys, arguments(pictures, tmp_path / "out"))["figures"]["fig2"]
    names = [Path(file).name for file in found["files"]]
    assert names == ["results.parquet", "fig2_curves.png", "fig2_curves.svg", "report.html"]
    table = pq.read_table(found["files"][0]).to_pylist()
    assert [row["name"] for row in table] == ["floating point", "BL 10", "BL 2", "BL 1"]
    assert [row["confidence"] for row in table] == ["B"] * 4
    assert [row["ours"] for row in table] == [row["ours"] for row in found["rows"]]
    assert all(0 <= row["ours"] <= 1 and len(row["errors_by_epoch"][0]) == 1 for row in table)
    page = Path(found["files"][-1]).read_text(encoding="utf-8")
    assert "NOT the paper&#x27;s budget" in page
    assert "data:image/svg+xml;base64," in page
    assert "recalled, moderately sure; not the paper&#x27;s number" in page
    svg = Path(found["files"][2]).read_text(encoding="utf-8")
    assert "recalled: 2.0 % [B]" in svg


def test_the_system_table_needs_neither_data_nor_runs(capsys: Captured, tmp_path: Path) -> None:
    found = results(capsys, ["reproduce", "table2", "--out", str(tmp_path), "--json"])["figures"]["table2"]
    rows = {(row["panel"], row["name"]): row for row in found["rows"]}
    efficiency = rows["chip of 50 tiles, all active", "efficiency"]
    assert efficiency["ours"] == pytest.approx(83_886, abs=2)
    assert (efficiency["reference"], efficiency["confidence"]) == ("84,000", "R")
    assert cli.main(["reproduce", "table2", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "83,887" in shown
    assert "ours rests on it, through the power" in shown
    small = results(
        capsys, ["reproduce", "table2", "--out", str(tmp_path), "--json", "--set", "accelerator.tile_rows=2048"]
    )
    halved = {(row["panel"], row["name"]): row["ours"] for row in small["figures"]["table2"]["rows"]}
    assert halved["tile", "throughput"] == pytest.approx(rows["tile", "throughput"]["ours"] / 2)


def test_a_panel_is_printed_with_its_interval_and_mark(capsys: Captured, pictures: Path, tmp_path: Path) -> None:
    command = arguments(pictures, tmp_path / "out")
    command[command.index("--seeds") + 1] = "2"
    command.remove("--json")
    assert cli.main([*command, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "A: length of the pulse trains" in captured.out
    assert "as floating" in captured.out


def test_a_budget_of_hours_chooses_epochs_once_and_starts_what_ends_in_time(
    capsys: Captured, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of the 60,000 images that are expected take longer than a second, so the fewest are chosen and no run
    starts; with an hour, and what was chosen, all of them do."""
    monkeypatch.setattr("rpucluster.experiments.schedule._PROBE_SAMPLES", 40)
    command = arguments(pictures, tmp_path / "out")
    i = command.index("--epochs")
    del command[i : i + 2]
    first = results(capsys, [*command, "--budget-hours", "0.0003"])
    assert (first["budget"]["epochs"], first["runs_made"], first["runs_left"]) == (10, 0, 4)
    assert "NOT the paper's budget" in first["budget"]["text"]
    assert json.loads((tmp_path / "out" / "choice.json").read_text())["epochs"] == 10
    second = results(capsys, [*command, "--budget-hours", "10"])
    assert (second["budget"]["epochs"], second["runs_made"], second["runs_left"]) == (10, 4, 0)


# --- mistakes ---


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["fig5"], "'fig5' is not one of 'fig2', 'fig3', 'fig4', 'mnist', 'table2', 'all'"),
        (["fig3", "--only", "J"], "--only J: no such panel of fig3; panels are A, B, C, D, Ds, E, Es, F, G, H, I"),
        (["fig3", "--jobs", "0"], "--jobs 0: write at least 1"),
        (["fig3", "--seeds", "0"], "--seeds 0: write at least 1"),
        (["fig3", "--budget-hours", "-1"], "--budget-hours -1.0: write a number of hours, or 0 to only report"),
        (["fig3", "--data", "/nowhere"], "[data] path: /nowhere is no directory; write the one with MNIST's four"),
        (["fig3", "--set", "train.epochs=3"], "--set train.epochs=3: the runs set it themselves; write --epochs"),
        (["fig3", "--set", "device.dw=3"], "ConstantStep has no parameter dw"),
        (["table2", "--only", "A"], "--only A: no such panel of table2; panels are none"),
        (["table2", "--cluster", "papr_chip"], 'no cluster file papr_chip: '),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(capsys: Captured, tmp_path: Path, pictures: Path, more: list[str], told: str) -> None:
    data = [] if "--data" in more else ["--data", str(pictures)]
    assert cli.main(["reproduce", "--out", str(tmp_path / "out"), *data, *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert told in captured.err


# --- processes ---


def test_a_killed_process_loses_its_own_run_and_no_other(pictures: Path) -> None:
    asked = trials(pictures, seeds=3)
    events = in_processes(iter(asked), 2)
    assert isinstance(next(events), Started)
    (victim,) = multiprocessing.active_children()
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    ended = {event.trial.seed: event for event in events if isinstance(event, Finished | Failed)}
    failed = ended.pop(1)
    assert isinstance(failed, Failed)
    assert failed.reason == "its process was ended by SIGKILL"
    assert sorted(ended) == [2, 3]
    for seed, event in ended.items():
        assert isinstance(event, Finished)
        assert event.record.test_errors == perform(asked[seed - 1]).test_errors
    assert multiprocessing.active_children() == []


def test_ending_early_ends_the_processes(pictures: Path) -> None:
    events = in_processes(iter(trials(pictures, seeds=4)), 2)
    next(events)
    next(events)
    assert len(multiprocessing.active_children()) == 2
    events.close()
    assert multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_ends_the_runs_too(pictures: Path) -> None:
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # and so an error that Python tells and ignores

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
    try:
        events = in_processes(iter(trials(pictures, seeds=4)), 2)
        next(events)
        Finalised()
        with pytest.raises(KeyboardInterrupt):
            list(events)
        assert multiprocessing.active_children() == []
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_fails_is_told_and_the_others_go_on(capsys: Captured, tmp_path: Path) -> None:
    """With a folder that vanishes between the check and the runs, every run fails with its own message."""
    pictures = write_mnist(tmp_path / "mnist", train=20, test=10)

    def doomed() -> Iterator[Trial]:
        for one in trials(pictures, seeds=2):
            (pictures / "train-labels-idx1-ubyte.gz").unlink(missing_ok=True)
            yield one

    ended = [event for event in in_processes(doomed(), 1) if not isinstance(event, Started)]
    assert len(ended) == 2
    for event in ended:
        assert isinstance(event, Failed)
        assert "train-labels-idx1-ubyte: no such file" in event.reason


def test_an_interrupted_command_leaves_what_is_finished(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (  # a job in the background of a script would ignore interrupts
        "import signal, sys; from rpucluster.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *arguments(pictures, out, "--seeds", "20", "--jobs", "1")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[1/80]"):
            process.send_signal(signal.SIGINT)
            break
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1] == "rpucluster: error: interrupted"
    # an interrupt that falls into a finaliser Python tells by itself, and ignores
    assert stderr.count("Traceback") == stderr.count("Exception ignored")
    assert 1 <= len(list((out / "runs").glob("*.json"))) <= 3


def test_ray_tasks_end_as_processes_do(pictures: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    asked = trials(pictures, seeds=2)
    ended = {e.trial.seed: e for e in with_ray(iter(asked), 2, None) if isinstance(e, Finished | Failed)}
    assert sorted(ended) == [1, 2]
    for seed, event in ended.items():
        assert isinstance(event, Finished), event
        assert event.record.test_errors == perform(asked[seed - 1]).test_errors
