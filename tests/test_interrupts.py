"""Ctrl-C: a run that is told to stop leaves a checkpoint, and goes on to the weights of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rpucluster.coordinator import Progress, RunInterrupted, find, run
from tests.processes import descendants
from tests.specs import make_cluster, make_job

JOB = make_job(train={"epochs": 4}, run={"checkpoint_every": "5 steps"})


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


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    undisturbed = run(JOB, make_cluster(), executor="local", out=tmp_path / "undisturbed")
    before, press = signal.getsignal(signal.SIGINT), Press(2, times=1)
    with pytest.raises(RunInterrupted) as caught:
        run(JOB, make_cluster(), executor="local", out=tmp_path / "run", progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert press.told == ["finishing the steps under way and writing a checkpoint; Ctrl-C again stops at once"]
    source = find(tmp_path / "run")
    assert source.position.steps == 16  # of two epochs, though a checkpoint is due every five steps
    assert str(caught.value) == (
        f"interrupted after step 16; rpucluster run --resume {tmp_path / 'run'} goes on from there"
    )
    found = run(JOB, make_cluster(), executor="local", resume=source)
    assert found.summary["weights_sha256"] == undisturbed.summary["weights_sha256"]


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    """Without the checkpoint that the first has asked for; that of step 15 may not have been complete yet."""
    with pytest.raises(KeyboardInterrupt) as caught:
        run(JOB, make_cluster(), executor="local", out=tmp_path / "run", progress=Press(2, times=2))
    assert not isinstance(caught.value, RunInterrupted)
    assert find(tmp_path / "run").position.steps in (10, 15)


COMMAND = """
import sys
from rpucluster.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_at_a_terminal_ends_the_command_and_all_of_ray(tmp_path: Path) -> None:
    """A terminal sends it to the whole process group; the digits job on two accelerators is in one of its own."""
    pytest.importorskip("ray", reason="Ray is not installed")
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
