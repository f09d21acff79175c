"""A run says in a file where it stands, and another process that watches it sees what the run itself shows."""

import json
import threading
from pathlib import Path

import pytest

from rpucluster import cli
from rpucluster.coordinator import Progress, read_status, run
from rpucluster.errors import RunDirectoryError
from rpucluster.files import is_held
from rpucluster.runlog import RunDirectory
from rpucluster.watch import watch
from tests.specs import make_cluster, make_job

JOB = make_job(train={"epochs": 3})


class CrashError(Exception):
    """What a test stops a run with."""


def test_the_status_is_what_the_run_has_just_told(tmp_path: Path) -> None:
    folder, told = tmp_path / "run", []

    def check(now: Progress) -> None:
        told.append(now.phase)
        if now.phase != "train":
            assert read_status(folder) == now
        assert is_held(folder)

    run(JOB, make_cluster(), executor="local", out=folder, progress=check)
    assert told == ["start", *["train", "epoch"] * 3, "done"]
    last = read_status(folder)
    assert (last.phase, last.step, last.left_wall_s) == ("done", last.steps, 0.0)
    assert last.train_loss == RunDirectory.open(folder).read_summary()["train_loss"]
    assert not is_held(folder)


def test_time_left_is_the_rest_at_the_pace_of_the_epoch(tmp_path: Path) -> None:
    """64 samples an epoch: after the first of three epochs 128 are left."""
    seen: list[Progress] = []
    run(JOB, make_cluster(), executor="local", out=tmp_path / "run", progress=seen.append)
    for now in (progress for progress in seen if progress.phase == "train"):
        assert now.samples_per_s is not None
        assert now.left_wall_s == pytest.approx(64 * (3 - now.epoch) / now.samples_per_s)


def test_a_run_that_goes_on_is_followed_to_its_end(tmp_path: Path) -> None:
    folder, started, seen = tmp_path / "run", threading.Event(), []
    thread = threading.Thread(
        target=run,
        args=(JOB, make_cluster()),
        kwargs={"executor": "local", "out": folder, "progress": lambda _: started.set()},
    )
    thread.start()
    assert started.wait(60)
    assert watch(folder, seen.append).phase == "done"
    thread.join()
    assert seen[-1] == read_status(folder)


def test_a_run_whose_process_has_ended_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(now: Progress) -> None:
        if now.phase == "epoch":
            raise CrashError

    folder = tmp_path / "run"
    with pytest.raises(CrashError):
        run(JOB, make_cluster(), executor="local", out=folder, progress=crash)
    assert cli.main(["watch", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"epoch 1/3, loss {read_status(folder).train_loss:.4f}, "
        f"test accuracy {100 * (read_status(folder).test_accuracy or 0):.2f} %",
        f"no process works on {folder}; rpucluster run --resume {folder} goes on",
    ]
    assert cli.main(["watch", str(folder), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["phase"], status["epoch"], status["running"]) == ("epoch", 1, False)


def test_a_status_that_is_damaged_or_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="there is no run directory"):
        watch(tmp_path / "none", print)
    with pytest.raises(RunDirectoryError, match=r"has no status\.json: it is no run, or not yet"):
        watch(tmp_path, print)
    run(JOB, make_cluster(), executor="local", out=tmp_path / "run")
    path = tmp_path / "run" / "status.json"
    path.write_text(path.read_text().replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(RunDirectoryError, match=r"status\.json: damaged: its content does not match its sha256"):
        watch(tmp_path / "run", print)
