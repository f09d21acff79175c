"""Colours that stay apart for colour-blind eyes (after Okabe and Ito), for the page's charts and maps."""

from collections.abc import Mapping

from rpucluster.trace import TRACKS

KIND_GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "forward": ("#0072b2", ("forward",)),
    "backward": ("#e69f00", ("backward",)),
    "update": ("#cc79a7", ("update",)),
    "weight transfer": ("#7f5539", ("read_out", "program")),
    "digital": ("#009e73", tuple(kind for kind, track in TRACKS.items() if track == "digital")),
    "all-gather": ("#56b4e9", ("all_gather",)),
    "all-reduce": ("#d55e00", ("all_reduce",)),
    "send": ("#b8a800", ("send",)),
}
"""What the timeline's legend names -> its colour and the kinds of operation that it covers."""

COMPUTE, EXPOSED, IDLE = "#0072b2", "#d55e00", "#d9dde3"
TRAIN, TEST = "#0072b2", "#d55e00"

_ACCELERATORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c8c8c")


def accelerator_colour(position: int) -> str:
    """The colour of the accelerator at a position of the list; the first eight are the most distinct."""
    base = _ACCELERATORS[position % len(_ACCELERATORS)]
    # further rounds are lighter, then darker; beyond 24 they repeat and the labels tell them apart
    mix = ((0, 0.0), (255, 0.45), (0, 0.35))[position // len(_ACCELERATORS) % 3]
    return "#" + "".join(f"{round(part * (1 - mix[1]) + mix[0] * mix[1]):02x}" for part in _rgb(base))


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour."""
    red, green, blue = (part / 255 for part in _rgb(colour))
    return "#10151c" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.22 else "#ffffff"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
