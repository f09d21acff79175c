"""The weights of a network as they come out of a pool: in bands of rows, so that no second copy of it is held."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rpucluster.plan import Plan
from rpucluster.pool import Pool

BAND_ELEMENTS = 1 << 23
"""Weights in a band at most, unless a single row has more: 32 MB."""


class Band(NamedTuple):
    """Consecutive rows of a replica's layer."""

    replica: int
    layer: int
    row: int
    """The first of them."""
    values: Any
    """Effective weights, float32 (rows, in), the bias as last column."""


def weight_bands(pool: Pool, plan: Plan, elements: int = BAND_ELEMENTS) -> Iterator[Band]:
    """The effective weights of every replica, by layer, row and replica, the bias as last column."""
    place = {accelerator: replica for replica, _, _, accelerator in plan.ranks()}
    for layer in plan.layers:
        rows, cols = layer.shape.rows, layer.shape.cols
        height = max(1, elements // cols)
        for first in range(0, rows, height):
            stop = min(first + height, rows)
            held = pool.weights(layer.layer, (first, stop))
            for replica in sorted(set(place.values())):
                parts = [part for number, part in held.items() if place[number] == replica]
                yield Band(replica, layer.layer, first, _joined(parts, first, stop - first, cols))


def _joined(parts: list[Any], first: int, rows: int, cols: int) -> Any:
    """One band from what the accelerators hold of it."""
    biased = any(bias is not None for _, _, _, bias in parts)
    band = np.empty((rows, cols + biased), np.float32)
    for row, col, block, bias in parts:
        band[row - first : row - first + len(block), col : col + block.shape[1]] = block
        if bias is not None:
            band[row - first : row - first + len(bias), -1] = bias
    return band


def weights_sha256(bands: Iterable[Band]) -> str:
    """SHA-256 over replica 0's layers in model order, each float32 ``(out, in)`` in C order, little endian."""
    digest = hashlib.sha256()
    for band in bands:
        if band.replica == 0:
            digest.update(np.ascontiguousarray(band.values, "<f4").data)
    return digest.hexdigest()
