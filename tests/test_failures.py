"""Processes that die, hang or get nothing more: a run ends with the weights of an undisturbed one, or says why not."""

import errno
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rpucluster import Callbacks
from rpucluster.accelerator import Accelerator
from rpucluster.checkpoint import complete
from rpucluster.coordinator import Progress, RunInterrupted, find, run
from rpucluster.errors import AcceleratorError, AcceleratorLostError, RunDirectoryError, RunError
from rpucluster.job import Job
from rpucluster.pool import ray_session
from rpucluster.runlog import RunDirectory
from tests.event_files import expected_scalars, scalars
from tests.processes import accelerators
from tests.specs import make_cluster, make_job
from tests.test_interrupts import Press

pytest.importorskip("ray", reason="Ray is not installed")
HAVE_TENSORBOARDX = find_spec("tensorboardX") is not None


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

    A busy machine may take another restart or two, for processes that seem to hang.  Scalars for TensorBoard of steps
    that are done again are written once.
    """
    disturb = Disturb({1: signal.SIGKILL, 3: signal.SIGSTOP})
    job = job_with(step_deadline="4 s", restarts=10)
    found = run(job, make_cluster(), out=tmp_path / "run", progress=disturb, tensorboard=HAVE_TENSORBOARDX)
    assert found.summary["weights_sha256"] == undisturbed
    killed, *hung = disturb.told
    assert re.match(
        r"the process of accelerator [01] was lost: .*; going on from step \d+ \(1 of 10 restarts\)$", killed
    )
    assert hung
    for message in hung:
        assert re.match(r"(no accelerator has done anything|an accelerator has not answered) for 4 s", message)
    assert accelerators(os.getpid()) == []
    assert [row.epoch for row in found.directory.read_epochs()] == [1, 2, 3, 4]
    if HAVE_TENSORBOARDX:
        told = scalars(found.directory.path / "tensorboard")
        assert {name: told[name] for name in told if name != "wall/samples_per_s"} == expected_scalars(found.directory)


def test_when_restarts_are_used_up_the_run_stops_and_can_be_continued(
    session: None, undisturbed: str, tmp_path: Path
) -> None:
    with pytest.raises(AcceleratorLostError, match=r"accelerator [01] was lost: .*; \[run\] restarts = 0 are used up"):
        run(job_with(restarts=0), make_cluster(), out=tmp_path / "run", progress=Disturb({2: signal.SIGKILL}))
    assert [row.epoch for row in RunDirectory(tmp_path / "run").read_epochs()][:2] == [1, 2]
    found = run(job_with(), make_cluster(), executor="local", resume=find(tmp_path / "run"))
    assert found.summary["weights_sha256"] == undisturbed


def test_a_second_ctrl_c_leaves_no_accelerator(session: None, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        run(job_with(), make_cluster(), out=tmp_path / "run", progress=Press(2, times=2))
    assert not isinstance(caught.value, RunInterrupted)
    assert accelerators(os.getpid()) == []
    assert find(tmp_path / "run").position.steps in (10, 15)


# --- what the system refuses ---


def limit(process: int, what: int, amount: int) -> None:
    """Lower a limit of a process, or raise it again."""
    _, most = resource.prlimit(process, what)
    resource.prlimit(process, what, (amount, most))


def test_an_accelerator_that_gets_no_more_memory_ends_the_run_with_one_line(session: None, tmp_path: Path) -> None:
    """Its process may grow by 10 MB more and no further: a checkpoint begins with a copy of 109 MB.

    What lacks memory first is not ours to choose: NumPy, a thread that shall write, or Ray, which ends the process.
    """
    job = make_job(
        model={"sizes": [64, 140_000, 10]},
        data={"train_samples": 16, "test_samples": 8},
        run={"checkpoint_every": "1 steps", "restarts": 0},
    )

    def stop_growing(now: Progress) -> None:
        process = accelerators(os.getpid())[-1]
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
        limit(process, resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + 10_000_000)

    told = Callbacks(on_step=stop_growing, every_steps=1)
    with pytest.raises(AcceleratorError, match=r"ran out of memory|can't start new thread"):
        run(job, make_cluster(tile=4096), out=tmp_path / "run", callbacks=told)
    assert accelerators(os.getpid()) == []
    assert not (tmp_path / "run").exists()  # nothing was finished


def test_this_process_without_memory_ends_the_run_with_one_line_too(
    undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(accelerator: Accelerator) -> None:
        raise MemoryError("Unable to allocate 9.31 GiB for an array")

    def look(now: Progress) -> None:
        if now.phase == "epoch" and now.epoch == 2:
            monkeypatch.setattr(Accelerator, "state", refuse)

    with pytest.raises(AcceleratorError, match=r"ran out of memory: Unable to allocate 9\.31 GiB for an array; give"):
        run(job_with(), make_cluster(), executor="local", out=tmp_path / "run", progress=look)
    monkeypatch.undo()
    found = run(job_with(), make_cluster(), executor="local", resume=find(tmp_path / "run"))
    assert found.summary["weights_sha256"] == undisturbed


def test_an_accelerator_that_cannot_write_its_checkpoint_ends_the_run_with_one_line(
    session: None, undisturbed: str, tmp_path: Path
) -> None:
    """The system lets it write no file of more than a few bytes from the second epoch on."""

    def refuse(now: Progress) -> None:
        if now.phase == "epoch" and now.epoch == 2:
            limit(accelerators(os.getpid())[-1], resource.RLIMIT_FSIZE, 100)

    with pytest.raises(RunError, match=r"accelerator-0000[01]\.parquet: cannot be written: File too large"):
        run(job_with(), make_cluster(), out=tmp_path / "run", progress=refuse)
    assert accelerators(os.getpid()) == []
    assert [row.epoch for row in RunDirectory(tmp_path / "run").read_epochs()][:2] == [1, 2]
    source = find(tmp_path / "run")
    assert source.position.steps in (10, 15)
    found = run(job_with(), make_cluster(), executor="local", resume=source)
    assert found.summary["weights_sha256"] == undisturbed


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


def test_the_parts_of_the_wall_time_are_no_more_than_the_whole_after_a_restart(tmp_path: Path) -> None:
    """Epochs before the checkpoint gone back to are training, so they are not counted as starting once more."""
    lost: list[str] = []

    def slow(now: Progress) -> None:
        if now.phase == "epoch":
            time.sleep(0.2)
        if now.phase == "epoch" and now.epoch == 3 and not lost:
            lost.append("accelerator 0")
            raise AcceleratorLostError("accelerator 0 was lost")

    found = run(job_with(), make_cluster(), executor="local", out=tmp_path / "run", progress=slow).summary
    parts = [found[f"{part}_wall_s"] for part in ("start", "train", "evaluate", "checkpoint")]
    assert lost
    assert sum(parts) <= found["wall_s"]


def test_a_run_that_another_process_has_just_begun_is_not_called_one_without_a_checkpoint(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", "run")
    with (
        directory.held(),
        pytest.raises(RunDirectoryError, match="another process is writing into this run, which has no checkpoint yet"),
    ):
        find(directory.path)
    with pytest.raises(RunDirectoryError, match="there is no checkpoint"):
        find(directory.path)
