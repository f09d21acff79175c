"""What one layer asks of conventional accelerators: products, element-wise traffic, collectives, what it keeps.

Everything is per sample and for the whole layer.  Traffic is counted as the fused kernels of Megatron-LM have it
(Narayanan et al. 2021, section 4.2): a norm reads and writes once, so does an activation function with its bias, and
dropout with a residual sum reads twice, writes once and keeps a mask of one byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rpucluster.model import Layer

Split = Literal["output", "input"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One layer, its sizes in elements per sample."""

    layer: Layer
    split: Split
    """Whether tensor ranks share its outputs, and need its whole inputs, or its inputs, and add their outputs up."""
    gathers: bool
    """Whether the outputs must be gathered because the layer behind does not take them split."""
    opens: bool
    """Whether it begins a block; full recomputation keeps what goes into blocks."""
    ends: bool
    """Whether nothing stands behind it, so that its backward pass follows at once and nothing is recomputed."""

    @property
    def lines(self) -> int:
        """Inputs of each product, without a bias column, which is an addition here."""
        return self.layer.cols - (self.layer.bias == "column")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sample forward, with weights and without."""
        return self.layer.positions * self.layer.passes * self.layer.rows * self.lines + self.layer.digital_macs

    @property
    def normed(self) -> int:
        """Elements that a norm before the layer takes."""
        return self.layer.inputs if self.layer.prepare_operations else 0

    @property
    def scores(self) -> int:
        """Attention scores: as many as tokens squared for each head."""
        return self.layer.kept - self.layer.sums if self.layer.kind == "attention" else 0

    @property
    def residual(self) -> bool:
        """Whether dropout and a residual sum follow."""
        return self.layer.kind in ("projection", "feed_forward") and self.split == "input"

    @property
    def whole_traffic(self) -> float:
        """Elements read or written forward by kernels that tensor ranks share only in sequence parallelism."""
        embedded = 2 * self.layer.inputs if self.layer.embedding else 0
        return 2 * self.normed + embedded + (3.5 * self.layer.outputs if self.residual else 0)

    @property
    def shared_traffic(self) -> float:
        """The same by kernels that tensor ranks always share, without those on scores."""
        if self.residual:
            return 0
        if self.layer.kind == "attention":  # biases of queries, keys and values; the layout of contexts
            return 2 * self.layer.sums + 2 * self.layer.outputs
        if self.layer.kind == "logits":  # to single precision (3 words), exponentials of the cross-entropy (4)
            return 7 * self.layer.sums
        return self.layer.sums + self.layer.outputs

    @property
    def score_traffic(self) -> float:
        """The same on scores: softmax with scale and mask, and dropout with its mask."""
        return 4.5 * self.scores

    @property
    def kernels(self) -> int:
        """Element-wise kernels forward, without those on scores."""
        return 2 + (self.normed > 0) + (self.layer.kind == "attention")

    @property
    def whole_kept(self) -> float:
        """Elements that wait for the way back on every tensor rank: what goes into norms, and whole inputs."""
        return (
            self.normed
            + (self.layer.inputs if self.split == "output" else 0)
            + (0.5 * self.layer.outputs) * (self.residual)
        )

    @property
    def shared_kept(self) -> float:
        """Elements that wait for the way back as tensor ranks share them, without scores."""
        inputs = self.layer.inputs if self.split == "input" else 0
        # the logits wait in single precision
        rest = 2 * self.layer.sums if self.layer.kind == "logits" else self.layer.kept - self.scores
        return inputs + rest

    @property
    def score_kept(self) -> float:
        """The same of scores: probabilities, what dropout leaves of them, and its mask."""
        return 2.5 * self.scores


def works(layers: Sequence[Layer]) -> list[Work]:
    """What each layer of a chain asks, with the splits that are not written alternating, outputs first."""
    splits: list[Split] = []
    for layer in layers:
        if layer.tensor_split in ("output", "input"):
            splits.append(layer.tensor_split)
        else:
            splits.append("input" if splits and splits[-1] == "output" else "output")
    last = len(layers) - 1
    return [
        Work(
            layer=layer,
            split=split,
            gathers=split == "output" and i < last and splits[i + 1] == "output",
            opens=i == 0 or layer.kind not in ("projection", "feed_forward"),
            ends=i == last,
        )
        for i, (layer, split) in enumerate(zip(layers, splits, strict=True))
    ]
