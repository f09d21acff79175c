"""What a user asks to be reproduced, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rpucluster.errors import ConfigError
from rpucluster.experiments.catalogue import FIGURES
from rpucluster.experiments.settings import BASE_CLUSTER

SYSTEM = "table2"
ALL = (*FIGURES, SYSTEM)
"""Everything that can be reproduced."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to reproduce, and how."""

    figures: tuple[str, ...]
    out: Path
    data: str | None = None
    """The directory of MNIST's IDX files; None is that of the base job."""
    quick: bool = False
    only: tuple[str, ...] = ()
    cluster: str = BASE_CLUSTER
    sets: tuple[str, ...] = ()
    """Further settings of every run, which come last."""
    seeds: int | None = None
    epochs: int | None = None
    hours: float | None = None
    """No run starts that would not end by then; also chooses the epochs where they are not given."""
    jobs: int = 1
    executor: Literal["ray", "local"] = "ray"
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense.  Raises `ConfigError`."""
        for option, value in (("--jobs", self.jobs), ("--seeds", self.seeds), ("--epochs", self.epochs)):
            if value is not None and value < 1:
                raise ConfigError(f"{option} {value}: write at least 1")
        if self.hours is not None and not 0 <= self.hours < float("inf"):
            raise ConfigError(f"--budget-hours {self.hours}: write a number of hours, or 0 to only report")
        for item in self.sets:
            for key, option in (("train.seed", "--seeds"), ("train.epochs", "--epochs"), ("data.path", "--data")):
                if item.partition("=")[0].strip() == key:
                    raise ConfigError(f"--set {item}: the runs set it themselves; write {option} instead")
