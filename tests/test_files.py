"""Files are there whole or not at all, and what cannot be read is told in one line."""

import errno
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest

from rpucluster.errors import RunDirectoryError, RunError
from rpucluster.files import (
    check_file,
    check_folder,
    read_json,
    read_rows,
    read_text,
    schema,
    write_atomically,
    write_json,
    write_table,
)


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, b"a long first content")
    write_atomically(path, lambda stream: stream.write(b"short"))
    assert path.read_bytes() == b"short"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(OSError(errno.ENOSPC, "No space left on device"), RunError), (ValueError("a bug"), ValueError)],
)
def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, raised: Exception, expected: type[Exception]
) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")

    def fail_half_way(stream: BinaryIO) -> None:
        stream.write(b"ne")
        raise raised

    with pytest.raises(expected) as caught:
        write_atomically(path, fail_half_way)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    if expected is RunError:
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"


def test_writing_into_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.txt"
    with pytest.raises(RunError) as caught:
        write_atomically(path, b"")
    assert str(caught.value) == f"{path}: cannot be written: No such file or directory"


def test_json_keeps_the_order_and_holds_numpy_numbers_and_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"z": np.int64(3), "a": [np.float32(0.5), float("nan"), float("inf")], "m": (True, None)})
    content = read_json(path)
    assert list(content) == ["z", "a", "m"]
    assert content == {"z": 3, "a": [0.5, None, None], "m": [True, None]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[1]", "not a JSON object"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_what_is_no_json_object_is_one_line(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(RunDirectoryError) as caught:
        read_json(path)
    assert str(caught.value) == f"{path}: cannot be read: {reason}"


def test_tables_carry_their_units_and_refuse_missing_columns(tmp_path: Path) -> None:
    columns = schema(("length", pa.float64(), "m"), ("name", pa.string(), "1"))
    path = tmp_path / "a.parquet"
    write_table(path, pa.Table.from_pylist([{"length": 1.5, "name": "x"}], columns))
    assert pa.parquet.read_schema(path).field("length").metadata == {b"unit": b"m"}
    assert read_rows(path, columns) == [{"length": 1.5, "name": "x"}]
    with pytest.raises(RunDirectoryError, match=r"a\.parquet: cannot be read: .*width"):
        read_rows(path, schema(("width", pa.float64(), "m")))
    path.write_bytes(b"not a table")
    with pytest.raises(RunDirectoryError) as caught:
        read_rows(path, columns)
    assert "\n" not in str(caught.value)


def test_a_missing_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError) as caught:
        read_text(tmp_path / "job.toml")
    assert str(caught.value) == f"{tmp_path / 'job.toml'}: cannot be read: No such file or directory"


def test_places_that_cannot_be_written_are_told_before_the_work(tmp_path: Path) -> None:
    """Where results are to be left is looked at before minutes are spent on them; nothing is made yet."""
    (tmp_path / "file").write_text("x")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("job.toml", "cluster.toml"):
        (run / name).write_text("")
    for good in (tmp_path, tmp_path / "new" / "folder"):
        check_folder(good)
    for folder, told in (
        (tmp_path / "file", "it is a file"),
        (tmp_path / "file" / "more", "it is a file"),
        (run, "is a run directory, whose files would be replaced"),
    ):
        with pytest.raises(RunDirectoryError, match=told):
            check_folder(folder)
    check_file(tmp_path / "new")
    for path, told in (
        (tmp_path, "it is a directory"),
        (Path(), "it is a directory"),
        (tmp_path / "none" / "x", "there is no directory"),
        (tmp_path / "file" / "x", "there is no directory"),
    ):
        with pytest.raises(RunDirectoryError, match=told):
            check_file(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]
    with pytest.raises(RunError, match="Is a directory"):
        write_atomically(Path(), b"")
