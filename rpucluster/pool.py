"""Where accelerators live: in this process, or in Ray actors.  The only file that imports Ray.

Both pools perform the calls of `rpucluster.calls` with the same `Host`; they differ in where hosts are and in how
payloads get from one to the next.
"""

import os
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rpucluster.accelerator import Accelerator, Counts, Feed, Score, Steps
from rpucluster.arrays import array_module, gpu_report
from rpucluster.calls import Call, cut, takers
from rpucluster.cluster import Cluster
from rpucluster.errors import AcceleratorError, MissingPackageError, RpuclusterError
from rpucluster.exchange import Address, Exchange, PeerLostError
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Collective, Program, Send

STEPS_PER_CALL = 64
"""Steps that an actor performs for one Ray call: it costs a millisecond, and what it returns is noticed only then."""
PATIENCE_S = 600.0
"""How long a host waits for a message before it gives the run up."""


class Host:
    """Some accelerators in one process; Ray is applied to this class, it knows nothing of it.

    Performs the calls of its accelerators in their global order, which cannot block: of all calls that are not yet
    performed, the first has everything that it absorbs.
    """

    def __init__(self, host: int, host_of: Mapping[int, int], job: Job, cluster: Cluster, plan: Plan) -> None:
        # the bits of a product depend on how many threads share it
        self._limits = threadpool_limits(limits=1, user_api="blas")
        self._host, self._host_of = host, dict(host_of)
        self._accelerators = {
            number: Accelerator(number, job, cluster.accelerator, plan)
            for number, its_host in self._host_of.items()
            if its_host == host
        }
        self._calls: dict[str, tuple[Call, ...]] = {}
        self._readers: dict[str, dict[int, tuple[int, ...]]] = {}
        self._exchange: Exchange | None = None
        self._performed = 0

    def listen(self, token: bytes, one_node: bool) -> Address:
        """Open the socket at which the other hosts of the pool will call; on loopback where all are on one node."""
        interface = "127.0.0.1" if one_node else _import_ray().util.get_node_ip_address()
        self._exchange = Exchange(self._host, token, interface)
        return self._exchange.address

    def connect(self, addresses: Mapping[int, Address]) -> None:
        """Join the other hosts."""
        if self._exchange is not None:
            self._exchange.connect(addresses)

    def load(self, name: str, program: Program) -> None:
        """Take a program, once, before it is performed by its name."""
        calls = cut(program)
        self._calls[name] = calls
        self._readers[name] = {
            op.id: tuple(sorted({self._host_of[taker] for taker in takers(op)}))
            for op in program
            if isinstance(op, Collective | Send)
        }
        for accelerator in self._accelerators.values():
            accelerator.load(name, program, calls)

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Take a data set for all accelerators."""
        for accelerator in self._accelerators.values():
            accelerator.set_data(name, x, y)

    def perform(self, name: str, data: str, steps: Steps) -> None:
        """Perform this host's part of a program once for each step, in order."""
        try:
            feeds = {number: a.feed(data, steps) for number, a in self._accelerators.items()}
            calls = self._calls[name]
            if len(calls) == 1:  # one accelerator does everything, so it may do many steps at a time
                if calls[0].accelerator in feeds:
                    only = calls[0].accelerator
                    self._accelerators[only].perform(name, 0, feeds[only], 0, len(steps))
                return
            for index in range(len(steps)):
                self._perform(name, feeds, index)
        except BaseException:
            if self._exchange is not None:
                self._exchange.close()  # so that the others do not wait for what will not come
            raise

    def _perform(self, name: str, feeds: Mapping[int, Feed], step: int) -> None:
        given: dict[tuple[int, int], Any] = {}
        readers = self._readers[name]
        self._performed += 1
        for index, call in enumerate(self._calls[name]):
            accelerator = self._accelerators.get(call.accelerator)
            if accelerator is None:
                continue
            inbox = [self._take(given, op, giver) for op, giver in call.inbox]
            payloads = accelerator.perform(name, index, feeds[call.accelerator], step, step + 1, inbox)
            for op, payload in zip(call.emits, payloads, strict=True):
                for host in readers[op]:
                    if host == self._host:
                        given[(op, call.accelerator)] = payload
                    elif self._exchange is not None:
                        self._exchange.send(host, (self._performed, op, call.accelerator), payload)

    def _take(self, given: dict[tuple[int, int], Any], op: int, giver: int) -> Any:
        if self._exchange is None or self._host_of[giver] == self._host:
            return given[(op, giver)]
        key = (op, giver)
        if key not in given:  # two accelerators of this host may take the same message
            given[key] = self._exchange.receive((self._performed, op, giver), PATIENCE_S)
        return given[key]

    def take_score(self) -> Score:
        """The scores since the last time this was asked."""
        return sum((a.take_score() for a in self._accelerators.values()), Score())

    def weights(self, layer: int, rows: tuple[int, int]) -> dict[int, Any]:
        """`Accelerator.weights` by accelerator, of those that hold some of them."""
        held = {number: a.weights(layer, rows) for number, a in self._accelerators.items()}
        return {number: part for number, part in held.items() if part is not None}

    def counts(self) -> dict[int, Counts]:
        """`Accelerator.counts` by accelerator."""
        return {number: a.counts for number, a in self._accelerators.items()}

    def release(self) -> None:
        """Give the process its BLAS threads back."""
        self._limits.restore_original_limits()


class Pool(ABC):
    """The accelerators of a plan, and the programs they know by name."""

    def load(self, name: str, program: Program) -> None:
        """Give a program to every accelerator, once."""
        self._everywhere("load", name, program)

    @abstractmethod
    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Give a data set to every accelerator, once."""

    @abstractmethod
    def perform(self, name: str, data: str, steps: Steps) -> None:
        """Perform a program once for each step, in order; may return before the last ones are finished."""

    def take_score(self) -> Score:
        """The scores since the last time this was asked; waits for every step so far.

        Raises `AcceleratorError` if an accelerator was lost, or what an accelerator raised.
        """
        return sum(self._everywhere("take_score"), Score())

    def weights(self, layer: int, rows: tuple[int, int]) -> dict[int, Any]:
        """`Accelerator.weights` by accelerator, of those that hold some of these rows of the layer."""
        return {number: w for part in self._everywhere("weights", layer, rows) for number, w in part.items()}

    def counts(self) -> dict[int, Counts]:
        """`Accelerator.counts` by accelerator."""
        return {number: c for part in self._everywhere("counts") for number, c in part.items()}

    @abstractmethod
    def close(self) -> None:
        """Let the accelerators go."""

    @abstractmethod
    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        """Call a method of every host and wait for the results."""


class LocalPool(Pool):
    """All accelerators in this process."""

    def __init__(self, job: Job, cluster: Cluster, plan: Plan) -> None:
        self._host = Host(0, dict.fromkeys(plan.accelerators, 0), job, cluster, plan)

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        self._host.set_data(name, x, y)

    def perform(self, name: str, data: str, steps: Steps) -> None:
        self._host.perform(name, data, steps)

    def close(self) -> None:
        self._host.release()

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        return [getattr(self._host, method)(*args)]


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
        each = job.run.accelerators_per_worker
        host_of = {number: i // each for i, number in enumerate(plan.accelerators)}
        count = max(host_of.values()) + 1
        # state lives in actors, so a restarted one would be silently empty: never restart
        remote = self._ray.remote(max_restarts=0, max_task_retries=0, num_cpus=0)(Host)
        try:
            shared = [self._ray.put(value) for value in (host_of, job, cluster, plan)]
            gpus = _gpu_share(job, count)
            self._hosts = [remote.options(num_gpus=gpus).remote(host, *shared) for host in range(count)]
            if count > 1:
                one_node = len(self._ray.nodes()) == 1
                found = self._everywhere("listen", secrets.token_bytes(32), one_node)
                self._everywhere("connect", dict(enumerate(found)))
            else:
                self._everywhere("counts")  # waits until every array is there
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
        if self._started:
            self._ray.shutdown()

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        before, self._submitted = self._submitted, []
        self._results(before)
        return self._results([getattr(host, method).remote(*args) for host in self._hosts])

    def _results(self, refs: list[Any]) -> list[Any]:
        """Wait for all; of several failures, raise the one that explains the others."""
        results, failures = [], []
        for ref in refs:
            try:
                results.append(self._ray.get(ref))
            except self._ray.exceptions.RayTaskError as error:
                failures.append(_explained(error.cause))
            except self._ray.exceptions.RayActorError as error:
                reason = " ".join(str(error).split())
                failures.append(AcceleratorError(f"the process of an accelerator was lost: {reason[:300]}"))
        if failures:
            raise min(failures, key=lambda failure: isinstance(failure, PeerLostError)) from None
        return results


def _explained(cause: BaseException) -> RpuclusterError:
    if isinstance(cause, RpuclusterError):
        return cause
    return AcceleratorError(f"an accelerator failed: {type(cause).__name__}: {cause}")


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
