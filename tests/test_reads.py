"""Reads: converters and management against closed forms and against aihwkit's statistics."""

import json
from typing import Any

import numpy as np
import pytest

from rpucluster.kernels import KernelChoice
from rpucluster.rng import Purpose, normals, stream_key
from rpucluster.tile import Converters, Management, from_fixed
from rpucluster.tile_counts import ReadCount
from tests.grids import REFERENCE_FILE, make_grid, rms, signals

KERNELS: tuple[KernelChoice, ...] = ("reference", "numba")
NM = Management(noise_management="abs_max")


@pytest.fixture(scope="module")
def measured() -> Any:
    if not REFERENCE_FILE.exists():
        pytest.skip(f"needs {REFERENCE_FILE.name}, aihwkit's statistics, which this repository does not contain")
    with np.load(REFERENCE_FILE) as file:
        return {name: file[name] for name in file.files}


# --- reads against aihwkit ---


def scenario(measured: Any, way: str, name: str) -> tuple[Converters, Management]:
    io = json.loads(str(measured["meta_json"]))[way][name]["io"]

    def bits(resolution: str) -> int:
        # its resolution is 1 / (2^bits - 2), or negative for none
        return round(np.log2(1 / float(resolution) + 2)) if float(resolution) > 0 else 0

    bound = float(io["out_bound"]) or float("inf")  # there 0 is none
    read = Converters(
        input_bits=bits(io["inp_res"]),
        output_bits=bits(io["out_res"]),
        output_bound=bound,
        read_noise=float(io["out_noise"]),
    )
    management = Management(
        noise_management="abs_max" if "ABS_MAX" in io["noise_management"] else "none",
        bound_management="iterative" if "ITERATIVE" in io["bound_management"] else "none",
    )
    return read, management


FORWARD = ["perfect", "out_noise", "inp_res", "inp_clip", "out_res", "out_bound", "noise_res"]
FORWARD += ["nm_absmax_1.0", "bm_iterative"]


@pytest.mark.parametrize(
    ("way", "name"), [("forward", n) for n in FORWARD] + [("backward", n) for n in ("perfect", "nm_absmax_0.01")]
)
def test_reads_have_the_moments_measured_on_aihwkit(measured: Any, way: str, name: str) -> None:
    read, management = scenario(measured, way, name)
    grid = make_grid(8, 6, read=read, management=management)
    grid.set_weights(measured["forward/W"])
    n = 20_000
    lines = np.tile(measured[f"{way}/{name}/input"], (n, 1))
    y = (grid.forward if way == "forward" else grid.backward)(lines, first_sample=0).astype(np.float64)
    theirs = {key: measured[f"{way}/{name}/{key}"] for key in ("mean", "var", "se_mean", "se_var")}
    noisy = read.read_noise > 0
    if not noisy:
        np.testing.assert_allclose(y[0], theirs["mean"], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(y.var(0), 0)
        return
    se_mean = np.hypot(y.std(0) / np.sqrt(n), theirs["se_mean"])
    se_var = np.hypot(np.sqrt(((y - y.mean(0)) ** 4).mean(0) - y.var(0) ** 2) / np.sqrt(n), theirs["se_var"])
    assert 0.3 < rms((y.mean(0) - theirs["mean"]) / se_mean) < 1.7
    assert 0.3 < rms((y.var(0) - theirs["var"]) / se_var) < 1.7


# --- converters and management ---


@pytest.mark.parametrize("kernels", KERNELS)
def test_dac_codes_round_half_to_even(kernels: KernelChoice) -> None:
    # 3 bits: 2^3 - 2 = 6 steps of 1/3 over [-1, 1]; the weight 1 shows the code
    grid = make_grid(1, 1, read=Converters(input_bits=3, output_bits=0, read_noise=0.0), kernels=kernels)
    grid.set_weights(np.ones((1, 1), np.float32))
    x = np.array([[0.0], [0.16], [0.17], [0.5], [-0.5], [0.9], [1.0], [1.7], [-9.0]], np.float32)
    codes = 3 * grid.forward(x, first_sample=0)[:, 0]
    # 0.5 is 1.5 steps, which goes to 2; beyond 1 it clips
    np.testing.assert_allclose(codes, [0, 0, 1, 2, -2, 3, 3, 3, -3], atol=1e-6)


@pytest.mark.parametrize("kernels", KERNELS)
def test_adc_codes_round_half_to_even_and_clip(kernels: KernelChoice) -> None:
    # 3 bits over +-0.75: steps of 0.25
    read = Converters(input_bits=0, output_bits=3, output_bound=0.75, read_noise=0.0)
    grid = make_grid(1, 1, read=read, kernels=kernels)
    grid.set_weights(np.ones((1, 1), np.float32))
    x = np.array([[0.1], [0.125], [0.13], [0.375], [-0.6], [0.7], [1.0], [-1.0]], np.float32)
    np.testing.assert_array_equal(grid.forward(x, first_sample=0)[:, 0], [0, 0, 0.25, 0.5, -0.5, 0.75, 0.75, -0.75])


def test_read_noise_is_that_normal_of_the_stream() -> None:
    grid = make_grid(10, 7, tile=(6, 4), read=Converters(input_bits=0, output_bits=0, read_noise=0.25))
    y = grid.forward(np.zeros((3, 7), np.float32), first_sample=100)
    for b in range(3):
        for tile_row, rows in enumerate((slice(0, 6), slice(6, 10))):
            count = rows.stop - rows.start
            noise = sum(
                0.25 * normals(stream_key(11, Purpose.READ_FORWARD, 3, 0, tile_row, tile_col), count, 100 + b)
                for tile_col in (0, 1)
            )
            np.testing.assert_allclose(y[b, rows], noise, rtol=0, atol=1e-6)


def test_noise_of_reads_has_its_deviation_in_each_direction_and_purpose() -> None:
    grid = make_grid(40, 30, read=Converters(input_bits=0, output_bits=0, read_noise=0.06))
    reads = [
        grid.forward(np.zeros((500, 30), np.float32), first_sample=0),
        grid.forward(np.zeros((500, 30), np.float32), first_sample=0, purpose=Purpose.EVALUATE),
        grid.backward(np.zeros((500, 40), np.float32), first_sample=0)[:, :30],
    ]
    for y in reads:
        assert abs(y.mean()) < 4 * 0.06 / np.sqrt(y.size)
        assert y.std() == pytest.approx(0.06, rel=4 / np.sqrt(2 * y.size))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        correlation = np.corrcoef(reads[one][:, :30].reshape(-1), reads[other][:, :30].reshape(-1))[0, 1]
        assert abs(correlation) < 4 / np.sqrt(500 * 30)


@pytest.mark.parametrize("kernels", KERNELS)
def test_noise_management_scales_signal_and_noise(kernels: KernelChoice) -> None:
    read = Converters(input_bits=7, output_bits=9, output_bound=2.0, read_noise=0.06)
    grid = make_grid(8, 6, read=read, management=NM, kernels=kernels)
    grid.initialise(0.5)
    x = signals(1, 4, 6)
    # a power of two changes no rounding: what is scaled is the same read, noise included
    y = grid.forward(x, first_sample=0)
    np.testing.assert_array_equal(grid.forward(x * 2.0**-9, first_sample=0), y * 2.0**-9)


@pytest.mark.parametrize("kernels", KERNELS)
def test_under_noise_management_a_tile_that_sees_zeros_gives_exact_zeros(kernels: KernelChoice) -> None:
    x = np.zeros((2, 6), np.float32)
    x[1, 5] = 1e-20  # seen by the second tile column alone
    grid = make_grid(4, 6, tile=(4, 3), read=Converters(), management=NM, kernels=kernels)
    y, count = grid.read_forward(x, first_sample=0)
    assert not y[0].any()
    # weights 0, noise 0.06 of 1e-20: below the 2^-40 of the sums
    assert not y[1].any()
    assert count == ReadCount(passes=4, repeats=0)
    noisy = make_grid(4, 6, tile=(4, 3), read=Converters(output_bits=0), kernels=kernels)
    assert noisy.forward(x, first_sample=0).all()


@pytest.mark.parametrize("kernels", KERNELS)
def test_bound_management_halves_until_nothing_clips(kernels: KernelChoice) -> None:
    read = Converters(input_bits=0, output_bits=0, output_bound=0.3, read_noise=0.0)
    management = Management(bound_management="iterative")
    grid = make_grid(2, 2, read=read, management=management, kernels=kernels)
    grid.set_weights(np.array([[1.0, 0.0], [0.25, 0.0]], np.float32))
    x = np.array([[0.2, 0], [0.31, 0], [1.0, 0]], np.float32)
    y, count = grid.read_forward(x, first_sample=0)
    # outputs 0.2, 0.31 and 1 need 0, 1 and 2 halvings to get below 0.3, and come back exact
    assert count == ReadCount(passes=3, repeats=3)
    np.testing.assert_array_equal(from_fixed(y), x[:, :1] * np.array([1, 0.25], np.float32))
    clipped = make_grid(2, 2, read=read, kernels=kernels)
    clipped.set_weights(grid.weights())
    np.testing.assert_allclose(clipped.forward(x, first_sample=0)[:, 0], [0.2, 0.3, 0.3])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("bits", "repeats"), [(0, 10), (5, 3), (2, 0)])
def test_bound_management_stops_at_two_bits_of_input(bits: int, repeats: int, kernels: KernelChoice) -> None:
    read = Converters(input_bits=bits, output_bits=0, output_bound=1e-6, read_noise=0.0)
    grid = make_grid(1, 1, read=read, management=Management(bound_management="iterative"), kernels=kernels)
    grid.set_weights(np.ones((1, 1), np.float32))
    y, count = grid.read_forward(np.ones((1, 1), np.float32), first_sample=0)
    assert count.repeats == repeats
    assert from_fixed(y)[0, 0] == pytest.approx(1e-6 * 2**repeats, rel=1e-4)


def test_repeats_draw_new_noise() -> None:
    read = Converters(input_bits=0, output_bits=0, output_bound=1.0, read_noise=0.01)
    grid = make_grid(1, 1, read=read, management=Management(bound_management="iterative"))
    grid.set_weights(np.ones((1, 1), np.float32))
    # 0.999 clips where the noise is above 0.001; such samples take normal 0 of round 1, doubled
    y = grid.forward(np.full((500, 1), 0.999, np.float32), first_sample=0)[:, 0] - 0.999
    key = stream_key(11, Purpose.READ_FORWARD, 3)
    for b in range(500):
        first, second = (0.01 * normals(key, 1, b, round=r)[0] for r in (0, 1))
        assert y[b] == pytest.approx(first if 0.999 + first <= 1 else 2 * second, abs=1e-6)
