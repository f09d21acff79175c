"""Networks by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from rpucluster.model import images
from rpucluster.model.layer import Layer
from rpucluster.model.network import Model

IMAGES: Final[Mapping[str, Callable[[], tuple[Layer, ...]]]] = MappingProxyType(
    {
        "lenet5": images.lenet5,
        "lenet5-rpu": images.lenet5_rpu,
        "alexnet": images.alexnet,
        "vgg16": images.vgg16,
        "resnet50": images.resnet50,
    }
)
"""Networks for images."""


class GptSize(NamedTuple):
    """Shape of a decoder: blocks, features of a token, attention heads."""

    layers: int
    hidden: int
    heads: int


GPTS: Final[Mapping[str, GptSize]] = MappingProxyType(
    {
        # Brown et al. 2020, table 2.1; its 1.3 B has 24 heads of 128, which are not 2048, and its 13 B 5140 features:
        # 16 heads and 5120 features are what fits
        "gpt3-125m": GptSize(12, 768, 12),
        "gpt3-350m": GptSize(24, 1024, 16),
        "gpt3-760m": GptSize(24, 1536, 16),
        "gpt3-1.3b": GptSize(24, 2048, 16),
        "gpt3-2.7b": GptSize(32, 2560, 32),
        "gpt3-6.7b": GptSize(32, 4096, 32),
        "gpt3-13b": GptSize(40, 5120, 40),
        "gpt3-175b": GptSize(96, 12288, 96),
        # Narayanan et al. 2021, table 1
        "gpt-530b": GptSize(105, 20480, 128),
        "gpt-1t": GptSize(128, 25600, 160),
        # ours: 12 * 205 * 64000^2 is 10.1 trillion; depth and width grow from 1 T by the same factor and a bit
        "gpt-10t": GptSize(205, 64000, 400),
    }
)
"""Decoders, all with 2,048 tokens and Megatron's padded 51,200 words unless the job says otherwise."""
SEQUENCE: Final = 2048
VOCABULARY: Final = 51200


def image_network(preset: str) -> Model:
    """One of `IMAGES`."""
    return Model(layers=IMAGES[preset]())
