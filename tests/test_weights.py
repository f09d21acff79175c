"""Weights come out of a pool in bands: the same ones whatever the plan and the height of a band."""

import hashlib
from typing import Any

import numpy as np
import pytest

from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool
from rpucluster.weights import Band, weight_bands, weights_sha256
from tests.grids import make_grid
from tests.specs import make_cluster, make_job


def bands_of(elements: int, bias: str = "column", **parallel: Any) -> tuple[list[Band], str]:
    """The bands of an untrained network, and its digest."""
    job, cluster = make_job(parallel=parallel, model={"bias": bias}), make_cluster(8)
    plan = partition(job, cluster)
    pool = LocalPool(job, cluster, plan)
    try:
        bands = list(weight_bands(pool, plan, elements))
        return bands, weights_sha256(bands)
    finally:
        pool.close()


@pytest.mark.parametrize("bias", ["column", "digital", "none"])
@pytest.mark.parametrize(
    "parallel",
    [
        {"tensor": 3, "tensor_split": "output"},
        {"tensor": 3, "tensor_split": "input"},
        {"tensor": 2, "pipeline": 2, "data": 2},
    ],
    ids=str,
)
def test_bands_join_to_the_same_network(parallel: dict[str, Any], bias: str) -> None:
    whole, digest = bands_of(1 << 20, bias)
    assert [(band.layer, band.row) for band in whole] == [(0, 0), (1, 0), (2, 0)]
    assert hashlib.sha256(b"".join(band.values.tobytes() for band in whole)).hexdigest() == digest
    for elements in (1, 150, 400, 1 << 20):
        found, same = bands_of(elements, bias, **parallel)
        assert same == digest
        for replica in range(parallel.get("data", 1)):
            for layer, reference in enumerate(whole):
                parts = [band for band in found if (band.replica, band.layer) == (replica, layer)]
                heights = [len(band.values) for band in parts]
                assert [band.row for band in parts] == [sum(heights[:i]) for i in range(len(heights))]
                assert all(len(b.values) == 1 or b.values.size <= elements + len(b.values) for b in parts)
                joined = np.concatenate([band.values for band in parts])
                if replica == 0:
                    np.testing.assert_array_equal(joined, reference.values)
                else:  # other silicon clips the same initial weights at other bounds
                    assert joined.shape == reference.values.shape
                    assert np.mean(joined == reference.values) > 0.9


def test_a_range_of_rows_is_that_of_the_whole_shard() -> None:
    grid = make_grid(23, 31, tile=(7, 10), row_tiles=(1, 4))
    grid.initialise(0.5)
    whole = grid.weights()
    assert whole.shape == (16, 31)
    for first in range(16):
        for stop in range(first + 1, 17):
            np.testing.assert_array_equal(grid.weights((first, stop)), whole[first:stop])
