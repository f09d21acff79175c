"""Convolutions as arrays: a kernel is a row, an output position is a vector.

The kernels of a layer are an array of `filters` rows and ``kernel * kernel * channels`` columns (and the bias), which
each output position passes once forward, once back and once in the update (Gokmen, Onen and Haensch, Front. Neurosci.
11:538, 2017).  What leaves an accelerator is the image, not the columns that are made of it.
"""

from dataclasses import dataclass

from rpucluster.model import operations
from rpucluster.model.layer import Activation, Bias, Layer, TensorSplit


@dataclass(frozen=True, kw_only=True)
class Image:
    """Channels of an image, its height and width."""

    channels: int
    height: int
    width: int

    @property
    def elements(self) -> int:
        """Numbers of an image."""
        return self.channels * self.height * self.width

    def after(self, kernel: int, stride: int, padding: int, channels: int | None = None) -> "Image":
        """The image that a window of ``kernel x kernel`` leaves.  Raises `ValueError` where the window does not fit."""
        size = [1 + (side + 2 * padding - kernel) // stride for side in (self.height, self.width)]
        if min(size) < 1:
            raise ValueError(f"a window of {kernel} x {kernel} does not fit an image of {self.height} x {self.width}")
        return Image(channels=channels or self.channels, height=size[0], width=size[1])


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The largest, or the mean, of each window of ``size x size``."""

    size: int
    stride: int
    padding: int = 0
    mean: bool = False

    @property
    def operations(self) -> int:
        """Of each element that comes out: comparisons, or sums and a product."""
        return self.size**2 - (not self.mean)


def convolution(
    image: Image,
    *,
    name: str,
    filters: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    activation: Activation = "relu",
    bias: Bias = "digital",
    pool: Pool | None = None,
    batch_norm: bool = False,
    local_response: bool = False,
    residual: bool = False,
    carried: int = 0,
    shortcut: bool = False,
    tensor_split: TensorSplit | None = None,
) -> tuple[Layer, Image]:
    """A convolution of an image, normalisation, the sum with a shortcut, activation, pooling; and what comes out.

    `carried` elements go on beside it, as inside a residual block.  With `shortcut` it is itself the shortcut: it gives
    its image on and what it makes is carried.  Raises `ValueError` for groups that do not divide the channels and
    filters and for windows that do not fit.
    """
    if image.channels % groups or filters % groups:
        raise ValueError(f"layer {name}: {groups} groups do not divide {image.channels} channels and {filters} filters")
    made = image.after(kernel, stride, padding, filters)
    given = made if pool is None else made.after(pool.size, pool.stride, pool.padding)
    sums, active = made.elements, activation != "identity"
    forward = sums * ((bias == "digital") + operations.NORM * batch_norm + residual + active)
    forward += sums * operations.LOCAL_RESPONSE * local_response
    back = sums * (operations.NORM_BACK * batch_norm + residual + active + operations.LOCAL_RESPONSE * local_response)
    if pool is not None:
        forward += given.elements * pool.operations
        back += given.elements
    if shortcut:
        back += image.elements  # its error joins that of the block
        given = image
    layer = Layer(
        name=name,
        kind="convolution",
        rows=filters // groups,
        cols=kernel**2 * (image.channels // groups) + (bias == "column"),
        arrays=groups,
        positions=made.height * made.width,
        inputs=image.elements,
        input_features=image.channels // groups,
        outputs=given.elements,
        output_features=given.channels // groups,
        activation=activation,
        bias=bias,
        tensor_split=tensor_split,
        operations=forward,
        back_operations=back,
        kept=sums * (batch_norm + local_response + (pool is not None)),
        carried=sums if shortcut else carried,
        digital_parameters=2 * filters * batch_norm,
        overlapping=kernel > stride,
        passes_input=shortcut,
    )
    return layer, given
