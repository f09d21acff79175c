"""Ray itself: imported here and nowhere else, started on this machine or joined where it runs already."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rpucluster.errors import AcceleratorError, MissingPackageError

_PRIVATE: Final = "rpucluster-private"
"""Namespace that tells a Ray that was started here from one that was there already."""
_LOOPBACK: Final = "127.0.0.1"
_CLUSTERS: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Despite its name on every system: with 0, ports of a Ray are on loopback only, where they would else be on all
interfaces."""
_SAID_BY_US: Final = "A worker died or was killed|has been marked dead|Raylet is terminated"
"""What Ray would print on losses of processes and nodes, besides our own line: dozens of lines of its log."""


@contextmanager
def ray_session(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` or to one that is started here and stopped again.

    Where this process is connected already, that connection is used and kept.  Raises `MissingPackageError` where Ray
    is not installed and `AcceleratorError` where there is no connection, or our own Ray would be open to the network.
    """
    ray = import_ray(private=address is None)
    started = start_ray(ray, address)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def import_ray(private: bool = False) -> Any:
    """The module `ray`, set up as `prepare_ray` says.  Raises `MissingPackageError` where it is not installed."""
    prepare_ray(private)
    try:
        import ray
    except ImportError:
        raise MissingPackageError(
            "Ray is not installed: pip install ray, or run with --executor local, which gives the same results"
        ) from None
    return ray


def prepare_ray(private: bool) -> None:
    """Set what Ray reads from the environment when it is imported, where the user has set nothing.

    It is to be quiet; and where one is started for this process alone, to be reached by nobody else.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _SAID_BY_US)
    if private:
        os.environ.setdefault(_CLUSTERS, "0")
        # for one of ours Ray would write a token into the user's home; one that is joined may ask for its own
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # Ray's workers would give way to whatever else runs, which a run in this process does not
        os.environ.setdefault("RAY_worker_niceness", "0")


def start_ray(ray: Any, address: str | None) -> bool:
    """Connect to a Ray cluster or start one on this machine; says whether this process must end that again.

    Raises `AcceleratorError` where it cannot.
    """
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto") and not _same_place(address, there, ray.util.get_node_ip_address()):
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
            _require_loopback(ray)
            ray.init(
                address="local",
                namespace=_PRIVATE,
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"connect to the Ray cluster at {address}" if address else "start Ray on this machine"
        raise AcceleratorError(f"could not {where}: {' '.join(str(error).split())}") from None
    return True


def is_shared(ray: Any) -> bool:
    """Whether the cluster that this process is connected to was not started by `ray_session` for it alone."""
    return bool(ray.get_runtime_context().namespace != _PRIVATE)


def _require_loopback(ray: Any) -> None:
    """Raise `AcceleratorError` where a Ray of ours would listen to the network and the user has not asked for that.

    Ray has decided it when it was imported, which somebody else may have done, or we to join a cluster.
    """
    if ray.util.get_node_ip_address() != _LOOPBACK and os.environ.get(_CLUSTERS) != "1":
        raise AcceleratorError(
            f"this process has imported Ray in a way that opens a Ray of its own to the network; set {_CLUSTERS}=0 "
            f"before Ray is imported, or use another process, an address, or the executor local"
        )


def _same_place(address: str, there: str, here: str) -> bool:
    """Whether HOST:PORT, by name or on loopback, means the cluster at IP:PORT; `here` is the IP of this node."""
    host, _, port = address.rpartition(":")
    ip, _, its_port = there.rpartition(":")
    if port != its_port:
        return False
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return ip in found or (ip == here and any(one.startswith("127.") or one == "::1" for one in found))


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
