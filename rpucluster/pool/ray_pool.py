"""Accelerators in Ray actors."""

import os
import secrets
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rpucluster.accelerator import Counters, Steps
from rpucluster.cluster import Cluster
from rpucluster.errors import AcceleratorError, AcceleratorLostError, RpuclusterError
from rpucluster.exchange import Address, PeerLostError
from rpucluster.host_memory import out_of_memory
from rpucluster.hosting import hosts
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.pool.host import Host
from rpucluster.pool.local import Pool
from rpucluster.pool.ray_session import import_ray, start_ray
from rpucluster.pool.rooms import Rooms

_PATIENCE_S = 600.0
"""How long actors may take to start."""
_END_S = 2.0
"""How long actors that were told to end may take."""
_LOOK_EVERY_S = 1.0
"""How often somebody who waits for actors looks whether all are alive and at work."""


class HostActor(Host):
    """A host that knows where Ray has put it."""

    def place(self) -> tuple[str, str, int]:
        """The node, its address, and the process."""
        ray = import_ray()
        return str(ray.get_runtime_context().get_node_id()), str(ray.util.get_node_ip_address()), os.getpid()

    def listen_on(self, token: bytes, hosts: Mapping[str, int]) -> Address:
        """`listen`, knowing how many hosts each node has: on loopback where it is one, awake where all have cores."""
        node, address, _ = self.place()
        awake = hosts[node] * self._threads <= (os.cpu_count() or 1)
        return self.listen(token, "127.0.0.1" if len(hosts) == 1 else address, awake)


class RayPool(Pool):
    """Accelerators in Ray actors, ``[run] accelerators_per_worker`` of them in each.

    Ray starts the actors, hands them programs, data and runs of steps, and notices when one dies; what a step
    moves goes from actor to actor (`rpucluster.exchange`).  `folder` is where checkpoints will be written.  Raises
    `MissingPackageError` where Ray is not installed and `AcceleratorError` where no actor can be started, or nodes of
    the cluster at `address` have no room or other software.
    """

    ahead = 1

    def __init__(
        self, job: Job, cluster: Cluster, plan: Plan, *, address: str | None = None, folder: Path | None = None
    ) -> None:
        self._ray = import_ray(private=address is None)
        self._started = start_ray(self._ray, address)
        self._rooms: Rooms | None = None
        self._hosts: list[Any] = []
        self._submitted: list[Any] = []
        self._unseen: set[Any] = set()
        self._processes: list[int] = []
        self._watch = _Watch(self._ray, job.run.step_deadline)
        host_of = hosts(job, plan, int(self._ray.cluster_resources().get("CPU", 1)))
        count = max(host_of.values()) + 1
        # state lives in actors, so a restarted one would be silently empty: never restart
        remote = self._ray.remote(max_restarts=0, max_task_retries=0, num_cpus=0, concurrency_groups={"watch": 1})(
            HostActor
        )
        try:
            self._rooms = Rooms(self._ray, job, plan, host_of, folder)
            self.notices = self._rooms.notices
            shared = [self._ray.put(value) for value in (host_of, self._rooms.job, cluster, plan)]
            self._hosts = [remote.options(**self._rooms.options(host)).remote(host, *shared) for host in range(count)]
            names = [_accelerators(number for number, its in host_of.items() if its == host) for host in range(count)]
            self._watch.look_at(dict(zip(self._hosts, names, strict=True)))
            places = self._everywhere("place")  # waits until every array is there
            self._open_processes(places)
            if count > 1:
                on_nodes = dict(Counter(node for node, _, _ in places))
                found = self._everywhere("listen_on", secrets.token_bytes(32), on_nodes)
                self._everywhere("connect", dict(enumerate(found)))
        except BaseException:
            self.close()
            raise

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        shared = self._ray.put(x), self._ray.put(y)  # one copy in shared memory for all actors of a node
        self._everywhere("set_data", name, *shared)

    def perform(self, name: str, data: str, steps: Steps) -> None:
        # as part of the call: a look into shared memory would cost each host a millisecond
        refs = [host.perform.remote(name, data, steps) for host in self._hosts]
        self._submitted += refs
        self._unseen.update(refs)

    def save(self, folder: Path) -> dict[int, Counters]:
        return super().save(folder.resolve())  # actors work in folders of their own

    def _aside(self, method: str) -> list[Any]:
        return self._results(
            [getattr(host, method).options(concurrency_group="watch").remote() for host in self._hosts]
        )

    def close(self) -> None:
        for host in self._hosts:
            self._ray.kill(host)
        for ref in self._unseen:  # Ray prints the errors that nobody has asked for, and another one is told
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(ref, timeout=_END_S)
        self._unseen.clear()
        until = time.monotonic() + _END_S
        for process in self._processes:
            ended, _, _ = select.select([process], [], [], max(0.0, until - time.monotonic()))
            if not ended:  # one that is stopped does not hear of Ray's kill
                with suppress(OSError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        self._processes = []
        if self._rooms is not None:
            self._rooms.release()
        if self._started:
            self._ray.shutdown()

    def _open_processes(self, places: list[tuple[str, str, int]]) -> None:
        """Keep hold of the actors' processes that are on this machine, by what cannot come to mean another process."""
        here = self._ray.util.get_node_ip_address()
        if hasattr(os, "pidfd_open"):
            for _, address, process in places:
                with suppress(OSError):
                    if address == here:
                        self._processes.append(os.pidfd_open(process))

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        before, self._submitted = self._submitted, []
        self._results(before, working=True)
        return self._results([getattr(host, method).remote(*args) for host in self._hosts])

    def _ask(self, method: str) -> Callable[[], list[Any]]:
        before, self._submitted = self._submitted, []
        asked = [getattr(host, method).remote() for host in self._hosts]

        def results() -> list[Any]:
            self._results(before, working=True)
            return self._results(asked)

        return results

    def _results(self, refs: list[Any], working: bool = False) -> list[Any]:
        """Wait for all; of several failures, raise the one that explains the others."""
        self._watch.wait(refs, working)
        results, failures = [], []
        for ref in refs:
            self._unseen.discard(ref)
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
            if isinstance(cause, MemoryError):
                return out_of_memory(cause)
            return AcceleratorError(f"an accelerator failed: {type(cause).__name__}: {cause}")
        name = self._names.get(getattr(error, "actor_id", None) or "", "some accelerator")
        gone = self._ray.exceptions.ActorDiedError, self._ray.exceptions.ActorUnavailableError
        if isinstance(error, gone):
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
