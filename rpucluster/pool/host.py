"""Some accelerators in one process."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rpucluster.accelerator import Accelerator, Counters, Counts, Feed, Score, Spent, Steps
from rpucluster.calls import Call, cut, takers
from rpucluster.checkpoint import Piece, WrittenFile, write_pieces
from rpucluster.cluster import Cluster
from rpucluster.exchange import Address, Exchange, PeerLostError
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Collective, Program, Send

COPIED_BYTES = 1 << 28
"""States of accelerators of one process that are copied before they are written, so that training goes on meanwhile."""
Written = list[WrittenFile]


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """A call that this host performs, and who reads what it gives."""

    index: int
    """Among all calls of the program."""
    call: Call
    readers: tuple[tuple[int, bool, tuple[int, ...]], ...]
    """For each that it emits: the operation, whether this host reads it, and which others do."""


class Host:
    """Some accelerators in one process; Ray is applied to this class, it knows nothing of it.

    Performs the calls of its accelerators in their global order, which cannot block: of all calls that are not yet
    performed, the first has everything that it absorbs.
    """

    def __init__(self, host: int, host_of: Mapping[int, int], job: Job, cluster: Cluster, plan: Plan) -> None:
        # the bits of a product depend on how many threads share it
        self._limits = threadpool_limits(limits=1, user_api="blas")
        self._host, self._host_of, self._threads = host, dict(host_of), job.run.threads
        self._accelerators = {
            number: Accelerator(number, job, cluster.accelerator, plan)
            for number, its_host in self._host_of.items()
            if its_host == host
        }
        self._calls: dict[str, int] = {}
        self._turns: dict[str, list[_Turn]] = {}
        self._spent = Spent()
        self._exchange: Exchange | None = None
        self._patience_s = min(job.run.step_deadline, 1e6)  # what a selector can wait
        self._performed = 0
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[Written] | None = None

    def listen(self, token: bytes, interface: str, awake: bool) -> Address:
        """Open the socket at which the other hosts of the pool will call; `awake` as `Exchange` says."""
        self._exchange = Exchange(self._host, token, interface, awake=awake)
        return self._exchange.address

    def connect(self, addresses: Mapping[int, Address]) -> None:
        """Join the other hosts."""
        if self._exchange is not None:
            self._exchange.connect(addresses)

    def load(self, name: str, program: Program) -> None:
        """Take a program, once, before it is performed by its name."""
        calls = cut(program)
        self._calls[name] = len(calls)
        readers = {
            op.id: {self._host_of[taker] for taker in takers(op)} for op in program if isinstance(op, Collective | Send)
        }
        self._turns[name] = [
            _Turn(
                index=index,
                call=call,
                readers=tuple(
                    (op, self._host in readers[op], tuple(sorted(readers[op] - {self._host}))) for op in call.emits
                ),
            )
            for index, call in enumerate(calls)
            if call.accelerator in self._accelerators
        ]
        for accelerator in self._accelerators.values():
            accelerator.load(name, program, calls)

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Take a data set for all accelerators."""
        for accelerator in self._accelerators.values():
            accelerator.set_data(name, x, y)

    def perform(self, name: str, data: str, steps: Steps) -> None:
        """Perform this host's part of a program once for each step, in order.

        Raises `PeerLostError` where another host is gone, or steps before these have failed.
        """
        began = time.perf_counter()
        if self._exchange is not None and self._exchange.closed:
            raise PeerLostError(f"host {self._host} has closed its connections, since it could not go on before")
        try:
            feeds = {number: a.feed(data, steps) for number, a in self._accelerators.items()}
            if self._calls[name] == 1:  # one accelerator does everything, so it may do many steps at a time
                for turn in self._turns[name]:
                    self._call(name, turn, feeds, 0, len(steps), [])
            else:
                for index in range(len(steps)):
                    self._perform(name, feeds, index)
        except BaseException:
            if self._exchange is not None:
                self._exchange.close()  # so that the others do not wait for what will not come
            raise
        self._spent.performing_wall_s += time.perf_counter() - began
        self._spent.steps += len(steps)

    def _perform(self, name: str, feeds: Mapping[int, Feed], step: int) -> None:
        given: dict[tuple[int, int], Any] = {}
        self._performed += 1
        for turn in self._turns[name]:
            inbox = [self._take(given, op, giver) for op, giver in turn.call.inbox]
            payloads = self._call(name, turn, feeds, step, step + 1, inbox)
            for (op, here, others), payload in zip(turn.readers, payloads, strict=True):
                if here:
                    given[(op, turn.call.accelerator)] = payload
                if others and self._exchange is not None:
                    self._exchange.send(others, (self._performed, op, turn.call.accelerator), payload)

    def _call(
        self, name: str, turn: "_Turn", feeds: Mapping[int, Feed], first: int, last: int, inbox: list[Any]
    ) -> tuple[Any, ...]:
        accelerator = self._accelerators[turn.call.accelerator]
        began = time.perf_counter() - accelerator.carrying_wall_s
        payloads = accelerator.perform(name, turn.index, feeds[turn.call.accelerator], first, last, inbox)
        self._spent.math_wall_s += time.perf_counter() - accelerator.carrying_wall_s - began
        return payloads

    def _take(self, given: dict[tuple[int, int], Any], op: int, giver: int) -> Any:
        key = (op, giver)
        # two accelerators of this host may take the same message
        if key not in given and self._exchange is not None and self._host_of[giver] != self._host:
            given[key] = self._exchange.receive((self._performed, op, giver), self._patience_s)
        return given[key]

    def spent(self) -> Spent:
        """Where the time went in which this host performed steps, and what it sent."""
        if self._exchange is None:
            return self._spent
        exchange = self._exchange
        return replace(
            self._spent,
            waiting_wall_s=exchange.waited_s,
            messages=exchange.messages,
            message_bytes=exchange.message_bytes,
        )

    def take_score(self) -> dict[int, Score]:
        """The scores since the last time this was asked, by accelerator."""
        return {number: a.take_score() for number, a in self._accelerators.items()}

    def beats(self) -> int:
        """Pieces of work so far; may be asked while another thread performs."""
        return sum(a.beats for a in self._accelerators.values())

    # --- checkpoints ---

    def save(self, folder: Path, copied: int = COPIED_BYTES) -> dict[int, Counters]:
        """Write what the accelerators keep into a folder, a file each; returns their counters.

        States of up to `copied` bytes together are copied and written while training goes on; larger ones are written
        at once, band by band.
        """
        counters = {number: a.counters for number, a in self._accelerators.items()}
        if sum(a.state_bytes for a in self._accelerators.values()) <= copied:
            copies = {number: list(a.state()) for number, a in self._accelerators.items()}
            self._writing = self._writer.submit(_write, folder, copies)
        else:
            self._writing = Future()
            self._writing.set_result(_write(folder, {number: a.state() for number, a in self._accelerators.items()}))
        return counters

    def is_saving(self) -> bool:
        """Whether what `save` has begun is still being written."""
        return self._writing is not None and not self._writing.done()

    def saved(self) -> Written:
        """The files that `save` has led to, once they are written.  Raises `RunError` where the system refused."""
        return [] if self._writing is None else self._writing.result()

    def restore(self, files: Mapping[Path, WrittenFile], counters: Mapping[int, Counters]) -> None:
        """Continue from the files of a checkpoint, and from these counters."""
        for number, accelerator in self._accelerators.items():
            accelerator.restore(files)
            if number in counters:
                accelerator.set_counters(counters[number])

    def take_weights(self, files: Mapping[Path, WrittenFile], replicas: int) -> None:
        """Start from the weights in the files of a checkpoint of so many replicas."""
        for accelerator in self._accelerators.values():
            accelerator.take_weights(files, replicas)

    def weights(self, layer: int, rows: tuple[int, int]) -> dict[int, Any]:
        """`Accelerator.weights` by accelerator, of those that hold some of them."""
        held = {number: a.weights(layer, rows) for number, a in self._accelerators.items()}
        return {number: part for number, part in held.items() if part is not None}

    def counts(self) -> dict[int, Counts]:
        """`Accelerator.counts` by accelerator."""
        return {number: a.counts for number, a in self._accelerators.items()}

    def release(self) -> None:
        """Give the process its BLAS threads back, once what is being written is written."""
        self._writer.shutdown()
        self._limits.restore_original_limits()


def _write(folder: Path, pieces: Mapping[int, Iterable[Piece]]) -> Written:
    return [write_pieces(folder / f"accelerator-{number:05d}.parquet", some) for number, some in pieces.items()]
