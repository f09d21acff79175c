"""A job on a cluster at every point of some sweeps: `project`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rpucluster.cluster import CLUSTER_TABLES, Cluster, load_cluster
from rpucluster.config import split_overrides
from rpucluster.conventional import baseline
from rpucluster.errors import ConfigError, InputError
from rpucluster.job import JOB_TABLES, Job, load_job
from rpucluster.projection.figures import conventional_figures, figures
from rpucluster.projection.scaling import (
    ACCELERATORS,
    OWN_KEYS,
    TILE_SIZE,
    WEIGHTS,
    Scaling,
    accelerators_changes,
    tile_size_changes,
    weights_changes,
)
from rpucluster.projection.step import Estimate, prepare
from rpucluster.projection.sweep import Sweep, Value, points
from rpucluster.projection.threshold import threshold

_DIGITS_SAMPLES: Final = 1437  # of scikit-learn's handwritten digits, the last 360 being for tests
_MNIST_SAMPLES: Final = 60_000


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What is projected, beside the two files."""

    sweeps: tuple[Sweep, ...] = ()
    scaling: Scaling = field(default_factory=Scaling)
    samples: int | None = None
    """Samples to train on in all; None for the epochs of the job."""
    threshold: str | None = None
    """The bandwidth whose threshold is looked for, ``network.axis.NAME.bandwidth``."""
    whole: bool = False
    """Replay every operation of the representatives, however many, instead of taking long steps from short ones."""


def project(
    job: str | Path, cluster: str | Path, projection: Projection, sets: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row per point of the sweeps, the last varying fastest; a point that cannot be has a row with `error`.

    Raises `ConfigError` for what is wrong with all of them: a file, a key that is not there, and no row that fits.
    """
    for sweep in projection.sweeps:
        if "." not in sweep.key and sweep.key not in OWN_KEYS:
            raise ConfigError(
                f"--sweep {sweep.key}: no such key; write {', '.join(OWN_KEYS)}, or a key of either file, such as "
                f"update.bit_length, train.minibatch or network.axis.NAME.bandwidth"
            )
    rows = []
    for point in points(projection.sweeps):
        try:
            rows.append(_row(job, cluster, projection, sets, point))
        except InputError as error:
            rows.append({**point, "error": str(error)})
    errors = [row["error"] for row in rows if "error" in row]
    if len(errors) == len(rows):
        raise ConfigError(errors[0] if len(set(errors)) == 1 else f"no row fits; the first: {errors[0]}")
    return rows


def specs_at(
    job: str | Path, cluster: str | Path, projection: Projection, sets: Sequence[str], point: Mapping[str, Value]
) -> tuple[Job, Cluster]:
    """The job and the cluster at one point of the sweeps.  Raises `ConfigError`."""
    written = {sweep.key: sweep.written for sweep in projection.sweeps}
    changes = [*sets, *(f"{key}={written[key](value)}" for key, value in point.items() if key not in OWN_KEYS)]
    if TILE_SIZE in point:
        changes += tile_size_changes(_count(point, TILE_SIZE))
    found = _load(job, cluster, changes)
    if WEIGHTS in point:
        changes += weights_changes(found[0], _count(point, WEIGHTS))
    if ACCELERATORS in point:
        changes += accelerators_changes(*found, _count(point, ACCELERATORS), projection.scaling)
    return _load(job, cluster, changes) if WEIGHTS in point or ACCELERATORS in point else found


def _count(point: Mapping[str, Value], key: str) -> int | float:
    value = point[key]
    if isinstance(value, str):
        raise ConfigError(f"--sweep {key}={value}: write numbers")
    return value


def _load(job: str | Path, cluster: str | Path, changes: Sequence[str]) -> tuple[Job, Cluster]:
    by_file = split_overrides(changes, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES}, "--sweep")
    return load_job(job, by_file["job"]), load_cluster(cluster, by_file["cluster"])


def _row(
    job_name: str | Path,
    cluster_name: str | Path,
    projection: Projection,
    sets: Sequence[str],
    point: Mapping[str, Value],
) -> dict[str, Any]:
    job, cluster = specs_at(job_name, cluster_name, projection, sets, point)
    if not cluster.has_tiles:
        if projection.threshold is not None:
            raise ConfigError(f"--threshold is for clusters of RPUs, which {cluster.name} is not; leave it out")
        step = baseline(job, cluster)
        steps = _steps(job, job.parallel.data, projection.samples)
        return (
            dict(point) | conventional_figures(job, step) | _train_figures(steps, step.modelled_step_s, step.energy_J)
        )
    prepared = prepare(job, cluster, whole=projection.whole)
    found = prepared.on(cluster)
    row = dict(point) | figures(job, found) | _training(job, found, projection.samples)
    if projection.threshold is not None:
        row |= threshold(prepared, cluster, projection.threshold)
    return row


def _training(job: Job, found: Estimate, samples: int | None) -> dict[str, Any]:
    """Modelled time and energy of a whole training, with the averagings that belong to it."""
    steps = _steps(job, found.plan.data, samples)
    if not steps:
        return _train_figures(None, 0.0, 0.0)
    averages = math.ceil(steps / job.parallel.average_every) if found.average else 0
    return {
        "steps": steps,
        "modelled_train_s": found.seconds(steps, averages),
        "modelled_train_J": found.joules(steps, averages),
    }


def _train_figures(steps: int | None, step_s: float, step_J: float) -> dict[str, Any]:
    if not steps:
        return {"steps": None, "modelled_train_s": None, "modelled_train_J": None}
    return {"steps": steps, "modelled_train_s": steps * step_s, "modelled_train_J": steps * step_J}


def _steps(job: Job, data: int, samples: int | None) -> int | None:
    """Steps of a training."""
    batch = job.train.minibatch * data
    if samples is not None:
        return math.ceil(samples / batch)
    there = _samples_of(job)
    # what is left over at the end of an epoch is not trained on in it
    return None if there is None else job.train.epochs * (there // batch)


def _samples_of(job: Job) -> int | None:
    """Samples of an epoch, as far as the job file tells."""
    data = job.data
    count = {"digits": _DIGITS_SAMPLES, "mnist": _MNIST_SAMPLES}.get(data.name)
    if count is not None:
        count = (count - (data.validation or 0)) if data.train_samples is None else min(data.train_samples, count)
    else:
        count = data.train_samples if data.samples is None else data.samples
    return None if count is None else count * (5 if data.nudge else 1)
