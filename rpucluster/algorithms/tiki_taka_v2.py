"""The second version of Tiki-Taka, Gokmen (2021): a digital buffer between the two planes."""

from dataclasses import dataclass
from typing import ClassVar

from rpucluster.algorithms.base import Memory, Shard, require_flag, require_positive, require_share
from rpucluster.algorithms.transfer import Transfer
from rpucluster.kernels import TransferRule


@dataclass(frozen=True, kw_only=True)
class TikiTakaV2(Transfer):
    """What is read of a column of A is added to a digital buffer H; where |H| exceeds a threshold, C gets a pulse.

    H += rate A and n = trunc(H / threshold) pulses, after which H keeps ``momentum`` H, or H - (1 - momentum) n
    threshold without ``forget_buffer``.  Gokmen, Front. Artif. Intell. 4:699148 (2021); as aihwkit's
    BufferedTransferCompound is documented.  Raises ValueError for a value out of range.
    """

    kind: ClassVar[str] = "tiki_taka_v2"

    threshold: float = 1.0
    """Contents of H that a pulse stands for, in steps of the slow device.  aihwkit: thres_scale."""
    momentum: float = 0.1
    """Share of H that stays after a pulse; below 1.  Read as aihwkit's default."""
    forget_buffer: bool = True
    """Whether a pulse empties H but for the momentum, or takes only what it carries, which loses nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("threshold", self.threshold)
        require_share("momentum", self.momentum)
        require_flag("forget_buffer", self.forget_buffer)

    @property
    def memory(self) -> Memory:
        """The buffer besides."""
        planes, numbers = super().memory
        return Memory(planes, numbers + 1)

    def rule(self, shard: Shard) -> TransferRule:
        """How columns go, through the buffer."""
        return (
            super()
            .rule(shard)
            ._replace(
                buffered=True,
                threshold=self.threshold * shard.device.granularity,
                momentum=self.momentum,
                forget=self.forget_buffer,
            )
        )
