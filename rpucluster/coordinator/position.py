"""Where training stands: what a checkpoint holds besides what accelerators keep."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from rpucluster.accelerator import Score
from rpucluster.modelled import Modelled
from rpucluster.run_summary import WallTimes
from rpucluster.runlog import EpochRow


@dataclass(frozen=True, kw_only=True)
class ModelledBase:
    """What was modelled before the present plan took over."""

    steps: int = 0
    averages: int = 0
    modelled_s: float = 0.0
    modelled_energy_J: float = 0.0

    def totals(self, modelled: Modelled, steps: int, averages: int) -> tuple[float, float]:
        """Modelled seconds and joules since the start, after so many steps and averagings since then."""
        own = steps - self.steps, averages - self.averages
        return self.modelled_s + modelled.seconds(*own), self.modelled_energy_J + modelled.joules(*own)


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far training has come."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps of the next epoch that are done."""
    steps: int = 0
    """Since the start; `samples` likewise, over all replicas."""
    samples: int = 0
    score: Score = field(default_factory=Score)
    """Of the next epoch, as far as it was taken from the accelerators."""
    rows: tuple[EpochRow, ...] = ()
    evaluations: int = 0
    averages: int = 0
    base: ModelledBase = field(default_factory=ModelledBase)
    times: WallTimes = field(default_factory=WallTimes)
    wall_s: float = 0.0
    """Of all processes that have worked on the run."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values, from which `from_dict` makes an equal one."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Position":
        """Read it back.  Raises ValueError for other content."""
        return TypeAdapter(cls).validate_python(content)

    def under(self, modelled: Modelled, before: Modelled | None) -> "Position":
        """The same where another plan or machine than `before` models what follows."""
        if before is None:
            return self
        seconds, joules = self.base.totals(before, self.steps, self.averages)
        base = ModelledBase(steps=self.steps, averages=self.averages, modelled_s=seconds, modelled_energy_J=joules)
        same = (modelled.seconds(1, 1), modelled.joules(1, 1)) == (before.seconds(1, 1), before.joules(1, 1))
        return self if same else replace(self, base=base)
