"""Device models against IBM's aihwkit: pulse responses, spreads of tolerances, moments of an update."""

from typing import Any

import numpy as np
import pytest

from rpucluster.devices import ConstantStep, LinearStep, Pulsed, SoftBounds
from tests.device_statistics import FILE, META, changes, device_of, fired, random_lanes, scores
from tests.grids import REFERENCE_FILE, rms

PULSES = 400
RUNS = [(False, PULSES), (True, PULSES)]
DRAWN_N = 40_000


@pytest.mark.parametrize("name", META["pulse_response"])
def test_pulse_responses(name: str) -> None:
    """Up to the rounding of 800 float32 additions; aihwkit moves the unshifted weight where there is a reference."""
    found = fired(device_of(META["pulse_response"][name]), 0.0, RUNS)
    np.testing.assert_allclose(found, FILE[f"pulse_response/{name}"], atol=2e-6)


QUIET = {"dw_min_dtod": 0.0, "dw_min_std": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0, "up_down_dtod": 0.0}
COMMON: dict[str, Pulsed] = {
    "ConstantStep": ConstantStep(dw_min=0.01, **QUIET),
    "SoftBounds": SoftBounds(dw_min=0.01, **QUIET),
    "LinearStep_mult1": LinearStep(
        dw_min=0.01, gamma_up=0.4, gamma_down=0.2, gamma_up_dtod=0.0, gamma_down_dtod=0.0, **QUIET
    ),
}


@pytest.mark.skipif(not REFERENCE_FILE.exists(), reason="the reference file is not part of the repository")
@pytest.mark.parametrize("name", COMMON)
def test_pulse_responses_of_the_common_reference(name: str) -> None:
    with np.load(REFERENCE_FILE) as file:
        expected = file[f"pulse_response/{name}"]
    np.testing.assert_allclose(fired(COMMON[name], 0.0, RUNS), expected, atol=2e-6)


@pytest.mark.parametrize("name", META["update"])
def test_moments_of_an_update(name: str) -> None:
    """Mean and variance of each cell's change by the compiled update.

    Cells of a line share its pulses, so that z scores of a line go together; with unit variance and 48 of them, an rms
    of 1.7 is beyond six standard deviations even if eight go together.
    """
    entry = META["update"][name]
    found = changes(device_of(entry), FILE[entry["start"]], FILE["x"], FILE["d"], int(FILE["bit_length"]))
    z_mean, z_var = scores(name, found)
    assert len(z_mean) >= 30
    assert rms(z_mean) < 1.7
    assert rms(z_var) < 1.9
    assert np.abs(z_mean).max() < 6


OF_CELLS = {"max_bound": "upper", "min_bound": "lower", "dwmin_up": "up", "dwmin_down": "down"}


def tolerances(device: Pulsed) -> dict[str, Any]:
    """Tolerances of many cells by aihwkit's names."""
    lanes = random_lanes(np.random.default_rng(), device.lanes, DRAWN_N)
    cells, relaxation = device.cells(lanes), device.relaxation(lanes)
    found = {theirs: getattr(cells, ours) for theirs, ours in OF_CELLS.items()}
    found |= {"slope_up": cells.up * cells.e0, "slope_down": cells.down * cells.e1}
    found |= {"gamma_up": cells.e0, "gamma_down": cells.e1}
    return found | {
        "decay_scales": relaxation.keep, "reset_bias": relaxation.rest, "diffusion_rates": relaxation.diffusion,
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted({key.split("/")[1] for key in FILE.files if key.startswith("draw/")}))
def test_spreads_of_tolerances(name: str) -> None:
    """As many of our cells lie below each of aihwkit's deciles as there should be; both are 40,000 draws."""
    device = device_of(META["update"][name])
    found = tolerances(device)
    for key in (key.split("/")[2] for key in FILE.files if key.startswith(f"draw/{name}/")):
        deciles = FILE[f"draw/{name}/{key}"]
        if key == "reference" or (key in ("decay_scales", "reset_bias") and device.lifetime == 0):
            continue  # the first is in the bounds, and nothing decays
        rounding = 1e-6 * np.abs(deciles).max()
        for q, decile in zip(np.arange(1, 10) / 10, deciles, strict=True):
            below, at_most = (found[key] < decile - rounding).mean(), (found[key] <= decile + rounding).mean()
            error = 5.5 * np.sqrt(2 * q * (1 - q) / DRAWN_N)
            assert below - error < q < at_most + error, (key, q)
