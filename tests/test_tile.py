"""Tile grids: shards against the whole, weights, state, messages."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rpucluster.algorithms import plane
from rpucluster.devices import ConstantStep, FloatingPoint, SoftBounds
from rpucluster.errors import NumericalError
from rpucluster.kernels import KernelChoice
from rpucluster.rng import init_uniform
from rpucluster.tile import (
    Converters,
    Management,
    PulseCount,
    ReadCount,
    Storage,
    TileGrid,
    UpdateSettings,
    from_fixed,
)
from tests.grids import PERFECT, ideal, make_grid, signals

KERNELS: tuple[KernelChoice, ...] = ("reference", "numba")
NM = Management(noise_management="abs_max")


# --- shards against the whole ---


def shards(**arguments: Any) -> list[list[TileGrid]]:
    """2 x 2 shards of a layer of 5 x 4 tiles, with edges in both directions."""
    return [
        [make_grid(45, 50, tile=(10, 13), row_tiles=r, col_tiles=c, **arguments) for c in ((0, 3), (3, 4))]
        for r in ((0, 2), (2, 5))
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"device": ConstantStep(dw_min=0.01), "update": UpdateSettings(bit_length=31, update_management=True)},
        {"device": ConstantStep(dw_min=0.01), "update": UpdateSettings(noise_per="batch", dynamic_bit_length=True)},
        {"device": FloatingPoint()},
    ],
    ids=["sample", "batch", "exact"],
)
def test_shards_behave_as_the_whole_bit_for_bit(arguments: dict[str, Any]) -> None:
    arguments |= {"read": Converters(), "management": NM}
    whole, parts = make_grid(45, 50, tile=(10, 13), **arguments), shards(**arguments)
    flat = [part for row in parts for part in row]
    for grid in (whole, *flat):
        grid.initialise(0.6)
    assert sum(part.tiles for part in flat) == whole.tiles == 20
    assert sum(part.nbytes for part in flat) == whole.nbytes

    def assembled() -> Any:
        return np.block([[part.weights() for part in row] for row in parts])

    np.testing.assert_array_equal(assembled(), whole.weights())
    for step in range(3):
        x, d = signals(step, 4, 50), signals(step + 10, 4, 45, 0.3)
        y, count = whole.read_forward(x, first_sample=4 * step)
        total = ReadCount()
        for row in parts:
            sums = 0
            for part in row:
                found, more = part.read_forward(x[:, slice(*part.col_range)], first_sample=4 * step)
                sums, total = sums + found, total + more
            np.testing.assert_array_equal(sums, y[:, slice(*row[0].row_range)])
        assert total == count
        back, _ = whole.read_backward(d, first_sample=4 * step)
        for col in (0, 1):
            sums = sum(
                parts[row][col].read_backward(d[:, slice(*parts[row][col].row_range)], first_sample=4 * step)[0]
                for row in (0, 1)
            )
            np.testing.assert_array_equal(sums, back[:, slice(*parts[0][col].col_range)])
        pulses = whole.update(x, d, 0.1, first_sample=4 * step)
        parted = PulseCount()
        for part in flat:
            parted += part.update(
                x[:, slice(*part.col_range)], d[:, slice(*part.row_range)], 0.1, first_sample=4 * step
            )
        assert (parted.slots, parted.coincidences, parted.cycles) == (
            pulses.slots,
            pulses.coincidences,
            pulses.cycles,
        )
        assert parted.expected_coincidences == pytest.approx(pulses.expected_coincidences, rel=1e-12)
        np.testing.assert_array_equal(assembled().view(np.uint32), whole.weights().view(np.uint32))


@pytest.mark.parametrize("samples", [1, 16])
def test_the_product_of_a_large_tile_does_not_depend_on_its_shard(samples: int) -> None:
    # sixteen vectors go through BLAS; the tile lies at another offset of another buffer, and x has another stride
    arguments: dict[str, Any] = {"tile": (1025, 1024), "device": FloatingPoint(), "read": PERFECT}
    whole = make_grid(1025, 2048 + 100, **arguments)
    alone = make_grid(1025, 2048 + 100, col_tiles=(1, 2), **arguments)
    for grid in (whole, alone):
        grid.initialise(0.5)
    x, d = signals(1, samples, 2148), signals(2, samples, 1025)
    only = np.zeros_like(x)
    only[:, 1024:2048] = x[:, 1024:2048]
    y, _ = whole.read_forward(only, first_sample=0)
    np.testing.assert_array_equal(alone.read_forward(x[:, 1024:2048], first_sample=0)[0], y)
    back, _ = whole.read_backward(d, first_sample=0)
    np.testing.assert_array_equal(alone.read_backward(d, first_sample=0)[0], back[:, 1024:2048])


def test_a_batch_of_updates_is_its_samples_one_by_one() -> None:
    x, d = signals(1, 6, 33), signals(2, 6, 20)
    for device in (ConstantStep(dw_min=0.01), FloatingPoint()):
        grids = [make_grid(20, 33, tile=(8, 9), device=device) for _ in range(2)]
        for grid in grids:
            grid.initialise(0.6)
        whole = grids[0].update(x, d, 0.1, first_sample=50)
        single = PulseCount()
        for b in range(6):
            single += grids[1].update(x[b : b + 1], d[b : b + 1], 0.1, first_sample=50 + b)
        np.testing.assert_array_equal(grids[0].weights(), grids[1].weights())
        assert (single.slots, single.coincidences, single.cycles) == (whole.slots, whole.coincidences, whole.cycles)


def test_signals_may_be_slices_read_only_or_of_another_type() -> None:
    grids = [make_grid(6, 5, tile=(4, 3), device=ConstantStep(), read=Converters()) for _ in range(3)]
    wide, d = signals(1, 3, 10), signals(2, 3, 6)
    locked, locked_d = wide[:, 2:7].copy(), d.copy()
    locked.flags.writeable = locked_d.flags.writeable = False
    variants = [(wide[:, 2:7], d), (locked, locked_d), (wide[:, 2:7].astype(np.float64), d.astype(np.float64))]
    results = []
    for grid, (x, delta) in zip(grids, variants, strict=True):
        grid.initialise(0.3)
        grid.update(x, delta, 0.05, first_sample=0)
        results.append((grid.forward(x, first_sample=0), grid.backward(delta, first_sample=0), grid.weights()))
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(one, other)


# --- weights ---


def test_floating_point_is_plain_gradient_descent() -> None:
    grid = make_grid(20, 30, tile=(7, 11), device=FloatingPoint(), read=Converters())
    grid.initialise(0.4)
    w = grid.weights().astype(np.float64)
    np.testing.assert_array_equal(grid.weights(), np.float32(0.4) * init_uniform(11, 3, 20, 30))
    for step in range(5):
        x, d = signals(step, 8, 30), signals(step + 9, 8, 20)
        # no converters, no noise, no bounds although the settings have them
        np.testing.assert_allclose(grid.forward(x, first_sample=0), x @ w.T, rtol=0, atol=1e-5)
        np.testing.assert_allclose(grid.backward(d, first_sample=0), d @ w, rtol=0, atol=1e-5)
        count = grid.update(x, d, 0.1, first_sample=8 * step)
        w -= 0.1 * d.T.astype(np.float64) @ x
        np.testing.assert_allclose(grid.weights(), w, rtol=0, atol=1e-5)
        assert count == PulseCount(cycles=3 * 3 * 8)


def test_initial_weights_are_the_same_for_every_replica_and_clipped_to_the_device() -> None:
    grids = [make_grid(12, 15, tile=(5, 4), device=ConstantStep(), replica=replica) for replica in (0, 1)]
    for grid in grids:
        grid.initialise(0.1)  # below almost every bound
        expected = np.float32(0.1) * init_uniform(11, 3, 12, 15)
        assert np.mean(grid.weights() == expected) > 0.98
        grid.initialise(5.0)
    assert not np.array_equal(grids[0].weights(), grids[1].weights())  # other bounds
    assert np.abs(grids[0].weights()).max() < 0.6 * (1 + 0.3 * 5.78)


def test_programming_ends_within_half_a_step() -> None:
    grid = make_grid(30, 40, tile=(16, 16), device=ConstantStep())
    grid.set_weights(np.full((30, 40), 99, np.float32))
    upper = grid.weights()
    grid.set_weights(np.full((30, 40), -99, np.float32))
    lower = grid.weights()
    grid.initialise(0.2)
    start, target = grid.weights(), signals(5, 30, 40, 0.4)
    pulses = grid.program(target)
    reached = grid.weights()
    # no step is above 0.001 (1 + 0.3 5.78 + 0.01 5.78) = 0.0028
    assert np.abs(reached - np.clip(target, lower, upper)).max() <= 0.0014
    assert ((reached >= lower) & (reached <= upper)).all()
    # each pulse moves about 0.001, so their number is the way over the step, averaged over devices
    way = np.abs(np.clip(target, lower, upper) - start).sum()
    assert pulses == pytest.approx(way / 0.001 * np.mean(1 / (1 + 0.3 * np.linspace(-2, 2, 9))), rel=0.3)
    # cells within half a step need no pulse; those that stopped early at a bound may
    assert grid.program(reached) == 0
    np.testing.assert_array_equal(grid.weights(), reached)


@pytest.mark.parametrize("kernels", KERNELS)
def test_recomputed_tolerances_are_the_stored_ones(kernels: KernelChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping, programming and loading, in parts of one row or of several; shards too."""
    target = signals(6, 45, 50, 0.6)
    for together in (1, 40, 1 << 16):
        monkeypatch.setattr(plane, "_CELLS_TOGETHER", together)
        found = []
        for tolerances in ("stored", "recomputed"):
            arguments: dict[str, Any] = {"device": ConstantStep(), "kernels": kernels, "tolerances": tolerances}
            grid = make_grid(45, 50, tile=(10, 13), **arguments)
            grid.initialise(1.0)
            first = grid.weights()
            pulses = grid.program(target)
            found.append((first, pulses, grid.weights()))
            for row in shards(**arguments):
                for part in row:
                    rows, cols = slice(*part.row_range), slice(*part.col_range)
                    part.initialise(1.0)
                    np.testing.assert_array_equal(part.weights(), first[rows, cols])
                    part.program(target[rows, cols])
                    np.testing.assert_array_equal(part.weights(), grid.weights()[rows, cols])
        np.testing.assert_array_equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]
        np.testing.assert_array_equal(found[0][2], found[1][2])


@pytest.mark.parametrize("tolerances", ["stored", "recomputed"])
def test_a_grid_needs_little_more_memory_than_it_keeps(tolerances: Any) -> None:
    def peak(work: Callable[[], Any]) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        held.append(work())
        return tracemalloc.get_traced_memory()[1] - before

    rows, cols = 1500, 2000
    held: list[Any] = []
    make_grid(2, 2, tile=(1, 2), tolerances=tolerances).initialise(1.0)  # compiles
    tracemalloc.start()
    try:
        chunk = 12 << 20  # what is computed of 2^16 cells at a time
        size = rows * cols * (12 if tolerances == "stored" else 4)
        assert peak(lambda: make_grid(rows, cols, tile=(512, 512), tolerances=tolerances)) < size + chunk
        grid = held[0]
        assert grid.nbytes == size
        assert peak(lambda: grid.initialise(0.5)) < chunk
        assert peak(grid.state) < rows * cols * 4 + chunk
        assert peak(lambda: grid.program(held[-1]["weights"])) < chunk
        assert peak(lambda: grid.load_state(held[2])) < chunk
    finally:
        tracemalloc.stop()


def test_grids_may_share_arrays() -> None:
    device = ConstantStep()
    weights, lanes = np.full(5000, 7, np.float32), np.zeros(4 * 5000, np.int16)
    start, pairs = 0, []
    for tolerances in ("stored", "recomputed"):
        for row in shards(device=device):
            for own in row:
                rows = (own.row_range[0] // 10, -(-own.row_range[1] // 10))
                cols = (own.col_range[0] // 13, -(-own.col_range[1] // 13))
                size = own.shape[0] * own.shape[1]
                stop = start + size
                storage = Storage(
                    weights[start:stop], lanes[4 * start : 4 * stop] if tolerances == "stored" else lanes[:0]
                )
                shared = make_grid(
                    45, 50, tile=(10, 13), row_tiles=rows, col_tiles=cols, device=device, storage=storage,
                    tolerances=tolerances,
                )  # fmt: skip
                pairs.append((own, shared))
                start = stop
    for own, shared in pairs:
        for grid in (own, shared):
            grid.initialise(0.4)
            x, d = signals(1, 2, grid.shape[1]), signals(2, 2, grid.shape[0])
            grid.update(x, d, 0.05, first_sample=0)
    for own, shared in pairs:
        np.testing.assert_array_equal(own.weights(), shared.weights())
    np.testing.assert_array_equal(weights[start:], 7)
    np.testing.assert_array_equal(weights[: pairs[0][0].weights().size], pairs[0][1]._weights)
    with pytest.raises(ValueError, match=r"storage of \(3,\) weights and \(0,\) lanes for 4 cells with 4 stored"):
        make_grid(2, 2, device=device, storage=Storage(weights[:3], lanes[:0]))


def test_ideal_programming_counts_exactly() -> None:
    grid = make_grid(2, 2, device=ideal(dw_min=0.01))
    assert grid.program(np.array([[0.1, -0.034], [0.036, 7.0]], np.float32)) == 10 + 3 + 4 + 100
    np.testing.assert_allclose(grid.weights(), [[0.1, -0.03], [0.04, 1.0]], atol=1e-6)


def test_digital_weights_are_copied_exactly() -> None:
    grid = make_grid(7, 9, tile=(3, 4), device=FloatingPoint())
    target = signals(1, 7, 9, 100.0)
    assert grid.program(target) == 0
    np.testing.assert_array_equal(grid.weights(), target)


def test_state_restores_the_experiment_in_any_partition() -> None:
    x, d = signals(1, 2, 50), signals(2, 2, 45)
    arguments: dict[str, Any] = {"device": ConstantStep(), "read": Converters()}
    whole = make_grid(45, 50, tile=(10, 13), **arguments)
    whole.initialise(0.3)
    whole.update(x, d, 0.05, first_sample=0)
    state = whole.state()
    assert {name: array.shape for name, array in state.items()} == {"weights": (45, 50)}
    whole.update(x, d, 0.05, first_sample=2)
    for row in shards(**arguments):
        for part in row:
            rows, cols = slice(*part.row_range), slice(*part.col_range)
            part.load_state({"weights": state["weights"][rows, cols]})
            part.update(x[:, cols], d[:, rows], 0.05, first_sample=2)
            np.testing.assert_array_equal(part.weights(), whole.weights()[rows, cols])
    with pytest.raises(ValueError, match=r"state has \[\], ConstantStep keeps \['weights'\]"):
        whole.load_state({})


def test_the_grid_owns_its_weights() -> None:
    given = np.zeros((3, 3), np.float32)
    given.flags.writeable = False  # as Ray delivers it
    grid = make_grid(3, 3, device=FloatingPoint())
    grid.set_weights(given)
    grid.update(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), 0.5, first_sample=0)
    np.testing.assert_array_equal(given, 0)
    kept = grid.weights()
    grid.set_weights(given)
    np.testing.assert_array_equal(kept, -0.5)


def test_ranges_and_sizes() -> None:
    grid = make_grid(45, 50, tile=(10, 13), row_tiles=(3, 5), col_tiles=(1, 4), device=ConstantStep())
    assert (grid.row_range, grid.col_range, grid.shape, grid.tiles) == ((30, 45), (13, 50), (15, 37), 6)
    assert grid.nbytes == 15 * 37 * (4 + 8)  # a weight and four lanes
    assert make_grid(45, 50, device=ConstantStep(), tolerances="recomputed").nbytes == 45 * 50 * 4
    assert make_grid(4, 5, device=FloatingPoint()).nbytes == 4 * 5 * 4


def test_counts_add() -> None:
    one = PulseCount(slots=1, coincidences=2, expected_coincidences=0.5, cycles=3)
    assert one + one == PulseCount(slots=2, coincidences=4, expected_coincidences=1.0, cycles=6)
    assert ReadCount(passes=1, repeats=2) + ReadCount(passes=3) == ReadCount(passes=4, repeats=2)


# --- messages ---


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (UpdateSettings, {"bit_length": 0}, "bit_length = 0: write 1 to 31"),
        (UpdateSettings, {"bit_length": 32}, "bit_length = 32: write 1 to 31"),
        (UpdateSettings, {"noise_per": "cell"}, 'noise_per = "cell": write "sample" or "batch"'),
    ],
)
def test_settings_out_of_range_say_what_to_write(kind: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)


def test_grids_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r'noise_per = "batch", but the step of SoftBounds depends on its weight'):
        make_grid(2, 2, device=SoftBounds(), update=UpdateSettings(noise_per="batch"))
    with pytest.raises(ValueError, match=r"row_tiles = \(0, 3\) of a layer with 2: pass part of these"):
        make_grid(20, 20, tile=(10, 10), row_tiles=(0, 3))
    with pytest.raises(ValueError, match=r"col_tiles = \(1, 1\) of a layer with 2"):
        make_grid(20, 20, tile=(10, 10), col_tiles=(1, 1))
    with pytest.raises(ValueError, match="rows = 0 with tile_rows = 4: write at least 1"):
        make_grid(0, 4, tile=(4, 4), row_tiles=(0, 1))
    with pytest.raises(ValueError, match=r"write at most 2\^17 lines and 2\^27 cells"):
        make_grid(4, 4, tile=(1 << 14, 1 << 14))


def test_calls_refuse_what_does_not_fit() -> None:
    grid = make_grid(4, 5)
    x, d = np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match=r"signals of shape \(2, 4\) for a shard of \(4, 5\): pass \(samples, 5\)"):
        grid.read_forward(d, first_sample=0)
    with pytest.raises(ValueError, match="x has 2 samples and d 1"):
        grid.update(x, d[:1], 0.1, first_sample=0)
    with pytest.raises(ValueError, match=r"learning rate -0\.1: write a number of at least 0"):
        grid.update(x, d, -0.1, first_sample=0)
    with pytest.raises(TypeError, match="not list"):
        grid.read_forward([[0.0] * 5], first_sample=0)
    with pytest.raises(ValueError, match=r"weights of shape \(5, 4\) for a shard of \(4, 5\)"):
        grid.set_weights(np.zeros((5, 4), np.float32))
    with pytest.raises(NumericalError, match="layer 3: a weight to be set is not finite"):
        grid.set_weights(np.full((4, 5), np.nan, np.float32))
    with pytest.raises(NumericalError, match=r"reached 2\^22"):
        from_fixed(np.array([1 << 62]))


def test_fixed_point_sums_are_exact_to_their_unit() -> None:
    sums = np.array([0, 1, -3, 1 << 40, (1 << 62) - 1, -(1 << 61)])
    np.testing.assert_array_equal(from_fixed(sums[:4]), np.float32(sums[:4] / 2.0**40))
    with pytest.raises(NumericalError):  # rounds to 2^22 as a float64
        from_fixed(sums[4:5])
    assert from_fixed(sums[5:])[0] == -(2.0**21)
