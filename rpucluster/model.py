"""Layer shapes and the presets that make them: a network is counted here, never allocated."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Activation = Literal["sigmoid", "tanh", "relu", "identity"]
Bias = Literal["column", "digital", "none"]
TensorSplit = Literal["auto", "output", "input"]
Loss = Literal["softmax-cross-entropy"]

MAX_LINES = 2**31 - 1
"""Rows or columns of one layer's array: its random numbers are counted in 32-bit words."""
MAX_WEIGHTS = 10**14
"""Weights of a network, a hundred times the trillion of the largest projections: above it stands a slip."""


@dataclass(frozen=True, kw_only=True)
class DenseLayer:
    """A fully connected layer: `outputs` sums over `inputs`, then an activation function.

    Raises `ValueError` for sizes below 1 or beyond `MAX_LINES`, and for an empty name.
    """

    name: str
    """How tables and ``--set`` name the layer; no two layers of a model share one."""
    inputs: int
    """Inputs per sample, the bias not counted."""
    outputs: int
    """Outputs per sample."""
    activation: Activation = "sigmoid"
    """``"identity"`` leaves the sums as they are, as the last layer does before a softmax."""
    bias: Bias = "column"
    """``"column"``: one more always-on input line of the array, trained like any weight.  ``"digital"``:
    numbers that the digital units add and train exactly.  ``"none"``: no bias."""
    tensor_split: TensorSplit | None = None
    """How tensor parallelism cuts the layer: blocks of tile rows (``"output"``) or columns (``"input"``), or
    whichever is cheaper (``"auto"``); None takes what the job says for all layers."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a layer has an empty name; write one, or leave the key out")
        for key, size in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not 1 <= size < MAX_LINES:
                raise ValueError(f"layer {self.name} has {size} {key}; write a number from 1 to {MAX_LINES - 1:,}")

    @property
    def rows(self) -> int:
        """Rows of the array: one per output."""
        return self.outputs

    @property
    def cols(self) -> int:
        """Columns of the array: one per input, and the bias line last if the bias is a column."""
        return self.inputs + (self.bias == "column")

    @property
    def weights(self) -> int:
        """Cross-points of the array."""
        return self.rows * self.cols

    @property
    def parameters(self) -> int:
        """Everything that is trained: the cross-points, and the digital bias if there is one."""
        return self.weights + (self.outputs if self.bias == "digital" else 0)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A chain of layers and the loss behind the last of them.

    Raises `ValueError` where a layer does not take what the one before it gives, where two layers share a
    name, and for a network without layers or of more than `MAX_WEIGHTS` weights.
    """

    layers: tuple[DenseLayer, ...]
    """In the order in which a sample passes through them; at least one."""
    loss: Loss = "softmax-cross-entropy"
    """The softmax belongs to the loss, so a last layer that feeds it has the activation ``"identity"``."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("the network has no layers; write at least one")
        for before, after in pairwise(self.layers):
            if after.inputs != before.outputs:
                raise ValueError(
                    f"layer {after.name} takes {after.inputs} inputs but {before.name} before it gives "
                    f"{before.outputs} outputs; write {before.outputs}, or leave inputs out"
                )
        name, uses = Counter(layer.name for layer in self.layers).most_common(1)[0]
        if uses > 1:
            raise ValueError(f"{uses} layers are named {name}; give each its own name")
        if self.weights > MAX_WEIGHTS:
            raise ValueError(f"the network has {self.weights:,} weights; at most {MAX_WEIGHTS:,} are taken")

    @property
    def inputs(self) -> int:
        """Features of a sample."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Classes that the last layer can tell apart."""
        return self.layers[-1].outputs

    @property
    def weights(self) -> int:
        """Cross-points of all arrays."""
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Everything that is trained, digital biases included."""
        return sum(layer.parameters for layer in self.layers)


def default_name(index: int) -> str:
    """The name of layer `index` (from 0) where none is given: ``dense1``, ``dense2``, ..."""
    return f"dense{index + 1}"


def mlp(sizes: Sequence[int], activation: Activation = "sigmoid", bias: Bias = "column") -> Model:
    """A multilayer perceptron through `sizes`, which start with the features and end with the classes.

    Hidden layers get `activation`; the last gets ``"identity"``, since the softmax is part of the loss.
    ``mlp([784, 256, 128, 10])`` is the paper's network.  Raises `ValueError` for fewer than two sizes or a
    size below 1.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes = {list(sizes)} makes no layer; write at least two, such as [64, 10]")
    last = len(sizes) - 2
    return Model(
        layers=tuple(
            DenseLayer(
                name=default_name(i),
                inputs=inputs,
                outputs=outputs,
                activation="identity" if i == last else activation,
                bias=bias,
            )
            for i, (inputs, outputs) in enumerate(pairwise(sizes))
        )
    )
