"""``[[model.layer]]``: a network layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from rpucluster.config import Spec
from rpucluster.job.devices import AlgorithmSpec, LayerDeviceSpec
from rpucluster.model import Activation, Bias, Layer, TensorSplit, default_name, dense
from rpucluster.model.convolution import Image, Pool, convolution
from rpucluster.model.recurrent import gru, lstm
from rpucluster.model.transformer import Experts, block, logits

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False)]


class LayerSpec(Spec):
    """One ``[[model.layer]]``."""

    kind: Literal["dense", "convolution", "lstm", "gru", "transformer", "logits"] = "dense"
    """Fully connected layers train; the other kinds are counted, for `plan`, `profile`, `project` and `search`."""
    name: str | None = None
    """What tables call the layer, and ``--set model.layer.NAME.key=value`` where it is written; left out,
    it is called after its kind and position: ``dense1``, ``convolution2``, ..."""
    inputs: Count | None = None
    """Inputs per sample, of ``lstm`` and ``gru`` per step, of ``transformer`` per token; needed for the first layer,
    elsewhere the outputs of the layer before."""
    outputs: Count | None = None
    """Outputs per sample; filters of a convolution, units of ``lstm`` and ``gru``, words of ``logits``; a
    ``transformer`` gives what it takes."""
    activation: Activation | None = None
    """Left out: that of ``[model]``, and ``"identity"`` for the last layer, whose softmax is in the loss."""
    bias: Bias | None = None
    """Left out: that of ``[model]``.  Transformers have digital biases."""
    tensor_split: TensorSplit | None = None
    """Left out: that of ``[parallel]``."""
    image: Annotated[tuple[Count, Count, Count], Field(strict=False)] | None = None
    """``convolution``: channels, height and width of what it takes; needed for the first layer."""
    kernel: Count | None = None
    """``convolution``: side of the kernels."""
    stride: Count = 1
    """``convolution``: step between output positions."""
    padding: Annotated[int, Field(ge=0)] = 0
    """``convolution``: zeros around the image."""
    groups: Count = 1
    """``convolution``: groups that share out channels and filters."""
    pool: Count | None = None
    """``convolution``: side of the windows of which only the largest element goes on."""
    pool_stride: Count | None = None
    """``convolution``: step between these windows; left out, their side."""
    batch_norm: bool = False
    """``convolution``: whether a normalisation with trained gain and shift follows."""
    steps: Count | None = None
    """``lstm``, ``gru``: steps of a sequence; needed for the first layer."""
    last: bool = False
    """``lstm``, ``gru``: whether only the last step goes on."""
    tokens: Count | None = None
    """``transformer``: tokens of a sequence; needed for the first layer."""
    blocks: Count = 1
    """``transformer``: blocks of this shape."""
    heads: Count | None = None
    """``transformer``: attention heads."""
    feed_forward: Count | None = None
    """``transformer``: features of the feed-forward layer; left out, four times the inputs."""
    experts: Count | None = None
    """``transformer``: feed-forward layers of a mixture of experts; left out, one without a router."""
    routed: Count = 1
    """``transformer``: experts that each token passes."""
    vocabulary: Count | None = None
    """``transformer``: words of the embedding before it, which is digital; left out, there is none."""
    device: LayerDeviceSpec | None = None
    """Left out: that of ``[device]``."""
    algorithm: AlgorithmSpec | None = None
    """Left out: that of ``[algorithm]``."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, kinds in _BELONGS.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f'{key} is for kind = {" or ".join(map(_quoted, kinds))}, not "{self.kind}"; remove it'
                )
        for key, kinds in _NEEDS.items():
            if self.kind in kinds and getattr(self, key) is None:
                raise ValueError(f'kind = "{self.kind}" needs {key}; write it')
        return self


_BELONGS: Final = {
    **dict.fromkeys(("activation",), ("dense", "convolution")),
    "bias": ("dense", "convolution", "lstm", "gru"),
    "tensor_split": ("dense", "convolution"),
    "inputs": ("dense", "lstm", "gru", "transformer"),
    "outputs": ("dense", "convolution", "lstm", "gru", "logits"),
    **dict.fromkeys(
        ("image", "kernel", "stride", "padding", "groups", "pool", "pool_stride", "batch_norm"), ("convolution",)
    ),
    **dict.fromkeys(("steps", "last"), ("lstm", "gru")),
    **dict.fromkeys(("tokens", "blocks", "heads", "feed_forward", "experts", "routed", "vocabulary"), ("transformer",)),
}
_NEEDS: Final = {
    "outputs": ("dense", "convolution", "lstm", "gru", "logits"),
    "kernel": ("convolution",),
    "heads": ("transformer",),
}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What goes on to the next layer."""

    elements: int
    image: Image | None = None
    steps: int | None = None
    """Steps or tokens that the elements belong to."""


def layers_of(specs: Sequence[LayerSpec], activation: Activation, bias: Bias) -> list[tuple[LayerSpec, Layer]]:
    """The layers that tables describe, each beside its table; `activation` and `bias` are those of ``[model]``.

    Raises `ValueError` for a first layer that does not say what it takes and for shapes that do not fit.
    """
    made: list[tuple[LayerSpec, Layer]] = []
    given: Given | None = None
    for i, spec in enumerate(specs):
        last = i == len(specs) - 1
        values = {"activation": spec.activation or ("identity" if last else activation), "bias": spec.bias or bias}
        layers, given = _layers(spec, spec.name or default_name(i, spec.kind), given, **values)  # type: ignore[arg-type]
        made += [(spec, layer) for layer in layers]
    return made


def _layers(
    spec: LayerSpec, name: str, given: Given | None, activation: Activation, bias: Bias
) -> tuple[list[Layer], Given]:
    match spec.kind:
        case "dense":
            inputs = spec.inputs if spec.inputs is not None or given is None else given.elements
            if inputs is None:
                raise ValueError("the first [[model.layer]] has no inputs; write the features of a sample")
            layer = dense(
                name=name,
                inputs=inputs,
                outputs=_number(spec.outputs),
                activation=activation,
                bias=bias,
                tensor_split=spec.tensor_split,
            )
            return [layer], Given(elements=layer.outputs)
        case "convolution":
            return _convolution(spec, name, given, activation, bias)
        case "lstm" | "gru":
            steps = spec.steps if spec.steps is not None or given is None else given.steps
            features = spec.inputs if spec.inputs is not None or given is None else given.elements // (steps or 1)
            if steps is None or features is None:
                raise ValueError(f"[[model.layer]] {name} does not know its input; write inputs and steps")
            make = lstm if spec.kind == "lstm" else gru
            units = _number(spec.outputs)
            layer = make(name=name, inputs=features, units=units, steps=steps, bias=bias, last=spec.last)
            return [layer], Given(elements=layer.outputs, steps=1 if spec.last else steps)
        case "transformer":
            return _transformer(spec, name, given)
        case "logits":
            if given is None or given.steps is None:
                raise ValueError(f"[[model.layer]] {name} stands behind no tokens; write a transformer before it")
            tokens, words = given.steps, _number(spec.outputs)
            layer = logits(name=name, hidden=given.elements // tokens, vocabulary=words, tokens=tokens, tied=False)
            return [layer], Given(elements=layer.outputs)


def _convolution(
    spec: LayerSpec, name: str, given: Given | None, activation: Activation, bias: Bias
) -> tuple[list[Layer], Given]:
    image = None if given is None else given.image
    if spec.image is not None:
        image = Image(channels=spec.image[0], height=spec.image[1], width=spec.image[2])
    if image is None:
        raise ValueError(f"[[model.layer]] {name} does not know its image; write image = [channels, height, width]")
    pool = None if spec.pool is None else Pool(size=spec.pool, stride=spec.pool_stride or spec.pool)
    layer, image = convolution(
        image,
        name=name,
        filters=_number(spec.outputs),
        kernel=_number(spec.kernel),
        stride=spec.stride,
        padding=spec.padding,
        groups=spec.groups,
        activation=activation,
        bias=bias,
        pool=pool,
        batch_norm=spec.batch_norm,
        tensor_split=spec.tensor_split,
    )
    return [layer], Given(elements=layer.outputs, image=image)


def _transformer(spec: LayerSpec, name: str, given: Given | None) -> tuple[list[Layer], Given]:
    tokens = spec.tokens if spec.tokens is not None or given is None else given.steps
    hidden = spec.inputs if spec.inputs is not None or given is None else given.elements // (tokens or 1)
    if tokens is None or hidden is None:
        raise ValueError(f"[[model.layer]] {name} does not know its input; write inputs and tokens")
    words = spec.vocabulary
    embedding = (0, 0) if words is None else (hidden * (words + tokens), 2 * tokens * hidden)
    layers = [
        layer
        for i in range(spec.blocks)
        for layer in block(
            name=name if spec.blocks == 1 else f"{name}_{i + 1}",
            hidden=hidden,
            heads=_number(spec.heads),
            tokens=tokens,
            feed_forward=spec.feed_forward,
            experts=None if spec.experts is None else Experts(spec.experts, spec.routed),
            embedding=(0, 0) if i else embedding,
        )
    ]
    return layers, Given(elements=tokens * hidden, steps=tokens)


def _number(value: int | None) -> int:
    """A key whose presence `LayerSpec` has checked."""
    if value is None:
        raise ValueError("a key is missing")
    return value


def _quoted(word: str) -> str:
    return f'"{word}"'
