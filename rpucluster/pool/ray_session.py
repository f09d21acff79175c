"""Ray itself: imported here and nowhere else, started on this machine or joined where it runs already."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rpucluster.errors import AcceleratorError, MissingPackageError

_PRIVATE: Final = "rpucluster-private"
"""Namespace that tells a Ray that was started here from one that was there already."""
_SAID_BY_US: Final = "A worker died or was killed|has been marked dead|Raylet is terminated"
"""What Ray would print on losses of processes and nodes, besides our own line: dozens of lines of its log."""


@contextmanager
def ray_session(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` or to one that is started here and stopped again.

    Where this process is connected already, that connection is used and kept.  Raises `MissingPackageError` where Ray
    is not installed and `AcceleratorError` where there is no connection.
    """
    ray = import_ray(private=address is None)
    started = start_ray(ray, address)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def import_ray(private: bool = False) -> Any:
    """The module `ray`, set up to be quiet; `private` before one is started for this process alone.

    Raises `MissingPackageError` where it is not installed.
    """
    # read by Ray when it is imported: no usage reports, and no token file in the user's home
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _SAID_BY_US)
    if private:
        # despite its name on every system: ports on loopback only, where they would else be on all interfaces
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Ray's workers would give way to whatever else runs, which a run in this process does not
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError:
        raise MissingPackageError(
            "Ray is not installed: pip install ray, or run with --executor local, which gives the same results"
        ) from None
    return ray


def start_ray(ray: Any, address: str | None) -> bool:
    """Connect to a Ray cluster or start one on this machine; says whether this process must end that again.

    Raises `AcceleratorError` where it cannot.
    """
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise AcceleratorError(
                f"this process is connected to the Ray cluster at {there} already; call ray.shutdown() before it runs "
                f"on the one at {address}"
            )
        return False
    try:
        if address is not None:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                address="local",
                namespace=_PRIVATE,
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, RuntimeError, ValueError) as error:
        where = f"connect to the Ray cluster at {address}" if address else "start Ray on this machine"
        raise AcceleratorError(f"could not {where}: {' '.join(str(error).split())}") from None
    return True


def is_shared(ray: Any) -> bool:
    """Whether the cluster that this process is connected to was not started by `ray_session` for it alone."""
    return bool(ray.get_runtime_context().namespace != _PRIVATE)


def _knock(address: str) -> None:
    """Raise OSError at once where nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    if address.startswith("ray://"):
        raise ValueError(
            "clients of Ray cannot watch over processes; run on a node of the cluster with --address auto, "
            "or hand the command to ray job submit"
        )
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
