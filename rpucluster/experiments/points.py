"""What an experiment of the paper consists of: points, each a setting to train with, in panels of a figure."""

from dataclasses import dataclass
from typing import Literal

from rpucluster.experiments.confidence import NO_REFERENCE, Reference

Scale = Literal["log", "linear", "none"]

FIRST, SECOND, CONTROL, NEAR, NEXT, FAR = range(6)
"""Priorities, in the order of their runs: settings chosen on validation images, the criterion on the test set, what
everything is compared with, the points nearest an expected threshold, the next, and the rest."""

PAPER_EPOCHS = 30
"""S/C."""
PENALTY = 0.003
"""The paper accepts 0.3 % more error than floating point, absolute (S)."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting to train with, several times with different seeds."""

    label: str
    sets: tuple[str, ...]
    """``section.key=value`` for the base job and cluster, applied in order."""
    priority: int
    value: float | None = None
    """Of the panel's parameter, where it has one."""
    recalled: bool = False
    """Whether this swept value is (weakly) recalled from the paper's curves; the others stand between."""
    reference: Reference = NO_REFERENCE
    """What its test error is compared with; a number is a fraction of 1."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Points that are drawn together, and what they are compared with."""

    figure: str
    name: str
    """Short: ``"A"``."""
    title: str
    control: Point
    """Floating point under the same conditions; penalties are against its mean."""
    points: tuple[Point, ...]
    """Of a swept parameter from the mildest to the most severe."""
    parameter: str = ""
    """The axis, with its unit; empty without a swept parameter."""
    scale: Scale = "none"
    """How values between points are interpolated and drawn."""
    percent: bool = False
    """Whether values of the parameter are shown in percent."""
    threshold: Reference | None = None
    """The recalled value at which the penalty reaches 0.3 %."""
    threshold_sign: Literal["<=", ">="] = "<="
    """Which side of the threshold is good."""
    first_seed: int = 1
    """Runs have this seed and the following."""
    note: str = ""
    """What the paper leaves open here and what is done."""

    @property
    def id(self) -> str:
        """Names the panel among all figures: ``"fig3.A"``."""
        return f"{self.figure}.{self.name}"

    @property
    def swept(self) -> bool:
        """Whether a threshold can be interpolated."""
        return self.scale != "none"
