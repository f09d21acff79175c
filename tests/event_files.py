"""Event files of TensorBoard, read back as records of protobuf messages."""

import struct
from pathlib import Path
from typing import Any

import pytest

from rpucluster.runlog import RunDirectory


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


def expected_scalars(directory: RunDirectory) -> dict[str, dict[int, Any]]:
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
