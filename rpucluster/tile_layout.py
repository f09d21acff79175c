"""Where the tiles of a shard lie in their layer, and which random streams belong to them."""

from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rpucluster.kernels import Tiling
from rpucluster.rng import Purpose, stream_keys

_UPDATE_STREAMS: Final = (
    Purpose.X_PULSES,
    Purpose.D_PULSES,
    Purpose.UPDATE_NOISE,
    Purpose.REPLAY_NOISE,
    Purpose.DEVICE,
    Purpose.RELAXATION,
    Purpose.PROGRAM,
)
"""In the order of the kernels' keys."""
_PER_REPLICA: Final = (
    Purpose.DEVICE,
    Purpose.UPDATE_NOISE,
    Purpose.REPLAY_NOISE,
    Purpose.RELAXATION,
    Purpose.PROGRAM,
)
"""Replicas are different silicon; pulses and reads they share, so that one global batch is one experiment."""


class TileLayout:
    """A rectangle of whole tiles of a layer's array: tile rows ``row_tiles[0]`` up to, without, ``row_tiles[1]``, and
    tile columns likewise.

    Keys of streams belong to a tile's place in the layer, so that a tile has the same in every shard.  Raises
    ValueError for shapes that do not fit together.
    """

    def __init__(
        self,
        *,
        layer: int,
        replica: int,
        seed: int,
        rows: int,
        cols: int,
        tile_rows: int,
        tile_cols: int,
        row_tiles: tuple[int, int],
        col_tiles: tuple[int, int],
    ) -> None:
        self.row_range, row_cuts = _cut(rows, tile_rows, row_tiles, "row")
        self.col_range, col_cuts = _cut(cols, tile_cols, col_tiles, "col")
        if tile_rows * tile_cols > 1 << 27 or max(tile_rows, tile_cols) > 1 << 17:
            # a cell's replay has 32 normals of a stream of 2^34, and a GPU grid 65,535 blocks of four lines
            raise ValueError(
                f"tile_rows x tile_cols = {tile_rows} x {tile_cols}: write at most 2^17 lines and 2^27 cells"
            )
        self.layer, self.seed, self.layer_shape, self.tile_rows = layer, seed, (rows, cols), tile_rows
        self.shape = (self.row_range[1] - self.row_range[0], self.col_range[1] - self.col_range[0])
        """Cells of the rectangle."""
        self.grid = (row_tiles[1] - row_tiles[0], col_tiles[1] - col_tiles[0])
        """Tiles of the rectangle, down and across."""
        self.table = _tile_table(row_cuts, col_cuts)
        """The tile table of `rpucluster.kernels.base` on the host."""
        self._largest = (int(np.diff(row_cuts).max()), int(np.diff(col_cuts).max()))
        self._replica = replica
        place = np.array([(r, c) for r in range(*row_tiles) for c in range(*col_tiles)], np.int64)  # (tiles, 2)
        self._tile_row, self._tile_col = place[:, 0], place[:, 1]

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return len(self.table)

    def tiling(self, xp: ModuleType) -> Tiling:
        """The tiles as kernels take them, with the table where arrays of `xp` live."""
        table: Any = xp.asarray(self.table)
        rows, cols = self.shape
        tile_rows, tile_cols = self._largest
        return Tiling(table=table, tiles=self.tiles, rows=rows, cols=cols, tile_rows=tile_rows, tile_cols=tile_cols)

    def keys(self, purpose: Purpose, of_columns: bool = False, plane: int = 0) -> NDArray[np.uint32]:
        """Keys of the tiles, or those that all tiles of a column share, uint32 (tiles, 2).

        All planes of a weight share the lines that carry pulses; the rest belongs to each plane.
        """
        replica = self._replica if purpose in _PER_REPLICA else 0
        tile_row = 0 if of_columns else self._tile_row
        own = plane if purpose in _PER_REPLICA else 0
        return stream_keys(self.seed, purpose, self.layer, replica, tile_row, self._tile_col, plane=own)

    def update_keys(self, plane: int) -> NDArray[np.uint32]:
        """Keys of all streams of an update of a plane, uint32 (tiles, streams, 2)."""
        return np.stack([self.keys(purpose, plane=plane) for purpose in _UPDATE_STREAMS], axis=1)


def _cut(size: int, tile: int, tiles: tuple[int, int], kind: str) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """The range of rows or columns that some tiles cover, and where it is cut, counted from its start."""
    if size < 1 or tile < 1:
        raise ValueError(f"{kind}s = {size} with tile_{kind}s = {tile}: write at least 1 for both")
    first, stop = tiles
    if not 0 <= first < stop <= -(-size // tile):
        raise ValueError(f"{kind}_tiles = {tiles} of a layer with {-(-size // tile)}: pass part of these")
    cuts = np.minimum(np.arange(first, stop + 1, dtype=np.int64) * tile, size)
    return (int(cuts[0]), int(cuts[-1])), cuts - cuts[0]


def _tile_table(row_cuts: NDArray[np.int64], col_cuts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The tile table of `rpucluster.kernels.base`, tile rows outside."""
    rows, cols = np.diff(row_cuts), np.diff(col_cuts)
    row, col = (index.reshape(-1) for index in np.indices((len(rows), len(cols))))
    sizes = rows[row] * cols[col]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.stack([offsets, rows[row], cols[col], row_cuts[row], col_cuts[col]], axis=1)
