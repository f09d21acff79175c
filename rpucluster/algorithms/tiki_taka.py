"""Tiki-Taka of Gokmen and Haensch (2020): gradients on one plane, transferred to another."""

from dataclasses import dataclass
from typing import ClassVar

from rpucluster.algorithms.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class TikiTaka(Transfer):
    """What is read of a column of A is fired onto C as a stochastic pulse train, without digital memory.

    Gokmen and Haensch, Front. Neurosci. 14:103 (2020).  A falls back to the symmetry point of its devices, where up
    and down steps are equal, so that it holds a mean of recent gradients only if that is its zero: choose devices
    with that property, or a reference that provides it.  Raises ValueError for a value out of range.
    """

    kind: ClassVar[str] = "tiki_taka"

    transfer_bit_length: int = 31
    """Pulse slots of a transfer."""
