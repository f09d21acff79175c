"""Scalars for TensorBoard, read back from the event files; on Ray, and over a loss, in `test_failures.py`."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rpucluster import Callbacks, Progress, cli
from rpucluster.coordinator import find, run
from rpucluster.errors import RunError
from rpucluster.runlog import RunDirectory
from tests.event_files import events, expected_scalars, scalars
from tests.specs import make_cluster, make_job

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")

JOB = make_job(train={"epochs": 3}, evaluate={"every": 2}, run={"checkpoint_every": "5 steps"})


def test_scalars_are_the_rows_of_the_metrics(tmp_path: Path) -> None:
    found = run(JOB, make_cluster(), executor="local", out=tmp_path / "run", tensorboard=True)
    read = scalars(found.directory.path / "tensorboard")
    assert set(read.pop("wall/samples_per_s")) == {8, 16, 24}
    assert read == expected_scalars(found.directory)
    assert set(read["epoch/test_loss"]) == {16, 24}  # every second epoch, and the last


def test_a_run_that_goes_on_writes_from_there_and_has_what_was_beyond_dropped(tmp_path: Path) -> None:
    """The first process gets to step 16; its newest complete checkpoint is at 10, or at 15 if it was quick."""

    class CrashError(Exception):
        pass

    def crash(now: Progress) -> None:
        if now.phase == "epoch" and now.epoch == 2:
            raise CrashError

    how: dict[str, Any] = {"executor": "local", "tensorboard": True, "callbacks": Callbacks()}
    folder = tmp_path / "run" / "tensorboard"
    with pytest.raises(CrashError):
        run(JOB, make_cluster(), out=tmp_path / "run", progress=crash, **how)
    (before,) = folder.iterdir()
    assert set(scalars(folder)["epoch/train_loss"]) == {8}  # the run broke before the second was told
    source = find(tmp_path / "run")
    run(JOB, make_cluster(), resume=source, **how)
    before.rename(tmp_path / "before")
    assert set(scalars(folder)["epoch/train_loss"]) == {16, 24}
    starts = [event.step for event in events(folder) if event.HasField("session_log")]
    assert starts == [source.position.steps + 1]  # TensorBoard drops this step and all beyond it


def test_a_disk_that_is_full_costs_scalars_and_nothing_else(tmp_path: Path) -> None:
    """In the second epoch the event file becomes /dev/full, where the kernel itself refuses to write."""
    folder, told = tmp_path / "run" / "tensorboard", []

    def fill_up(now: Progress) -> None:
        for handle in Path("/proc/self/fd").iterdir():
            if now.epoch == 2 and Path(os.path.realpath(handle)).parent == folder:
                full = os.open("/dev/full", os.O_WRONLY)
                os.dup2(full, int(handle.name))
                os.close(full)

    def look(now: Progress) -> None:
        if now.message is not None:
            told.append(now.message)

    how: dict[str, Any] = {"executor": "local", "out": tmp_path / "run"}
    found = run(JOB, make_cluster(), tensorboard=True, progress=look, callbacks=Callbacks(on_step=fill_up), **how)
    assert told == [
        f"no scalars for TensorBoard from step 16 on: {folder}: cannot be written: No space left on device; the run "
        f"goes on"
    ]
    whole = run(JOB, make_cluster(), executor="local", out=tmp_path / "whole")
    assert found.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert RunDirectory.open(found.directory.path).read_epochs()[-1].epoch == 3
    assert set(scalars(folder)["epoch/train_loss"]) == {8}  # what was finished is there


def test_a_disk_that_is_full_from_the_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115, PTH123
    with pytest.raises(RunError, match=r"run/tensorboard: cannot be written: No space left on device$"):
        run(JOB, make_cluster(), executor="local", out=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_without_the_package_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    asked = ["run", "digits", "--cluster", "laptop", "--executor", "local", "--tensorboard"]
    assert cli.main([*asked, "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.strip() == (
        "rpucluster: error: scalars for TensorBoard need tensorboardX: pip install "
        '"rpucluster[tensorboard]", or leave --tensorboard out'
    )
    assert not (tmp_path / "run").exists()
