"""``[model]``: the network of a job, by a preset or layer by layer."""

from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from rpucluster.config import Spec
from rpucluster.job.layers import Count, Counts, LayerSpec, layers_of
from rpucluster.model import Activation, Bias, Loss, Model, mlp
from rpucluster.model.presets import GPTS, IMAGES, SEQUENCE, VOCABULARY, image_network
from rpucluster.model.transformer import Experts, gpt

Preset = Literal[
    "mlp",
    "lenet5",
    "lenet5-rpu",
    "alexnet",
    "vgg16",
    "resnet50",
    "gpt",
    "gpt3-125m",
    "gpt3-350m",
    "gpt3-760m",
    "gpt3-1.3b",
    "gpt3-2.7b",
    "gpt3-6.7b",
    "gpt3-13b",
    "gpt3-175b",
    "gpt-530b",
    "gpt-1t",
    "gpt-10t",
]
_GPT_KEYS: Final = ("layers", "hidden", "heads", "sequence", "vocabulary", "feed_forward", "experts", "routed")


class ModelSpec(Spec):
    """``[model]``: the network, by a preset or layer by layer."""

    preset: Preset | None = None
    """``"mlp"``: fully connected layers through `sizes`, which train.  The others are counted, for `plan`, `profile`,
    `project` and `search`: networks for images, and ``"gpt"`` or one of its sizes by name.  Left out where
    ``[[model.layer]]`` spells the layers out."""
    sizes: Counts | None = None
    """Features, hidden units of each layer, classes; at least two numbers.  Belongs to ``"mlp"``."""
    layers: Count | None = None
    """``"gpt"``: blocks.  A size by name has this and the next two; what is written replaces it."""
    hidden: Count | None = None
    """``"gpt"``: features of a token."""
    heads: Count | None = None
    """``"gpt"``: attention heads."""
    sequence: Count | None = None
    """``"gpt"``: tokens of a sample; 2048 unless written."""
    vocabulary: Count | None = None
    """``"gpt"``: words; 51,200 unless written."""
    feed_forward: Count | None = None
    """``"gpt"``: features of the feed-forward layers; four times `hidden` unless written."""
    experts: Count | None = None
    """``"gpt"``: feed-forward layers of a mixture of experts in each block; left out, one without a router."""
    routed: Count | None = None
    """``"gpt"``: experts that each token passes; 1 unless written."""
    activation: Activation = "sigmoid"
    """Of the hidden layers; the last has none, since the softmax is in the loss."""
    loss: Loss = "softmax-cross-entropy"
    """What the network is trained to lower; the only one today."""
    bias: Bias = "column"
    """``"column"``: one more always-on input line of each array; it opens a new column of tiles where the
    inputs fill the tiles already, and `plan` says so.  ``"digital"``: added and trained exactly by the
    digital units.  ``"none"``: no bias."""
    layer: Annotated[tuple[LayerSpec, ...], Field(strict=False)] | None = None
    """The layers in order, in place of a preset."""

    @cached_property
    def network(self) -> Model:
        """The shapes of all layers."""
        if self.layer is not None:
            return Model(layers=tuple(layer for _, layer in self._made), loss=self.loss)
        if self.preset is not None and self.preset in IMAGES:
            return image_network(self.preset)
        if self.preset == "mlp":
            return mlp(self.sizes or (), self.activation, self.bias)
        return Model(layers=tuple(gpt(**self._gpt)), loss=self.loss)

    def table_of(self, layer: int) -> LayerSpec | None:
        """The ``[[model.layer]]`` that a layer comes from, where there are such."""
        return None if self.layer is None else self._made[layer][0]

    @cached_property
    def _made(self) -> Any:
        return layers_of(self.layer or (), self.activation, self.bias)

    @property
    def _gpt(self) -> dict[str, Any]:
        size = GPTS.get(self.preset or "")
        shape = {} if size is None else size._asdict()
        shape |= {"sequence": SEQUENCE, "vocabulary": VOCABULARY}
        shape |= {key: value for key in _GPT_KEYS if (value := getattr(self, key)) is not None}
        routed, count = shape.pop("routed", 1), shape.pop("experts", None)
        missing = [key for key in ("layers", "hidden", "heads") if key not in shape]
        if missing:
            raise ValueError(f'preset = "gpt" needs {", ".join(missing)}; write them, or a size such as "gpt3-175b"')
        return shape | {"experts": None if count is None else Experts(count, routed)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layer is not None and (self.preset is not None or self.sizes is not None):
            raise ValueError("preset with sizes and [[model.layer]] are two ways to say it; keep one of them")
        if self.layer is None and (self.preset is None or (self.preset == "mlp" and self.sizes is None)):
            missing = "preset" if self.preset is None else "sizes"
            raise ValueError(
                f'{missing} is missing; write preset = "mlp" and sizes = [64, 10], or [[model.layer]] tables'
            )
        if self.sizes is not None and self.preset != "mlp":
            raise ValueError(f'sizes is for preset = "mlp", not "{self.preset}"; remove it')
        written = [key for key in _GPT_KEYS if getattr(self, key) is not None]
        if written and (self.preset is None or not self.preset.startswith("gpt")):
            raise ValueError(f'{written[0]} is for preset = "gpt" and its sizes; remove it')
        _ = self.network  # its checks raise ValueError
        return self
