"""Device models: the spread of their tolerances, their presets and the messages about wrong parameters."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from rpucluster.devices import (
    DEVICE_PRESETS,
    LANE_UNIT,
    Cells,
    ConstantStep,
    Device,
    ExponentialStep,
    FloatingPoint,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    PulsedDevice,
    SoftBounds,
    device_from,
    draw_lanes,
)
from rpucluster.rng import Purpose, normals, stream_key, uniform_u32

CELLS = np.arange(100_000, dtype=np.uint32)
KEY = stream_key(2, Purpose.DEVICE, 1, 0, 3, 4)


def drawn(device: Device, cells: Any = CELLS) -> Cells:
    """Tolerances of some cells of a tile."""
    assert isinstance(device, PulsedDevice)
    return device.cells(draw_lanes(KEY, cells, device.lanes))


def test_tolerances_have_the_spread_that_the_preset_says() -> None:
    cells = drawn(ConstantStep())
    n = len(CELLS)
    for values, mean, spread in (
        (cells.up, 0.001, 0.3),
        (cells.down, 0.001, 0.3),
        (cells.upper, 0.6, 0.3),
        (cells.lower, -0.6, 0.3),
    ):
        # folding the 4e-4 of the cells beyond 3.33 deviations changes neither by as much as their standard errors
        assert values.mean() == pytest.approx(mean, abs=4 * abs(mean) * spread / np.sqrt(n))
        assert values.std() == pytest.approx(abs(mean) * spread, rel=4 / np.sqrt(2 * n) + 1e-3)


def test_draws_beyond_zero_are_folded_or_keep_their_sign() -> None:
    """Of normals with spread s over the mean, a share Phi(-1 / s) lies beyond zero; folded, the mean of their size is
    s sqrt(2 / pi) exp(-1 / 2 s^2) + 1 - 2 Phi(-1 / s) of the mean."""
    spread, n = 1.6, len(CELLS)
    device = ConstantStep(dw_min_dtod=spread, up_down_dtod=0.0, w_max_dtod=spread, w_min_dtod=spread)
    beyond = (1 + math.erf(-1 / spread / math.sqrt(2))) / 2
    folded = spread * math.sqrt(2 / math.pi) * math.exp(-0.5 / spread**2) + 1 - 2 * beyond
    sizes, signed = drawn(device), drawn(dataclasses.replace(device, fold=False))
    for part, mean in (("up", 0.001), ("down", 0.001), ("upper", 0.6), ("lower", -0.6)):
        size, value = getattr(sizes, part) / mean, getattr(signed, part) / mean
        np.testing.assert_array_equal(size, np.abs(value))
        assert (value < 0).mean() == pytest.approx(beyond, abs=4 * math.sqrt(beyond * (1 - beyond) / n))
        assert value.mean() == pytest.approx(1, abs=4 * spread / math.sqrt(n))
        assert size.mean() == pytest.approx(folded, abs=4 * spread / math.sqrt(n))
    with pytest.raises(ValueError, match="fold = false: only constant steps keep their sign; write fold = true"):
        SoftBounds(fold=False)


def test_steps_spread_together_and_their_difference_apart() -> None:
    cells = drawn(ConstantStep())
    # up and down steps are gain +- r with deviations 0.3 and 0.01: (up - down) / 2 is r
    r = (cells.up - cells.down) / 0.002
    gain = (cells.up + cells.down) / 0.002
    assert r.std() == pytest.approx(0.01, rel=0.02)
    assert gain.std() == pytest.approx(0.3, rel=0.02)
    assert abs(np.corrcoef(r, gain)[0, 1]) < 0.02
    assert abs(np.corrcoef(cells.upper, cells.lower)[0, 1]) < 0.02


def test_a_cell_uses_the_four_normals_of_its_own_block() -> None:
    z = np.rint(normals(KEY, 4 * 10).reshape(10, 4) / LANE_UNIT) * LANE_UNIT
    device = ConstantStep(dw_min=0.5, dw_min_dtod=0.1, up_down_dtod=0.2, w_max_dtod=0.3, w_min_dtod=0.4)
    cells = drawn(device, np.arange(10, dtype=np.uint32))
    gain, r = 1 + 0.1 * z[:, 0], 0.2 * z[:, 1]
    np.testing.assert_allclose(cells.up, 0.5 * np.abs(gain + r), rtol=1e-6)
    np.testing.assert_allclose(cells.down, 0.5 * np.abs(gain - r), rtol=1e-6)
    np.testing.assert_allclose(cells.upper, 0.6 * np.abs(1 + 0.3 * z[:, 2]), rtol=1e-6)
    np.testing.assert_allclose(cells.lower, -0.6 * np.abs(1 + 0.4 * z[:, 3]), rtol=1e-6)
    one = drawn(device, np.array([7], np.uint32))
    assert all(single[0] == many[7] for single, many in zip(one, cells, strict=True))


def test_lanes_are_quantised_normals_and_halves_of_uniform_words() -> None:
    cells = np.arange(5000, dtype=np.uint32)
    lanes = draw_lanes(KEY, cells, 12)
    assert lanes.shape == (12, len(cells))
    for block in range(3):
        z = np.array([normals(KEY, 4, round=block, first=4 * cell) for cell in cells[:50]]).T  # (4, 50)
        kept = slice(4 * block, 4 * block + (2 if block == 1 else 4))
        np.testing.assert_array_equal(lanes[kept, :50], np.rint(z[: kept.stop - kept.start] * 4096))
    words = np.array([uniform_u32(KEY, 2, round=1, first=4 * cell + 2) for cell in cells[:50]]).T
    np.testing.assert_array_equal(lanes[6:8, :50].view(np.uint16), words >> 16)
    # the first lanes do not depend on how many there are
    np.testing.assert_array_equal(draw_lanes(KEY, cells, 4), lanes[:4])
    # uniform: mean 0 and variance 2^32 / 12 as signed numbers; z of the mean below 5
    assert abs(lanes[6:8].astype(float).mean()) < 5 * 2**16 / np.sqrt(12 * 10_000)


@pytest.mark.parametrize(("up_down", "up", "down"), [(0.05, 1.0, 0.95), (-0.1, 0.9, 1.0), (0.0, 1.0, 1.0)])
def test_systematic_asymmetry_weakens_one_direction(up_down: float, up: float, down: float) -> None:
    cells = drawn(device_from("ideal", {"up_down": up_down}), CELLS[:5])
    np.testing.assert_allclose(cells.up, 0.001 * up, rtol=1e-6)
    np.testing.assert_allclose(cells.down, 0.001 * down, rtol=1e-6)


def test_without_spread_all_cells_are_the_mean() -> None:
    cells = drawn(device_from("ideal"), CELLS[:9])
    for values, mean in zip(cells, (0.001, 0.001, -0.6, 0.6, 0.0, 0.0), strict=True):
        np.testing.assert_array_equal(values, np.float32(mean))


def test_presets_are_the_published_models() -> None:
    assert DEVICE_PRESETS["rpu-baseline"] == ConstantStep()
    preset = DEVICE_PRESETS["gokmen-vlasov"]
    assert isinstance(preset, ConstantStep)
    # "to keep 1200 states": 2 / 0.0016 = 1250, and 1.2 / 0.001 = 1200 for the baseline
    assert (preset.w_max - preset.w_min) / preset.dw_min == pytest.approx(1250)
    assert DEVICE_PRESETS["floating-point"] == FloatingPoint()
    for device in DEVICE_PRESETS.values():
        assert isinstance(device, Device)
        assert isinstance(device, PulsedDevice) == device.pulsed
        assert device.persistent == (
            ("weights", "hidden", "settings") if getattr(device, "write_noise", 0) else ("weights",)
        )
        assert device.step_depends_on_weight == (device.pulsed and not isinstance(device, ConstantStep))


def test_the_pulse_generator_counts_in_steps_near_weight_0() -> None:
    """Numbers that aihwkit 1.2.0 prints as the granularity of its devices."""
    for device, expected in (
        (ConstantStep(dw_min=0.001, up_down=0.3), 0.001),
        (LinearStep(dw_min=0.001, gamma_up=0.5), 0.001),
        (ExponentialStep(dw_min=0.001), 0.000983424),
        (ExponentialStep(dw_min=0.001, a_up=0.0, up_down=0.3), 0.000688397),
        (PowerStep(dw_min=0.001, pow_gamma=2.3), 0.000203063),
        (PiecewiseStep(dw_min=0.001, piecewise_up=(1, 2, 3, 5, 9), piecewise_down=(1,) * 5), 0.003),
        (PiecewiseStep(dw_min=0.001, piecewise_up=(1, 0.7, 0.9, 0.2), piecewise_down=(1,) * 4), 0.0009),
        (DEVICE_PRESETS["pcm"], 0.03235),
    ):
        assert isinstance(device, PulsedDevice)
        assert device.granularity == pytest.approx(expected, rel=2e-6)


def test_exact_weights_have_no_tolerances() -> None:
    device = FloatingPoint()
    assert (device.pulsed, device.dw_min, device.dw_min_std) == (False, 0.0, 0.0)
    assert not isinstance(device, PulsedDevice)


def test_devices_are_frozen_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ConstantStep().dw_min = 1.0  # type: ignore[misc]
    assert device_from("rpu-baseline", {"dw_min": 0.002}) == ConstantStep(dw_min=0.002)


@pytest.mark.parametrize(
    ("parameter", "value", "instead"),
    [
        ("dw_min", 0.0, "dw_min = 0.0: write a number above 0"),
        ("dw_min", float("nan"), "dw_min = nan: write"),
        ("dw_min", True, "dw_min = True: write"),
        ("dw_min_std", -0.1, "dw_min_std = -0.1: write a relative spread"),
        ("w_max", -0.6, "w_max = -0.6: write a number above 0"),
        ("w_min", 0.6, "w_min = 0.6: write a number of at most 0"),
        ("w_max_dtod", float("inf"), "w_max_dtod = inf: write"),
        ("up_down", 1.0, "up_down = 1.0: write a number between -1 and 1"),
    ],
)
def test_a_value_out_of_range_says_what_to_write(parameter: str, value: float, instead: str) -> None:
    with pytest.raises(ValueError, match=instead):
        device_from("rpu-baseline", {parameter: value})


def test_unknown_names_come_with_the_nearest_known() -> None:
    with pytest.raises(ValueError, match=r'preset = "rpu-baselin" is no device; did you mean rpu-baseline\?'):
        device_from("rpu-baselin")
    with pytest.raises(ValueError, match=r"ConstantStep has no parameter dw_mn; did you mean dw_min\?"):
        device_from("ideal", {"dw_mn": 1})
    with pytest.raises(ValueError, match="FloatingPoint has no parameter dw_min; it has none"):
        device_from("floating-point", {"dw_min": 0.1})
    with pytest.raises(ValueError, match="known are rpu-baseline, ideal"):
        device_from("zzz")
