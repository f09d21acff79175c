"""Any Parquet file with a column of vectors and one of labels."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rpucluster.data.arrays import Ints, Samples
from rpucluster.errors import DataError


def read_parquet(path: Path, columns: tuple[str, str], test_path: Path | None, test_fraction: float | None) -> Samples:
    """The vectors and labels of a file, and of another to test on, or of the last `test_fraction` of the same.

    `columns` are the names of the vectors' and the labels'.  Raises `DataError`.
    """
    x, y = _parquet_file(path, *columns)
    if test_path is not None:
        test_x, test_y = _parquet_file(test_path, *columns)
        if x.shape[1] != test_x.shape[1]:
            raise DataError(
                f"{test_path}: rows of {columns[0]} have {test_x.shape[1]} values, those of {path} have {x.shape[1]}"
            )
        return x, y, test_x, test_y, int(max(y.max(), test_y.max())) + 1
    if test_fraction is None:
        raise DataError("[data] test_path: missing; write it, or test_fraction such as 0.2")
    test = round(len(y) * test_fraction)
    if not 0 < test < len(y):
        raise DataError(
            f"[data] test_fraction = {test_fraction} of the {len(y)} rows of {path} leaves {test} to "
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
