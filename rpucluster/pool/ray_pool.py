"""Accelerators in Ray actors.  The only file that imports Ray."""

import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from rpucluster.accelerator import Steps
from rpucluster.arrays import array_module, gpu_report
from rpucluster.cluster import Cluster
from rpucluster.errors import AcceleratorError, AcceleratorLostError, MissingPackageError, RpuclusterError
from rpucluster.exchange import Address, PeerLostError
from rpucluster.hosting import hosts
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.pool.host import Host
from rpucluster.pool.local import Pool

STEPS_PER_CALL = 64
"""Steps that an actor performs for one Ray call: it costs a millisecond, and what it returns is noticed only then."""
_PATIENCE_S = 600.0
"""How long actors may take to start."""
_END_S = 2.0
"""How long actors that were told to end may take."""
_LOOK_EVERY_S = 1.0
"""How often somebody who waits for actors looks whether all are alive and at work."""


class HostActor(Host):
    """A host that knows where Ray has put it."""

    def place(self) -> tuple[str, int]:
        """The address of the node, and the process."""
        return str(_import_ray().util.get_node_ip_address()), os.getpid()

    def listen_on(self, token: bytes, one_node: bool) -> Address:
        """`listen` on loopback where all hosts are on one node."""
        return self.listen(token, "127.0.0.1" if one_node else self.place()[0])


class RayPool(Pool):
    """Accelerators in Ray actors, ``[run] accelerators_per_worker`` of them in each.

    Ray starts the actors, hands them programs, data and runs of steps, and notices when one dies; what a step
    moves goes from actor to actor (`rpucluster.exchange`).  Raises `MissingPackageError` where Ray is not installed
    and `AcceleratorError` where no actor can be started.
    """

    def __init__(self, job: Job, cluster: Cluster, plan: Plan, *, address: str | None = None) -> None:
        self._ray = _import_ray()
        self._started = _start_ray(self._ray, address)
        self._hosts: list[Any] = []
        self._submitted: list[Any] = []
        self._processes: list[int] = []
        self._watch = _Watch(self._ray, job.run.step_deadline)
        host_of = hosts(job, plan, int(self._ray.cluster_resources().get("CPU", 1)))
        count = max(host_of.values()) + 1
        # state lives in actors, so a restarted one would be silently empty: never restart
        remote = self._ray.remote(max_restarts=0, max_task_retries=0, num_cpus=0, concurrency_groups={"watch": 1})(
            HostActor
        )
        try:
            shared = [self._ray.put(value) for value in (host_of, job, cluster, plan)]
            gpus = _gpu_share(job, count)
            self._hosts = [remote.options(num_gpus=gpus).remote(host, *shared) for host in range(count)]
            names = [_accelerators(number for number, its in host_of.items() if its == host) for host in range(count)]
            self._watch.look_at(dict(zip(self._hosts, names, strict=True)))
            self._open_processes(self._everywhere("place"))  # waits until every array is there
            if count > 1:
                one_node = len(self._ray.nodes()) == 1
                found = self._everywhere("listen_on", secrets.token_bytes(32), one_node)
                self._everywhere("connect", dict(enumerate(found)))
        except BaseException:
            self.close()
            raise

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        shared = self._ray.put(x), self._ray.put(y)  # one copy in shared memory for all actors of a node
        self._everywhere("set_data", name, *shared)

    def perform(self, name: str, data: str, steps: Steps) -> None:
        for start in range(0, len(steps), STEPS_PER_CALL):
            part = self._ray.put(steps.part(start, start + STEPS_PER_CALL))
            self._submitted += [host.perform.remote(name, data, part) for host in self._hosts]

    def close(self) -> None:
        for host in self._hosts:
            self._ray.kill(host)
        until = time.monotonic() + _END_S
        for process in self._processes:
            ended, _, _ = select.select([process], [], [], max(0.0, until - time.monotonic()))
            if not ended:  # one that is stopped does not hear of Ray's kill
                with suppress(OSError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        self._processes = []
        if self._started:
            self._ray.shutdown()

    def _open_processes(self, places: list[tuple[str, int]]) -> None:
        """Keep hold of the actors' processes that are on this machine, by what cannot come to mean another process."""
        here = self._ray.util.get_node_ip_address()
        if hasattr(os, "pidfd_open"):
            for node, process in places:
                with suppress(OSError):
                    if node == here:
                        self._processes.append(os.pidfd_open(process))

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        before, self._submitted = self._submitted, []
        self._results(before, working=True)
        return self._results([getattr(host, method).remote(*args) for host in self._hosts])

    def _results(self, refs: list[Any], working: bool = False) -> list[Any]:
        """Wait for all; of several failures, raise the one that explains the others."""
        self._watch.wait(refs, working)
        results, failures = [], []
        for ref in refs:
            try:
                results.append(self._ray.get(ref))
            except self._ray.exceptions.RayError as error:
                failures.append(self._watch.explained(error))
        if failures:
            raise min(failures, key=_explains) from None
        return results


class _Watch:
    """Waits for actors, and notices on the way when one of them has died or nothing moves any more."""

    def __init__(self, ray: Any, deadline_s: float) -> None:
        self._ray, self._deadline_s = ray, deadline_s
        self._started = False
        self._hosts: list[Any] = []
        self._names: dict[str, str] = {}
        self._asked: dict[int, Any] = {}
        self._beats: dict[int, int] = {}

    def look_at(self, hosts: Mapping[Any, str]) -> None:
        """Watch these actors, which are called so."""
        self._hosts = list(hosts)
        self._names = {host._actor_id.hex(): name for host, name in hosts.items()}

    def explained(self, error: Any) -> RpuclusterError:
        """What a failure of Ray means here."""
        if isinstance(error, self._ray.exceptions.RayTaskError):
            cause = error.cause
            if isinstance(cause, RpuclusterError):
                return cause
            return AcceleratorError(f"an accelerator failed: {type(cause).__name__}: {cause}")
        name = self._names.get(getattr(error, "actor_id", None) or "", "some accelerator")
        if isinstance(error, self._ray.exceptions.ActorDiedError):
            return AcceleratorLostError(f"the process of {name} was lost: it was killed, crashed or ran out of memory")
        reason = " ".join(str(error).split())
        return AcceleratorLostError(f"the process of {name} was lost: {reason[:300]}")

    def wait(self, refs: list[Any], working: bool = False) -> None:
        """Return when all have results or errors.

        Raises `AcceleratorLostError` as soon as a process is known to be lost, or after the time of ``[run]
        step_deadline`` in which none of them has worked, if they should be `working`, or else one did not answer.
        """
        # one that is starting cannot answer before its arrays are there
        deadline_s = self._deadline_s if self._started else max(self._deadline_s, _PATIENCE_S)
        pending, moved = refs, time.monotonic()
        while pending:
            ready, pending = self._ray.wait(pending, num_returns=len(pending), timeout=_LOOK_EVERY_S)
            if not pending:
                self._started = True
                return
            for ref in ready:
                self._raise_if_lost(ref)
            answered, worked = self._ask()
            if ready or (worked if working else answered):
                moved = time.monotonic()
            elif time.monotonic() - moved > deadline_s:
                raise AcceleratorLostError(
                    f"no accelerator has done anything for {deadline_s:g} s; a process hangs, or a step takes longer "
                    f"than [run] step_deadline allows"
                    if working
                    else f"an accelerator has not answered for {deadline_s:g} s; its process hangs"
                )

    def _ask(self) -> tuple[bool, bool]:
        """Whether all hosts answer, and whether any has worked since this was asked last.

        One that has not answered yet is not asked again.
        """
        for number, host in enumerate(self._hosts):
            if number not in self._asked:
                self._asked[number] = host.beats.options(concurrency_group="watch").remote()
        answered, _ = self._ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=_LOOK_EVERY_S)
        worked = False
        for number, ref in list(self._asked.items()):
            if ref in answered:
                del self._asked[number]
                self._raise_if_lost(ref)
                beats = self._ray.get(ref)
                worked |= beats != self._beats.get(number)
                self._beats[number] = beats
        return not self._asked, worked

    def _raise_if_lost(self, ref: Any) -> None:
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:
            return  # what it means is seen when all have come back
        except self._ray.exceptions.RayError as error:
            raise self.explained(error) from None


def _explains(failure: RpuclusterError) -> int:
    """Smaller for what explains other failures: a process that is lost, what somebody raised, a lost connection."""
    if isinstance(failure, PeerLostError):
        return 2
    return 0 if isinstance(failure, AcceleratorLostError) else 1


def _accelerators(numbers: Iterable[int]) -> str:
    """Some accelerators as people say it."""
    shown = [str(number) for number in numbers]
    return f"accelerator{'s' * (len(shown) > 1)} {', '.join(shown[:8])}{', ...' * (len(shown) > 8)}"


def _gpu_share(job: Job, hosts: int) -> float:
    """The part of a GPU that each actor asks Ray for; none where the arrays are NumPy's."""
    if array_module(job.run.arrays) is np:
        return 0
    return min(1.0, len(gpu_report()) / hosts)


@contextmanager
def ray_session(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` or to one that is started here and stopped again.

    Raises `MissingPackageError` where Ray is not installed and `AcceleratorError` where there is no connection.
    """
    ray = _import_ray()
    started = _start_ray(ray, address)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _import_ray() -> Any:
    # read by Ray when it is imported: no usage reports, and no token file in the user's home
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        import ray
    except ImportError:
        raise MissingPackageError(
            "Ray is not installed: pip install ray, or run with --executor local, which gives the same results"
        ) from None
    return ray


def _start_ray(ray: Any, address: str | None) -> bool:
    """Connect to a Ray cluster or start one on this machine; says whether this process must stop it again."""
    if ray.is_initialized():
        return False
    try:
        if address is not None:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, RuntimeError, ValueError) as error:
        where = f"connect to the Ray cluster at {address}" if address else "start Ray on this machine"
        raise AcceleratorError(f"could not {where}: {' '.join(str(error).split())}") from None
    return True


def _knock(address: str) -> None:
    """Raise OSError at once where nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
