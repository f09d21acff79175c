"""How sure a reference value is: no recalled number is ever shown as the paper's.

The paper is Gokmen and Vlasov, Front. Neurosci. 10:333 (2016).  Only its abstract was read; the rest is restated by
others, read in code of the same group, recalled, or follows by arithmetic, and every value says which.
"""

from dataclasses import dataclass
from enum import StrEnum


class Confidence(StrEnum):
    """Where a reference value comes from."""

    READ = "R"
    RESTATED = "S"
    CODE = "C"
    CHECKED = "B+"
    RECALLED = "B"
    WEAK = "B-"
    DERIVED = "D"
    UNKNOWN = "U"

    @property
    def meaning(self) -> str:
        """The mark in words."""
        return _MEANING[self]

    @property
    def short(self) -> str:
        """The mark in a word or two; only what was read or restated is called the paper's."""
        return _SHORT[self]


_MEANING = {
    Confidence.READ: "read in the paper's abstract",
    Confidence.RESTATED: "restated in a source that was read",
    Confidence.CODE: "read in code of the same group",
    Confidence.CHECKED: "recalled, and it reproduces a number that was read",
    Confidence.RECALLED: "recalled, moderately sure; not the paper's number",
    Confidence.WEAK: "weakly recalled; not the paper's number",
    Confidence.DERIVED: "derived by arithmetic from the others",
    Confidence.UNKNOWN: "neither read nor recalled",
}


_SHORT = {
    Confidence.READ: "paper",
    Confidence.RESTATED: "paper, restated",
    Confidence.CODE: "the group's code",
    Confidence.CHECKED: "recalled, checked",
    Confidence.RECALLED: "recalled",
    Confidence.WEAK: "weakly recalled",
    Confidence.DERIVED: "derived",
    Confidence.UNKNOWN: "unknown",
}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value to compare with, and how sure it is."""

    code: Confidence
    text: str
    """The value as people read it, with its unit, such as ``"<= 0.01"``."""
    value: float | None = None
    """The number in `text`, in the unit of what it is compared with, where there is one."""
    note: str = ""
    """Whose value it is, or what it rests on."""

    @property
    def label(self) -> str:
        """The value with its mark, such as ``"<= 0.01 [B]"``."""
        return f"{self.text} [{self.code.value}]"


NO_REFERENCE = Reference(code=Confidence.UNKNOWN, text="unknown")
