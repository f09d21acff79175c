"""A chain of layers: a network is counted here, never allocated."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rpucluster.model.layer import Activation, Bias, Layer, dense

Loss = Literal["softmax-cross-entropy"]

MAX_WEIGHTS = 10**14
"""Weights of a network, a hundred times the trillion of the largest projections: above it stands a slip."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A chain of layers and the loss behind the last of them.

    Raises `ValueError` where a layer does not take what the one before it gives, where two layers share a
    name, and for a network without layers or of more than `MAX_WEIGHTS` weights.
    """

    layers: tuple[Layer, ...]
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
        """Everything that is trained, digital biases and what else the digital units hold included."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sample on its way forward, in arrays and digital."""
        return sum(layer.macs + layer.digital_macs for layer in self.layers)

    @property
    def trainable(self) -> bool:
        """Whether there are arrays for all its layers; what is not can be planned and modelled."""
        return all(layer.kind == "dense" for layer in self.layers)


def default_name(index: int, kind: str = "dense") -> str:
    """The name of layer `index` (from 0) where none is given: ``dense1``, ``dense2``, ..."""
    return f"{kind}{index + 1}"


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
            dense(
                name=default_name(i),
                inputs=inputs,
                outputs=outputs,
                activation="identity" if i == last else activation,
                bias=bias,
            )
            for i, (inputs, outputs) in enumerate(pairwise(sizes))
        )
    )
