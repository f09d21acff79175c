"""Processes that die, hang or are told to stop: a run ends with the weights of an undisturbed one, or says why not."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpucluster.checkpoint import complete
from rpucluster.coordinator import Progress, RunInterrupted, find, run
from rpucluster.errors import AcceleratorLostError, RunDirectoryError, RunError
from rpucluster.job import Job
from rpucluster.pool import ray_session
from rpucluster.runlog import RunDirectory
from tests.processes import accelerators, descendants
from tests.specs import make_cluster, make_job

pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One Ray for all tests, so that each only starts its actors."""
    with ray_session(None):
        yield


def job_with(**host: Any) -> Job:
    return make_job(train={"epochs": 4}, parallel={"tensor": 2}, run={"checkpoint_every": "5 steps"} | host)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    found: str = run(job_with(), make_cluster(), executor="local", out=folder).summary["weights_sha256"]
    return found


class Disturb:
    """Sends signals to one of the accelerators' processes, each when its epoch is done for the first time."""

    def __init__(self, signals: dict[int, signal.Signals]) -> None:
        self.signals = dict(signals)
        self.told: list[str] = []

    def __call__(self, now: Progress) -> None:
        if now.phase == "epoch" and now.epoch in self.signals:
            os.kill(accelerators(os.getpid())[-1], self.signals.pop(now.epoch))
        if now.phase == "restart":
            self.told.append(now.message or "")


def test_a_process_that_is_killed_or_hangs_sends_the_run_back_to_its_last_checkpoint(
    session: None, undisturbed: str, tmp_path: Path
) -> None:
    """One that is stopped dies of nothing but the kill that cannot be refused; none of them is left.

    A busy machine may take another restart or two, for processes that seem to hang.
    """
    disturb = Disturb({1: signal.SIGKILL, 3: signal.SIGSTOP})
    found = run(job_with(step_deadline="6 s", restarts=10), make_cluster(), out=tmp_path / "run", progress=disturb)
    assert found.summary["weights_sha256"] == undisturbed
    killed, *hung = disturb.told
    assert re.match(
        r"the process of accelerator [01] was lost: .*; going on from step \d+ \(1 of 10 restarts\)$", killed
    )
    assert hung
    for message in hung:
        assert re.match(r"(no accelerator has done anything|an accelerator has not answered) for 6 s", message)
    assert accelerators(os.getpid()) == []
    assert [row.epoch for row in found.directory.read_epochs()] == [1, 2, 3, 4]


def test_when_restarts_are_used_up_the_run_stops_and_can_be_continued(
    session: None, undisturbed: str, tmp_path: Path
) -> None:
    with pytest.raises(AcceleratorLostError, match=r"accelerator [01] was lost: .*; \[run\] restarts = 0 are used up"):
        run(job_with(restarts=0), make_cluster(), out=tmp_path / "run", progress=Disturb({2: signal.SIGKILL}))
    assert [row.epoch for row in RunDirectory(tmp_path / "run").read_epochs()][:2] == [1, 2]
    found = run(job_with(), make_cluster(), executor="local", resume=find(tmp_path / "run"))
    assert found.summary["weights_sha256"] == undisturbed


# --- Ctrl-C ---


class Press:
    """Sends Ctrl-C to this process so many times when an epoch is done."""

    def __init__(self, epoch: int, times: int) -> None:
        self.epoch, self.times = epoch, times
        self.told: list[str] = []

    def __call__(self, now: Progress) -> None:
        if now.phase == "stopping":
            self.told.append(now.message or "")
        if now.phase == "epoch" and now.epoch == self.epoch:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(undisturbed: str, tmp_path: Path) -> None:
    before, press = signal.getsignal(signal.SIGINT), Press(2, times=1)
    with pytest.raises(RunInterrupted) as caught:
        run(job_with(), make_cluster(), executor="local", out=tmp_path / "run", progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert press.told == ["finishing the steps under way and writing a checkpoint; Ctrl-C again stops at once"]
    source = find(tmp_path / "run")
    assert source.position.steps == 16  # of two epochs, though a checkpoint is due every five steps
    assert str(caught.value) == (
        f"interrupted after step 16; rpucluster run --resume {tmp_path / 'run'} goes on from there"
    )
    found = run(job_with(), make_cluster(), executor="local", resume=source)
    assert found.summary["weights_sha256"] == undisturbed


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    """Without the checkpoint that the first has asked for; that of step 15 may not have been complete yet."""
    with pytest.raises(KeyboardInterrupt) as caught:
        run(job_with(), make_cluster(), executor="local", out=tmp_path / "run", progress=Press(2, times=2))
    assert not isinstance(caught.value, RunInterrupted)
    assert find(tmp_path / "run").position.steps in (10, 15)


COMMAND = """
import sys
from rpucluster.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_at_a_terminal_ends_the_command_and_all_of_ray(tmp_path: Path) -> None:
    """A terminal sends it to the whole process group; the digits job on two accelerators is in one of its own."""
    folder = tmp_path / "run"
    sets = ["data.nudge=0", "data.train_samples=640", "evaluate.every=100", "parallel.pipeline=1", "train.epochs=500"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", "digits", "--cluster", "laptop", "--out", str(folder),
         "--checkpoint-every", "50 steps", *(word for text in sets for word in ("--set", text))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    wait_for_epochs(folder, process)
    family = set(descendants(process.pid)) | {process.pid}
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    step = find(folder).position.steps
    assert err.splitlines()[-1] == (
        f"rpucluster: error: interrupted after step {step}; rpucluster run --resume {folder} goes on from there"
    )
    until = time.monotonic() + 10
    while (left := [number for number in family if Path(f"/proc/{number}").exists()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []
    assert not (folder / "summary.json").exists()


def wait_for_epochs(folder: Path, process: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if (folder / "metrics.parquet").exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no epoch in two minutes")


# --- what the system refuses ---


def test_a_full_disk_ends_with_one_message_and_what_is_finished_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, [0]

    def fill_up(handle: int) -> None:
        calls[0] += 1
        if calls[0] > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        run(job_with(), make_cluster(), executor="local", out=tmp_path / "run")
    monkeypatch.undo()
    directory = RunDirectory(tmp_path / "run")
    assert directory.read_epochs()
    assert complete(directory.checkpoints)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    again = run(job_with(), make_cluster(), executor="local", resume=find(tmp_path / "run"))
    assert again.summary["steps"] == 32


def test_two_processes_do_not_write_into_one_run(tmp_path: Path) -> None:
    job = job_with()
    run(job, make_cluster(), executor="local", out=tmp_path / "run")
    source = find(tmp_path / "run")
    with (
        source.directory.held(),
        pytest.raises(RunDirectoryError, match="another process is writing into this run; stop it first"),
    ):
        run(job, make_cluster(), executor="local", resume=source)
    assert source.directory.read_summary()["steps"] == 32
