"""One layer as the planner sees it: a weight array, the vectors that pass it, the digital work beside it."""

from dataclasses import dataclass, replace
from typing import Literal

Activation = Literal["sigmoid", "tanh", "relu", "identity"]
Bias = Literal["column", "digital", "none"]
TensorSplit = Literal["auto", "output", "input"]
LayerKind = Literal["dense", "convolution", "lstm", "gru", "attention", "projection", "feed_forward", "logits"]
Range = tuple[int, int]

MAX_LINES = 2**31 - 1
"""Rows or columns of one layer's array: its random numbers are counted in 32-bit words."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Arrays of one shape, through which the vectors of a sample pass, and the digital work before and behind them.

    Elements are counted per sample and lie feature by feature: all positions of the first channel, then of the next.
    What a layer gives is what the layer behind it takes.  Made by `dense`, `convolution`, `lstm`, `gru` and
    `transformer`; only ``kind == "dense"`` can be trained with arrays, the others are counted.
    """

    name: str
    """How tables and ``--set`` name the layer; no two layers of a model share one."""
    kind: LayerKind = "dense"
    rows: int
    """Lines of each array that carry sums."""
    cols: int
    """Lines of each array that carry inputs, the bias column included."""
    arrays: int = 1
    """Arrays of this shape: the groups of a convolution, which share the channels out, or the experts of a mixture."""
    routed: int | None = None
    """Of experts, how many each vector passes, on average as many vectors for each; None: all."""
    positions: int = 1
    """Vectors of a sample that pass, one after the other: output positions of a convolution, steps, tokens."""
    inputs: int
    """Elements that it takes."""
    input_features: int
    """Channels or features of each array that these belong to; a block of columns needs whole features."""
    outputs: int
    """Elements that it gives, behind its digital work."""
    output_features: int
    """Channels or features of each array that these belong to; a block of rows gives whole features."""
    activation: Activation = "sigmoid"
    """Of a dense layer; what others do is in `operations`."""
    bias: Bias = "column"
    """``"column"``: one more always-on input line of the array, trained like any weight.  ``"digital"``:
    numbers that the digital units add and train exactly.  ``"none"``: no bias."""
    tensor_split: TensorSplit | None = None
    """How tensor parallelism cuts the layer: blocks of tile rows (``"output"``) or columns (``"input"``), or
    whichever is cheaper (``"auto"``); None takes what the job says for all layers."""
    prepare_operations: int = 0
    """Digital operations per sample on its inputs before they pass: normalisation, embedding."""
    prepare_back_operations: int = 0
    """The same on the way back, on their errors."""
    operations: int = 0
    """Digital operations per sample behind its sums: biases, activation function, softmax, pooling, residuals."""
    back_operations: int = 0
    """The same on the way back."""
    digital_macs: int = 0
    """Multiply-accumulates per sample of digital matrix products, such as attention scores; twice as many on the way
    back, where each product has two factors to find errors of."""
    kept: int = 0
    """Elements per sample that wait for the way back besides its inputs."""
    carried: int = 0
    """Elements per sample that go on beside its outputs, for a later layer: the residual stream inside a block."""
    dispatch: int = 0
    """Elements per sample that go to experts before it, where these are spread over replicas."""
    collect: int = 0
    """Elements per sample that come back from experts behind it."""
    digital_parameters: int = 0
    """Parameters besides weights and biases, which the digital units hold and train: norms, routers."""
    embedding: int = 0
    """Parameters of an embedding before it, held and trained by the digital units; errors then go back through the
    layer although it is the first."""
    tied: bool = False
    """Whether its weights are those of an embedding, which counts them."""
    recurrent: bool = False
    """Whether each vector waits for the digital work on the one before."""
    overlapping: bool = False
    """Whether errors of inputs are sums over the vectors that they are part of."""
    passes_input: bool = False
    """Whether it gives its inputs on, and what it makes is `carried`: the shortcut of a residual block."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a layer has an empty name; write one, or leave the key out")
        for key, size in (("rows", self.rows), ("columns", self.cols)):
            if not 1 <= size <= MAX_LINES:
                raise ValueError(f"layer {self.name} has {size} {key}; write a number from 1 to {MAX_LINES - 1:,}")

    @property
    def nameless(self) -> "Layer":
        """What layers that are alike but for their names have in common."""
        return replace(self, name="-")

    @property
    def passes(self) -> int:
        """Arrays that a vector passes."""
        return self.arrays if self.routed is None else self.routed

    @property
    def sums(self) -> int:
        """Sums of a sample: what comes out of the arrays."""
        return self.positions * self.passes * self.rows

    @property
    def weights(self) -> int:
        """Cross-points of the arrays."""
        return self.arrays * self.rows * self.cols

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sample in the arrays, forward."""
        return self.positions * self.passes * self.rows * self.cols

    @property
    def parameters(self) -> int:
        """Everything that is trained and not counted elsewhere: cross-points, digital biases and the like."""
        arrays = 0 if self.tied else self.weights
        biases = self.arrays * self.rows * (self.bias == "digital")
        return arrays + biases + self.digital_parameters + self.embedding

    def vectors(self, samples: int) -> int:
        """Vectors of so many samples through each array; of experts the average, rounded up."""
        return -(-samples * self.positions * self.passes // self.arrays)

    def inputs_of(self, cols: Range) -> Range:
        """The elements that a block of columns needs; the bias line is its own."""
        lines = self.cols - (self.bias == "column")
        span = min(cols[0], lines), min(cols[1], lines)
        return self._whole(span, lines, self.input_features, self.inputs)

    def outputs_of(self, rows: Range, needs: Range) -> Range:
        """The elements that a block of rows gives, which has such inputs."""
        return needs if self.passes_input else self._whole(rows, self.rows, self.output_features, self.outputs)

    @staticmethod
    def _whole(span: Range, lines: int, features: int, elements: int) -> Range:
        """The elements of all features that a range of lines belongs to."""
        each = elements // features
        return span[0] * features // lines * each, -(-span[1] * features // lines) * each


def dense(
    *,
    name: str,
    inputs: int,
    outputs: int,
    activation: Activation = "sigmoid",
    bias: Bias = "column",
    tensor_split: TensorSplit | None = None,
) -> Layer:
    """A fully connected layer: `outputs` sums over `inputs`, then an activation function.

    ``"identity"`` leaves the sums as they are, as the last layer does before a softmax.  Raises `ValueError` for
    sizes below 1 or beyond `MAX_LINES`, and for an empty name.
    """
    for key, size in (("inputs", inputs), ("outputs", outputs)):
        if name and not 1 <= size < MAX_LINES:
            raise ValueError(f"layer {name} has {size} {key}; write a number from 1 to {MAX_LINES - 1:,}")
    return Layer(
        name=name,
        rows=outputs,
        cols=inputs + (bias == "column"),
        inputs=inputs,
        input_features=inputs,
        outputs=outputs,
        output_features=outputs,
        activation=activation,
        bias=bias,
        tensor_split=tensor_split,
        operations=outputs * ((activation != "identity") + (bias == "digital")),
        back_operations=outputs * (activation != "identity"),
    )
