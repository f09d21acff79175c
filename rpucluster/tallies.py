"""What accelerators are told to do, and what they have done, as plain values."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rpucluster.tile_counts import PulseCount, ReadCount

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What some performances of a program, one after the other, need besides the weights."""

    first_sample: int
    """Index of the first sample since the start of training (or of evaluation): it keys the random numbers."""
    learning_rate: float
    indices: Ints
    """Rows of the data set, shape (steps, global batch): of each step all replicas one after the other."""

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, start: int, stop: int) -> "Steps":
        """The steps from `start` up to, without, `stop`."""
        first = self.first_sample + start * self.indices.shape[1]
        return Steps(first_sample=first, learning_rate=self.learning_rate, indices=self.indices[start:stop])


@dataclass(frozen=True, kw_only=True)
class Score:
    """Sums over the samples that one accelerator scored."""

    loss: float = 0.0
    hits: int = 0
    samples: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(loss=self.loss + other.loss, hits=self.hits + other.hits, samples=self.samples + other.samples)


@dataclass(kw_only=True)
class Counts:
    """What an accelerator did, counted where it was done."""

    reads: ReadCount = field(default_factory=ReadCount)
    pulses: PulseCount = field(default_factory=PulseCount)
    programmed_pulses: int = 0
    emitted: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Elements given, by (program, operation)."""
    absorbed: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Elements taken, by (program, operation, giver)."""
    performed: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Analog vector passes and update cycles, by (program, operation)."""


@dataclass(kw_only=True)
class Spent:
    """Where the time of a worker went while it performed steps, in seconds of the host."""

    math_wall_s: float = 0.0
    """What accelerators computed."""
    waiting_wall_s: float = 0.0
    """For messages of other workers."""
    performing_wall_s: float = 0.0
    """All of it; what is neither math nor waiting is transport: copying, sending and receiving, and its bookkeeping."""
    steps: int = 0
    messages: int = 0
    """Sent to other workers."""
    message_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What an accelerator has counted, as a checkpoint keeps it."""

    replica: int
    reports: bool
    """Whether it is the one of its replica that scores."""
    counts: tuple[int, ...]
    """By `step.COUNTS`."""
    sums: tuple[float, ...]
    """By `step.EXPECTED` and `step.LOSS`."""
    programmed_pulses: int
