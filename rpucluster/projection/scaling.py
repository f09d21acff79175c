"""The keys of a sweep that stand in no file: `weights`, `accelerators` and `tile_size`, as changes of the two files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rpucluster.cluster import Cluster
from rpucluster.errors import ConfigError
from rpucluster.job import Job
from rpucluster.topology import Axis

WEIGHTS, ACCELERATORS, TILE_SIZE = OWN_KEYS = "weights", "accelerators", "tile_size"
Degree = Literal["data", "pipeline", "tensor"]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How more accelerators are used."""

    degree: Degree = "data"
    """The kind of parallelism that grows with them."""
    weak: bool = False
    """Whether the global batch grows with them; else it stays, and replicas share it out."""


def tile_size_changes(size: float) -> list[str]:
    """The overrides that make tiles square, of so many rows and columns.

    Raises `ConfigError`.
    """
    if size != round(size):
        raise ConfigError(f"--sweep {TILE_SIZE}={size:g}: write whole numbers of rows and columns")
    return [f"accelerator.tile_rows={round(size)}", f"accelerator.tile_cols={round(size)}"]


def weights_changes(job: Job, weights: float) -> list[str]:
    """The overrides that make an mlp have about so many weights, all hidden layers wider by the same factor.

    Raises `ConfigError`.
    """
    sizes = job.model.sizes
    if sizes is None or len(sizes) < 3:
        raise ConfigError(
            f"--sweep {WEIGHTS} makes the hidden layers of an mlp preset wider, and {job.name} has none; sweep keys of "
            f"[model] instead"
        )
    if not 0 < weights < math.inf:
        raise ConfigError(f"--sweep {WEIGHTS}={weights:g}: write a number above 0")

    def scaled(factor: float) -> list[int]:
        return [sizes[0], *(max(1, round(size * factor)) for size in sizes[1:-1]), sizes[-1]]

    def count(factor: float) -> int:
        widths = scaled(factor)
        return sum(a * b for a, b in pairwise(widths))

    # a network between layers of width h has weights of the order of h^2
    low, high = 0.0, 1.0
    while count(high) < weights:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) < weights else (low, middle)
    nearest = min((low, high), key=lambda factor: abs(count(factor) - weights))
    return [f"model.sizes={scaled(nearest)}"]


def accelerators_changes(job: Job, cluster: Cluster, accelerators: int | float, scaling: Scaling) -> list[str]:
    """The overrides with which a plan uses so many accelerators: one degree of parallelism and one axis of the network
    grow, or shrink, by the same factor; the global batch stays or grows likewise.

    Raises `ConfigError`.
    """
    parallel, train = job.parallel, job.train
    where = f"--sweep {ACCELERATORS}={accelerators:g}"
    used = parallel.tensor * parallel.pipeline * parallel.data
    degree = _whole(getattr(parallel, scaling.degree) * accelerators / used, f"{where}: {scaling.degree}", used)
    axis = _axis_of(job, cluster, scaling.degree, where)
    size = _whole(axis.size * accelerators / used, f"{where}: the size of axis {axis.name}", used)
    replicas = degree if scaling.degree == "data" else parallel.data
    batch = train.minibatch * parallel.data * (accelerators / used if scaling.weak else 1)
    minibatch = _whole(batch / replicas, f"{where}: samples of a replica, the global batch being {batch:g},", used)
    return [
        f"parallel.{scaling.degree}={degree}",
        f"network.axis.{axis.name}.size={size}",
        f"train.minibatch={minibatch}",
        f"train.microbatch={math.gcd(train.microbatch, minibatch)}",
    ]


def _axis_of(job: Job, cluster: Cluster, degree: Degree, where: str) -> Axis:
    """The outermost axis along which a degree of parallelism lies; without it, the outermost of all."""
    axes: Sequence[Axis] = cluster.network.axis
    if not axes:
        raise ConfigError(f"{where}: {cluster.name} has no [[network.axis]] that could grow; write one, of size 1")
    sizes = {name: getattr(job.parallel, name) for name in job.parallel.placement}
    first = math.prod(sizes[name] for name in job.parallel.placement[: job.parallel.placement.index(degree)])
    last, at, found = first * sizes[degree], 1, axes[-1]
    for axis in axes:
        if max(first, at) < min(last, at * axis.size):
            found = axis
        at *= axis.size
    return found


def _whole(value: float, what: str, used: int) -> int:
    if value < 1 or abs(value - round(value)) > 1e-9 * value:
        raise ConfigError(f"{what} would be {value:.4g}; write whole multiples or shares of the {used:,} in use")
    return round(value)
