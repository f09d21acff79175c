"""What held each operation of a timeline up, in words and seconds."""

from collections.abc import Mapping
from typing import NamedTuple

from rpucluster.timeline import Reason, Timeline

WORDS: Mapping[Reason, str] = {
    "start": "nothing",
    "dependency": "its input",
    "stream": "its input, vector by vector",
    "arrays": "the same arrays",
    "tiles": "active tiles",
    "digital": "the digital units",
    "link": "a link",
}
"""The reasons of a timeline as tables and pages say them."""


class Wait(NamedTuple):
    """Why one operation did not run earlier."""

    reason: Reason
    op: int
    """The operation that it waited for, by id; -1 where it waited for none."""
    seconds: float
    """How long it waited for that after the last of its dependencies had ended."""


def wait_of(timeline: Timeline, op: int) -> Wait:
    """Why operation `op` did not run earlier; where several reasons ended together, the one that the replay names."""
    met = max((timeline.finish_s[dep] for dep in timeline.program.ops[op].deps), default=0.0)
    return Wait(timeline.reasons[op], timeline.causes[op], max(0.0, timeline.start_s[op] - met))
