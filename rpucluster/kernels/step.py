"""The rows of a tape: what an accelerator does in a step, as int64 numbers that a compiled interpreter reads.

Values live in two flat arenas, float32 and int64.  A row works on `ROWS` vectors; each of its windows A, B, C is
``(START, STRIDE, FIRST)``: vector b of it is ``arena[START + b * STRIDE + FIRST :][: WIDTH]``.  Reads and updates work
on whole vectors, so there FIRST is 0 and the stride is the number of lines of the shard.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

CODE, OPERATION, SLOT, ROWS, WIDTH, SAMPLE, MODE = range(7)
"""Columns of a row: its code, the operation of the program that it belongs to, the shard that it works on, vectors,
elements of each, offset of the first vector in the global batch, and what the codes below say."""
A, B, C = 7, 10, 13
"""First column of each window."""
START, STRIDE, FIRST = range(3)
TAPE_COLUMNS: Final = 16

LOAD: Final = 0
"""Inputs B from the data set, from feature `MODE` on."""
COPY: Final = 1
"""B = A."""
READ: Final = 2
"""Sums B (int64) of the lines A; `MODE` is the direction and the stream, of `FORWARD`, `BACKWARD`, `EVALUATE`."""
ACTIVATE: Final = 3
"""B = activation of the sums A (int64) and the digital bias."""
SCORE: Final = 4
"""Loss and hits of the logits A; B = the error behind them.  `MODE` is 1 where this accelerator reports them."""
ERROR: Final = 5
"""B = the sums A (int64)."""
DERIVE: Final = 6
"""C = the error B behind an activation A, brought before it."""
UPDATE: Final = 7
"""Change the weights by the lines A (columns) and B (rows)."""
BIAS: Final = 8
"""Change the digital bias by the errors A."""

ACCUMULATE: Final = 9
"""C (rows) += the outer products of the lines A (columns) and B (rows), sample by sample; from 0 where `MODE` is 1."""
ACCUMULATE_BIAS: Final = 10
"""B (one vector) += the errors A, sample by sample; from 0 where `MODE` is 1."""
WRITE_ROWS: Final = 11
"""Change the weights by the dense gradient A, row by row."""
LEFT_TO_ARRAYS: Final = (ACCUMULATE, ACCUMULATE_BIAS, WRITE_ROWS)
"""Codes that compiled code does not know."""

FORWARD, BACKWARD, EVALUATE = range(3)
"""Modes of a read: which lines are driven, and which stream makes its noise."""

CELL, CELL_STOP, LANE, LANE_STOP, TILE, TILE_STOP, LINES_OUT, LINES_IN, BIAS_START, FUNCTION, PULSED = range(11)
"""Columns of the table of shards: the shard's part of all weights, of all stored lanes and of the tile table, its rows
and columns, its first digital bias or -1, the code of its activation function, 1 where weights change by pulses."""
SHARD_COLUMNS: Final = 11

PASSES, REPEATS, SLOTS, COINCIDENCES, CYCLES, HITS, SCORED, LINE_PASSES, LINE_SLOTS, LINE_PULSES, COUNTS = range(11)
"""Counts of an accelerator, int64, and how many there are."""
EXPECTED, LOSS = range(2)
"""Sums of an accelerator, float64."""


class Memory(NamedTuple):
    """The arrays of an accelerator that a step reads and changes.

    Those of cells, tiles and biases lie on one device; the table of shards, packed rules, counts and sums on the host.
    """

    shards: Any
    """int64 (shards, SHARD_COLUMNS)."""
    weights: Any
    """float32, all cells of all shards."""
    lanes: Any
    """int16, stored lanes of the cells of all shards."""
    table: Any
    """Tile tables of all shards one after the other; offsets count from the shard's first cell."""
    update_keys: Any
    """uint32 (tiles, keys, 2)."""
    read_keys: Any
    """uint32 (3, tiles, 2), by mode."""
    update_ints: Any
    """int64 (shards, numbers of an update rule)."""
    update_floats: Any
    """float32, likewise."""
    read_ints: Any
    """int64 (shards, 2, numbers of a read rule): forward, backward."""
    read_floats: Any
    """float32, likewise."""
    averages: Any
    """float32 (2, tiles): running averages of noise management, forward and backward."""
    biases: Any
    """float32, digital biases of all shards."""
    counts: Any
    """int64 (COUNTS,)."""
    sums: Any
    """float64 (2,)."""


class Feed(NamedTuple):
    """What several performances of a tape need besides the weights."""

    x: Any
    """The data set, float32 (samples, features), not writeable."""
    y: Any
    """Its labels, int64 (samples,), not writeable."""
    indices: Any
    """Rows of the data set, int64 (steps, global batch)."""
    first_sample: Any
    """Index of the first sample of the first step since the start of training (or of evaluation)."""
    learning_rate: Any
    """float32."""


Perform = Callable[[Feed, int, int], tuple[int, int]]
"""Performs some rows of a tape for steps of a feed, `(feed, first, last)`; returns how it ended, and at which row."""
Prepare = Callable[[Any, int, int, Memory, Any, Any, Any], Perform]
"""`(tape, start, stop, memory, floats, fixed, done)` to what performs rows start to stop.  `done` int64 counts, by
operation of the program, the vectors that went through tiles."""


def constant(array: Any) -> Any:
    """The array as one that cannot be written to, the form in which compiled code expects those of a feed."""
    if isinstance(array, np.ndarray):
        array = array.view()
        array.flags.writeable = False
    return array
