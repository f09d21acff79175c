"""Where trials run: each in a process of its own on this machine, or each as a Ray task; one core each.

Both take trials from an iterator whenever a place is free and tell what became of each.  A process that dies takes
its own trial with it and no other.
"""

import multiprocessing
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from rpucluster.errors import RpuclusterError
from rpucluster.experiments.records import Record
from rpucluster.experiments.trials import Trial, perform
from rpucluster.pool import ray_session


@dataclass(frozen=True, kw_only=True)
class Started:
    """A trial has begun."""

    trial: Trial


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """A trial has finished so many epochs."""

    trial: Trial
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A trial has ended well."""

    trial: Trial
    record: Record


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A trial has ended without a result."""

    trial: Trial
    reason: str


Event = Started | Advanced | Finished | Failed


def in_processes(trials: Iterator[Trial], jobs: int) -> Generator[Event, None, None]:
    """Run trials in up to `jobs` processes at once; ending the iteration early ends the processes."""
    context = multiprocessing.get_context("spawn")  # a forked process would inherit the locks of this one's threads
    running: dict[Connection, tuple[Trial, Any]] = {}
    with _interrupts() as heard:
        try:
            while True:
                while len(running) < jobs and (trial := next(trials, None)) is not None:
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_child, args=(trial, there), daemon=True)
                    with _undisturbed():
                        process.start()
                        there.close()  # so that the end of the process ends the pipe
                        running[here] = (trial, process)
                    yield Started(trial=trial)
                if not running:
                    return
                for pipe in wait(list(running)):
                    if heard:
                        raise KeyboardInterrupt
                    assert isinstance(pipe, Connection)
                    trial, process = running[pipe]
                    event = _heard(pipe, trial, process)
                    if not isinstance(event, Advanced):
                        del running[pipe]
                        pipe.close()
                        process.join()
                    yield event
        finally:
            for pipe, (_, process) in running.items():
                process.kill()
                process.join()
                pipe.close()


def with_ray(trials: Iterator[Trial], jobs: int, address: str | None) -> Generator[Event, None, None]:
    """Run trials as Ray tasks, up to `jobs` at once, on the cluster at `address` or one started here.

    Raises `MissingPackageError` without Ray and `AcceleratorError` where it cannot be reached or started.
    """
    with ray_session(address) as ray:
        # a lost task is told and left to the next call, which knows what is done
        task = ray.remote(num_cpus=1, max_retries=0)(perform)
        running: dict[Any, Trial] = {}
        try:
            while True:
                while len(running) < jobs and (trial := next(trials, None)) is not None:
                    running[task.remote(trial)] = trial
                    yield Started(trial=trial)
                if not running:
                    return
                for ref in ray.wait(list(running), num_returns=1)[0]:
                    trial = running.pop(ref)
                    yield _outcome(ray, ref, trial)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Interrupts since the beginning.  They are raised as ever, but Python drops one that falls into a finaliser."""
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def hear(number: int, frame: Any) -> None:
        heard.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Puts an interrupt off to the end, and lets processes that are started inside never hear of any.

    An interrupt is the parent's to handle; a process whose start it cuts short would end in a traceback.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in the background of a script; it is inherited
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def _child(trial: Trial, pipe: Connection) -> None:
    """The whole life of a process: one trial."""
    try:
        pipe.send(perform(trial, pipe.send))
    except RpuclusterError as error:
        pipe.send(error)
    except BrokenPipeError:
        pass  # the parent has gone
    except Exception as error:
        pipe.send(RpuclusterError(f"{type(error).__name__}: {error}"))


def _heard(pipe: Connection, trial: Trial, process: Any) -> Event:
    try:
        message = pipe.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return Failed(trial=trial, reason=f"its process {how}")
    match message:
        case int():
            return Advanced(trial=trial, epochs=message)
        case Record():
            return Finished(trial=trial, record=message)
        case _:
            return Failed(trial=trial, reason=str(message))


def _outcome(ray: Any, ref: Any, trial: Trial) -> Event:
    try:
        return Finished(trial=trial, record=ray.get(ref))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        known = isinstance(cause, RpuclusterError)
        return Failed(trial=trial, reason=str(cause) if known else f"{type(cause).__name__}: {cause}")
    except ray.exceptions.RayError as error:
        return Failed(trial=trial, reason=f"its process was lost: {' '.join(str(error).split())[:300]}")
