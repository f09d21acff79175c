"""Some accelerators in one process."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rpucluster.accelerator import Accelerator, Counters, Counts, Feed, Score, Steps
from rpucluster.calls import Call, cut, takers
from rpucluster.checkpoint import Piece, WrittenFile, write_pieces
from rpucluster.cluster import Cluster
from rpucluster.exchange import Address, Exchange
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Collective, Program, Send

COPIED_BYTES = 1 << 28
"""States of accelerators of one process that are copied before they are written, so that training goes on meanwhile."""
Written = list[WrittenFile]


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
        self._patience_s = min(job.run.step_deadline, 1e6)  # what a selector can wait
        self._performed = 0
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[Written] | None = None

    def listen(self, token: bytes, interface: str) -> Address:
        """Open the socket at which the other hosts of the pool will call."""
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
            given[key] = self._exchange.receive((self._performed, op, giver), self._patience_s)
        return given[key]

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
