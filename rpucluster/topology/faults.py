"""What is broken or slow of a machine: the `[faults]` table of a cluster file."""

import math
from typing import Annotated

from pydantic import Field, Strict, field_validator

from rpucluster.config import Spec

_Factor = Annotated[float, Field(ge=1, lt=math.inf)]


class Faults(Spec):
    """Links that failed, and links and accelerators that are slower than the rest of their kind."""

    failed_links: Annotated[tuple[str, ...], Strict(False)] = ()
    """By the names that reports print, such as `"board:3->4"`; one direction each.  Transfers go another
    shortest way."""

    slow_links: dict[str, _Factor] = Field(default_factory=dict)
    """By name, the factor by which the bandwidth of a link is divided."""

    slow_accelerators: dict[str, _Factor] = Field(default_factory=dict)
    """By number (as a TOML key, thus in quotes), the factor by which everything on the chip takes longer."""

    @field_validator("slow_accelerators")
    @classmethod
    def _are_numbers(cls, value: dict[str, float]) -> dict[str, float]:
        for key in value:
            if not key.isdecimal():
                raise ValueError(f'"{key}" is not the number of an accelerator; write {{"3" = 1.5}}')
        return value

    @property
    def slowdowns(self) -> dict[int, float]:
        """Factors of slow accelerators, by number."""
        return {int(key): factor for key, factor in self.slow_accelerators.items()}

    @property
    def of_links(self) -> tuple[str, ...]:
        """The names of all links with a fault."""
        return (*self.failed_links, *self.slow_links)
