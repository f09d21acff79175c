"""The bandwidth at which communication stops being the bottleneck: `threshold`."""

import math
import re
from typing import Any, Final

from rpucluster.cluster import Cluster
from rpucluster.errors import ConfigError
from rpucluster.projection.step import Prepared

SHARE: Final = 0.1
"""Exposed communication of less than this share of the step is no bottleneck (our choice)."""
_PRECISION: Final = 1.01
_LEAST: Final = 1.0  # B/s
_KEY = re.compile(r"network\.axis\.([^.]+)\.bandwidth")


def threshold(prepared: Prepared, cluster: Cluster, key: str) -> dict[str, Any]:
    """The smallest bandwidth of one axis, all else equal, with which exposed communication is below `SHARE`.

    By bisection over replays, to 1 %; where the share is not monotone in the bandwidth, one of the bandwidths at which
    it passes `SHARE`.  None, with the share at endless bandwidth, where no bandwidth is enough; 0 where any is.  Raises
    `ConfigError` for a key that is no bandwidth of an axis of the cluster.
    """
    match = _KEY.fullmatch(key)
    names = [axis.name for axis in cluster.network.axis]
    if match is None or match[1] not in names:
        there = f"there is {', '.join(names)}" if names else f"{cluster.name} has no axes"
        raise ConfigError(f"--threshold {key}: write network.axis.NAME.bandwidth; {there}")
    name = match[1]

    def share(bandwidth: float) -> float:
        return prepared.on(_with(cluster, name, bandwidth)).step.communication_fraction

    endless = share(math.inf)
    found = {"threshold": key, "threshold_B_per_s": None, "communication_fraction_at_endless_bandwidth": endless}
    if endless >= SHARE:
        return found
    low = high = next(axis.bandwidth for axis in cluster.network.axis if axis.name == name)
    high = low = low if math.isfinite(low) else 1e9
    while share(high) >= SHARE:
        low, high = high, 16 * high
    while low == high or share(low) < SHARE:
        if low < _LEAST:
            return found | {"threshold_B_per_s": 0.0}
        low, high = low / 16, low
    while high > low * _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if share(middle) < SHARE else (middle, high)
    return found | {"threshold_B_per_s": high}


def _with(cluster: Cluster, name: str, bandwidth: float) -> Cluster:
    """The cluster with another bandwidth of one axis."""
    axes = tuple(
        axis.model_copy(update={"bandwidth": bandwidth}) if axis.name == name else axis for axis in cluster.network.axis
    )
    network = type(cluster.network)(axis=axes, **_settings(cluster))
    return cluster.model_copy(update={"network": network.with_faults(cluster.faults)})


def _settings(cluster: Cluster) -> dict[str, Any]:
    network = cluster.network
    return {
        "endpoint_delay": f"{network.endpoint_delay!r} s",
        "tick": f"{network.tick!r} s",
        "chunks": network.chunks,
        "active_chunks": network.active_chunks,
    }
