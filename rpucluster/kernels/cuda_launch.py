"""What launches of the GPU kernels have in common: the list that they form, and what all of them share.

An operation is a list of launches whose arguments never change: what changes from step to step lies in device memory,
in the `Shared` numbers.  So a step is one list, which is replayed, by a CUDA graph where there is CUDA.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from rpucluster.errors import NumericalError
from rpucluster.kernels.base import input_message, overflow_message

CLOCK_SAMPLE, CLOCK_PLACE, CLOCK_X, CLOCK_Y, CLOCK_INDICES, CLOCK_BATCH, CLOCK_FEATURES = range(7)
"""Places in the clock: index of the step's first sample, its place among all indices; addresses of the data set's
inputs, of its labels and of the indices; samples of a step, features of a sample."""
_CLOCK: Final = 8
REPEATS, SLOTS, COINCIDENCES, HITS = range(4)
"""Places in the counts."""
EXPECTED, LOSS = range(2)
"""Places in the sums."""
_WORDS: Final = _CLOCK + 4 + 2 + 2

OUT_OF_RANGE, NOT_FINITE = 1, 2
"""Lower two bits of a status, as `rpucluster.kernels.cpu_read` names them; the row of the tape stands above."""

THREADS: Final = 128
"""Of blocks whose threads work alone."""
WIDE: Final = 256
"""Of blocks that work together."""
_MOST_BLOCKS: Final = 65_535  # in the second direction of a grid

Launcher = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]
"""Called with grid, block and arguments, as CuPy's kernels are."""
Functions = Callable[[str], Launcher]
"""Gives the launcher of a kernel by its name."""
Take = Callable[[Any, str], Any]
"""Makes an array, not filled, from its shape and type."""


class Launch(NamedTuple):
    """One launch of a kernel."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]


class Shared(NamedTuple):
    """Numbers in device memory, all parts of one int64 array, so that one copy writes or reads them."""

    whole: Any
    clock: Any
    """int64: which samples the step works on."""
    counts: Any
    """uint64: what was counted since they were set to 0."""
    sums: Any
    """float64, likewise."""
    status: Any
    """int32: 0, or the first problem: how it ended, and four times the row."""
    rate: Any
    """float32: the learning rate."""


class Place(NamedTuple):
    """Where a launch stands."""

    shared: Shared
    sample: Any
    """int64: offset of its first sample from the clock's."""
    mark: Any
    """int32: four times the row of the tape."""


def shared(xp: Any, rate: float = 0.0) -> Shared:
    """Shared numbers, all 0 but the learning rate."""
    host = np.zeros(_WORDS, np.int64)
    parts_of(host).rate[:] = rate
    return parts_of(xp.asarray(host))


def parts_of(whole: Any) -> Shared:
    """The parts of the one array."""
    sums = _CLOCK + 4
    return Shared(
        whole=whole,
        clock=whole[:_CLOCK],
        counts=whole[_CLOCK:sums].view("u8"),
        sums=whole[sums : sums + 2].view("f8"),
        status=whole[sums + 2 : sums + 3].view("i4"),
        rate=whole[sums + 3 :].view("f4"),
    )


def alone(xp: Any, first_sample: int, rate: float = 0.0) -> Place:
    """The place of an operation that belongs to no tape."""
    return Place(shared(xp, rate), np.int64(first_sample), np.int32(0))


def perform(functions: Functions, launches: Iterable[Launch]) -> None:
    """Launch everything, in order."""
    for launch in launches:
        functions(launch.name)(launch.grid, launch.block, launch.arguments)


def check(status: Any) -> None:
    """Raise `NumericalError` where an operation that belongs to no tape met a problem."""
    end = int(status[0]) & 3
    if end:
        raise NumericalError(input_message() if end == NOT_FINITE else overflow_message())


def parts(count: int, size: int) -> int:
    """Blocks of so many threads for a number of lines or cells; kernels take several each where there are too many."""
    return min(-(-count // size), _MOST_BLOCKS)


def spread(name: str, threads: int, *arguments: Any) -> list[Launch]:
    """One launch of so many threads that work alone; none without work."""
    return [Launch(name, (-(-threads // THREADS),), (THREADS,), arguments)] if threads else []


def stride(array: Any) -> Any:
    """Elements from one vector of (vectors, width) to the next."""
    return np.int64(array.strides[0] // array.itemsize)


def shape(array: Any) -> tuple[Any, Any]:
    """Vectors and width as a kernel takes them."""
    return np.int32(array.shape[0]), np.int32(array.shape[1])
