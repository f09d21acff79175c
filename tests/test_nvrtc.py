"""The CUDA sources under NVIDIA's own compiler, without a GPU: they compile, and nothing in them is fused."""

import re
import sys

import pytest

from rpucluster.kernels.cuda import OPTIONS, source
from tests.cuda_on_cpu import KERNEL
from tests.nvrtc import compile_cuda

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nvidia-cuda-nvrtc comes for Linux")

TARGETS = {75: "Turing", 80: "Ampere", 90: "Hopper", 100: "Blackwell"}


SHARED_MEMORY = 48 * 1024
"""Bytes that a block may have without asking for more."""


def by_kernel(ptx: str) -> dict[str, str]:
    """The code of each kernel."""
    parts = re.split(r"\.entry (\w+)", ptx)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("target", TARGETS, ids=TARGETS.values())
def test_the_sources_compile_and_nothing_is_fused(target: int) -> None:
    """A product and a sum that are fused round once, not twice: the CPU's bits would be lost.

    They may be in products of reads, which have an order of their own, and in the logarithm of a reported loss.
    """
    compiled = compile_cuda(source(), (f"--gpu-architecture=compute_{target}", *OPTIONS))
    assert compiled.ok, compiled.log
    assert f".target sm_{target}" in compiled.ptx
    kernels = by_kernel(compiled.ptx)
    assert sorted(kernels) == sorted(re.findall(KERNEL, source()))
    products = {"read_product_2", "read_product_8", "read_product_32"}
    assert {name for name, code in kernels.items() if "fma.rn.f32" in code} == products
    assert {name for name, code in kernels.items() if "fma.rn.f64" in code} == {"digital_score"}
    assert not re.search(r"approx\S*\.f32", compiled.ptx)
    assert ".ftz.f32" not in compiled.ptx  # small numbers stay what they are
    assert "sqrt.rn.f32" in compiled.ptx  # the correctly rounded ones
    assert "div.rn.f32" in compiled.ptx


def test_no_kernel_wants_more_shared_memory_than_a_block_has() -> None:
    ptx = compile_cuda(source(), ("--gpu-architecture=compute_90", *OPTIONS)).ptx
    sizes = {name: int(size) for name, size in re.findall(r"\.shared [^;]*?(\w+)\[(\d+)\];", ptx)}
    used = {kernel: sum(sizes[n] for n in sizes if n in code) for kernel, code in by_kernel(ptx).items()}
    assert max(used.values()) <= SHARED_MEMORY
    assert used["update_per_sample"] > 32 * 1024  # a queue of 256 cells in 32 samples


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
