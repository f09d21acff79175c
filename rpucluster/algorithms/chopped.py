"""Chopped TTv2 of Rasch et al. (2024): the signs of columns change, so that offsets of the fast plane average out."""

from dataclasses import dataclass
from typing import ClassVar

from rpucluster.algorithms.base import Shard, require_count, require_flag
from rpucluster.algorithms.tiki_taka_v2 import TikiTakaV2
from rpucluster.kernels import TransferRule


@dataclass(frozen=True, kw_only=True)
class ChoppedTikiTakaV2(TikiTakaV2):
    """Each column of A has a sign c: its x is fired as c x, and what is read of it counts as c A.

    A column changes its sign after some reads.  What A holds for other reasons than gradients, such as a symmetry
    point that is not 0, then adds to the buffer with changing signs.  Rasch, Carta, Fagbohungbe and Gokmen, Nature
    Communications 15:7133 (2024).  Raises ValueError for a value out of range.
    """

    kind: ClassVar[str] = "chopped_tiki_taka_v2"

    momentum: float = 0.0
    """Share of H that stays after a pulse; below 1.  Read as aihwkit's default."""
    chop_every: int = 10
    """Reads of a column between changes of its sign: each time, or on average.  aihwkit: 1 / in_chop_prob."""
    chop_random: bool = True
    """Whether the sign changes with probability 1 / chop_every at each read.  aihwkit: in_chop_random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("chop_every", self.chop_every)
        require_flag("chop_random", self.chop_random)

    def rule(self, shard: Shard) -> TransferRule:
        """How columns go, under changing signs."""
        return super().rule(shard)._replace(chop_every=self.chop_every, chop_random=self.chop_random)
