"""The commands as people and scripts meet them: what is printed where, and the exit code."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rpucluster import __version__, cli, coordinator, doctor
from rpucluster.config import shipped
from rpucluster.coordinator import Progress, Run
from rpucluster.errors import CapacityError, NumericalError
from rpucluster.progress import Display
from rpucluster.runlog import RunDirectory
from tests import run_fixtures

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    return run_fixtures.make_run(tmp_path / "run")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces the training by a finished run made by hand, and keeps what the command asked for."""
    asked: dict[str, Any] = {}

    def pretend(job: Any, cluster: Any, **how: Any) -> Run:
        asked.update(how, job=job, cluster=cluster)
        progress = how["progress"]
        print("a stray line of a library")
        progress(Progress(phase="start", epoch=0, epochs=2, step=0, steps=5))
        for epoch, accuracy in ((1, 0.5), (2, 0.8933)):
            progress(
                Progress(
                    phase="train", epoch=epoch, epochs=2, step=5, steps=5, train_loss=2.0 / epoch,
                    samples_per_s=1234.5, modelled_step_s=1e-6,
                )
            )  # fmt: skip
            progress(
                Progress(
                    phase="epoch", epoch=epoch, epochs=2, step=5, steps=5, train_loss=2.0 / (2 * epoch - 1),
                    test_accuracy=accuracy,
                )
            )  # fmt: skip
        progress(Progress(phase="done", epoch=2, epochs=2, step=0, steps=5))
        run = run_fixtures.make_run(how["out"])
        return Run(directory=run, summary=run.read_summary())

    monkeypatch.setattr(coordinator, "run", pretend)
    return asked


def fails(capsys: Captured, arguments: list[str], code: int) -> str:
    """Run a command that must end in one line on standard error; that line."""
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err[:-1]


# --- mistakes ---


@pytest.mark.parametrize("command", ["run", "plan", "profile"])
def test_what_has_no_tiles_is_refused(command: str, capsys: Captured) -> None:
    line = fails(capsys, [command, "digits", "--cluster", "a100_3072"], 2)
    assert line.endswith(
        'a100_3072 has [accelerator] kind = "gpu", which has no tiles; name a cluster of RPUs here, or use '
        "project or search, which take both"
    )


def test_cluster_missing(capsys: Captured) -> None:
    names = ", ".join(shipped("cluster"))
    for command in ("run", "plan"):
        assert fails(capsys, [command, "digits"], 2) == (
            f"rpucluster: error: --cluster is missing; name a cluster file or one of the shipped {names}"
        )


def test_job_missing(capsys: Captured) -> None:
    assert fails(capsys, ["run", "--cluster", "laptop"], 2) == (
        "rpucluster: error: JOB is missing; name a job file, or a run to continue with --resume"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "no such command 'trian'"),
        (["run", "digits", "--cluster", "laptop", "--sede", "3"], "no such option: --sede"),
        (["run", "digits", "--cluster", "laptop", "--seed", "three"], "invalid value for '--seed'"),
        (["run", "digits", "--cluster", "laptop", "--executor", "slurm"], "invalid value for '--executor'"),
        (["run", "digits", "--cluster"], "option '--cluster' requires an argument"),
    ],
)
def test_a_misspelt_command_line_is_one_line(capsys: Captured, arguments: list[str], told: str) -> None:
    line = fails(capsys, arguments, 2)
    assert line.startswith(f"rpucluster: error: {told}")
    assert line.endswith("; try rpucluster --help")


def test_an_unknown_key_names_the_nearest(capsys: Captured) -> None:
    line = fails(capsys, ["plan", "digits", "--cluster", "laptop", "--set", "train.epoch=3"], 2)
    assert line.startswith("rpucluster: error: ")
    assert line.endswith('[train] epoch: unknown key; did you mean "epochs"?')


def test_an_unknown_section_names_the_nearest(capsys: Captured) -> None:
    assert fails(capsys, ["plan", "digits", "--cluster", "laptop", "--set", "trian.epochs=3"], 2) == (
        'rpucluster: error: --set trian.epochs=3: unknown section trian; did you mean "train"?'
    )


def test_an_unknown_job_lists_the_shipped(capsys: Captured) -> None:
    assert fails(capsys, ["plan", "digit", "--cluster", "laptop"], 2) == (
        "rpucluster: error: no job file digit: not a file, nor one of the shipped digits, gpt_175b, "
        'gpt_1t, lenet5, mlp_1b, mlp_1t, mlp_wide, mnist_agad, mnist_paper, resnet50; did you mean "digits"?'
    )


def test_a_run_that_is_not_there(capsys: Captured) -> None:
    assert fails(capsys, ["report", "runs/none"], 2) == "rpucluster: error: there is no run directory runs/none"


@pytest.mark.parametrize(
    ("raised", "code"), [(CapacityError("needs 9 tiles,\nhas 8"), 2), (NumericalError("not finite"), 1)]
)
def test_errors_end_with_their_exit_code_on_one_line(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(coordinator, "run", fail)
    line = fails(capsys, ["run", "digits", "--cluster", "laptop", "--quiet"], code)
    assert line == f"rpucluster: error: {' '.join(str(raised).split())}"


def test_an_interrupt_is_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(coordinator, "run", interrupt)
    assert fails(capsys, ["run", "digits", "--cluster", "laptop"], 130) == "rpucluster: error: interrupted"


# --- commands that work ---


def test_version_and_help(capsys: Captured) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rpucluster {__version__}\n"
    for arguments in ([], ["--help"]):
        assert cli.main(arguments) == 0
        shown = capsys.readouterr().out
        assert all(command in shown for command in ("run", "plan", "report", "doctor"))


def test_run_gives_its_options_on(no_training: dict[str, Any], tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    options = ["--executor", "local", "--address", "there:1", "--seed", "5", "--out", str(out)]
    sets = ["--set", "train.epochs=2", "--set", "network.axis.board.latency=1 us"]
    assert cli.main(["run", "digits", "--cluster", "laptop", *options, *sets]) == 0
    assert (no_training["executor"], no_training["address"], no_training["out"]) == ("local", "there:1", out)
    assert (no_training["job"].train.seed, no_training["job"].train.epochs) == (5, 2)
    assert no_training["cluster"].network.axis[0].latency == 1e-6
    captured = capsys.readouterr()
    assert "test accuracy                89.33 %" in captured.out
    assert captured.out.endswith(f"run directory  {out}\nreport         {out / 'report.html'}\n")
    assert (out / "report.html").is_file()


def test_run_tells_each_epoch_on_standard_error(no_training: dict[str, Any], tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["run", "digits", "--cluster", "laptop", "--out", str(tmp_path / "a"), "--json"]) == 0
    assert capsys.readouterr().err == (
        "a stray line of a library\n"
        "epoch 1/2, loss 2.0000, test accuracy 50.00 %\n"
        "epoch 2/2, loss 0.6667, test accuracy 89.33 %\n"
    )
    assert cli.main(["run", "digits", "--cluster", "laptop", "--out", str(tmp_path / "b"), "--json", "--quiet"]) == 0
    assert capsys.readouterr().err == "a stray line of a library\n"


def test_json_of_run_is_the_summary_and_nothing_else(
    no_training: dict[str, Any], tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    assert cli.main(["run", "digits", "--cluster", "laptop", "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == run_fixtures.summary() | {"run_directory": str(out), "report": str(out / "report.html")}


def test_plan_shows_the_shipped_job_on_the_shipped_cluster(capsys: Captured) -> None:
    assert cli.main(["plan", "digits", "--cluster", "laptop", "--json"]) == 0
    captured = capsys.readouterr()
    plan = json.loads(captured.out)
    assert captured.err == ""
    assert sum(shard["tiles"] for shard in plan["shards"]) == plan["tiles"]
    assert sum(shard["weights"] for shard in plan["shards"]) == plan["weights"]
    assert cli.main(["plan", "digits", "--cluster", "laptop"]) == 0
    assert capsys.readouterr().out.startswith("digits on laptop\n")


def test_report_again(finished: RunDirectory, capsys: Captured) -> None:
    assert cli.main(["report", str(finished.path)]) == 0
    shown = capsys.readouterr().out
    assert "modelled step           4.56 µs" in shown
    assert shown.endswith(f"report  {finished.path / 'report.html'}\n")
    (finished.path / "report.html").unlink()
    assert cli.main(["report", str(finished.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == 0.8933
    assert (finished.path / "report.html").is_file()


def test_an_unfinished_run_is_refused(finished: RunDirectory, capsys: Captured) -> None:
    (finished.path / "summary.json").unlink()
    assert fails(capsys, ["report", str(finished.path)], 2) == (
        f"rpucluster: error: the run in {finished.path} is not finished: it has no summary.json; "
        f"rpucluster run --resume {finished.path} goes on"
    )


# --- doctor ---


def test_doctor_says_what_will_be_used(capsys: Captured) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["packages"]["numpy"] == __import__("numpy").__version__
    assert found["uses"]["arrays"] == ("cupy" if found["gpus"] else "numpy")
    assert 0 < found["memory_available_B"] <= found["memory_B"]
    assert found["cpu_cores"] == len(os.sched_getaffinity(0))
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ready"


def test_doctor_says_how_to_get_what_is_missing(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("ray", "pyarrow") else there(name))
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert 'pyarrow is missing (required for running at all): pip install "pyarrow"' in lines
    assert lines[-1] == "not ready: install what is required"
    assert cli.main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["uses"]["executor"] == "local"


# --- the process itself ---


def start(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rpucluster", *arguments], text=True, capture_output=True, check=False, **how
    )


def test_the_module_is_the_command() -> None:
    done = start("run", "digits")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rpucluster: error: --cluster is missing; ")
    assert done.stderr.count("\n") == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from rpucluster.cli import main; code = main(['run', '--help']); "
        "heavy = {'numpy', 'numba', 'pyarrow', 'ray', 'plotly', 'matplotlib', 'rich.table', 'sklearn'}; "
        "heavy &= set(sys.modules); "
        "print(code, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stderr == "0 []\n"


def test_a_closed_pipe_is_quiet() -> None:
    """As in ``rpucluster plan ... --json | head -0``: the reader is gone before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rpucluster", "plan", "digits", "--cluster", "laptop", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, "")


# --- progress ---


def test_on_a_terminal_the_bar_shows_where_the_run_stands() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with Display(console) as display:
        display(Progress(phase="start", epoch=0, epochs=2, step=0, steps=40))
        display(
            Progress(
                phase="train", epoch=1, epochs=2, step=30, steps=40, train_loss=0.5, samples_per_s=12_345.0,
                modelled_step_s=41.2e-6,
            )
        )  # fmt: skip
    shown = stream.getvalue()
    assert "epoch 1/2" in shown
    assert "step 30/40  loss 0.5000  12.3 k samples/s  modelled step 41.2 us" in shown


def test_an_epoch_is_told_once() -> None:
    stream = io.StringIO()
    display = Display(Console(file=stream, width=80))
    display(Progress(phase="train", epoch=1, epochs=1, step=4, steps=4, train_loss=0.5))
    display(Progress(phase="epoch", epoch=1, epochs=1, step=4, steps=4, train_loss=0.25, test_accuracy=0.75))
    display(Progress(phase="done", epoch=1, epochs=1, step=4, steps=4))
    assert stream.getvalue() == "epoch 1/1, loss 0.2500, test accuracy 75.00 %\n"


def test_output_that_cannot_be_written_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "rpucluster", "plan", "digits", "--cluster", "laptop", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "rpucluster: error: standard output cannot be written: No space left on device\n",
    )


def test_ctrl_c_is_one_line_while_modules_are_imported_and_ends_nothing_at_exit() -> None:
    code = """
import atexit, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background programs ignore it
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Pressed())
atexit.register(lambda: (signal.raise_signal(signal.SIGINT), print("processes ended", file=sys.stderr)))
from rpucluster.__main__ import start
start()
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (cli.INTERRUPTED, "rpucluster: error: interrupted\nprocesses ended\n")
