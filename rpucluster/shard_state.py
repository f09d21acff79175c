"""What the shards of an accelerator keep, as pieces of the layers' arrays, so that any plan can take them up again.

An array of cells lies in the layer as the cells do; one of lines, of tiles or of the whole shard has an axis
of its own, and shards that share its elements hold the same values.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.arrays import namespace, to_host
from rpucluster.checkpoint import Piece, WrittenFile, fill
from rpucluster.errors import RunDirectoryError
from rpucluster.holdings import Held, Holdings
from rpucluster.plan import Block

BAND_ELEMENTS = 1 << 23
"""Cells in a piece at most, unless a single row has more: 32 MB."""
EFFECTIVE = "effective"
"""The weights that the network sees, where no device holds them."""
_WEIGHTS, _BIAS = "weights", "bias"

_Box = tuple[tuple[int, int], tuple[int, int]]
_ONE = (0, 1)
_LINES: Mapping[str, Callable[[Block, int], _Box]] = {
    "forward_averages": lambda block, _: (block.tile_rows, block.tile_cols),
    "backward_averages": lambda block, _: (block.tile_rows, block.tile_cols),
    "choppers": lambda block, _: (_ONE, block.cols),
    "ages": lambda block, _: (_ONE, block.cols),
    "x_peaks": lambda block, _: (_ONE, block.tile_cols),
    "d_peaks": lambda block, _: (_ONE, block.tile_rows),
    "counters": lambda _, size: (_ONE, (0, size)),
    _BIAS: lambda block, _: (_ONE, block.rows),
}
"""Rows and columns, in the layer's whole array of the name, of arrays that are not of cells."""


def shard_pieces(holdings: Holdings, blocks: Mapping[int, Block], elements: int = BAND_ELEMENTS) -> Iterator[Piece]:
    """Everything that a restart needs of some shards, in bands of rows; `blocks` are their places by layer."""
    for layer, held in holdings.by_layer.items():
        block, replica = blocks[layer], holdings.replica
        top, bottom = block.rows
        height = max(1, elements // (block.cols[1] - block.cols[0]))
        for first in range(top, bottom, height):
            rows = (first - top, min(first + height, bottom) - top)
            state = held.grid.state(rows)
            if _WEIGHTS not in state:
                state[EFFECTIVE] = held.grid.weights(rows)
            for name, values in state.items():
                if _of_cells(name):
                    yield Piece(replica, layer, name, first, block.cols[0], values)
                elif first == top:
                    yield _lines(replica, layer, name, values, block)
        if held.bias is not None:
            yield _lines(replica, layer, _BIAS, to_host(held.bias).copy(), block)


def restore(holdings: Holdings, blocks: Mapping[int, Block], files: Mapping[Path, WrittenFile]) -> None:
    """Continue from the pieces in some files.  Raises `RunDirectoryError` where they are of another network."""
    for layer, held in holdings.by_layer.items():
        block, key = blocks[layer], (holdings.replica, layer)
        state = held.grid.state()
        for name, values in state.items():
            box = (block.rows, block.cols) if _of_cells(name) else _box(name, values.size, block)
            # the arrays are copies, which may be written into
            fill(values.reshape(_shape(box)), (*key, name), _corner(box), files)
        held.grid.load_state(state)
        _restore_bias(held, block, key, files)


def take_weights(
    holdings: Holdings, blocks: Mapping[int, Block], files: Mapping[Path, WrittenFile], replicas: int
) -> None:
    """Start from the effective weights in some files, of so many replicas; they go round where there are more now.

    Raises `RunDirectoryError` where they are of another network.
    """
    for layer, held in holdings.by_layer.items():
        block, key = blocks[layer], (holdings.replica % replicas, layer)
        names = {place.name for file in files.values() for place in file.pieces if place[:2] == key}
        values = np.empty(held.grid.shape, np.float32)
        fill(values, (*key, EFFECTIVE if EFFECTIVE in names else _WEIGHTS), (block.rows[0], block.cols[0]), files)
        held.grid.set_weights(values)
        _restore_bias(held, block, key, files)


def weights_in(files: Mapping[Path, WrittenFile]) -> dict[tuple[int, int], Any]:
    """The effective weights in some files by (replica, layer): float32 (out, in), a bias as last column."""
    places = [place for file in files.values() for place in file.pieces]
    whole = {
        key: (max(p.row + p.rows for p in places if p[:3] == key), max(p.col + p.cols for p in places if p[:3] == key))
        for key in dict.fromkeys(place[:3] for place in places)
    }
    weights: dict[tuple[int, int], Any] = {}
    for replica, layer in sorted({key[:2] for key in whole}):
        name = EFFECTIVE if (replica, layer, EFFECTIVE) in whole else _WEIGHTS
        if (replica, layer, name) not in whole:
            raise RunDirectoryError(f"{_folder(files)}: there are no weights of replica {replica}, layer {layer}")
        (rows, cols), biased = whole[replica, layer, name], (replica, layer, _BIAS) in whole
        if rows * cols > sum(place.rows * place.cols for place in places if place[:3] == (replica, layer, name)):
            # before memory is taken for what may be a petabyte
            raise RunDirectoryError(f"{_folder(files)}: weights of replica {replica}, layer {layer} are not all there")
        array = np.empty((rows, cols + biased), np.float32)
        fill(array[:, :cols], (replica, layer, name), (0, 0), files)
        if biased:
            fill(array[:, cols:].T, (replica, layer, _BIAS), (0, 0), files)
        weights[replica, layer] = array
    return weights


def _folder(files: Mapping[Path, WrittenFile]) -> Path:
    return next(iter(files)).parent


def _restore_bias(held: Held, block: Block, key: tuple[int, int], files: Mapping[Path, WrittenFile]) -> None:
    if held.bias is None:
        return
    values = np.empty((1, len(held.bias)), np.float32)
    fill(values, (*key, _BIAS), (0, block.rows[0]), files)
    held.bias[:] = namespace(held.bias).asarray(values[0])


def _lines(replica: int, layer: int, name: str, values: Any, block: Block) -> Piece:
    box = _box(name, values.size, block)
    return Piece(replica, layer, name, *_corner(box), values.reshape(_shape(box)))


def _of_cells(name: str) -> bool:
    return name not in _LINES and not name.startswith("settings")


def _box(name: str, size: int, block: Block) -> _Box:
    return _LINES.get(name, _LINES["counters"])(block, size)


def _corner(box: _Box) -> tuple[int, int]:
    return box[0][0], box[1][0]


def _shape(box: _Box) -> tuple[int, int]:
    return box[0][1] - box[0][0], box[1][1] - box[1][0]
