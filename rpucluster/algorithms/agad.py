"""AGAD, analog gradient accumulation with dynamic reference, of Rasch et al. (2024)."""

from dataclasses import dataclass
from typing import ClassVar

from rpucluster.algorithms.base import Memory, Shard, require_positive
from rpucluster.algorithms.chopped import ChoppedTikiTakaV2
from rpucluster.kernels import TransferRule


@dataclass(frozen=True, kw_only=True)
class Agad(ChoppedTikiTakaV2):
    """As chopped TTv2, but what is read counts from where the plane stood at the last change of sign.

    For each cell a running mean P of the readings y under the present sign, P += min(1, tail_weight / chop_every)
    (y - P), becomes the reference R when the sign changes, and H += rate c (y - R).  So the fast device needs neither a
    known symmetry point nor a reference device.  Rasch et al., Nature Communications 15:7133 (2024); tail_weight as
    aihwkit's DynamicTransferCompound is documented.  Raises ValueError for a value out of range.
    """

    kind: ClassVar[str] = "agad"

    chop_random: bool = False
    """Whether the sign changes with probability 1 / chop_every at each read.  aihwkit: in_chop_random."""
    tail_weight: float = 5.0
    """How much the last readings of a period weigh in its mean: the mean remembers about chop_every / tail_weight
    readings.  aihwkit: tail_weightening."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("tail_weight", self.tail_weight)

    @property
    def memory(self) -> Memory:
        """Running mean and reference besides."""
        planes, numbers = super().memory
        return Memory(planes, numbers + 2)

    def rule(self, shard: Shard) -> TransferRule:
        """How columns go, counted from their dynamic reference."""
        memory = min(1.0, self.tail_weight / self.chop_every)
        return super().rule(shard)._replace(dynamic_reference=True, memory=memory)
