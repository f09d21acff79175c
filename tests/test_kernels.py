"""Kernels: which there are, that their sources compile, and what all of them refuse."""

from typing import Any

import numba
import numpy as np
import pytest

from rpucluster.arrays import array_module
from rpucluster.devices import ConstantStep, FloatingPoint
from rpucluster.errors import NumericalError
from rpucluster.kernels import (
    Kernels,
    cpu_apart,
    cpu_random,
    cpu_read,
    cpu_update,
    for_module,
    warm_up,
)
from rpucluster.tile import UpdateSettings
from tests.grids import assert_same_bits, grids_of, make_grid, signals


@pytest.mark.parametrize("device", [ConstantStep(), FloatingPoint()])
def test_all_kernels_refuse_what_is_not_finite(all_kernels: list[Kernels], device: Any) -> None:
    for grid in grids_of(all_kernels, 4, 5, device=device, tile=(4, 3)):
        grid.initialise(0.1)
        before = grid.weights()
        for bad in (np.nan, np.inf):
            x, d = np.ones((2, 5), np.float32), np.ones((2, 4), np.float32)
            x[1, 4] = bad
            with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
                grid.update(x, d, 0.01, first_sample=0)
            with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
                grid.read_forward(x, first_sample=0)
        np.testing.assert_array_equal(grid.weights(), before)


def test_all_kernels_refuse_sums_beyond_fixed_point(all_kernels: list[Kernels]) -> None:
    for grid in grids_of(all_kernels, 2, 4, device=FloatingPoint(), tile=(2, 2)):
        grid.set_weights(np.full((2, 4), 1.1e6, np.float32))
        x = np.ones((1, 4), np.float32)
        # one tile sums to 2.2e6 < 2^22 = 4.19e6, and the two of a row to 4.4e6
        assert grid.forward(x / 2, first_sample=0)[0, 0] == pytest.approx(2.2e6)
        with pytest.raises(NumericalError, match=r"layer 3: an output .* has reached 2\^22"):
            grid.read_forward(x, first_sample=0)
        with pytest.raises(NumericalError, match=r"reached 2\^22"):
            grid.read_forward(1e6 * x, first_sample=0)


def test_a_gpu_updates_as_the_specification_does() -> None:
    xp = array_module("auto")
    if xp is np:
        pytest.skip("no CuPy or no GPU")
    update = UpdateSettings(bit_length=31)
    for device in (ConstantStep(dw_min=0.02), FloatingPoint()):
        here = make_grid(40, 300, tile=(30, 170), device=device, update=update, kernels="reference")
        there = make_grid(40, 300, tile=(30, 170), device=device, update=update, xp=xp)
        x, d = signals(1, 3, 300), signals(2, 3, 40)
        for grid in (here, there):
            grid.initialise(0.6)
        here.update(x, d, 0.1, first_sample=1)
        there.update(xp.asarray(x), xp.asarray(d), 0.1, first_sample=1)
        assert_same_bits([here.weights(), there.weights()])
        y = there.forward(xp.asarray(x), first_sample=0)
        np.testing.assert_allclose(y.get(), here.forward(x, first_sample=0), rtol=0, atol=1e-4)


def test_kernels_are_chosen_by_the_arrays() -> None:
    assert for_module(np).name == "numba"
    assert for_module(np, "reference").name == "reference"
    with pytest.raises(ValueError, match='kernels = "cuda" does not work on numpy arrays; write reference or numba'):
        for_module(np, "cuda")
    warm_up()


def test_stored_kernels_notice_a_change_of_any_source() -> None:
    # Numba alone looks at the file of the outermost function, and would go on using inlined code of another file
    stamp = cpu_random._newest_source()
    for kernel in (cpu_update.pulsed_update, cpu_update.exact_update, cpu_read.read, cpu_read.exact_read):
        stored: Any = kernel
        assert stored._dispatcher._cache._cache_file._source_stamp == stamp


def test_a_compiled_function_says_what_is_not_loaded() -> None:
    # a null address must never be jumped to
    @cpu_apart.apart(cpu_random.compiled, cpu_random.types.int64, cpu_random.types.int64)
    def doubled(value: int) -> int:
        return 2 * value

    call: Any = numba.njit
    caller = call(lambda value: doubled(value) + 1)
    with pytest.raises(RuntimeError, match="doubled is not loaded"):
        caller(20)
    doubled.load()
    assert caller(20) == 41
    assert doubled(4) == 8
