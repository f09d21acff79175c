"""Settings for all tests, and the sets of kernels that several of them compare."""

import numpy as np
import pytest
from hypothesis import settings

from rpucluster.kernels import Kernels, for_module
from rpucluster.kernels.cuda import CudaKernels
from rpucluster.kernels.cuda_launch import Functions
from rpucluster.kernels.reference import ReferenceKernels
from rpucluster.pool.ray_session import prepare_ray
from tests.cuda_on_cpu import HAVE_COMPILER, cuda_functions_on_cpu

# examples are compiled, forked and shared with whatever else the machine does: no test asserts a time
settings.register_profile("rpucluster", deadline=None)
settings.load_profile("rpucluster")

# before a test file imports Ray, since tests start their own
prepare_ray(private=True)


@pytest.fixture(scope="session")
def cuda_functions(tmp_path_factory: pytest.TempPathFactory) -> Functions:
    """The CUDA sources, run on the CPU; a test that asks for them is skipped where there is no compiler."""
    if not HAVE_COMPILER:
        pytest.skip("no g++")
    return cuda_functions_on_cpu(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="session")
def all_kernels(request: pytest.FixtureRequest) -> list[Kernels]:
    """The specification, the Numba kernels and, where there is a compiler, the CUDA sources."""
    found: list[Kernels] = [ReferenceKernels(), for_module(np)]
    if HAVE_COMPILER:
        found.append(CudaKernels(np, request.getfixturevalue("cuda_functions")))
    return found
