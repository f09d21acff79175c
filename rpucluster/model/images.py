"""Networks for images by shape: LeNet-5, AlexNet, VGG-16, ResNet-50."""

from collections.abc import Sequence
from typing import Any

from rpucluster.model.convolution import Image, Pool, convolution
from rpucluster.model.layer import Activation, Bias, Layer, dense


class _Chain:
    """Layers so far and the image that the last of them gives."""

    def __init__(self, image: Image) -> None:
        self.image, self.layers = image, list[Layer]()

    def convolve(self, name: str, filters: int, kernel: int, **values: Any) -> None:
        """Add a convolution."""
        layer, self.image = convolution(self.image, name=name, filters=filters, kernel=kernel, **values)
        self.layers.append(layer)

    def connect(self, sizes: Sequence[int], activation: Activation, bias: Bias) -> tuple[Layer, ...]:
        """Add fully connected layers, the last without activation function; all layers."""
        inputs = self.image.elements
        for i, outputs in enumerate(sizes):
            last = i == len(sizes) - 1
            self.layers.append(
                dense(
                    name=f"dense{i + 1}",
                    inputs=inputs,
                    outputs=outputs,
                    activation="identity" if last else activation,
                    bias=bias,
                )
            )
            inputs = outputs
        return tuple(self.layers)


def lenet5() -> tuple[Layer, ...]:
    """LeNet-5 (LeCun et al. 1998) with every filter of its second layer on all channels: 61,706 parameters."""
    chain = _Chain(Image(channels=1, height=32, width=32))
    for i, filters in enumerate((6, 16)):
        chain.convolve(
            f"conv{i + 1}", filters, 5, activation="tanh", bias="column", pool=Pool(size=2, stride=2, mean=True)
        )
    chain.convolve("conv3", 120, 5, activation="tanh", bias="column")
    return chain.connect((84, 10), "tanh", "column")


def lenet5_rpu() -> tuple[Layer, ...]:
    """The LeNet that was trained on simulated arrays (Gokmen, Onen and Haensch 2017): arrays of 16 x 26, 32 x 401,
    128 x 513 and 10 x 129, which 576, 64, 1 and 1 vectors of an image pass."""
    chain = _Chain(Image(channels=1, height=28, width=28))
    for i, filters in enumerate((16, 32)):
        chain.convolve(f"conv{i + 1}", filters, 5, activation="tanh", bias="column", pool=Pool(size=2, stride=2))
    return chain.connect((128, 10), "tanh", "column")


def alexnet() -> tuple[Layer, ...]:
    """AlexNet (Krizhevsky, Sutskever and Hinton 2012) with its layers in two groups: 60,965,224 parameters."""
    chain = _Chain(Image(channels=3, height=227, width=227))
    window = Pool(size=3, stride=2)
    chain.convolve("conv1", 96, 11, stride=4, local_response=True, pool=window)
    chain.convolve("conv2", 256, 5, padding=2, groups=2, local_response=True, pool=window)
    chain.convolve("conv3", 384, 3, padding=1)
    chain.convolve("conv4", 384, 3, padding=1, groups=2)
    chain.convolve("conv5", 256, 3, padding=1, groups=2, pool=window)
    return chain.connect((4096, 4096, 1000), "relu", "digital")


def vgg16() -> tuple[Layer, ...]:
    """VGG-16 (Simonyan and Zisserman 2014, configuration D): 138,357,544 parameters."""
    chain = _Chain(Image(channels=3, height=224, width=224))
    for i, (filters, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for j in range(depth):
            pool = Pool(size=2, stride=2) if j == depth - 1 else None
            chain.convolve(f"conv{i + 1}_{j + 1}", filters, 3, padding=1, pool=pool)
    return chain.connect((4096, 4096, 1000), "relu", "digital")


def resnet50() -> tuple[Layer, ...]:
    """ResNet-50 (He et al. 2015), blocks that shrink the image doing so in their first layer: 25,557,032 parameters.

    The shortcut of such a block has an array of its own, which stands before the others of the block.
    """
    chain = _Chain(Image(channels=3, height=224, width=224))
    plain: dict[str, Any] = {"bias": "none", "batch_norm": True}
    chain.convolve("conv1", 64, 7, stride=2, padding=3, pool=Pool(size=3, stride=2, padding=1), **plain)
    for i, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for j in range(depth):
            name, stride = f"conv{i + 2}_{j + 1}", 2 if i and not j else 1
            beside = chain.image.elements
            if not j:
                chain.convolve(
                    f"{name}.shortcut", 4 * width, 1, stride=stride, activation="identity", shortcut=True, **plain
                )
                beside = chain.layers[-1].carried
            last = i == 3 and j == depth - 1
            chain.convolve(f"{name}.a", width, 1, stride=stride, carried=beside, **plain)
            chain.convolve(f"{name}.b", width, 3, padding=1, carried=beside, **plain)
            pool = Pool(size=7, stride=7, mean=True) if last else None
            chain.convolve(f"{name}.c", 4 * width, 1, residual=True, pool=pool, **plain)
    return chain.connect((1000,), "relu", "digital")
