"""MNIST from its IDX files."""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from rpucluster.data.arrays import Ints, Samples
from rpucluster.errors import DataError

_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20


def read_mnist(folder: Path) -> Samples:
    """The four files in a folder, pixels as bytes.  Raises `DataError`."""
    if not folder.is_dir():
        raise DataError(f"[data] path: {folder} is no directory; write the one with MNIST's four IDX files")
    train_x, train_y = _mnist_part(folder, "train")
    test_x, test_y = _mnist_part(folder, "t10k")
    if train_x.shape[1] != test_x.shape[1]:
        raise DataError(
            f"{folder}: training images have {train_x.shape[1]} pixels but test images have {test_x.shape[1]}"
        )
    return train_x, train_y, test_x, test_y, 10


def _mnist_part(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], Ints]:
    label_file = _mnist_file(folder, f"{part}-labels", 1)
    image_file = _mnist_file(folder, f"{part}-images", 3)
    labels, images = read_idx(label_file, 1), read_idx(image_file, 3)
    if len(labels) != len(images):
        raise DataError(f"{image_file}: {len(images)} images but {label_file.name} has {len(labels)} labels")
    if labels.max() > 9:
        raise DataError(f"{label_file}: label {labels.max()} of sample {labels.argmax()} is not 0 to 9")
    return images.reshape(len(images), -1), labels.astype(np.int64)


def _mnist_file(folder: Path, stem: str, dimensions: int) -> Path:
    names = [f"{stem}{dot}idx{dimensions}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder / names[0]}: no such file, gzipped (.gz) or not; put MNIST's four files there")


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not, which its first bytes tell.

    Nothing is allocated for what the header claims before that much has been read.  Raises `DataError` naming
    the file, what was found and what is needed for a wrong magic number, type or number of dimensions, an
    empty array, and a file that is longer or shorter than its header says.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _read_idx(raw, path, dimensions)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _read_idx(unzipped, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "is truncated" if isinstance(error, EOFError) else f"is damaged ({error})"
        raise DataError(f"{path}: the gzip file {reason}; fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _read_idx(stream: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    header = 4 + 4 * dimensions
    head = stream.read(header)
    if head[:2] not in (b"\0\0", b"\0", b""):
        raise DataError(f"{path}: not an IDX file: the first bytes are {head[:2].hex()}, 0000 needed")
    if len(head) > 2 and head[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: IDX type 0x{head[2]:02x} found, 0x{_UNSIGNED_BYTE:02x} (bytes) needed")
    if len(head) > 3 and head[3] != dimensions:
        raise DataError(f"{path}: {head[3]} dimensions found, {dimensions} needed")
    if len(head) < header:
        raise DataError(f"{path}: truncated: {len(head)} bytes found, {header} needed for the header alone")
    shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, header, 4))
    needed = math.prod(shape)
    if needed == 0:
        raise DataError(f"{path}: an empty array, {' x '.join(map(str, shape))}, found; samples needed")
    content = bytearray()
    while len(content) <= needed:  # one byte more than needed, to see whether there is any
        chunk = stream.read(min(_CHUNK, needed + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    if len(content) != needed:
        found = "more" if len(content) > needed else f"{len(content):,}"
        kind = "trailing bytes" if len(content) > needed else "truncated"
        raise DataError(f"{path}: {kind}: {found} found after the header, {needed:,} needed")
    return np.frombuffer(content, np.uint8).reshape(shape)
