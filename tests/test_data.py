"""Data sets: every sample arrives as it was written, and every kind of broken file is told in one line."""

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from rpucluster.data import check_against, epoch_order, load_data, read_idx
from rpucluster.errors import ConfigError, DataError, MissingPackageError
from rpucluster.job.training import DataSpec
from rpucluster.model import mlp
from tests.idx_files import idx

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


Bytes = npt.NDArray[np.uint8]


def refusal(call: Callable[..., object], *arguments: Any, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- digits ---


def test_the_test_set_of_digits_is_the_last_360_in_file_order() -> None:
    data = load_data(DataSpec(name="digits"))
    pixels, labels = load_digits(return_X_y=True)
    assert (data.train_x.shape, data.test_x.shape) == ((1437, 64), (360, 64))
    # sixteenths are exact in float32
    assert np.array_equal(np.concatenate([data.train_x, data.test_x]) * 16, pixels)
    assert np.array_equal(np.concatenate([data.train_y, data.test_y]), labels)
    assert (data.features, data.classes) == (64, 10)
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)


def test_arrays_are_of_the_promised_kind_and_cannot_be_changed() -> None:
    data = load_data(DataSpec(name="digits", train_samples=100, test_samples=7))
    for x, y, samples in ((data.train_x, data.train_y, 100), (data.test_x, data.test_y, 7)):
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert (len(x), len(y)) == (samples, samples)
        assert x.flags.c_contiguous
        assert not x.flags.writeable
        assert not y.flags.writeable


def test_limits_keep_the_first_samples() -> None:
    whole, part = load_data(DataSpec(name="digits")), load_data(DataSpec(name="digits", train_samples=100))
    assert np.array_equal(part.train_x, whole.train_x[:100])
    assert np.array_equal(part.test_x, whole.test_x)


def test_more_samples_than_there_are() -> None:
    assert refusal(load_data, DataSpec(name="digits", train_samples=1438)) == (
        "[data] train_samples = 1438 but digits has 1437; write at most 1437"
    )
    assert refusal(load_data, DataSpec(name="digits", test_samples=361)) == (
        "[data] test_samples = 361 but digits has 360; write at most 360"
    )


def test_validation_images_are_the_last_of_the_training_set_and_the_test_set_plays_no_part(tmp_path: Path) -> None:
    whole = load_data(DataSpec(name="digits"))
    part = load_data(DataSpec(name="digits", validation=200, train_samples=1000, test_samples=150))
    assert np.array_equal(part.train_x, whole.train_x[:1000])
    assert np.array_equal(part.test_x, whole.train_x[1237:1387])
    assert np.array_equal(part.test_y, whole.train_y[1237:1387])
    nudged_too = load_data(DataSpec(name="digits", validation=37, nudge=0.5))
    assert len(nudged_too.train_y) == 5 * 1400  # only what is trained on is copied
    assert np.array_equal(nudged_too.test_x, whole.train_x[1400:])
    pixels, labels = images(30)
    mnist = load_data(DataSpec(name="mnist", path=str(mnist_folder(tmp_path)), validation=10))
    assert np.array_equal(mnist.train_y, labels[:20])
    assert np.array_equal(mnist.test_x, (pixels[20:].reshape(10, 20) / np.float32(255)).astype(np.float32))


def test_validation_leaves_something_to_train_on() -> None:
    assert refusal(load_data, DataSpec(name="digits", validation=1437)) == (
        "[data] validation = 1437 but digits has 1437 to train on; write at most 1436"
    )
    assert refusal(load_data, DataSpec(name="digits", validation=1000, train_samples=438)) == (
        "[data] train_samples = 438 but digits has 437; write at most 437"
    )


def test_digits_say_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert refusal(load_data, DataSpec(name="digits"), kind=MissingPackageError) == (
        "the data set digits comes with scikit-learn, which is missing; run: pip install scikit-learn"
    )


def test_an_unknown_data_set() -> None:
    source = SimpleNamespace(name="cifar")
    assert refusal(load_data, source) == (
        '[data] name = "cifar": no such data set; write "digits", "mnist" or "parquet"'
    )


# --- IDX ---

arrays = st.integers(1, 3).flatmap(
    lambda n: st.tuples(*[st.integers(1, 6)] * n).flatmap(
        lambda shape: st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
            lambda content: np.frombuffer(content, np.uint8).reshape(shape)
        )
    )
)


Writer = Callable[[bytes], Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """Writes a file; of the module, since the many examples of one hypothesis test share it."""
    path = tmp_path_factory.mktemp("idx") / "file"

    def write(content: bytes) -> Path:
        path.write_bytes(content)
        return path

    return write


@given(arrays, st.booleans())
def test_what_is_written_as_idx_is_read(written: Writer, array: Bytes, zipped: bool) -> None:
    content = idx(array)
    read = read_idx(written(gzip.compress(content) if zipped else content), array.ndim)
    assert np.array_equal(read, array)
    assert read.shape == array.shape


@given(arrays, st.booleans(), st.data())
def test_every_truncation_is_told_with_found_and_needed(
    written: Writer, array: Bytes, zipped: bool, data: st.DataObject
) -> None:
    content = idx(array)
    header = 4 + 4 * array.ndim
    # within the magic number, within the sizes, between header and values, within the values
    keep = data.draw(st.integers(0, len(content) - 1))
    path = written(gzip.compress(content[:keep]) if zipped else content[:keep])
    if keep < header:
        found = f"{keep} bytes found, {header} needed for the header alone"
    else:
        found = f"{keep - header} found after the header, {array.size} needed"
    assert refusal(read_idx, path, array.ndim) == f"{path}: truncated: {found}"


@given(arrays, st.binary(min_size=1, max_size=40), st.booleans())
def test_trailing_bytes_are_told(written: Writer, array: Bytes, more: bytes, zipped: bool) -> None:
    content = idx(array) + more
    path = written(gzip.compress(content) if zipped else content)
    assert refusal(read_idx, path, array.ndim) == (
        f"{path}: trailing bytes: more found after the header, {array.size} needed"
    )


@given(arrays, st.data())
@settings(max_examples=50)
def test_a_gzip_file_cut_anywhere_is_told(written: Writer, array: Bytes, data: st.DataObject) -> None:
    content = gzip.compress(idx(array))
    path = written(content[: data.draw(st.integers(2, len(content) - 1))])
    assert refusal(read_idx, path, array.ndim) == f"{path}: the gzip file is truncated; fetch it again"


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx(np.arange(200, dtype=np.uint8))))
    content[-6] ^= 1  # in the checksum
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    assert refusal(read_idx, path, 1).startswith(f"{path}: the gzip file is damaged (CRC check failed")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"<!DOCTYPE html>", "not an IDX file: the first bytes are 3c21, 0000 needed"),
        (b"\0\0\x0d\x01\0\0\0\x01\0", "IDX type 0x0d found, 0x08 (bytes) needed"),
        (b"\0\0\x08\x01\0\0\0\x01\0", "1 dimensions found, 3 needed"),
        (idx(np.zeros((0, 28, 28), np.uint8)), "an empty array, 0 x 28 x 28, found; samples needed"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, head: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(head)
    assert refusal(read_idx, path, 3) == f"{path}: {message}"


@pytest.mark.parametrize("zipped", [False, True])
def test_sizes_are_not_believed_before_that_much_has_been_read(tmp_path: Path, zipped: bool) -> None:
    # 2^96 bytes could not be allocated
    content = struct.pack(">2xBB3I", 8, 3, *[2**32 - 1] * 3) + b"\0" * 5
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert refusal(read_idx, path, 3) == (f"{path}: truncated: 5 found after the header, {(2**32 - 1) ** 3:,} needed")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(read_idx, tmp_path, 3) == f"{tmp_path}: cannot be read: Is a directory"


# --- MNIST ---


def images(samples: int, seed: int = 0, side: int = 4) -> tuple[Bytes, Bytes]:
    values = np.random.default_rng(seed)
    pixels = values.integers(0, 256, (samples, side, side + 1), np.uint8)
    return pixels, values.integers(0, 10, samples).astype(np.uint8)


def mnist_folder(folder: Path, dot: str = "-", zipped: bool = False, **parts: Bytes) -> Path:
    train_images, train_labels = images(30)
    test_images, test_labels = images(20, seed=1)
    files = {
        "train-images": train_images,
        "train-labels": train_labels,
        "t10k-images": test_images,
        "t10k-labels": test_labels,
    } | {key.replace("_", "-"): value for key, value in parts.items()}
    for stem, array in files.items():
        name = f"{stem}{dot}idx{array.ndim}-ubyte{'.gz' if zipped else ''}"
        (folder / name).write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return folder


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_read_in_every_spelling(tmp_path: Path, dot: str, zipped: bool) -> None:
    data = load_data(DataSpec(name="mnist", path=str(mnist_folder(tmp_path, dot, zipped)), train_samples=25))
    pixels, labels = images(30)
    assert np.array_equal(data.train_x, (pixels[:25].reshape(25, 20) / np.float32(255)).astype(np.float32))
    assert np.array_equal(data.train_y, labels[:25])
    assert np.array_equal(data.test_y, images(20, seed=1)[1])
    assert (data.features, data.classes, data.name) == (20, 10, "mnist")
    assert data.train_x.dtype == np.float32
    assert data.train_y.dtype == np.int64


def test_the_directory_may_start_from_home_or_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    mnist_folder(tmp_path / "mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/mnist", "mnist"):
        assert len(load_data(DataSpec(name="mnist", path=path)).train_y) == 30
    assert refusal(load_data, DataSpec(name="mnist", path="~nobody-of-this-name/mnist")).startswith(
        '[data] path = "~nobody-of-this-name/mnist": '
    )


def test_what_mnist_lacks(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert refusal(load_data, DataSpec(name="mnist", path=str(missing))) == (
        f"[data] path: {missing} is no directory; write the one with MNIST's four IDX files"
    )
    folder = mnist_folder(tmp_path)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert refusal(load_data, DataSpec(name="mnist", path=str(folder))) == (
        f"{folder}/t10k-labels-idx1-ubyte: no such file, gzipped (.gz) or not; put MNIST's four files there"
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"train_labels": np.zeros(29, np.uint8)},
            "train-images-idx3-ubyte: 30 images but train-labels-idx1-ubyte has 29 labels",
        ),
        (
            {"t10k_labels": np.array([0] * 7 + [10] + [0] * 12, np.uint8)},
            "t10k-labels-idx1-ubyte: label 10 of sample 7 is not 0 to 9",
        ),
    ],
)
def test_files_that_do_not_belong_together(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    folder = mnist_folder(tmp_path, **parts)
    assert refusal(load_data, DataSpec(name="mnist", path=str(folder))) == f"{folder}/{message}"


def test_images_of_two_sizes(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path, t10k_images=images(20, side=5)[0])
    assert refusal(load_data, DataSpec(name="mnist", path=str(folder))) == (
        f"{folder}: training images have 20 pixels but test images have 30"
    )


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not in ../shared/data/mnist")
def test_the_real_mnist() -> None:
    data = load_data(DataSpec(name="mnist", path=str(MNIST)))
    assert (data.train_x.shape, data.test_x.shape) == ((60_000, 784), (10_000, 784))
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    # figures that are published with the data set: mean and deviation of the pixels, samples of each digit
    assert data.train_x.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert data.train_x.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)
    assert np.bincount(data.train_y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    check_against(mlp([784, 256, 128, 10]), data)


# --- Parquet ---


def parquet(path: Path, image: pa.Array, label: pa.Array, **writing: Any) -> str:
    pq.write_table(pa.table({"image": image, "label": label}), path, **writing)
    return str(path)


def rows(samples: int, width: int = 3) -> list[list[float]]:
    return [[i + j / 8 for j in range(width)] for i in range(samples)]


FLOATS = pa.list_(pa.float32())
LABELS = pa.array([0, 1, 2, 1, 0])


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 3),  # fixed size
    ],
)
def test_floats_are_taken_as_they_are(tmp_path: Path, kind: pa.DataType) -> None:
    # the file has three row groups, which arrive as three chunks
    values = pa.array([[kind.value_type.to_pandas_dtype()(v) for v in row] for row in rows(5)], kind)
    path = parquet(tmp_path / "train.parquet", values, LABELS, row_group_size=2)
    data = load_data(DataSpec(name="parquet", path=path, test_fraction=0.4))
    assert np.array_equal(data.train_x, np.array(rows(5)[:3], np.float32))
    assert np.array_equal(data.test_x, np.array(rows(5)[3:], np.float32))
    assert (data.train_y.tolist(), data.test_y.tolist()) == ([0, 1, 2], [1, 0])
    assert (data.features, data.classes) == (3, 3)
    assert data.train_x.dtype == np.float32
    assert data.train_y.dtype == np.int64


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int64(), pa.int16()])
@pytest.mark.parametrize("label", [pa.uint8(), pa.int32(), pa.int64(), pa.uint64()])
def test_integers_are_bytes_and_divided_by_255(tmp_path: Path, kind: pa.DataType, label: pa.DataType) -> None:
    values = [[0, 255], [51, 102], [1, 2], [3, 4], [5, 6]]
    path = parquet(tmp_path / "train.parquet", pa.array(values, pa.list_(kind)), LABELS.cast(label))
    data = load_data(DataSpec(name="parquet", path=path, test_fraction=0.2))
    assert np.array_equal(data.train_x, np.array(values[:4], np.float32) / np.float32(255))
    assert data.train_y.dtype == np.int64


def test_a_test_file_and_other_column_names(tmp_path: Path) -> None:
    for name, count in (("train", 5), ("test", 2)):
        pq.write_table(
            pa.table({"x": pa.array(rows(count), FLOATS), "more": ["a"] * count, "y": [7] * count}),
            tmp_path / f"{name}.parquet",
        )
    data = load_data(
        DataSpec(
            name="parquet",
            path=str(tmp_path / "train.parquet"),
            test_path=str(tmp_path / "test.parquet"),
            image_column="x",
            label_column="y",
            test_samples=1,
        )
    )
    assert (len(data.train_y), len(data.test_y), data.classes) == (5, 1, 8)


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (pa.array([1.0] * 5), LABELS, "column image: holds double, a list of numbers needed in each row"),
        (pa.array([["a"]] * 5), LABELS, "column image: holds lists of string, numbers needed"),
        (
            pa.array([[[1.0]]] * 5),
            LABELS,
            "column image: holds lists of list<element: double>, numbers needed",
        ),
        (
            pa.array([[1.0], [2.0], None, None, [3.0]], FLOATS),
            LABELS,
            "column image: row 2 is null; 2 such rows must go",
        ),
        (
            pa.array([[1.0, 2.0], [1.0, 2.0], [1.0], [1.0], []], FLOATS),
            LABELS,
            "column image: row 2 has 1 values but row 0 has 2",
        ),
        (pa.array([[]] * 5, FLOATS), LABELS, "column image: lists without values, numbers needed"),
        (
            pa.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, None], [None, 2.0]], FLOATS),
            LABELS,
            "column image: row 3 has a null among its values",
        ),
        (
            pa.array([[1, 2], [3, 4], [5, 256], [-1, 0], [1, 2]]),
            LABELS,
            "column image: row 2 has 256; integers must be 0 to 255, for they are divided by 255; "
            "write floats for anything else",
        ),
        (
            pa.array([[1.0], [2.0], [3.0], [float("nan")], [1.0]], FLOATS),
            LABELS,
            "column image: row 3 has nan, finite float32 needed",
        ),
        (
            pa.array([[1.0], [1e39], [3.0], [1.0], [1.0]], pa.list_(pa.float64())),
            LABELS,
            "column image: row 1 has 1e+39, finite float32 needed",
        ),
        (
            pa.array(rows(5), FLOATS),
            pa.array([0.0, 1, 2, 3, 4]),
            "column label: holds double, integer class numbers needed",
        ),
        (
            pa.array(rows(5), FLOATS),
            pa.array([0, 1, None, 3, 4]),
            "column label: row 2 is null; 1 such rows must go",
        ),
        (
            pa.array(rows(5), FLOATS),
            pa.array([0, 1, -1, 3, 4]),
            "column label: class number -1; write class numbers from 0",
        ),
        (
            pa.array(rows(5), FLOATS),
            pa.array([0, 1, 2**63, 3, 4], pa.uint64()),
            f"column label: class number {2**63}; write class numbers from 0",
        ),
    ],
)
def test_columns_that_cannot_be_trained_on(tmp_path: Path, values: pa.Array, labels: pa.Array, message: str) -> None:
    # a row group for every two rows: the row number counts through the file, not within a chunk
    path = parquet(tmp_path / "train.parquet", values, labels, row_group_size=2)
    assert refusal(load_data, DataSpec(name="parquet", path=path, test_fraction=0.4)) == f"{path}: {message}"


def test_files_that_are_not_parquet_or_not_there(tmp_path: Path) -> None:
    def source(path: Path, image: str = "image", label: str = "label") -> DataSpec:
        return DataSpec(name="parquet", path=str(path), test_fraction=0.4, image_column=image, label_column=label)

    path = tmp_path / "train.parquet"
    assert refusal(load_data, source(path)) == f"{path}: no such file"
    path.write_bytes(b"PAR1 but no more")
    assert refusal(load_data, source(path)).startswith(f"{path}: cannot be read as Parquet: ")
    parquet(path, pa.array([], FLOATS), pa.array([], pa.int64()))
    assert refusal(load_data, source(path)) == f"{path}: no rows"
    parquet(path, pa.array(rows(5), FLOATS), LABELS)
    assert refusal(load_data, source(path, image="imge")) == (
        f'{path}: [data] image_column: 0 columns imge; did you mean "image"?'
    )
    assert refusal(load_data, source(path, label="z")) == (
        f"{path}: [data] label_column: 0 columns z; columns are image, label"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(load_data, source(path)).startswith(f"{path}: cannot be read as Parquet: ")


def test_a_fraction_that_leaves_nothing(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", pa.array(rows(5), FLOATS), LABELS)
    assert refusal(load_data, DataSpec(name="parquet", path=path, test_fraction=0.01)) == (
        f"[data] test_fraction = 0.01 of the 5 rows of {path} leaves 0 to test and 5 to train on; "
        f"at least 1 of each is needed"
    )


def test_a_test_file_of_another_width(tmp_path: Path) -> None:
    train = parquet(tmp_path / "train.parquet", pa.array(rows(5), FLOATS), LABELS)
    test = parquet(tmp_path / "test.parquet", pa.array(rows(5, width=4), FLOATS), LABELS)
    assert refusal(load_data, DataSpec(name="parquet", path=train, test_path=test)) == (
        f"{test}: rows of image have 4 values, those of {train} have 3"
    )


def test_what_the_job_did_not_say() -> None:
    # a job is checked before; these guard whoever calls load_data with values of their own
    nothing = dict.fromkeys(("path", "test_path", "test_fraction", "train_samples", "test_samples", "validation"))
    source = SimpleNamespace(name="mnist", image_column="image", label_column="label", **nothing)
    assert refusal(load_data, source) == "[data] path: missing; write where the data set lies"


def test_a_parquet_source_without_a_test_set(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", pa.array(rows(5), FLOATS), LABELS)
    source = SimpleNamespace(
        name="parquet",
        path=path,
        image_column="image",
        label_column="label",
        test_path=None,
        test_fraction=None,
    )
    assert refusal(load_data, source) == "[data] test_path: missing; write it, or test_fraction such as 0.2"


# --- against the network, and the order ---


def test_the_network_must_take_the_samples_and_tell_the_classes_apart() -> None:
    data = load_data(DataSpec(name="digits"))
    check_against(mlp([64, 32, 10]), data)
    check_against(mlp([64, 12]), data)  # spare outputs do no harm
    assert refusal(check_against, mlp([50, 10]), data, kind=ConfigError) == (
        "[model] sizes: the first must be 64, the features of a sample of digits, but it is 50; "
        "write 64 (as inputs of the first [[model.layer]])"
    )
    assert refusal(check_against, mlp([64, 9]), data, kind=ConfigError) == (
        "[model] sizes: the last must be at least 10, the classes of digits, but it is 9; "
        "write 10 (as outputs of the last [[model.layer]])"
    )


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000), st.integers(1, 300))
def test_an_epoch_visits_every_sample_once(seed: int, epoch: int, samples: int) -> None:
    order = epoch_order(seed, epoch, samples, True)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(samples))
    assert np.array_equal(order, epoch_order(seed, epoch, samples, True))


def test_every_epoch_and_seed_has_an_order_of_its_own() -> None:
    orders = [epoch_order(seed, epoch, 200, True).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_without_shuffling_epochs_go_in_file_order() -> None:
    order = epoch_order(1, 3, 5, False)
    assert order.dtype == np.int64
    assert order.tolist() == [0, 1, 2, 3, 4]
