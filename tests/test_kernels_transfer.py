"""Transfers and flushes: the compiled ones are the specification bit for bit, and nothing is lost on the way."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpucluster.devices import ConstantStep
from rpucluster.kernels import FlushRule, Kernels, ReadRule, Tiling, TransferRule, TransferState, UpdateRule
from rpucluster.rng import Purpose, stream_keys
from tests.grids import SHAPES, assert_same_bits, ideal, make_grid


def update_rule(device: Any, slots: int) -> UpdateRule:
    return UpdateRule(slots, False, False, False, device)


def transfer_rule(device: Any, **changes: Any) -> TransferRule:
    fields: dict[str, Any] = {
        "update": update_rule(device, changes.pop("slots", 1)),
        "read": ReadRule(),
        "columns": 1,
        "buffered": True,
        "threshold": device.dw_min,
        "momentum": 0.0,
        "forget": False,
        "chop_every": 0,
        "chop_random": False,
        "dynamic_reference": False,
        "memory": 1.0,
    }
    return TransferRule(**(fields | changes))


class Planes:
    """Two planes of a shard with what a transfer between them needs."""

    def __init__(self, shape: tuple[int, int, int, int], device: Any, seed: int, tolerances: Any = "stored") -> None:
        rows, cols, tile_rows, tile_cols = shape
        grid = make_grid(rows, cols, tile=(tile_rows, tile_cols), device=device, seed=seed, tolerances=tolerances)
        grid.initialise(0.6)
        self.tiling: Tiling = grid._tiling
        self.slow, self.lanes, self.keys = grid._weights, grid._lanes, grid._update_keys
        generator = np.random.default_rng(seed)
        self.fast = generator.normal(0, 0.3, rows * cols).astype(np.float32)
        self.held = generator.normal(0, 4 * device.dw_min, rows * cols).astype(np.float32)
        self.gains = generator.uniform(0.01, 0.1, self.tiling.tiles).astype(np.float32)
        across = -(-cols // tile_cols)
        tile_row, tile_col = np.divmod(np.arange(self.tiling.tiles), across)
        self.column_keys = np.stack(
            [
                stream_keys(seed, Purpose.TRANSFER, 0, 0, tile_row, tile_col),
                stream_keys(seed, Purpose.CHOPPER, 0, 0, 0, tile_col),
            ],
            axis=1,
        )
        self.state = TransferState(
            *(np.zeros(rows * cols, np.float32) for _ in range(3)),
            choppers=np.ones(cols, np.float32), ages=np.zeros(cols, np.int32),
        )  # fmt: skip

    def transfer(self, kernels: Kernels, sample: int, start: int, rule: TransferRule) -> int:
        return kernels.transfer(
            self.fast, self.slow, self.lanes, self.tiling, self.keys, self.column_keys, self.gains, self.state,
            sample, start, rule,
        )  # fmt: skip

    def flush(self, kernels: Kernels, sample: int, rule: FlushRule) -> int:
        return kernels.flush(self.slow, self.lanes, self.tiling, self.keys, self.held, sample, rule)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    seed=st.integers(0, 10_000),
    sample=st.sampled_from([0, 2**32 - 1, 2**40 + 5]),
    start=st.integers(0, 200),
    columns=st.integers(1, 12),
    slots=st.integers(1, 31),
    buffered=st.booleans(),
    forget=st.booleans(),
    momentum=st.sampled_from([0.0, 0.3]),
    chop_every=st.integers(0, 3),
    chop_random=st.booleans(),
    dynamic=st.booleans(),
    levels=st.sampled_from([0, 63]),
    noise=st.sampled_from([0.0, 0.1]),
    step=st.sampled_from([0.001, 0.02, 0.3]),
    step_noise=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_transfers_agree_bit_for_bit(
    all_kernels: list[Kernels],
    shape: tuple[int, int, int, int],
    seed: int,
    sample: int,
    start: int,
    columns: int,
    slots: int,
    buffered: bool,
    forget: bool,
    momentum: float,
    chop_every: int,
    chop_random: bool,
    dynamic: bool,
    levels: int,
    noise: float,
    step: float,
    step_noise: float,
) -> None:
    device = ConstantStep(dw_min=step, dw_min_std=step_noise)
    rule = transfer_rule(
        device, slots=slots, columns=columns, buffered=buffered, forget=forget, momentum=momentum,
        chop_every=chop_every, chop_random=chop_random, dynamic_reference=dynamic, memory=0.25,
        read=ReadRule(output_levels=levels, output_bound=2.0, read_noise=noise),
    )  # fmt: skip
    found = []
    for kernels in all_kernels:
        for tolerances in ("stored", "recomputed"):
            planes = Planes(shape, device, seed, tolerances)
            pulses = [planes.transfer(kernels, sample + k, start + k * columns, rule) for k in range(5)]
            found.append((planes, pulses))
    for planes, pulses in found[1:]:
        assert pulses == found[0][1]
        assert_same_bits([planes.slow, found[0][0].slow])
        for mine, first in zip(planes.state, found[0][0].state, strict=True):
            assert_same_bits([mine, first])


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    seed=st.integers(0, 10_000),
    slots=st.integers(1, 31),
    step=st.sampled_from([0.001, 0.02, 0.3]),
    noise=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_flushes_agree_bit_for_bit(
    all_kernels: list[Kernels], shape: tuple[int, int, int, int], seed: int, slots: int, step: float, noise: float
) -> None:
    device = ConstantStep(dw_min=step, dw_min_std=noise)
    rule = FlushRule(update_rule(device, slots), step)
    found = []
    for kernels in all_kernels:
        for tolerances in ("stored", "recomputed"):
            planes = Planes(shape, device, seed, tolerances)
            found.append((planes, [planes.flush(kernels, 2**32 - 1 + k, rule) for k in range(3)]))
    for planes, pulses in found[1:]:
        assert pulses == found[0][1]
        assert_same_bits([planes.slow, found[0][0].slow])
        assert_same_bits([planes.held, found[0][0].held])


@pytest.mark.parametrize("slots", [1, 5])
def test_what_leaves_the_buffer_arrives_on_the_plane(all_kernels: list[Kernels], slots: int) -> None:
    """Ideal steps of the threshold's size: plane plus buffer change by exactly what was read."""
    device = ideal(dw_min=2.0**-9)
    for kernels in all_kernels:
        planes = Planes((7, 23, 4, 9), device, 3)
        planes.slow[:] = np.float32(0.125)
        before = planes.slow.astype(np.float64)
        planes.gains[:] = 2.0**-6
        planes.fast[:] = np.round(planes.fast * 64) / 64  # so that nothing is rounded on the way
        rule = transfer_rule(device, slots=slots)
        pulses = sum(planes.transfer(kernels, k, k, rule) for k in range(9))
        times = np.zeros((7, 23))
        for col, cols in ((0, 9), (9, 9), (18, 5)):
            for k in range(9):
                times[:, col + k % cols] += 1
        brought = np.concatenate(
            [
                (times * _in_order(planes, planes.fast))[row : row + 4, col : col + 9].reshape(-1)
                for row in (0, 4)
                for col in (0, 9, 18)
            ]
        )
        arrived = planes.slow - before + planes.state.buffer
        np.testing.assert_array_equal(arrived, brought * 2.0**-6)
        assert pulses >= np.abs(planes.slow - before).sum() / device.dw_min > 0


def _in_order(planes: Planes, flat: Any) -> Any:
    result = np.zeros((planes.tiling.rows, planes.tiling.cols))
    for offset, rows, cols, row, col in planes.tiling.table:
        result[row : row + rows, col : col + cols] = flat[offset : offset + rows * cols].reshape(rows, cols)
    return result


def test_flushed_pulses_have_the_noise_of_the_device(all_kernels: list[Kernels]) -> None:
    """n pulses move a cell by n steps with the standard deviation std sqrt(n) of a step."""
    device = ideal(dw_min=0.001, dw_min_std=0.5, w_max=100.0, w_min=-100.0)
    planes = Planes((60, 500, 60, 500), device, 5)
    planes.slow[:] = 0
    planes.held[:] = np.float32(0.0041)
    planes.held[::2] *= -1
    rule = FlushRule(update_rule(device, 31), 0.001)
    assert planes.flush(all_kernels[1], 0, rule) == 4 * planes.held.size
    moved = planes.slow.astype(np.float64)
    moved[::2] *= -1
    n = moved.size
    assert abs(moved.mean() - 0.004) < 5 * 0.001 / np.sqrt(n)
    assert moved.std() == pytest.approx(0.001, rel=5 / np.sqrt(2 * n))
    np.testing.assert_allclose(np.abs(planes.held), 0.0001, atol=1e-6)


def test_trains_without_a_buffer_carry_what_was_read_on_average(all_kernels: list[Kernels]) -> None:
    """Mean gain y, variance of a binomial count, while no line saturates."""
    device = ideal(dw_min=0.001, w_max=100.0, w_min=-100.0)
    planes = Planes((4000, 1, 4000, 1), device, 6)
    planes.slow[:] = 0
    planes.fast[:] = np.float32(-0.3)
    planes.gains[:] = 0.005
    rule = transfer_rule(device, slots=5, buffered=False)
    for k in range(20):
        planes.transfer(all_kernels[1], k, k, rule)
    p, n = 0.3, 20 * 5  # gain y / (dw_min slots), slots in all
    moved = planes.slow.astype(np.float64) / 0.001
    assert abs(moved.mean() + p * n) < 5 * np.sqrt(n * p * (1 - p) / moved.size)
    assert moved.var() == pytest.approx(n * p * (1 - p), rel=5 * np.sqrt(2 / moved.size))


@pytest.mark.parametrize("dynamic", [False, True])
def test_choppers_cancel_an_offset_of_the_reading(all_kernels: list[Kernels], dynamic: bool) -> None:
    """A plane that only has an offset brings nothing in a whole number of periods of both signs."""
    device = ideal(dw_min=1.0, w_max=100.0, w_min=-100.0)
    planes = Planes((5, 6, 5, 6), device, 7)
    planes.fast[:] = np.float32(0.25)
    rule = transfer_rule(device, chop_every=4, dynamic_reference=dynamic, columns=6, memory=0.5)
    for k in range(8):
        planes.transfer(all_kernels[1], k, 6 * k, rule)
    # under a dynamic reference only the first period, before there is one, brings anything
    left = 4 * 0.25 * planes.gains[0] if dynamic else 0
    np.testing.assert_allclose(planes.state.buffer, left, atol=1e-6)
    np.testing.assert_array_equal(planes.state.choppers, 1)


def test_random_choppers_switch_as_often_as_they_should(all_kernels: list[Kernels]) -> None:
    device = ideal()
    planes = Planes((1, 64, 1, 64), device, 8)
    rule = transfer_rule(device, chop_every=10, chop_random=True, columns=64)
    switched = 0
    for k in range(500):
        before = planes.state.choppers.copy()
        planes.transfer(all_kernels[1], k, 64 * k, rule)
        switched += int((before != planes.state.choppers).sum())
        assert ((planes.state.ages == 0) == (before != planes.state.choppers)).all()
    n = 500 * 64
    assert abs(switched - n / 10) < 5 * np.sqrt(n * 0.09)
