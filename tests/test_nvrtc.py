"""The CUDA sources under NVIDIA's own compiler, without a GPU: they compile, and nothing in them is fused."""

import re
import sys

import pytest

from rpucluster.kernels.cuda import OPTIONS, source
from tests.nvrtc import compile_cuda

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nvidia-cuda-nvrtc comes for Linux")

TARGETS = {75: "Turing", 80: "Ampere", 90: "Hopper", 100: "Blackwell"}


@pytest.mark.parametrize("target", TARGETS, ids=TARGETS.values())
def test_the_sources_compile_and_nothing_is_fused(target: int) -> None:
    """A product and a sum that are fused round once, not twice: the CPU's bits would be lost."""
    compiled = compile_cuda(source(), (f"--gpu-architecture=compute_{target}", *OPTIONS))
    assert compiled.ok, compiled.log
    assert f".target sm_{target}" in compiled.ptx
    kernels = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)', source())
    assert kernels
    assert sorted(re.findall(r"\.entry (\w+)", compiled.ptx)) == sorted(kernels)
    assert "fma.rn" not in compiled.ptx
    assert "approx" not in compiled.ptx
    assert ".ftz" not in compiled.ptx  # small numbers stay what they are
    assert "sqrt.rn.f32" in compiled.ptx  # the correctly rounded ones
    assert "div.rn.f32" in compiled.ptx


def test_the_sources_would_be_fused_without_the_option() -> None:
    """So the test above would notice."""
    options = tuple(option for option in OPTIONS if option != "--fmad=false")
    assert options != OPTIONS
    assert "fma.rn.f32" in compile_cuda(source(), ("--gpu-architecture=compute_80", *options)).ptx


def test_a_mistake_in_the_sources_is_reported_with_its_line() -> None:
    compiled = compile_cuda(source() + "\n__global__ void broken( {\n", ("--gpu-architecture=compute_80", *OPTIONS))
    assert not compiled.ok
    line = source().count("\n") + 2
    assert f"kernels.cu({line}): error" in compiled.log
