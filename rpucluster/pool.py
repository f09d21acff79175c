"""Where accelerators live: in this process, or in Ray actors.  The only file that imports Ray.

Both pools carry payloads from call to call in the order of `rpucluster.calls`, so they perform the same
operations on the same values.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rpucluster.arrays import array_module, gpu_report
from rpucluster.accelerator import Accelerator, Counts, Score, Step
from rpucluster.calls import Call, cut
from rpucluster.cluster import Cluster
from rpucluster.errors import AcceleratorError, MissingPackageError, RpuclusterError
from rpucluster.job import Job
from rpucluster.partitioner import Plan
from rpucluster.program import Program

STEPS_IN_FLIGHT = 8
"""Steps that a Ray pool submits before it waits for the oldest: enough to keep every actor's queue filled."""
STEPS_PER_CALL = 64
"""Steps that go into one call where no accelerator waits for another."""


class Host:
    """Some accelerators in one process, by number; Ray is applied to this class, it knows nothing of it."""

    def __init__(self, numbers: Sequence[int], job: Job, cluster: Cluster, plan: Plan) -> None:
        # the bits of a product depend on how many threads share it
        self._limits = threadpool_limits(limits=1, user_api="blas")
        self._accelerators = {n: Accelerator(n, job, cluster.accelerator, plan) for n in numbers}

    def load(self, name: str, program: Program, calls: tuple[Call, ...]) -> None:
        for accelerator in self._accelerators.values():
            accelerator.load(name, program, calls)

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        for accelerator in self._accelerators.values():
            accelerator.set_data(name, x, y)

    def perform(self, number: int, name: str, call: int, data: str, steps: Sequence[Step], *inbox: Any) -> Any:
        """What the call gives: nothing, one payload, or a tuple of them (as Ray's ``num_returns`` wants it)."""
        given = self._accelerators[number].perform(name, call, data, steps, inbox)
        return given if len(given) > 1 else given[0] if given else None

    def take_score(self) -> Score:
        return sum((a.take_score() for a in self._accelerators.values()), Score())

    def weights(self) -> dict[int, dict[int, Any]]:
        return {number: a.weights() for number, a in self._accelerators.items()}

    def counts(self) -> dict[int, Counts]:
        return {number: a.counts for number, a in self._accelerators.items()}

    def release(self) -> None:
        self._limits.restore_original_limits()


class Pool(ABC):
    """The accelerators of a plan, and the programs they know by name."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Call, ...]] = {}

    def load(self, name: str, program: Program) -> None:
        """Give a program to every accelerator, once."""
        self._calls[name] = cut(program)
        self._everywhere("load", name, program, self._calls[name])

    @abstractmethod
    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Give a data set to every accelerator, once."""

    @abstractmethod
    def perform(self, name: str, data: str, steps: Sequence[Step]) -> None:
        """Perform a program once for each step, in order.  May return before the last ones are finished."""

    def take_score(self) -> Score:
        """The scores since the last time this was asked; waits for every step so far.

        Raises `AcceleratorError` if an accelerator was lost, or what an accelerator raised.
        """
        return sum(self._everywhere("take_score"), Score())

    def weights(self) -> dict[int, dict[int, Any]]:
        """`Accelerator.weights` by accelerator."""
        return {number: w for part in self._everywhere("weights") for number, w in part.items()}

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
        super().__init__()
        self._host = Host(plan.accelerators, job, cluster, plan)

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        self._host.set_data(name, x, y)

    def perform(self, name: str, data: str, steps: Sequence[Step]) -> None:
        calls = self._calls[name]
        if _independent(calls):
            for index, call in enumerate(calls):
                self._host.perform(call.accelerator, name, index, data, steps)
            return
        for step in steps:
            given: dict[tuple[int, int], Any] = {}
            for index, call in enumerate(calls):
                inbox = [given[source] for source in call.inbox]
                payloads = self._host.perform(call.accelerator, name, index, data, (step,), *inbox)
                _keep(given, call, payloads)

    def close(self) -> None:
        self._host.release()

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        return [getattr(self._host, method)(*args)]


class RayPool(Pool):
    """Accelerators in Ray actors, ``[run] accelerators_per_worker`` of them in each.

    Raises `MissingPackageError` where Ray is not installed and `AcceleratorError` where no actor can be started.
    """

    def __init__(self, job: Job, cluster: Cluster, plan: Plan, *, address: str | None = None) -> None:
        super().__init__()
        self._ray = _import_ray()
        self._started = _start_ray(self._ray, address)
        self._in_flight: list[list[Any]] = []
        each = job.run.accelerators_per_worker
        groups = [plan.accelerators[i : i + each] for i in range(0, len(plan.accelerators), each)]
        # state lives in actors, so a restarted one would be silently empty: never restart
        remote = self._ray.remote(max_restarts=0, max_task_retries=0, num_cpus=0)(Host)
        try:
            spec = [self._ray.put(value) for value in (job, cluster, plan)]
            gpus = _gpu_share(job, len(groups))
            self._hosts = [remote.options(num_gpus=gpus).remote(group, *spec) for group in groups]
            self._host_of = {number: host for group, host in zip(groups, self._hosts, strict=True) for number in group}
            self._everywhere("counts")  # waits until every array is there
        except BaseException:
            self.close()
            raise

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        shared = self._ray.put(x), self._ray.put(y)  # one copy in shared memory for all actors of a node
        self._everywhere("set_data", name, *shared)

    def perform(self, name: str, data: str, steps: Sequence[Step]) -> None:
        calls = self._calls[name]
        if _independent(calls):
            for start in range(0, len(steps), STEPS_PER_CALL):
                self._submit(name, calls, data, steps[start : start + STEPS_PER_CALL])
        else:
            for step in steps:
                self._submit(name, calls, data, (step,))

    def close(self) -> None:
        for host in getattr(self, "_hosts", ()):
            self._ray.kill(host)
        if self._started:
            self._ray.shutdown()

    def _submit(self, name: str, calls: tuple[Call, ...], data: str, steps: Sequence[Step]) -> None:
        given: dict[tuple[int, int], Any] = {}
        last: dict[int, Any] = {}
        for index, call in enumerate(calls):
            method = self._host_of[call.accelerator].perform
            inbox = [given[source] for source in call.inbox]
            refs = method.options(num_returns=max(1, len(call.emits))).remote(
                call.accelerator, name, index, data, steps, *inbox
            )
            _keep(given, call, refs)
            last[call.accelerator] = refs[-1] if isinstance(refs, list) else refs
        self._in_flight.append(list(last.values()))
        if len(self._in_flight) > STEPS_IN_FLIGHT:
            self._wait(self._in_flight.pop(0))

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        while self._in_flight:
            self._wait(self._in_flight.pop(0))
        return list(self._wait([getattr(host, method).remote(*args) for host in self._hosts]))

    def _wait(self, refs: list[Any]) -> Any:
        try:
            return self._ray.get(refs)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, RpuclusterError):
                raise cause from None
            raise AcceleratorError(f"an accelerator failed: {type(cause).__name__}: {cause}") from error
        except self._ray.exceptions.RayActorError as error:
            reason = " ".join(str(error).split("\n")[0].split())
            raise AcceleratorError(
                f"the process of an accelerator was lost ({reason}); nothing of this step is kept, run again"
            ) from None


def _independent(calls: tuple[Call, ...]) -> bool:
    """Whether no accelerator waits for another within a step, so that steps can be given many at a time."""
    return not any(call.inbox or call.emits for call in calls)


def _keep(given: dict[tuple[int, int], Any], call: Call, payloads: Any) -> None:
    """File what a call gave: one payload comes as itself, several as a sequence."""
    several = payloads if len(call.emits) > 1 else (payloads,)
    given.update({(op, call.accelerator): payload for op, payload in zip(call.emits, several, strict=False)})


def _gpu_share(job: Job, hosts: int) -> float:
    """The part of a GPU that each actor asks Ray for; none where the arrays are NumPy's."""
    if array_module(job.run.arrays) is np:
        return 0
    return min(1.0, len(gpu_report()) / hosts)


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
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"connect to the Ray cluster at {address}" if address else "start Ray on this machine"
        raise AcceleratorError(f"could not {where}: {' '.join(str(error).split())}") from None
    return True
