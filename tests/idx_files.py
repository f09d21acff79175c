"""IDX files as MNIST has them, with pictures that a network can tell apart."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """The bytes of an IDX file: two zeros, 8 for bytes, the number of dimensions, their sizes, the values."""
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, train: int, test: int, seed: int = 0, zipped: bool = True) -> Path:
    """The four files: each class is a patch of its own place, in noise; as large as MNIST's pictures."""
    values: Any = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for part, samples in (("train", train), ("t10k", test)):
        labels = (np.arange(samples) % 10).astype(np.uint8)
        images = values.integers(0, 40, (samples, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, col = 14 * (label // 5), 5 * (label % 5)
            image[row : row + 12, col : col + 5] += np.uint8(200)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(array)
            path = folder / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(content, 1) if zipped else content)
    return folder
