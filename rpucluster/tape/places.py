"""A tape and the places of its values.

Every value of a step has a place of its own in a flat arena, for the whole minibatch: a microbatch is a range of its
vectors, and an update finds its factors side by side.  What is gathered is put around the accelerator's own block.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Range = tuple[int, int]
Value = tuple[str, int]
"""Name and layer: "x" (the lines that drive a shard's columns), "out" (sums of its outputs), "activation", "partial"
(sums of the error behind a layer), "error" (behind a layer), "delta" (the error of its sums), "gradient" (a vector for
each row of the shard's array), "bias gradient" (one vector)."""
FIXED = ("out", "partial")
"""Values that are int64 sums; the others are float32."""
FACTORS = ("x", "delta")
"""Values that may hold the vectors of all replicas."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some elements of some vectors of a value."""

    fixed: bool
    """Whether it lies in the int64 arena."""
    start: int
    """Where its first vector starts in the arena."""
    vectors: int
    stride: int
    """From one vector to the next."""
    first: int
    """The first element of each vector that belongs to the window."""
    width: int

    def of(self, arena: Any) -> Any:
        """The window as a view of its arena, shape (vectors, width)."""
        whole = arena[self.start : self.start + self.vectors * self.stride].reshape(self.vectors, self.stride)
        return whole[:, self.first : self.first + self.width]


@dataclass(kw_only=True)
class Buffer:
    """The place of a value: of each of `vectors` vectors the elements of `span`, and a bias line behind them."""

    span: Range
    vectors: int
    bias_line: bool = False
    start: int = 0

    @property
    def stride(self) -> int:
        return self.span[1] - self.span[0] + self.bias_line


@dataclass(kw_only=True)
class Tape:
    """One accelerator's part of a program as rows of `rpucluster.kernels.step`, and where its values lie."""

    rows: NDArray[np.int64]
    """(rows, TAPE_COLUMNS)."""
    windows: list[tuple[Window, ...]]
    """The windows A, B, C of each row, as far as it has them."""
    of_operation: dict[int, Range]
    """Which rows perform an operation of the program."""
    floats: int
    """Elements of the float32 arena."""
    fixed: int
    """Elements of the int64 arena."""
    vectors: int
    """Vectors of a microbatch."""
    minibatch: int
    """Vectors of one replica."""
    own: int
    """Where this replica's vectors start among the factors of an update."""
    buffers: dict[Value, Buffer] = field(repr=False)
    """Where each value lies."""

    def window(self, name: str, layer: int, microbatch: int = 0, span: Range | None = None) -> Window:
        """The vectors of a microbatch; all elements, or those of `span`, counted as in the whole layer."""
        first = self.own * (name in FACTORS) + microbatch * self.vectors
        return self._window(name, layer, first, self.vectors, span)

    def factor(self, name: str, layer: int, first: int, vectors: int, span: Range | None = None) -> Window:
        """Vectors from `first` on of "x" or "delta" of an update."""
        return self._window(name, layer, first, vectors, span)

    def whole(self, name: str, layer: int) -> Window:
        """All vectors of a value."""
        return self._window(name, layer, 0, self.buffers[name, layer].vectors, None)

    def bias_lines(self) -> list[Window]:
        """What must be 1 before the first step, and stays so."""
        return [
            Window(
                fixed=False, start=b.start, vectors=b.vectors, stride=b.stride, first=b.stride - 1, width=1,
            )
            for (name, _), b in self.buffers.items()
            if b.bias_line and name == "x"
        ]  # fmt: skip

    def _window(self, name: str, layer: int, first: int, vectors: int, span: Range | None) -> Window:
        buffer = self.buffers[name, layer]
        at, stop = buffer.span if span is None else span
        return Window(
            fixed=name in FIXED,
            start=buffer.start + first * buffer.stride,
            vectors=vectors,
            stride=buffer.stride,
            first=at - buffer.span[0],
            width=stop - at + (span is None and buffer.bias_line),
        )
