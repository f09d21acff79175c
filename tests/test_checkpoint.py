"""A checkpoint comes back bit for bit, or not at all."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.checkpoint import (
    MANIFEST,
    Piece,
    begin,
    complete,
    fill,
    finish,
    newest,
    newest_good,
    open_checkpoint,
    write_pieces,
)
from rpucluster.errors import RunDirectoryError, RunError
from rpucluster.files import read_sealed, write_sealed
from rpucluster.shard_state import weights_in
from tests.run_fixtures import write_checkpoint

TOLD = {"position": {"epoch": 3, "loss": 0.1 + 0.2}, "job": "[train]\n"}


def some_weights(seed: int = 0) -> dict[tuple[int, int], Any]:
    random = np.random.default_rng(seed)
    shapes = {(0, 0): (5, 3), (0, 1): (2, 6), (1, 0): (5, 3), (1, 1): (2, 6)}
    return {key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def three(root: Path) -> list[Path]:
    """Checkpoints after 10, 20 and 30 steps, of which the last two stay: newest first."""
    for step in (10, 20, 30):
        write_checkpoint(root, some_weights(step), TOLD, step)
    return complete(root)


def test_round_trip_is_bit_exact_and_only_the_last_two_stay(tmp_path: Path) -> None:
    assert [folder.name for folder in three(tmp_path / "checkpoint")] == ["step-000000000030", "step-000000000020"]
    found = newest(tmp_path / "checkpoint")
    assert found.told == TOLD
    weights, expected = weights_in(found.files), some_weights(30)
    assert list(weights) == sorted(expected)
    assert all(weights[key].tobytes() == expected[key].tobytes() for key in expected)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 7), st.sampled_from(["<f4", "<i4", "<i8"]))
def test_any_rectangle_is_put_together_from_any_cut(data: Any, rows: int, cols: int, dtype: str) -> None:
    """An array that is cut into bands by rows in one file and by columns in another is found again at every place."""
    array = np.random.default_rng(rows * cols).integers(-99, 99, (rows, cols)).astype(dtype)
    row, col = data.draw(st.integers(0, rows)), data.draw(st.integers(0, cols))
    cut = [
        [Piece(1, 2, "a", 0, 0, array[:row]), Piece(1, 2, "a", row, 0, array[row:])],
        [Piece(1, 2, "a", 0, 0, array[:, :col]), Piece(1, 2, "a", 0, col, array[:, col:])],
    ]
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    bottom, right = data.draw(st.integers(top + 1, rows)), data.draw(st.integers(left + 1, cols))
    target = np.zeros((bottom - top, right - left), dtype)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.parquet" for number in range(2)]
        files = {path: write_pieces(path, pieces) for path, pieces in zip(paths, cut, strict=True)}
        fill(target, (1, 2, "a"), (top, left), files)
        assert target.tobytes() == array[top:bottom, left:right].tobytes()
        with pytest.raises(RunDirectoryError, match="a of replica 1, layer 2 is not all there"):
            fill(np.zeros((rows + 1, cols), dtype), (1, 2, "a"), (0, 0), files)


def test_shards_that_should_agree_and_do_not_are_refused(tmp_path: Path) -> None:
    """As the counters of a layer, which each of its shards keeps."""
    files = {}
    for number in (1, 2):
        path = tmp_path / f"{number}.parquet"
        files[path] = write_pieces(path, [Piece(0, 0, "counters", 0, 0, np.array([[5, number]]))])
    with pytest.raises(RunDirectoryError, match="counters of replica 0, layer 0 differs from another file"):
        fill(np.zeros((1, 2), np.int64), (0, 0, "counters"), (0, 0), files)


@pytest.mark.parametrize("name", [MANIFEST, "accelerator-00000.parquet", "accelerator-00001.parquet"])
def test_every_flipped_bit_and_every_lost_end_is_found(name: str, tmp_path: Path) -> None:
    """Where a flip changes nothing that is read, as white space, the content is the one that was written."""
    folder = write_checkpoint(tmp_path, some_weights(), TOLD, 7)
    path, expected = folder / name, some_weights()
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    places = range(len(whole)) if len(whole) < 300 else random.integers(0, len(whole), 300).tolist()
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << random.integers(0, 8)]) + whole[place + 1 :])
        found, refused = newest_good(tmp_path)
        if found is not None:
            assert found.told == TOLD
            assert weights_in(found.files)[0, 0].tobytes() == expected[0, 0].tobytes()
        else:
            assert refused[0].startswith(str(path))
        path.write_bytes(whole[:place])
        assert newest_good(tmp_path)[0] is None
    path.unlink()
    with pytest.raises(RunDirectoryError, match=name):
        open_checkpoint(folder)


def test_a_damaged_one_is_refused_and_the_newest_good_one_is_offered(tmp_path: Path) -> None:
    new, old = three(tmp_path)
    path = new / "accelerator-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(RunDirectoryError) as caught:
        newest(tmp_path)
    assert str(caught.value) == (
        f"{path}: damaged: its content does not match its sha256; the newest good one is {old}, which can be named "
        f"instead"
    )
    (old / MANIFEST).unlink()
    with pytest.raises(RunDirectoryError, match="there is no other"):
        newest(tmp_path)


def test_without_one_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError) as caught:
        newest(tmp_path / "checkpoint")
    assert str(caught.value) == f"{tmp_path / 'checkpoint'}: there is no checkpoint"


def test_one_that_was_never_finished_does_not_count(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, some_weights(), TOLD, 7)
    new = begin(tmp_path, 9)
    write_pieces(new / "accelerator-00000.parquet", [])
    assert complete(tmp_path) == [folder]
    begin(tmp_path, 11)
    assert not new.exists()


def test_going_back_and_on_again_replaces_what_was_newer(tmp_path: Path) -> None:
    three(tmp_path)
    write_checkpoint(tmp_path, some_weights(1), TOLD, 25)
    assert [folder.name[-2:] for folder in complete(tmp_path)] == ["25", "20"]
    write_checkpoint(tmp_path, some_weights(2), TOLD, 25)
    assert weights_in(newest(tmp_path).files)[0, 0].tobytes() == some_weights(2)[0, 0].tobytes()
    assert len(list(tmp_path.iterdir())) == 2


def rewritten(folder: Path, change: Any) -> None:
    """Change the manifest and give it the checksum that belongs to it, as a foreign program could."""
    content = read_sealed(folder / MANIFEST)
    change(content)
    write_sealed(folder / MANIFEST, content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(format=2), "checkpoint format 2, this version of rpucluster reads 1"),
        (lambda m: m["files"][0].update(name="../../secret"), "a file named '../../secret'"),
        (lambda m: m["files"][0]["pieces"][0].__setitem__(7, "|O"), "a piece weights of type |O"),
        (lambda m: m["files"][0]["pieces"][0].__setitem__(5, -1), "a piece weights of type <f4"),
        (lambda m: m["files"][0].pop("sha256"), "'sha256'"),
        (lambda m: m.update(files=7), "not a manifest of rpucluster"),
    ],
    ids=["format", "path", "type", "size", "key", "kind"],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, change: Any, told: str) -> None:
    folder = write_checkpoint(tmp_path, some_weights(), TOLD, 7)
    rewritten(folder, change)
    with pytest.raises(RunDirectoryError) as caught:
        open_checkpoint(folder)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    """A piece is no larger than its file, nor a layer than its pieces, whatever a manifest promises."""
    folder = write_checkpoint(tmp_path, some_weights(), TOLD, 7)
    rewritten(folder, lambda m: m["files"][0]["pieces"][0].__setitem__(5, 1 << 48))
    with pytest.raises(RunDirectoryError, match=r"a piece weights of 281474976710656 x 3 values in \d+ bytes"):
        open_checkpoint(folder)
    rewritten(write_checkpoint(tmp_path, some_weights(), TOLD, 7), lambda m: move(m["files"][0], 1 << 48))
    with pytest.raises(RunDirectoryError, match="weights of replica 0, layer 0 are not all there"):
        weights_in(open_checkpoint(folder).files)


def move(file: dict[str, Any], row: int) -> None:
    """Say that the first piece of a file begins there."""
    file["pieces"][0][3] = row


def test_a_piece_that_is_not_where_the_manifest_says_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, some_weights(), TOLD, 7)
    rewritten(folder, lambda m: move(m["files"][0], 1))
    with pytest.raises(RunDirectoryError, match="piece 0 is not the one of the manifest"):
        fill(np.zeros((5, 3), np.float32), (0, 0, "weights"), (0, 0), open_checkpoint(folder).files)


def test_a_compressed_file_is_not_ours(tmp_path: Path) -> None:
    """Since it could unfold to any size."""
    path = tmp_path / "a.parquet"
    file = write_pieces(path, [Piece(0, 0, "weights", 0, 0, np.zeros((100, 100), np.float32))])
    pq.write_table(pq.read_table(path), path, compression="zstd")
    with pytest.raises(RunDirectoryError, match="piece 0 is larger than its file"):
        fill(np.zeros((100, 100), np.float32), (0, 0, "weights"), (0, 0), {path: file})


def test_a_failure_while_writing_keeps_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = three(tmp_path)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(RunError, match="No space left on device"):
            write_checkpoint(tmp_path, some_weights(2), TOLD, 40)
    assert complete(tmp_path) == before
    assert newest(tmp_path).folder == before[0]


def test_a_file_that_another_node_wrote_elsewhere_is_told(tmp_path: Path) -> None:
    new = begin(tmp_path, 7)
    file = write_pieces(new / "a.parquet", [Piece(0, 0, "weights", 0, 0, np.zeros((2, 2), np.float32))])
    (new / "a.parquet").unlink()
    with pytest.raises(RunError, match=r"not seen here; put the run directory where all nodes reach it"):
        finish(new, [file], TOLD)
