"""Products of a tile with a batch of vectors on the CPU, in an order of additions that the tile's shape alone decides.

Forward, a row is cut into blocks of 1024 columns; within a block, column j is added to lane j mod 8, then the lanes
are added, then the blocks.  Backward, rows are added one after the other.  Each step is a fused multiply-add.  So
every sample gets the same bits in a batch of any size, on any thread, whichever of the loops computes it.

The loops keep many sums in registers, so that a load serves several multiply-adds: sixteen numbers at a time where
registers hold as many, four rows, or two vectors of columns, by eight samples; for what is left, and on other
processors, eight numbers at a time, four by three.  Forward, sixteen numbers are the eight lanes of two samples.
Blocks are as large as the first- and second-level caches hold.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_random import compiled, inlined, types
from rpucluster.kernels.cpu_vector import HAS_SIXTEEN

PANEL = 32
"""Columns of a backward panel: four vectors."""
_I, _F4 = types.int64, types.float32[::1]
SENT = _F4, _I, _F4, _I, _I, _F4
"""What products of both directions take last: vectors sent and results with the distances of their samples, how many
there are, scratch."""
_0 = np.int64(0)


@compiled
def padded_lines(lines: int) -> int:
    """Distance of samples in the arrays given to products: whole panels, and not a multiple of a cache's period."""
    return (lines + PANEL - 1) // PANEL * PANEL + 16


@compiled
def padded_samples(samples: int) -> int:
    """Samples for which the arrays given to products need room."""
    return samples + 2


@inlined
def eights_of(samples: int) -> Any:
    """Samples that pass eight at a time."""
    return samples & ~7 if HAS_SIXTEEN else _0
