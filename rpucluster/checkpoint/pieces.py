"""Rectangles of named arrays in a Parquet file, one row group each, and arrays put together from them again."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rpucluster.errors import RunDirectoryError
from rpucluster.files import schema, unreadable, write_atomically

DTYPES = ("<f4", "<i4", "<i8")
"""Types that a piece may have, little endian."""

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of files that a manifest may name: of its own folder."""


class Piece(NamedTuple):
    """A rectangle of an array that a replica's layer keeps."""

    replica: int
    layer: int
    name: str
    row: int
    """Of its upper left corner in the layer's whole array; so is `col`."""
    col: int
    values: npt.NDArray[Any]
    """Shape (rows, cols)."""


class Place(NamedTuple):
    """What the manifest says of a piece: all but its values."""

    replica: int
    layer: int
    name: str
    row: int
    col: int
    rows: int
    cols: int
    dtype: str


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file of pieces as it was written."""

    name: str
    bytes: int
    sha256: str
    pieces: tuple[Place, ...]
    """In the order of the row groups."""

    def to_dict(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return asdict(self) | {"pieces": [list(place) for place in self.pieces]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "WrittenFile":
        """Read it back.  Raises ValueError, KeyError or TypeError for content of another form."""
        places = []
        for replica, layer, name, row, col, rows, cols, dtype in content["pieces"]:
            numbers = [int(number) for number in (replica, layer, row, col, rows, cols)]
            if min(numbers) < 0 or dtype not in DTYPES:
                raise ValueError(f"a piece {name} of type {dtype}")
            replica, layer, row, col, rows, cols = numbers
            if rows * cols * np.dtype(dtype).itemsize > int(content["bytes"]):
                raise ValueError(f"a piece {name} of {rows} x {cols} values in {content['bytes']} bytes")
            places.append(Place(replica, layer, str(name), row, col, rows, cols, str(dtype)))
        name = str(content["name"])
        if not _FILE.fullmatch(name):
            raise ValueError(f"a file named {name!r}")
        return cls(name=name, bytes=int(content["bytes"]), sha256=str(content["sha256"]), pieces=tuple(places))


_ROW = schema(
    ("replica", pa.int64(), "1"),
    ("layer", pa.int64(), "1"),
    ("name", pa.string(), "1"),
    ("row", pa.int64(), "1"),
    ("col", pa.int64(), "1"),
    ("rows", pa.int64(), "1"),
    ("cols", pa.int64(), "1"),
    ("dtype", pa.string(), "1"),
    ("values", pa.large_binary(), "1"),
)


def write_pieces(path: Path, pieces: Iterable[Piece]) -> WrittenFile:
    """Write a file of pieces as they come, uncompressed, and put it on the disk.

    Raises `RunError` where the system refuses; nothing is left behind then.
    """
    places: list[Place] = []
    digest, size = hashlib.sha256(), 0

    def write(stream: BinaryIO) -> None:
        nonlocal size
        hashing = _Hashing(stream, digest)
        with pq.ParquetWriter(hashing, _ROW, compression="none", use_dictionary=False) as writer:
            for piece in pieces:
                values = np.ascontiguousarray(piece.values)
                values = values.astype(values.dtype.newbyteorder("<"), copy=False)
                rows, cols = values.shape
                place = Place(*piece[:5], rows, cols, values.dtype.str)
                if place.dtype not in DTYPES:
                    raise TypeError(f"{piece.name} has type {values.dtype}")
                columns = [*place, values.tobytes()]
                arrays = [pa.array([c], f.type) for c, f in zip(columns, _ROW, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=_ROW))
                places.append(place)
        size = hashing.tell()

    write_atomically(path, write)
    return WrittenFile(name=path.name, bytes=size, sha256=digest.hexdigest(), pieces=tuple(places))


def fill(
    target: npt.NDArray[Any], key: tuple[int, int, str], corner: tuple[int, int], files: Mapping[Path, WrittenFile]
) -> None:
    """Fill an array (rows, cols), whose upper left lies at `corner`, with the pieces of `key`, replica, layer and name.

    Several pieces may hold the same elements, as shards do that share lines; they have to agree.  Raises
    `RunDirectoryError` where elements are missing, differ or are of another type.
    """
    found = np.zeros(target.shape, np.bool_)
    what = f"{key[2]} of replica {key[0]}, layer {key[1]}"
    for path, file in files.items():
        overlaps = [(i, box) for i, place in enumerate(file.pieces) if (box := _overlap(place, key, corner, target))]
        if not overlaps:
            continue
        for (_, (into, of)), values in zip(overlaps, _read(path, file, [i for i, _ in overlaps]), strict=True):
            if values.dtype != target.dtype:
                raise RunDirectoryError(f"{path}: {what} has type {values.dtype}, not {target.dtype}")
            part, known = values[of], found[into]
            if known.any() and target[into][known].tobytes() != part[known].tobytes():
                raise RunDirectoryError(f"{path}: {what} differs from another file of the checkpoint")
            target[into] = part
            found[into] = True
    if not found.all():
        folder = next(iter(files)).parent if files else "the checkpoint"
        raise RunDirectoryError(f"{folder}: {what} is not all there; it is a checkpoint of another network")


def _overlap(place: Place, key: tuple[int, int, str], corner: tuple[int, int], target: npt.NDArray[Any]) -> Any:
    """Where a piece and a target meet, as slices of the target and of the piece; None where they do not."""
    if (place.replica, place.layer, place.name) != key:
        return None
    into, of = [], []
    starts, sizes = (place.row, place.col), (place.rows, place.cols)
    for at, wanted, start, size in zip(corner, target.shape, starts, sizes, strict=True):
        first, stop = max(at, start), min(at + wanted, start + size)
        if first >= stop:
            return None
        into.append(slice(first - at, stop - at))
        of.append(slice(first - start, stop - start))
    return tuple(into), tuple(of)


def _read(path: Path, file: WrittenFile, groups: list[int]) -> Iterable[npt.NDArray[Any]]:
    """The values of some row groups, checked against what the manifest says of them."""
    try:
        with pq.ParquetFile(path) as parquet:
            if parquet.num_row_groups != len(file.pieces):
                raise ValueError(f"{parquet.num_row_groups} pieces where the manifest has {len(file.pieces)}")
            for group in groups:
                about = parquet.metadata.row_group(group)
                compressed = {about.column(c).compression for c in range(about.num_columns)} != {"UNCOMPRESSED"}
                if about.num_rows != 1 or compressed or about.total_byte_size > file.bytes:
                    raise ValueError(f"piece {group} is larger than its file")
                row = parquet.read_row_group(group, columns=_ROW.names).cast(_ROW).to_pylist()[0]
                values, place = row.pop("values"), file.pieces[group]
                if tuple(row.values()) != place:
                    raise ValueError(f"piece {group} is not the one of the manifest")
                yield np.frombuffer(values, place.dtype).reshape(place.rows, place.cols)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise unreadable(path, error) from None


class _Hashing:
    """A stream to write to that takes what passes into a digest; Arrow writes files from front to back."""

    closed = False

    def __init__(self, stream: BinaryIO, digest: Any) -> None:
        self._stream, self._digest, self._size = stream, digest, 0

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self._digest.update(view)
        self._stream.write(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The stream is closed by who opened it."""
