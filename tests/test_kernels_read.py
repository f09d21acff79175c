"""Reads: the compiled ones are the specification up to the order of a sum; sums over tiles are fixed point."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpucluster.devices import FloatingPoint
from rpucluster.errors import NumericalError
from rpucluster.kernels import (
    Kernels,
    for_module,
    from_fixed,
    plain_from_fixed,
)
from rpucluster.kernels.reference import ReferenceKernels
from rpucluster.tile import Converters, Management
from tests.grids import SHAPES, assert_same_bits, grids_of, signals


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    samples=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    input_bits=st.sampled_from([0, 5, 7]),
    output_bits=st.sampled_from([0, 9]),
    bound=st.sampled_from([0.5, 12.0]),
    noise=st.sampled_from([0.0, 0.06]),
    noise_management=st.sampled_from(["none", "abs_max", "average_abs_max", "constant"]),
    bound_management=st.sampled_from(["none", "iterative", "worst_case"]),
    stochastic=st.booleans(),
    input_noise=st.sampled_from([0.0, 0.05]),
    weight_noise=st.sampled_from([0.0, 0.02]),
    wire=st.sampled_from([0.0, 1e-6]),
)
def test_reads_agree_to_an_adc_step(
    all_kernels: list[Kernels],
    shape: tuple[int, int, int, int],
    samples: int,
    seed: int,
    input_bits: int,
    output_bits: int,
    bound: float,
    noise: float,
    noise_management: Any,
    bound_management: Any,
    stochastic: bool,
    input_noise: float,
    weight_noise: float,
    wire: float,
) -> None:
    rows, cols, tile_rows, tile_cols = shape
    read = Converters(
        input_bits=input_bits,
        output_bits=output_bits,
        output_bound=bound,
        read_noise=noise,
        input_rounding="stochastic" if stochastic and input_bits else "nearest",
        output_rounding="stochastic" if stochastic and output_bits else "nearest",
        input_noise=input_noise,
        weight_read_noise=weight_noise,
        wire_resistance=wire,
    )
    management = Management(noise_management=noise_management, bound_management=bound_management, scale=0.5)
    grids = grids_of(all_kernels, rows, cols, tile=(tile_rows, tile_cols), read=read, management=management)
    for lines, name in ((cols, "read_forward"), (rows, "read_backward")):
        x = signals(seed, samples, lines)
        results: list[Any] = []
        averages: list[Any] = []
        for grid in grids:
            grid.initialise(0.6)
            sums, count = getattr(grid, name)(x, first_sample=7)
            results.append((from_fixed(sums), count))
            averages.append(grid.state().get(f"{name[5:]}_averages", np.zeros(0, np.float32)))
        assert_same_bits(averages)
        for values, count in results[1:]:
            assert count == results[0][1]
            # products are summed in another order: a code may flip, which is one step of the ADC
            exact = 1e-5 if output_bits == 0 else 2 * bound / (2**output_bits - 2) * 1.001
            scale = {"none": 1, "constant": 0.5}.get(noise_management, np.abs(x).max())
            if bound_management == "worst_case":
                scale = max(scale, 0.6 * np.abs(x).sum(1).max() / bound)
            tiles = -(-lines // (tile_cols if lines == cols else tile_rows))
            np.testing.assert_allclose(values, results[0][0], rtol=0, atol=exact * scale * tiles * 2**3)
            flipped = np.abs(values - results[0][0]) > 2e-5 * max(scale, 1)
            assert flipped.sum() <= 1 + 0.05 * flipped.size  # one in about a thousand flips, but there may be only ten


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, samples=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_exact_reads_agree_to_rounding(
    all_kernels: list[Kernels], shape: tuple[int, int, int, int], samples: int, seed: int
) -> None:
    rows, cols, tile_rows, tile_cols = shape
    grids = grids_of(all_kernels, rows, cols, tile=(tile_rows, tile_cols), device=FloatingPoint())
    x, d = signals(seed, samples, cols), signals(seed, samples, rows)
    for grid in grids:
        grid.initialise(0.5)
        w = grid.weights().astype(np.float64)
        np.testing.assert_allclose(grid.forward(x, first_sample=0), x @ w.T, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(grid.backward(d, first_sample=0), d @ w, rtol=1e-5, atol=1e-5)


def test_large_batches_agree_with_the_specification() -> None:
    # tiles of several blocks of columns, and of panels that are copied
    read = Converters(input_bits=7, output_bits=0, output_bound=4.0, read_noise=0.01)
    management = Management(noise_management="abs_max", bound_management="iterative")
    for device in (None, FloatingPoint()):
        grids = grids_of(
            [ReferenceKernels(), for_module(np)],
            1030,
            1100,
            tile=(1024, 1024),
            device=device,
            read=read,
            management=management,
        )
        for lines, name in ((1100, "read_forward"), (1030, "read_backward")):
            x = signals(3, 16, lines, 3.0)
            x[2] = 0  # exactly zero under noise management
            values = []
            for grid in grids:
                grid.initialise(0.9)
                sums, count = getattr(grid, name)(x, first_sample=2)
                values.append(from_fixed(sums))
            assert count.repeats > 0 or device is not None
            np.testing.assert_allclose(values[1], values[0], rtol=0, atol=2e-3)
            assert not values[1][2].any()


def test_fixed_point_to_float_is_the_same_compiled_and_plain() -> None:
    """Also for sums that are not contiguous, and at the limit, where both refuse."""
    sums = np.random.default_rng().integers(-(2**61), 2**61, (7, 9)) >> np.arange(9)[None, :] * 5
    for part in (sums, sums[:, :-1], sums[::2]):
        assert from_fixed(part).tobytes() == plain_from_fixed(part).tobytes()
    for convert in (from_fixed, plain_from_fixed):
        with pytest.raises(NumericalError):
            convert(np.array([1 << 62]))
