"""The run directory: everything that a run leaves, written whole or not at all, and read back without pickle.

job.toml, cluster.toml    the two specs as resolved
plan.json                 which tiles sit where
metrics.parquet           one row per finished epoch
events.parquet            one row per operation of the modelled training step and accelerator
links.parquet             one row per link that the step uses
link_spans.parquet        one row per link and operation of the step that used it
step.json                 how that step divides: by accelerator, by component of energy, along the critical path
trace.json.gz             the same step in the Chrome trace format
checksums.json             SHA-256 of each of these files, and its own
summary.json              the run in one flat object; written last, so a run without it is unfinished
status.json               where the run stands, for `rpucluster watch` (`rpucluster.coordinator.status`)
checkpoint/               the last two checkpoints (`rpucluster.checkpoint`)
"""

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rpucluster.checkpoint import complete, newest
from rpucluster.errors import RunDirectoryError, RunError
from rpucluster.files import (
    file_digest,
    held,
    json_bytes,
    read_json,
    read_rows,
    read_sealed,
    read_text,
    schema,
    unreadable,
    write_atomically,
    write_json,
    write_sealed,
    write_table,
)
from rpucluster.metrics import Metrics
from rpucluster.shard_state import weights_in
from rpucluster.step_rows import EVENTS, LINKS, SPANS, event_rows, link_rows, span_rows
from rpucluster.timeline import Timeline
from rpucluster.trace import write_trace

REQUIRED = (
    "job.toml",
    "cluster.toml",
    "plan.json",
    "metrics.parquet",
    "events.parquet",
    "links.parquet",
    "link_spans.parquet",
    "step.json",
    "trace.json.gz",
    "checksums.json",
    "summary.json",
)
"""The files that a finished run has."""


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One finished epoch."""

    epoch: int
    """Epochs finished, this one included."""
    step: int
    """Training steps since the start."""
    samples: int
    """Training samples since the start, over all replicas."""
    learning_rate: float
    train_loss: float
    """Mean over the samples of the epoch, as they were trained on."""
    train_accuracy: float
    """Fraction, 0 to 1, as they were trained on."""
    test_loss: float | None
    """None where the epoch was not evaluated; so is `test_accuracy`."""
    test_accuracy: float | None
    modelled_s: float
    """Modelled seconds since the start; `modelled_energy_J` and `wall_s` count from there too."""
    modelled_energy_J: float
    wall_s: float
    coincidences: float
    """Pulse coincidences since the start; `pulse_slots` likewise."""
    pulse_slots: float


_EPOCHS = schema(
    ("epoch", pa.int64(), "1"),
    ("step", pa.int64(), "1"),
    ("samples", pa.int64(), "1"),
    ("learning_rate", pa.float64(), "1"),
    ("train_loss", pa.float64(), "1"),
    ("train_accuracy", pa.float64(), "1"),
    ("test_loss", pa.float64(), "1"),
    ("test_accuracy", pa.float64(), "1"),
    ("modelled_s", pa.float64(), "s"),
    ("modelled_energy_J", pa.float64(), "J"),
    ("wall_s", pa.float64(), "s"),
    ("coincidences", pa.float64(), "1"),
    ("pulse_slots", pa.float64(), "1"),
)


class RunDirectory:
    """One run's directory; `create` starts a new one and `open` opens a finished one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, out: Path | None, name: str) -> "RunDirectory":
        """Make an empty run directory: `out`, or the next free ``runs/<name>-<n>``.

        Raises `RunDirectoryError` where `out` exists and is not an empty directory, or cannot be made.
        """
        try:
            if out is None:
                return cls(_next_free(Path("runs"), name))
            out.mkdir(parents=True, exist_ok=True)
            occupied = any(out.iterdir())
        except OSError as error:
            place = out or "runs"
            raise RunDirectoryError(
                f"{place}: cannot be made a run directory: {error.strerror}; name another one with --out"
            ) from None
        if occupied:
            raise RunDirectoryError(f"{out} is not empty; name another directory with --out")
        return cls(out)

    def discard(self) -> None:
        """Remove the directory and what is in it, for a run that came to nothing."""
        shutil.rmtree(self.path, ignore_errors=True)

    def has_results(self) -> bool:
        """Whether anything was trained: an epoch, or as far as a checkpoint."""
        return (self.path / "metrics.parquet").exists() or bool(complete(self.checkpoints))

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open a finished run whose files are those that were written.

        Raises `RunDirectoryError` where there is none, it did not finish, or a file is not the one that it wrote.
        """
        if not path.is_dir():
            raise RunDirectoryError(f"there is no run directory {path}")
        lacking = [name for name in REQUIRED if not (path / name).is_file()]
        if "job.toml" in lacking:
            raise RunDirectoryError(f"{path} is not a run directory: it has no job.toml")
        if lacking:
            raise RunDirectoryError(
                f"the run in {path} is not finished: it has no {', '.join(lacking)}; rpucluster run --resume {path} "
                f"goes on"
            )
        digests = read_sealed(path / "checksums.json")
        for name in REQUIRED:
            if name != "checksums.json" and digests.get(name) != file_digest(path / name):
                told = "damaged or changed: its content does not match its sha256 in checksums.json"
                raise RunDirectoryError(f"{path / name}: {told}; rpucluster run --resume {path} writes it anew")
        return cls(path)

    @classmethod
    def continued(cls, path: Path) -> "RunDirectory":
        """Open a run, finished or not, to go on with it.  Raises `RunDirectoryError` where there is none."""
        if not path.is_dir():
            raise RunDirectoryError(f"there is no run directory {path}")
        return cls(path)

    def unfinish(self) -> None:
        """Make the run count as unfinished.  Raises `RunError` where it cannot be written."""
        try:
            for name in ("summary.json", "checksums.json"):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def held(self) -> AbstractContextManager[None]:
        """Keep other processes from writing into the run meanwhile.  Raises `RunDirectoryError` where one does."""
        return held(self.path)

    # --- specs, plan and summary ---

    def write_specs(self, job_toml: str, cluster_toml: str) -> None:
        """Write the two specs as resolved, as TOML text."""
        write_atomically(self.path / "job.toml", job_toml.encode())
        write_atomically(self.path / "cluster.toml", cluster_toml.encode())

    def read_specs(self) -> tuple[str, str]:
        """The TOML text of the job and of the cluster."""
        return read_text(self.path / "job.toml"), read_text(self.path / "cluster.toml")

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write plan.json."""
        write_json(self.path / "plan.json", plan)

    def read_plan(self) -> dict[str, Any]:
        """The content of plan.json."""
        return read_json(self.path / "plan.json")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write checksums.json and summary.json, keys in the given order; do it last: it marks a run as finished."""
        content = json_bytes(summary)
        digests = {name: file_digest(self.path / name) for name in REQUIRED[:-2] if (self.path / name).is_file()}
        write_sealed(self.path / "checksums.json", digests | {"summary.json": hashlib.sha256(content).hexdigest()})
        write_atomically(self.path / "summary.json", content)

    def read_summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return read_json(self.path / "summary.json")

    # --- tables ---

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        """Write metrics.parquet anew with all the epochs so far."""
        write_table(self.path / "metrics.parquet", pa.Table.from_pylist([asdict(row) for row in rows], _EPOCHS))

    def read_epochs(self) -> list[EpochRow]:
        """The rows of metrics.parquet, in the order of the epochs."""
        return [EpochRow(**row) for row in read_rows(self.path / "metrics.parquet", _EPOCHS)]

    # --- the modelled step ---

    def write_timeline(self, timeline: Timeline, metrics: Metrics) -> None:
        """Write events.parquet, links.parquet, link_spans.parquet and step.json of one modelled training step."""
        write_table(self.path / "events.parquet", pa.Table.from_pylist(event_rows(timeline), EVENTS))
        write_table(self.path / "links.parquet", pa.Table.from_pylist(link_rows(metrics), LINKS))
        write_table(self.path / "link_spans.parquet", pa.Table.from_pylist(span_rows(timeline), SPANS))
        write_json(self.path / "step.json", metrics.to_dict())

    def read_events(self) -> list[dict[str, Any]]:
        """The rows of events.parquet: one per operation and accelerator, in the order of the program."""
        return read_rows(self.path / "events.parquet", EVENTS)

    def read_links(self) -> list[dict[str, Any]]:
        """The rows of links.parquet: one per link that carries anything, in the order of the network."""
        return read_rows(self.path / "links.parquet", LINKS)

    def read_link_spans(self) -> list[dict[str, Any]]:
        """The rows of link_spans.parquet: one per link and operation, in the order of the network and of time."""
        return read_rows(self.path / "link_spans.parquet", SPANS)

    def read_step(self) -> dict[str, Any]:
        """The content of step.json."""
        return read_json(self.path / "step.json")

    def write_trace(self, timeline: Timeline) -> None:
        """Write trace.json.gz; equal timelines give equal bytes."""
        write_trace(self.path / "trace.json.gz", timeline)

    def read_trace(self) -> dict[str, Any]:
        """The content of trace.json.gz."""
        path = self.path / "trace.json.gz"
        try:
            content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        except (OSError, ValueError, EOFError) as error:
            raise unreadable(path, error) from None
        return content

    # --- checkpoints ---

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.path / "checkpoint"

    def read_checkpoint(self) -> tuple[dict[tuple[int, int], Any], dict[str, Any]]:
        """The effective weights by (replica, layer) of the newest checkpoint, and where training stood.

        Raises `RunDirectoryError` where there is none, or it is damaged.
        """
        found = newest(self.checkpoints)
        return weights_in(found.files), dict(found.told["position"])


def _next_free(parent: Path, name: str) -> Path:
    parent.mkdir(exist_ok=True)
    n = 0
    while True:
        n += 1
        path = parent / f"{name}-{n}"
        try:
            path.mkdir()  # whoever makes it has it, even when two runs start at once
        except FileExistsError:
            continue
        return path
