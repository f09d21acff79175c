"""A chain of layers as a few kinds and how often each occurs, so that a plan costs no more than its kinds.

Blocks are runs of layers that a pipeline does not cut: the four of a transformer block, else each by itself.  Logits go
with the last block, as in Megatron-LM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.conventional.work import Work, works
from rpucluster.errors import PlanError
from rpucluster.model import Layer


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The layers of a network by kind and block."""

    kinds: tuple[Work, ...]
    """Each kind of layer once; a name makes no kind."""
    blocks: tuple[tuple[int, ...], ...]
    """The kinds of the layers of each block, by number."""

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many layers of each kind stand before each block and, last, in all: (blocks + 1, kinds)."""
        table = np.zeros((len(self.blocks) + 1, len(self.kinds)), np.int64)
        for number, block in enumerate(self.blocks):
            for kind in block:
                table[number + 1, kind] += 1
        return table.cumsum(axis=0)

    @cached_property
    def macs(self) -> NDArray[np.float64]:
        """Multiply-accumulates of a sample to the end of each block, without those of logits."""
        each = np.array([0 if work.layer.kind == "logits" else work.macs for work in self.kinds], np.float64)
        return np.asarray(self.counts[1:] @ each)

    def cuts(self, runs: int) -> NDArray[np.int64]:
        """The blocks at which so many runs begin, and the end: as even in multiply-accumulates as whole blocks allow.

        Raises `PlanError` where there are fewer blocks.
        """
        blocks = len(self.blocks)
        if runs > blocks:
            raise PlanError(
                f"{runs} runs of layers ([parallel] pipeline times virtual_stages) but the network has {blocks} "
                f"blocks; write at most as many"
            )
        shares = self.macs[-1] * np.arange(1, runs) / runs
        after = np.clip(np.searchsorted(self.macs, shares), 0, blocks - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.where(np.abs(self.macs[before] - shares) <= np.abs(self.macs[after] - shares), before, after) + 1
        # at least one block to each run: none begins before its number, or too late for those behind
        begins = np.maximum.accumulate(np.maximum(nearer - np.arange(1, runs), 0)) + np.arange(1, runs)
        begins = np.minimum(begins, blocks - runs + np.arange(1, runs))
        return np.concatenate(([0], begins, [blocks]))

    def per_run(self, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many layers of each kind each run has: (runs, kinds)."""
        return np.diff(self.counts[cuts], axis=0)

    def last(self, cuts: NDArray[np.int64]) -> set[int]:
        """The kinds of the layers that end a run before the last."""
        return {self.blocks[cut - 1][-1] for cut in cuts[1:-1].tolist()}


def chain(layers: Sequence[Layer]) -> Chain:
    """The kinds and blocks of layers, in order."""
    numbers: dict[tuple[Any, ...], int] = {}
    kinds: list[Work] = []
    blocks: list[list[int]] = []
    for work in works(layers):
        shape = tuple(value for key, value in vars(work.layer).items() if key != "name")
        key = (work.split, work.gathers, work.opens, work.ends, *shape)
        if key not in numbers:
            numbers[key] = len(kinds)
            kinds.append(work)
        if not blocks or (work.opens and work.layer.kind != "logits"):
            blocks.append([])
        blocks[-1].append(numbers[key])
    return Chain(kinds=tuple(kinds), blocks=tuple(map(tuple, blocks)))
