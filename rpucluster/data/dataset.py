"""What a data set is, and how the one that a job names is loaded."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rpucluster.data.arrays import Floats, Ints, Samples
from rpucluster.data.idx import read_mnist
from rpucluster.data.parquet import read_parquet
from rpucluster.errors import ConfigError, DataError, MissingPackageError
from rpucluster.rng import permutation

DIGITS_TEST_SAMPLES = 360


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
            samples = read_mnist(_path(source.path, "path"))
        case "parquet":
            test_path = None if source.test_path is None else _path(source.test_path, "test_path")
            columns = (source.image_column, source.label_column)
            samples = read_parquet(_path(source.path, "path"), columns, test_path, source.test_fraction)
        case "none":
            raise DataError('[data] name = "none" has no samples; this job is to be planned and modelled, not trained')
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


def _digits() -> Samples:
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
