"""The random numbers: published vectors, the counter scheme, and the laws that the streams must follow."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats

from rpucluster.rng import (
    NORMAL_BOUND,
    Purpose,
    block_normals,
    init_uniform,
    normals,
    permutation,
    philox,
    stream_key,
    stream_keys,
    uniform_u32,
)

ONES = 0xFFFFFFFF
# the philox4x32-10 lines of Random123's kat_vectors: counter, key, output
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_vectors(
    counter: tuple[int, int, int, int], key: tuple[int, int], output: tuple[int, ...]
) -> None:
    assert tuple(philox(counter, key).tolist()) == output


def test_philox_broadcasts_counters_and_keys() -> None:
    together = philox((np.arange(3)[:, None], 5, 6, 7), (np.arange(4), 9))
    assert together.shape == (4, 3, 4)
    for i, k in product(range(3), range(4)):
        np.testing.assert_array_equal(together[:, i, k], philox((i, 5, 6, 7), (k, 9)))


def test_number_i_is_lane_i_mod_4_of_block_i_div_4() -> None:
    key = stream_key(1, Purpose.UPDATE_NOISE, 2, 3, 4, 5)
    words, noise = uniform_u32(key, 11, sample=2**33 + 1, round=6), normals(key, 11, sample=2**33 + 1, round=6)
    for i in range(11):
        block = philox((i >> 2, 1, 2, 6), key)  # sample 2^33 + 1 is low word 1, high word 2
        assert words[i] == block[i & 3]
        assert noise[i] == block_normals(block)[i & 3]


def test_a_part_of_a_stream_is_the_part_of_the_whole() -> None:
    whole = normals((1, 2), 40, sample=3)
    for first, count in ((0, 40), (5, 7), (8, 1), (39, 1), (4, 0)):
        np.testing.assert_array_equal(normals((1, 2), count, sample=3, first=first), whole[first : first + count])


def test_streams_of_different_names_have_different_keys() -> None:
    names = product((0, 1, 2**40), (Purpose.DEVICE, Purpose.X_PULSES), (0, 1), (0, 1), (0, 1), (0, 1))
    keys = [stream_key(*name) for name in names]
    assert len(set(keys)) == len(keys) == 96


def test_keys_of_many_tiles_are_those_of_each_tile() -> None:
    rows, cols = np.array([0, 0, 7]), np.array([0, 2**31, 5])
    keys = stream_keys(5, Purpose.DEVICE, 1, 2, rows, cols)
    for key, row, col in zip(keys.tolist(), rows.tolist(), cols.tolist(), strict=True):
        assert tuple(key) == stream_key(5, Purpose.DEVICE, 1, 2, row, col)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 1 << 64},
        {"layer": 1 << 24},
        {"replica": 1 << 24},
        {"tile_row": -1},
        {"tile_col": 1 << 32},
    ],
)
def test_a_name_that_would_collide_is_refused(wrong: dict[str, int]) -> None:
    name = {"seed": 1, "layer": 0, "replica": 0, "tile_row": 0, "tile_col": 0} | wrong
    with pytest.raises(ValueError, match="no random stream"):
        stream_key(name["seed"], Purpose.INIT, name["layer"], name["replica"], name["tile_row"], name["tile_col"])


def test_normals_are_normal() -> None:
    z = normals(stream_key(3, Purpose.READ_FORWARD), 1_000_000).astype(np.float64)
    n = len(z)
    # standard errors of mean, variance and fourth moment of a normal sample: 1, sqrt 2, sqrt 96 over sqrt n
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(np.mean(z**4) - 3) < 4 * np.sqrt(96 / n)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    # beyond 4 sigma 63.3 are expected
    assert 35 < np.count_nonzero(np.abs(z) > 4) < 95


def test_lanes_blocks_samples_and_rounds_are_uncorrelated() -> None:
    key = stream_key(4, Purpose.UPDATE_NOISE)
    rows = np.stack([normals(key, 40_000, sample=s, round=r) for s in range(2) for r in range(2)])  # (4, 40000)
    lanes = np.concatenate([rows[:, lane::4] for lane in range(4)])  # (16, 10000)
    correlation = np.corrcoef(lanes)[np.triu_indices(16, 1)]
    # each is normal with deviation 1 / sqrt(10000); 120 of them stay below 4 deviations
    assert np.abs(correlation).max() < 4 / 100
    # squares too: a shared radius would show here
    assert np.abs(np.corrcoef(lanes**2)[np.triu_indices(16, 1)]).max() < 4 / 100


def test_the_largest_normal_stays_below_the_bound() -> None:
    extreme = np.array([[0], [0], [0xFFFFFFFF], [0xFFFFFFFF]], np.uint32)
    z = np.abs(block_normals(extreme))
    # word 0 is the uniform 2^-24: radius sqrt(48 ln 2) = 5.768; the largest word is 1 - 2^-24: radius 3.45e-4
    assert np.hypot(*z[:2, 0]) == pytest.approx(np.sqrt(48 * np.log(2)), rel=1e-6)
    assert np.hypot(*z[2:, 0]) == pytest.approx(np.sqrt(2 * 2.0**-24), rel=1e-3)
    assert z.max() < NORMAL_BOUND


def test_box_muller_is_that_of_exact_functions() -> None:
    words = philox((np.arange(50_000), 1, 2, 3), (4, 5))
    u = ((words[0] >> 9) + 0.5) * 2.0**-23
    position = ((words[1] << np.uint32(2)).view(np.int32) >> 8) + 0.5  # inside a quarter turn
    angle = position * np.pi / 2**25 + (words[1] >> 30) * np.pi / 2
    exact = np.sqrt(-2 * np.log(u)) * np.array([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(block_normals(words)[:2], exact, rtol=0, atol=2e-6)


def test_permutations_are_permutations_and_differ() -> None:
    orders = [permutation(seed, epoch, 500) for seed in (1, 2) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    for one, other in pairwise(orders):
        assert np.count_nonzero(one == other) < 10  # fixed points in common are Poisson with mean 1
    np.testing.assert_array_equal(orders[0], permutation(1, 0, 500))


def test_permutations_are_uniform() -> None:
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        counts[np.arange(6), permutation(9, epoch, 6)] += 1
    # each element comes to each place 500 times: chi-square with 5 * 5 degrees of freedom
    assert ((counts - 500) ** 2 / 500).sum() < stats.chi2.ppf(0.999, 25)


def test_initial_weights_do_not_depend_on_the_cut() -> None:
    whole = init_uniform(5, 1, 9, 13)
    for rows in ((0, 4), (4, 9)):
        for cols in ((0, 3), (3, 6), (6, 13)):
            part = init_uniform(5, 1, 9, 13, row_start=rows[0], row_stop=rows[1], col_start=cols[0], col_stop=cols[1])
            np.testing.assert_array_equal(part, whole[slice(*rows), slice(*cols)])
    # nor on how large the layer is
    np.testing.assert_array_equal(init_uniform(5, 1, 20, 40)[:9, :13], whole)
    assert not np.array_equal(init_uniform(5, 2, 9, 13), whole)


def test_initial_weights_are_uniform() -> None:
    u = init_uniform(1, 0, 300, 300).reshape(-1)
    assert u.min() >= -1
    assert u.max() < 1
    assert stats.kstest(u, "uniform", args=(-1, 2)).pvalue > 1e-3
