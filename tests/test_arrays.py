"""Choosing the array module, with a stand-in for CuPy where there is none."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rpucluster.arrays import Gpu, aligned_empty, array_module, gpu_report, namespace, to_host
from rpucluster.errors import MissingPackageError


class DeviceArray:
    """What matters of a CuPy array here: its module's name and `get`."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def get(self) -> Any:
        return self._values.copy()


DeviceArray.__module__ = "cupy._core"


def fake_cupy(gpus: int, broken: bool = False) -> ModuleType:
    """A module named cupy that sees so many GPUs, or whose driver is missing."""

    def count() -> int:
        if broken:
            raise RuntimeError("cudaErrorInsufficientDriver")
        return gpus

    class Device:
        mem_info = (3 << 30, 4 << 30)

        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> "Device":
            return self

        def __exit__(self, *error: object) -> None:
            return None

    module: Any = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceCount=count, getDeviceProperties=lambda index: {"name": f"gpu {index}".encode()})
    module.cuda = SimpleNamespace(runtime=runtime, Device=Device)
    found: ModuleType = module
    return found


def use(monkeypatch: pytest.MonkeyPatch, cupy: ModuleType | None) -> None:
    # None in sys.modules makes the import fail
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def test_numpy_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_cupy(1))
    assert array_module("numpy") is np


def test_auto_takes_the_gpu_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cupy, gpu in ((None, False), (fake_cupy(0), False), (fake_cupy(0, broken=True), False), (fake_cupy(1), True)):
        use(monkeypatch, cupy)
        assert (array_module("auto") is not np) == gpu


def test_cupy_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    with pytest.raises(MissingPackageError, match=r'pip install "rpucluster\[gpu\]"'):
        array_module("cupy")


def test_cupy_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_cupy(0, broken=True))
    with pytest.raises(MissingPackageError, match="no NVIDIA GPU or driver"):
        array_module("cupy")


def test_an_unknown_module_names_the_known() -> None:
    with pytest.raises(ValueError, match='"auto", "numpy" or "cupy"'):
        array_module("torch")  # type: ignore[arg-type]


def test_arrays_decide_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy(1)
    use(monkeypatch, cupy)
    assert namespace(np.zeros(1), np.float32(2)) is np
    assert namespace(DeviceArray([1])) is cupy


def test_host_and_device_arrays_do_not_mix() -> None:
    with pytest.raises(TypeError, match=r"mixed; move one with cupy\.asarray or to_host"):
        namespace(np.zeros(1), DeviceArray([1]))


def test_what_is_no_array_is_named() -> None:
    with pytest.raises(TypeError, match="not list"):
        namespace([1.0])


def test_to_host_copies_from_the_device_only() -> None:
    host = np.arange(3)
    assert to_host(host) is host
    np.testing.assert_array_equal(to_host(DeviceArray([4, 5])), [4, 5])


def test_the_report_lists_gpus_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_cupy(2))
    first, second = gpu_report()
    assert first == Gpu(index=0, name="gpu 0", memory_bytes=4 << 30, free_bytes=3 << 30)
    assert second.name == "gpu 1"
    for cupy in (None, fake_cupy(0), fake_cupy(3, broken=True)):
        use(monkeypatch, cupy)
        assert gpu_report() == []
    unlucky: Any = fake_cupy(1)
    unlucky.cuda.runtime.getDeviceProperties = lambda index: 1 / 0
    use(monkeypatch, unlucky)
    assert gpu_report() == []


@pytest.mark.parametrize(("count", "dtype"), [(1, "i2"), (7, "f4"), (1000, "f8"), (300_000, "f4")])
def test_aligned_arrays_start_at_a_line_of_the_cache(count: int, dtype: str) -> None:
    array = aligned_empty(np, count, dtype)
    assert (array.shape, array.dtype, array.ctypes.data % 64) == ((count,), np.dtype(dtype), 0)
    array[:] = 3
    assert array.flags.c_contiguous
    assert array.flags.writeable
