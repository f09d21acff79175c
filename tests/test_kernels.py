"""Kernels: which there are, that their sources compile, and what all of them refuse."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpucluster.arrays import array_module
from rpucluster.devices import ConstantStep, FloatingPoint
from rpucluster.errors import NumericalError
from rpucluster.kernels import (
    Kernels,
    cpu_random,
    cpu_read,
    cpu_update,
    for_module,
    warm_up,
)
from rpucluster.kernels.cuda import OPTIONS, source
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


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_nvcc_compiles_the_cuda_sources_without_fusing(tmp_path: Path) -> None:
    (tmp_path / "kernels.cu").write_text(source(), encoding="utf-8")
    command = ["nvcc", "-ptx", "-arch=sm_80", *OPTIONS, "kernels.cu", "-o", "kernels.ptx"]
    subprocess.run(command, cwd=tmp_path, check=True)
    text = (tmp_path / "kernels.ptx").read_text()
    assert text.count(".entry") == 9
    assert "fma.rn.f32" not in text
    assert "sqrt.rn.f32" in text  # the correctly rounded ones, not approximations
    assert "div.rn.f32" in text


def test_nvrtc_compiles_the_cuda_sources() -> None:
    library = _nvrtc()
    program = ctypes.c_void_p()
    code = source().encode()
    assert library.nvrtcCreateProgram(ctypes.byref(program), code, b"kernels.cu", 0, None, None) == 0
    options = [b"--gpu-architecture=compute_80", *(option.encode() for option in OPTIONS)]
    result = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert result == 0, log.value.decode()


def _nvrtc() -> Any:
    """The NVRTC library of the pip package or of CuPy's toolkit; skips where there is none."""
    nvidia = pytest.importorskip("nvidia", reason="nvidia-cuda-nvrtc is not installed")
    libraries = [file for folder in nvidia.__path__ for file in sorted(Path(folder).rglob("libnvrtc.so.*"))]
    if not libraries:
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    return ctypes.CDLL(str(libraries[0]))


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
        assert stored._cache._cache_file._source_stamp == stamp
