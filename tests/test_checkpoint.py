"""A checkpoint comes back bit for bit, or not at all."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rpucluster import checkpoint
from rpucluster.checkpoint import FloatArray, read_checkpoint, write_checkpoint
from rpucluster.errors import RunDirectoryError, RunError
from tests.run_fixtures import bands_of

Weights = dict[tuple[int, int], FloatArray]

STATE = {"epoch": 3, "layers": {"0": "dense1"}, "samples": 2400}


def some_weights(seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)
    shapes = {(0, 0): (5, 3), (0, 1): (2, 6), (1, 0): (5, 3), (1, 1): (2, 6)}
    return {key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def assert_holds(folder: Path, weights: Weights) -> None:
    found, _ = read_checkpoint(folder)
    assert sorted(found) == sorted(weights)
    for key, array in weights.items():
        assert found[key].tobytes() == array.tobytes()


def test_round_trip_is_bit_exact_and_gives_arrays_to_write_into(tmp_path: Path) -> None:
    weights = some_weights()
    weights[0, 0] = np.asfortranarray(weights[0, 0])  # rows are rows however they lie in memory
    weights[0, 0][0, 0] = -0.0
    write_checkpoint(tmp_path / "checkpoint", bands_of(weights), STATE)
    found, state = read_checkpoint(tmp_path / "checkpoint")
    assert state == STATE
    assert list(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for key, array in weights.items():
        assert found[key].dtype == np.float32
        assert found[key].tobytes() == np.ascontiguousarray(array).tobytes()
        found[key] += 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_without_one_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError) as caught:
        read_checkpoint(tmp_path / "checkpoint")
    assert str(caught.value) == f"{tmp_path / 'checkpoint'}: there is no checkpoint"


def rewrite(path: Path, column: str, value: Any) -> None:
    """Change one cell of the first row and leave the rest, digests included, as it was."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0][column] = value(rows[0][column])
    pq.write_table(type(table).from_pylist(rows, table.schema), path)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("values", lambda values: bytes([values[0] ^ 1]) + values[1:]),
        ("values", lambda values: values[:-4]),
        ("rows", lambda rows: rows + 1),
        ("sha256", lambda digest: "0" * len(digest)),
    ],
)
def test_damage_to_a_row_is_found(tmp_path: Path, column: str, change: Any) -> None:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, bands_of(some_weights()), STATE)
    rewrite(folder / "weights.parquet", column, change)
    with pytest.raises(RunDirectoryError) as caught:
        read_checkpoint(folder)
    assert str(caught.value) == (
        f"{folder / 'weights.parquet'}: the weights of replica 0, layer 0 are damaged: they do not match their "
        f"sha256; restore the file or train again"
    )


def test_a_reshaped_or_renumbered_row_is_found(tmp_path: Path) -> None:
    # rows x cols and the digest of the values still fit, so only the list in state.json can tell
    for column in ("replica", "layer", "row"):
        folder = tmp_path / column
        write_checkpoint(folder, bands_of(some_weights()), STATE)
        rewrite(folder / "weights.parquet", column, lambda _: 7)
        with pytest.raises(RunDirectoryError, match="are not of the same checkpoint"):
            read_checkpoint(folder)


def test_files_of_two_checkpoints_do_not_mix(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_checkpoint(one, bands_of(some_weights(1)), STATE)
    write_checkpoint(two, bands_of(some_weights(2)), STATE)
    (two / "weights.parquet").replace(one / "weights.parquet")
    with pytest.raises(RunDirectoryError) as caught:
        read_checkpoint(one)
    assert str(caught.value) == f"{one}: weights.parquet and state.json are not of the same checkpoint"


def test_no_file_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, bands_of(some_weights()), STATE)
    (folder / "weights.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(RunDirectoryError, match=r"weights\.parquet: cannot be read") as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_failure_while_writing_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    old = some_weights(1)
    write_checkpoint(folder, bands_of(old), STATE)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_rows", no_space)
    with pytest.raises(RunError, match="No space left on device"):
        write_checkpoint(folder, bands_of(some_weights(2)), STATE)
    assert_holds(folder, old)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_crash_between_the_renames_leaves_the_old_one_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    old, new = some_weights(1), some_weights(2)
    write_checkpoint(folder, bands_of(old), STATE)
    rename = Path.rename

    def crash_at_the_second(self: Path, target: Path) -> Path:
        if target == folder:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(folder, bands_of(new), STATE)
    assert not folder.exists()
    assert_holds(folder, old)
    write_checkpoint(folder, bands_of(new), STATE)
    assert_holds(folder, new)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_state_is_plain_json_beside_the_list_of_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", bands_of(some_weights()), STATE)
    content = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert content["state"] == STATE
    first = [[replica, 0, row, rows, 3] for replica in (0, 1) for row, rows in ((0, 2), (2, 2), (4, 1))]
    assert [row[:5] for row in content["weights"]] == [*first, [0, 1, 0, 2, 6], [1, 1, 0, 2, 6]]
