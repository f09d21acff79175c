"""What a run tells while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands."""

    phase: Literal["start", "train", "epoch", "restart", "stopping", "done"]
    """`epoch` ends an epoch and carries its losses and, where it was tested, its accuracy; `restart` goes back to a
    checkpoint for the reason in `message`; `stopping` has been asked to stop and writes a checkpoint first."""
    epoch: int
    epochs: int
    step: int
    steps: int
    train_loss: float | None = None
    test_accuracy: float | None = None
    samples_per_s: float | None = None
    modelled_step_s: float | None = None
    left_wall_s: float | None = None
    """How long the rest will take at the pace of this epoch, without its evaluations."""
    message: str | None = None


Report = Callable[[Progress], None]
