"""Data sets: scikit-learn's digits, MNIST from IDX files, any Parquet file with vectors and labels."""

import difflib
import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from rpucluster.errors import ConfigError, DataError, MissingPackageError
from rpucluster.rng import permutation

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DIGITS_TEST_SAMPLES = 360
_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20


class DataSource(Protocol):
    """What `load_data` wants to know; the ``[data]`` table of a job is one."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def image_column(self) -> str: ...
    @property
    def label_column(self) -> str: ...
    @property
    def test_path(self) -> str | None: ...
    @property
    def test_fraction(self) -> float | None: ...
    @property
    def train_samples(self) -> int | None: ...
    @property
    def test_samples(self) -> int | None: ...
    @property
    def validation(self) -> int | None: ...
    @property
    def nudge(self) -> float: ...


class Network(Protocol):
    """What `check_against` wants to know of a network; `rpucluster.model.Model` is one."""

    @property
    def inputs(self) -> int: ...
    @property
    def outputs(self) -> int: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Samples to train and to test on; all arrays are in C order and read-only."""

    name: str
    train_x: Floats
    """Shape (samples, features); 0..1 unless a Parquet file holds other floats."""
    train_y: Ints
    """Shape (samples,): class numbers from 0."""
    test_x: Floats
    """Shape (test samples, features)."""
    test_y: Ints
    """Shape (test samples,)."""
    classes: int
    """One more than the largest class number."""

    @property
    def features(self) -> int:
        """Values per sample."""
        return int(self.train_x.shape[1])


def load_data(source: DataSource) -> Dataset:
    """Read the data set that a job names.

    ``digits``: scikit-learn's 8 x 8 handwritten digits, divided by 16; the test set is the last 360 in file
    order.  ``mnist``: the four IDX files in the directory `path`, gzipped or not, divided by 255.
    ``parquet``: the file `path`, with a column of equally long lists of numbers and a column of integers
    from 0; integers in the lists must be 0 to 255 and are divided by 255, floats are taken as they are; the
    test set is the file `test_path`, or the last `test_fraction` in file order.  Relative paths start from
    the current directory, and ``~`` is the home directory.  `validation` holds the last so many training samples
    out and tests on them instead of on the test set, which then plays no part.  `train_samples` and
    `test_samples` keep the first so many of either; a `nudge` above 0 then adds the training images shifted
    four ways.

    Raises `DataError` for files that are missing, truncated or of the wrong kind, and `MissingPackageError`
    where scikit-learn is needed and not there.
    """
    match source.name:
        case "digits":
            samples = _digits()
        case "mnist":
            samples = _mnist(_path(source.path, "path"))
        case "parquet":
            samples = _parquet(source)
        case name:
            raise DataError(f'[data] name = "{name}": no such data set; write "digits", "mnist" or "parquet"')
    train_x, train_y, test_x, test_y, classes = samples
    if source.validation is not None:
        kept = _without_validation(source.validation, len(train_y), source.name)
        train_x, train_y, test_x, test_y = train_x[:kept], train_y[:kept], train_x[kept:], train_y[kept:]
    train = _limit("train_samples", source.train_samples, len(train_y), source.name)
    test = _limit("test_samples", source.test_samples, len(test_y), source.name)
    train_x, train_y = _kept(train_x[:train]), _kept(train_y[:train])
    if source.nudge:
        train_x, train_y = _kept(nudged(train_x, source.nudge)), _kept(np.tile(train_y, 5))
    return Dataset(
        name=source.name,
        train_x=train_x,
        train_y=train_y,
        test_x=_kept(test_x[:test]),
        test_y=_kept(test_y[:test]),
        classes=classes,
    )


def nudged(images: Floats, pixels: float) -> Floats:
    """Square images and, after them, each image shifted by part of a pixel down, up, right and left.

    `images` has the shape (samples, side * side), the result (5 * samples, side * side).  Shifting interpolates
    linearly between neighbours; what comes in from outside is 0.
    """
    side = math.isqrt(images.shape[1])
    square = images.reshape(-1, side, side)
    copies = [square]
    for dim in (1, 2):
        for step in (1, -1):
            whole = np.roll(square, step, axis=dim)
            edge: list[slice | int] = [slice(None)] * 3
            edge[dim] = 0 if step == 1 else -1
            whole[tuple(edge)] = 0
            copies.append(np.float32(1 - pixels) * square + np.float32(pixels) * whole)
    return np.concatenate(copies).reshape(-1, images.shape[1])


def check_against(model: Network, dataset: Dataset) -> None:
    """Check that the network takes the samples and can tell their classes apart.  Raises `ConfigError`."""
    if model.inputs != dataset.features:
        raise ConfigError(
            f"[model] sizes: the first must be {dataset.features}, the features of a sample of "
            f"{dataset.name}, but it is {model.inputs}; write {dataset.features} (as inputs of the first "
            f"[[model.layer]])"
        )
    if model.outputs < dataset.classes:
        raise ConfigError(
            f"[model] sizes: the last must be at least {dataset.classes}, the classes of {dataset.name}, "
            f"but it is {model.outputs}; write {dataset.classes} (as outputs of the last [[model.layer]])"
        )


def epoch_order(seed: int, epoch: int, samples: int, shuffle: bool) -> Ints:
    """The rows of the training set in the order in which an epoch visits them, shape (samples,).

    Depends on the seed and the epoch alone; without `shuffle` every epoch goes in file order.
    """
    return permutation(seed, epoch, samples) if shuffle else np.arange(samples)


_Samples = tuple[npt.NDArray[Any], Ints, npt.NDArray[Any], Ints, int]


def _kept(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A C-ordered read-only array; bytes become float32 in 0..1 only here, after the limit."""
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / np.float32(255)
    kept = np.ascontiguousarray(array)
    kept.flags.writeable = False
    return kept


def _limit(key: str, asked: int | None, there: int, name: str) -> int:
    if asked is None:
        return there
    if asked > there:
        raise DataError(f"[data] {key} = {asked} but {name} has {there}; write at most {there}")
    return asked


def _without_validation(asked: int, there: int, name: str) -> int:
    if asked >= there:
        raise DataError(f"[data] validation = {asked} but {name} has {there} to train on; write at most {there - 1}")
    return there - asked


def _path(text: str | None, key: str) -> Path:
    if text is None:
        raise DataError(f"[data] {key}: missing; write where the data set lies")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f'[data] {key} = "{text}": {error}') from None


def _digits() -> _Samples:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingPackageError(
            "the data set digits comes with scikit-learn, which is missing; run: pip install scikit-learn"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32)  # (1797, 64)
    y = labels.astype(np.int64)
    test = len(y) - DIGITS_TEST_SAMPLES
    return x[:test], y[:test], x[test:], y[test:], 10


# --- MNIST ---


def _mnist(folder: Path) -> _Samples:
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


# --- Parquet ---


def _parquet(source: DataSource) -> _Samples:
    path = _path(source.path, "path")
    x, y = _parquet_file(path, source.image_column, source.label_column)
    if source.test_path is not None:
        test_path = _path(source.test_path, "test_path")
        test_x, test_y = _parquet_file(test_path, source.image_column, source.label_column)
        if x.shape[1] != test_x.shape[1]:
            raise DataError(
                f"{test_path}: rows of {source.image_column} have {test_x.shape[1]} values, those of {path} "
                f"have {x.shape[1]}"
            )
        return x, y, test_x, test_y, int(max(y.max(), test_y.max())) + 1
    if source.test_fraction is None:
        raise DataError("[data] test_path: missing; write it, or test_fraction such as 0.2")
    test = round(len(y) * source.test_fraction)
    if not 0 < test < len(y):
        raise DataError(
            f"[data] test_fraction = {source.test_fraction} of the {len(y)} rows of {path} leaves {test} to "
            f"test and {len(y) - test} to train on; at least 1 of each is needed"
        )
    start = len(y) - test
    return x[:start], y[:start], x[start:], y[start:], int(y.max()) + 1


def _parquet_file(path: Path, image_column: str, label_column: str) -> tuple[npt.NDArray[Any], Ints]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            for key, column in (("image_column", image_column), ("label_column", label_column)):
                if known.count(column) != 1:
                    close = difflib.get_close_matches(column, known, n=1)
                    hint = f'did you mean "{close[0]}"?' if close else f"columns are {', '.join(known)}"
                    raise DataError(f"{path}: [data] {key}: {known.count(column)} columns {column}; {hint}")
            table = file.read([image_column, label_column])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None
    if table.num_rows == 0:
        raise DataError(f"{path}: no rows")
    x = _vectors(table.column(image_column), f"{path}: column {image_column}")
    return x, _labels(table.column(label_column), f"{path}: column {label_column}")


def _refuse_nulls(column: Any, where: str) -> None:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f"{where}: row {row} is null; {column.null_count} such rows must go")


def _vectors(column: Any, where: str) -> npt.NDArray[Any]:
    """A column of lists as (rows, values): uint8 where it holds integers, float32 where it holds floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"{where}: holds {kind}, a list of numbers needed in each row")
    integers = pa.types.is_integer(kind.value_type)
    if not (integers or pa.types.is_floating(kind.value_type)):
        raise DataError(f"{where}: holds lists of {kind.value_type}, numbers needed")
    _refuse_nulls(column, where)
    lengths = pc.list_value_length(column).to_numpy()
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        raise DataError(f"{where}: row {odd[0]} has {lengths[odd[0]]} values but row 0 has {lengths[0]}")
    width = int(lengths[0])
    if width == 0:
        raise DataError(f"{where}: lists without values, numbers needed")
    parts = [chunk.flatten() for chunk in column.chunks]
    if any(part.null_count for part in parts):
        at = int(np.argmax(np.concatenate([part.is_null().to_numpy(zero_copy_only=False) for part in parts])))
        raise DataError(f"{where}: row {at // width} has a null among its values")
    values = np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])
    if integers:
        wrong = np.flatnonzero((values < 0) | (values > 255))
        if len(wrong):
            raise DataError(
                f"{where}: row {wrong[0] // width} has {values[wrong[0]]}; integers must be 0 to 255, for "
                f"they are divided by 255; write floats for anything else"
            )
        return values.astype(np.uint8).reshape(-1, width)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
        floats = values.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(floats))
    if len(wrong):
        raise DataError(f"{where}: row {wrong[0] // width} has {values[wrong[0]]}, finite float32 needed")
    return floats.reshape(-1, width)


def _labels(column: Any, where: str) -> Ints:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_integer(column.type):
        raise DataError(f"{where}: holds {column.type}, integer class numbers needed")
    _refuse_nulls(column, where)
    span = pc.min_max(column)
    low, high = span["min"].as_py(), span["max"].as_py()
    if low < 0 or high >= 2**31:
        wrong = low if low < 0 else high
        raise DataError(f"{where}: class number {wrong}; write class numbers from 0")
    labels: Ints = column.to_numpy().astype(np.int64)
    return labels
