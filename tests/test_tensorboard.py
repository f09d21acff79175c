"""Scalars for TensorBoard, read back from the event files as records of protobuf messages."""

import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from rpucluster import Callbacks, Progress, cli
from rpucluster.coordinator import find, run
from rpucluster.runlog import RunDirectory
from tests.specs import make_cluster, make_job

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")

JOB = make_job(train={"epochs": 3}, evaluate={"every": 2}, run={"checkpoint_every": "5 steps"})


def events(folder: Path) -> list[Any]:
    """The events of all files, oldest first; a record is its length (8 bytes), a checksum (4), itself, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The values of each scalar by step; none is written twice."""
    found: dict[str, dict[int, float]] = {}
    for event in events(folder):
        for value in event.summary.value:
            assert event.step not in found.setdefault(value.tag, {})
            found[value.tag][event.step] = value.simple_value
    return found


def expected(directory: RunDirectory) -> dict[str, dict[int, Any]]:
    """The same from the rows of metrics.parquet, as float32, which event files hold.

    All steps of an epoch are performed together here, so their loss is that of the epoch."""
    columns = {
        "train/loss": "train_loss",
        "epoch/train_loss": "train_loss",
        "epoch/train_accuracy": "train_accuracy",
        "epoch/test_loss": "test_loss",
        "epoch/test_accuracy": "test_accuracy",
        "epoch/learning_rate": "learning_rate",
        "modelled/seconds": "modelled_s",
        "modelled/energy_J": "modelled_energy_J",
    }
    rows = directory.read_epochs()
    return {
        name: {
            row.step: pytest.approx(getattr(row, column), rel=1e-6) for row in rows if getattr(row, column) is not None
        }
        for name, column in columns.items()
    }


def test_scalars_are_the_rows_of_the_metrics(tmp_path: Path) -> None:
    found = run(JOB, make_cluster(), executor="local", out=tmp_path / "run", tensorboard=True)
    read = scalars(found.directory.path / "tensorboard")
    assert set(read.pop("wall/samples_per_s")) == {8, 16, 24}
    assert read == expected(found.directory)
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
