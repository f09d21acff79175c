"""What-ifs: a job and a cluster with some keys changed and everything else as it was.

A change is ``section.key=value`` as ``--set`` takes it, on the files as resolved: a default that was derived from
another key stays what it was.  A value ``x2`` or ``/2`` multiplies or divides what is there.
"""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from rpucluster.cluster import CLUSTER_TABLES, Cluster
from rpucluster.config import apply_override, split_overrides, validated, write_toml
from rpucluster.errors import ConfigError
from rpucluster.job import JOB_TABLES, Job

_RELATIVE = re.compile(r"([x/])\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")
_NUMBER_AND_UNIT = re.compile(r"(inf|[\d.]+(?:[eE][+-]?\d+)?)\s+(\S+)")
_OPTION = "--what-if"


def changed(job: Job, cluster: Cluster, changes: Sequence[str]) -> tuple[Job, Cluster]:
    """The job and the cluster with all the changes made at once.

    Raises `ConfigError`, one line, where a change names no key, or the files would not be accepted with it.
    """
    by_file = split_overrides(changes, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES}, _OPTION)
    tables = {"job": tomllib.loads(write_toml(job)), "cluster": tomllib.loads(write_toml(cluster))}
    for file, mine in by_file.items():
        for change in mine:
            apply_override(tables[file], _absolute(tables[file], change), _OPTION)
    origin = f"{_OPTION} {' '.join(changes)}"
    return (
        validated(Job, tables["job"], origin) if by_file["job"] else job,
        validated(Cluster, tables["cluster"], origin) if by_file["cluster"] else cluster,
    )


def _absolute(tables: dict[str, Any], change: str) -> str:
    """``path=x2`` as ``path=value``; other changes as they are."""
    path, _, text = change.partition("=")
    relative = _RELATIVE.fullmatch(text.strip())
    if relative is None:
        return change
    factor = float(relative[2])
    if factor == 0:
        raise ConfigError(f"{_OPTION} {change}: write a factor above 0")
    old = _value_at(tables, [part.strip() for part in path.split(".")])
    if old is None:
        raise ConfigError(f"{_OPTION} {change}: {path.strip()} has no value there; write one instead of {text.strip()}")
    return f"{path}={_times(old, factor if relative[1] == 'x' else 1 / factor, change)}"


def _value_at(tables: dict[str, Any], path: Sequence[str]) -> Any:
    here: Any = tables
    for part in path:
        if isinstance(here, list):
            here = next((item for item in here if isinstance(item, dict) and item.get("name") == part), None)
        else:
            here = here.get(part) if isinstance(here, dict) else None
    return here


def _times(old: Any, factor: float, change: str) -> str:
    if isinstance(old, int) and not isinstance(old, bool):
        new = old * factor
        if abs(new - round(new)) > 1e-9 * abs(new) or round(new) == 0:
            raise ConfigError(f"{_OPTION} {change}: it is {old}, which gives {new:g}; it must stay a whole number")
        return str(round(new))
    if isinstance(old, float):
        return repr(old * factor)
    quantity = _NUMBER_AND_UNIT.fullmatch(old) if isinstance(old, str) else None
    if quantity is None:
        raise ConfigError(f"{_OPTION} {change}: it is {old!r}, which cannot be multiplied; write a value")
    return f"{float(quantity[1]) * factor!r} {quantity[2]}"
