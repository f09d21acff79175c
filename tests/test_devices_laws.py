"""Laws of step sizes: closed forms of their pulse responses, symmetries, and what holds for every parameter."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.devices import (
    DEVICE_PRESETS,
    LAW_CONSTANTS,
    Cells,
    ConstantStep,
    ExponentialStep,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    Pulsed,
    SoftBounds,
    SoftBoundsReference,
)
from tests.device_statistics import fired, random_lanes, typical

QUIET = {"dw_min_dtod": 0.0, "dw_min_std": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0, "up_down_dtod": 0.0}
PLAIN = {"dw_min": 0.01, "w_max": 0.6, "w_min": -0.5, **QUIET}
N = np.arange(1, 301)
MODELS = (ConstantStep, LinearStep, SoftBounds, SoftBoundsReference, ExponentialStep, PowerStep, PiecewiseStep)


def linear(**more: Any) -> LinearStep:
    return LinearStep(gamma_up_dtod=0.0, gamma_down_dtod=0.0, **{**PLAIN, **more})


def test_a_linear_step_approaches_where_it_vanishes_geometrically() -> None:
    device = linear(gamma_up=0.8, gamma_down=0.5)
    # w' = w + dw (1 - g w) has the fixed point 1 / g
    for lowers, gamma, bound in ((False, 0.8, 0.6), (True, 0.5, -0.5)):
        end = bound / gamma
        w = end * (1 - (1 - 0.01 / abs(end)) ** N)
        expected = np.maximum(w, bound) if lowers else np.minimum(w, bound)
        np.testing.assert_allclose(fired(device, 0.0, [(lowers, 300)]), expected, atol=2e-6)


@pytest.mark.parametrize("reference", [0.0, 0.15, -0.3])
def test_soft_bounds_are_approached_geometrically_and_never_crossed(reference: float) -> None:
    device = SoftBoundsReference(reference_mean=reference, **PLAIN) if reference else SoftBounds(**PLAIN)
    start = 0.05
    for lowers, bound in ((False, 0.6), (True, -0.5)):
        # of the device itself, which is at weight + reference: the distance to the bound shrinks by 1 - dw / |bound|
        distance = (start + reference - bound) * (1 - 0.01 / abs(bound)) ** N
        found = fired(device, start, [(lowers, 300)])
        np.testing.assert_allclose(found, bound + distance - reference, atol=2e-6)
    cells = typical(device)
    at_bounds = device.step(np.stack([cells.upper, cells.lower]), np.array([[False], [True]]), cells)
    np.testing.assert_array_equal(at_bounds, 0)


def test_at_the_subtracted_symmetry_point_up_and_down_steps_are_equal() -> None:
    device = SoftBoundsReference(
        subtract_symmetry_point=True, up_down=0.3, up_down_dtod=0.1, log_normal=True, w_min_dtod=0.2, w_max_dtod=0.2
    )
    cells = device.cells(random_lanes(np.random.default_rng(), device.lanes, 10_000))
    zero = np.zeros(10_000, np.float32)
    up, down = (device.step(zero, np.full(10_000, lowers), cells) for lowers in (False, True))
    np.testing.assert_allclose(up, down, rtol=1e-3, atol=1e-7)
    # without subtraction they are not
    plain = dataclasses.replace(device, subtract_symmetry_point=False)
    cells = plain.cells(random_lanes(np.random.default_rng(), plain.lanes, 10_000))
    assert (plain.step(zero, zero < 0, cells) > plain.step(zero, zero < 1, cells)).mean() > 0.9


def test_an_exponential_step_follows_its_recurrence() -> None:
    for parameters in ({}, {"a_up": -1.18, "a_down": -0.08, "gamma_up": 5.0, "gamma_down": 4.0, "a": -0.5, "b": -0.5}):
        device = ExponentialStep(**PLAIN, **parameters)
        w, expected = 0.0, []
        for lowers in [False] * 200 + [True] * 200:
            z = 2 * device.a * w / 1.1 + device.b
            factor = (
                np.exp(-device.gamma_down * z) * device.a_down if lowers else np.exp(device.gamma_up * z) * device.a_up
            )
            change = 0.01 * max(1 - factor, 0)
            w = min(max(w - change if lowers else w + change, -0.5), 0.6)
            expected.append(w)
        np.testing.assert_allclose(fired(device, 0.0, [(False, 200), (True, 200)]), expected, atol=5e-6)


def test_an_exponential_step_that_would_be_negative_is_none() -> None:
    device = ExponentialStep(a_up=0.5, gamma_up=10.0, b=0.0, a=1.0, **PLAIN)
    # 1 - 0.5 exp(20 w / 1.1) is 0 at w = 1.1 ln 2 / 20
    assert fired(device, 0.0, [(False, 300)])[-1] == pytest.approx(1.1 * np.log(2) / 20, abs=1e-6)
    assert (fired(device, 0.3, [(False, 3)]) == np.float32(0.3)).all()


def test_a_power_step_of_exponent_1_is_a_soft_bound() -> None:
    device = PowerStep(pow_gamma=1.0, pow_gamma_dtod=0.0, **PLAIN)
    for lowers, bound in ((False, 0.6), (True, -0.5)):
        expected = bound - bound * (1 - 0.01 / 1.1) ** N
        np.testing.assert_allclose(fired(device, 0.0, [(lowers, 300)]), expected, atol=2e-6)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.5, 7.0])
def test_a_power_step_falls_to_nothing_at_the_bound(gamma: float) -> None:
    device = PowerStep(pow_gamma=gamma, pow_gamma_dtod=0.0, **PLAIN)
    w, cells = np.linspace(-0.5, 0.6, 1001, dtype=np.float32), typical(device)
    for lowers, first, last in ((False, 0, -1), (True, -1, 0)):
        steps = device.step(w, np.full(len(w), lowers), cells)
        assert (np.diff(steps) * (1 if lowers else -1) >= 0).all()
        assert steps[last] == 0
        assert steps[first] == np.float32(0.01)


def test_a_piecewise_step_meets_its_nodes_and_the_lines_between_them() -> None:
    up, down = (1.0, 0.4, 0.7, 2.0), (0.0, 0.5, 0.25, 1.0)
    device = PiecewiseStep(piecewise_up=up, piecewise_down=down, **PLAIN)
    cells, places = typical(device), np.linspace(-0.5, 0.6, 4)
    w = np.random.default_rng().uniform(-0.5, 0.6, 1000).astype(np.float32)
    for lowers, nodes in ((False, up), (True, down)):
        np.testing.assert_allclose(
            device.step(w, np.full(1000, lowers), cells), 0.01 * np.interp(w, places, nodes), atol=1e-8
        )
        at = device.step(places.astype(np.float32), np.full(4, lowers), cells)
        np.testing.assert_allclose(at, 0.01 * np.array(nodes), atol=1e-8)


def test_a_curve_of_one_straight_line_is_a_linear_step() -> None:
    parameters = PLAIN | {"w_min": -0.6}
    curve = PiecewiseStep(piecewise_up=(1.6, 1.0, 0.4), piecewise_down=(0.2, 1.0, 1.8), **parameters)
    line = linear(gamma_up=0.6, gamma_down=0.8, w_min=-0.6)
    for runs in ([(False, 100)], [(True, 100)], [(False, 40), (True, 60)]):
        np.testing.assert_allclose(fired(curve, 0.0, runs), fired(line, 0.0, runs), atol=2e-6)


def test_curves_without_slope_are_constant_steps() -> None:
    runs, expected = [(False, 90), (True, 150)], fired(ConstantStep(**PLAIN), 0.0, [(False, 90), (True, 150)])
    flats: list[Pulsed] = [
        linear(),
        PiecewiseStep(**PLAIN),
        PowerStep(pow_gamma=0.0, pow_gamma_dtod=0.0, **PLAIN),
        ExponentialStep(**(PLAIN | {"a_up": 0.0, "a_down": 0.0})),
    ]
    for flat in flats:
        np.testing.assert_allclose(fired(flat, 0.0, runs), expected, atol=1e-6)


# --- every model ---

spread = st.floats(0, 1.5)
COMMON = {
    "dw_min": st.floats(1e-5, 0.5), "dw_min_dtod": spread, "dw_min_std": st.floats(0, 6), "log_normal": st.booleans(),
    "w_max": st.floats(0.01, 3), "w_min": st.floats(-3, -0.01), "w_max_dtod": spread, "w_min_dtod": spread,
    "up_down": st.floats(-0.99, 0.99), "up_down_dtod": spread, "stuck": st.floats(0, 1), "stuck_range": st.floats(0, 2),
    "lifetime": st.one_of(st.just(0.0), st.floats(1, 100)), "lifetime_dtod": spread, "diffusion": st.floats(0, 0.1),
    "diffusion_dtod": spread, "reset_level": st.floats(-1, 1), "reset_level_dtod": spread,
}  # fmt: skip
number = st.floats(-5, 5)
nodes = st.lists(st.floats(0, 3), min_size=4, max_size=4)
OWN: dict[type[Pulsed], dict[str, Any]] = {
    ConstantStep: {},
    LinearStep: {
        "gamma_up": spread, "gamma_down": spread, "gamma_up_dtod": spread, "gamma_down_dtod": spread,
        "mean_bound_reference": st.booleans(), "additive_noise": st.booleans(),
    },
    SoftBounds: {"additive_noise": st.booleans()},
    SoftBoundsReference: {
        "reference_mean": st.floats(-0.3, 0.3), "reference_std": spread, "slope_up_dtod": spread,
        "slope_down_dtod": spread, "subtract_symmetry_point": st.booleans(), "additive_noise": st.booleans(),
    },
    ExponentialStep: {
        "a_up": number, "a_down": number, "gamma_up": number, "gamma_down": number, "a": number, "b": number,
        "dw_min_std_add": spread, "dw_min_std_slope": spread,
    },
    PowerStep: {
        "pow_gamma": st.floats(0, 16), "pow_gamma_dtod": spread, "pow_up_down": st.floats(-0.9, 0.9),
        "pow_up_down_dtod": spread,
    },
    PiecewiseStep: {"piecewise_up": nodes, "piecewise_down": nodes},
}  # fmt: skip


@st.composite
def any_device(draw: st.DrawFn) -> Pulsed:
    model = draw(st.sampled_from(MODELS))
    own = draw(st.fixed_dictionaries(OWN[model]) if draw(st.booleans()) else st.just({}))
    return model(**draw(st.fixed_dictionaries({}, optional=COMMON)), **own)


@given(any_device(), st.integers(0, 2**32))
def test_weights_stay_finite_and_within_bounds(device: Pulsed, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lanes = random_lanes(generator, device.lanes, 50)
    cells = device.cells(lanes)
    assert all(of.dtype == np.float32 and of.shape == (50,) and np.isfinite(of).all() for of in cells)
    w = np.minimum(np.maximum(np.zeros(50, np.float32), cells.lower), cells.upper)
    for _ in range(20):
        lowers = generator.random(50) < 0.5
        step = device.step(w, lowers, cells)
        assert step.dtype == np.float32
        w = device.fire(w, lowers, generator.standard_normal(50, np.float32), cells)
        w = device.relaxed(w, generator.standard_normal(50, np.float32), device.relaxation(lanes), cells)
        assert w.dtype == np.float32
        assert ((w >= cells.lower) & (w <= cells.upper)).all()
        if not isinstance(device, LinearStep):  # whose slope may lead below 0 within wide bounds
            assert (step >= 0).all()


@given(any_device())
def test_constants_fit_and_lanes_are_whole_blocks(device: Pulsed) -> None:
    constants = device.constants()
    assert len(constants) <= LAW_CONSTANTS
    assert np.isfinite(np.array(constants, np.float32)).all()
    assert device.lanes in (4, 8, 12)
    assert device.granularity > 0
    hash(device)


@given(any_device(), st.integers(0, 2**32))
def test_lanes_beyond_those_asked_for_change_nothing(device: Pulsed, seed: int) -> None:
    lanes = random_lanes(np.random.default_rng(seed), 12, 20)
    for few, many in zip(device.cells(lanes[: device.lanes]), device.cells(lanes), strict=True):
        np.testing.assert_array_equal(few, many)
    for few, many in zip(device.relaxation(lanes[: device.lanes]), device.relaxation(lanes), strict=True):
        np.testing.assert_array_equal(few, many)


SWAPPED = {
    "w_max": "w_min", "w_max_dtod": "w_min_dtod", "gamma_up": "gamma_down", "gamma_up_dtod": "gamma_down_dtod",
    "a_up": "a_down", "slope_up_dtod": "slope_down_dtod", "piecewise_up": "piecewise_down",
}  # fmt: skip
NEGATED = ("w_max", "w_min", "up_down", "pow_up_down", "b", "reference_mean", "reset_level")


def mirrored(device: Pulsed, lanes: Any) -> tuple[Pulsed, Any]:
    """The device, and lanes, for which up is what down was."""
    values = {field.name: getattr(device, field.name) for field in dataclasses.fields(device)}
    for one, other in SWAPPED.items():
        if one in values:
            values[one], values[other] = values[other], values[one]
    for name in NEGATED:
        if name in values:
            values[name] = -values[name]
    for name in ("piecewise_up", "piecewise_down"):
        if name in values:
            values[name] = values[name][::-1]
    turned = lanes.copy()
    turned[1], turned[2], turned[3] = -lanes[1], lanes[3], lanes[2]
    if isinstance(device, LinearStep):
        turned[4], turned[5] = lanes[5], lanes[4]
    if isinstance(device, SoftBoundsReference):
        turned[4], turned[5], turned[11] = -lanes[4], lanes[11], lanes[5]
    if isinstance(device, PowerStep):
        turned[5] = -lanes[5]
    return type(device)(**values), turned


@given(any_device(), st.integers(0, 2**32))
def test_a_mirrored_device_does_the_opposite(device: Pulsed, seed: int) -> None:
    device = dataclasses.replace(device, stuck=0.0)
    generator = np.random.default_rng(seed)
    lanes = random_lanes(generator, 12, 30)
    other, turned = mirrored(device, lanes)
    cells, opposite = device.cells(lanes), other.cells(turned)
    np.testing.assert_array_equal(cells.up, opposite.down)
    np.testing.assert_allclose(cells.upper, -opposite.lower, rtol=1e-6, atol=1e-7)
    share = generator.random(30, np.float32)
    w = cells.lower + (cells.upper - cells.lower) * share
    lowers, z = generator.random(30) < 0.5, generator.standard_normal(30, np.float32)
    scale = np.maximum(np.maximum(cells.up, cells.down) * 50, np.abs(w))
    if isinstance(device, ExponentialStep):
        scale = np.maximum(scale, np.abs(device.amount(w, lowers, z, cells)))
    error = device.fire(w, lowers, z, cells) + other.fire(-w, ~lowers, z, opposite)
    assert (np.abs(error) <= 1e-4 * scale + 1e-6).all()


@pytest.mark.parametrize("model", MODELS)
def test_stuck_cells_never_move(model: type[Pulsed]) -> None:
    n, share, width = 40_000, 0.3, 0.25
    device = model(stuck=share, stuck_range=width, lifetime=5.0, diffusion=0.1, dw_min_std=1.0)
    generator = np.random.default_rng()
    lanes = random_lanes(generator, device.lanes, n)
    cells = device.cells(lanes)
    stuck = cells.lower == cells.upper
    assert abs(stuck.sum() - share * n) < 5.5 * np.sqrt(n * share * (1 - share))
    held = Cells(*(of[stuck] for of in cells))
    np.testing.assert_array_equal(np.stack([held.up, held.down, held.e0, held.e1]), 0)
    w = held.lower
    for lowers in (False, True):
        moved = device.fire(w, np.full(len(w), lowers), generator.standard_normal(len(w), np.float32), held)
        np.testing.assert_array_equal(moved, w)
    normals = generator.standard_normal(len(w), np.float32)
    np.testing.assert_array_equal(device.relaxed(w, normals, device.relaxation(lanes[:, stuck]), held), w)
    # few bounds (two normals below -1.9) are within the range, so the weights are uniform in it
    assert np.abs(w).max() <= np.float32(width)
    assert w.mean() == pytest.approx(0, abs=5.5 * width / np.sqrt(3 * len(w)))
    assert np.mean(w**2) == pytest.approx(width**2 / 3, rel=0.08)
    # the others are those of the device without
    free = dataclasses.replace(device, stuck=0.0).cells(lanes)
    for with_stuck, without in zip(cells, free, strict=True):
        np.testing.assert_array_equal(with_stuck[~stuck], without[~stuck])


def test_stuck_cells_stay_within_their_bounds() -> None:
    device = ConstantStep(stuck=1.0, stuck_range=5.0, **QUIET)
    w = device.cells(random_lanes(np.random.default_rng(), 8, 10_000)).lower
    assert w.min() >= np.float32(-0.6)
    assert w.max() <= np.float32(0.6)
    assert w.std() == pytest.approx(1.2 / np.sqrt(12), rel=0.05)


def test_a_log_normal_gain_has_median_1() -> None:
    device = ConstantStep(dw_min=0.01, dw_min_dtod=0.7, log_normal=True, up_down_dtod=0.0)
    gain = np.log(device.cells(random_lanes(np.random.default_rng(), 4, 100_000)).up / np.float32(0.01))
    assert gain.mean() == pytest.approx(0, abs=5.5 * 0.7 / np.sqrt(1e5))
    assert gain.std() == pytest.approx(0.7, rel=5.5 / np.sqrt(2e5))


def test_decay_leads_to_the_rest_weight_and_diffusion_widens() -> None:
    n = 100_000
    device = ConstantStep(lifetime=20.0, reset_level=0.1, diffusion=0.01, **(QUIET | {"w_max": 5.0, "w_min": -5.0}))
    lanes = random_lanes(np.random.default_rng(), device.lanes, n)
    cells, of = device.cells(lanes), device.relaxation(lanes)
    generator, w = np.random.default_rng(), np.full(n, 0.5, np.float32)
    for _ in range(30):
        w = device.relaxed(w, generator.standard_normal(n, np.float32), of, cells)
    keep = 0.95
    var = 1e-4 * (1 - keep**60) / (1 - keep**2)
    assert w.mean() == pytest.approx(0.1 + 0.4 * keep**30, abs=5.5 * np.sqrt(var / n))
    assert w.var() == pytest.approx(var, rel=5.5 * np.sqrt(2 / n))


def test_relaxation_spreads_as_it_says() -> None:
    n = 100_000
    device = ConstantStep(
        lifetime=100.0, lifetime_dtod=0.2, reset_level=0.1, reset_level_dtod=0.3, diffusion=0.02, diffusion_dtod=0.1
    )
    of = device.relaxation(random_lanes(np.random.default_rng(), device.lanes, n))
    lifetime = 1 / (1 - of.keep.astype(np.float64))
    for values, mean, std in ((lifetime, 100, 20), (of.rest, 0.1, 0.3), (of.diffusion, 0.02, 0.002)):
        assert values.mean() == pytest.approx(mean, abs=5.5 * std / np.sqrt(n) + 1e-3 * mean)
        assert values.std() == pytest.approx(std, rel=5.5 / np.sqrt(2 * n) + 1e-3)
    still = ConstantStep().relaxation(random_lanes(np.random.default_rng(), 4, 5))
    np.testing.assert_array_equal(still.keep, 1)
    np.testing.assert_array_equal(np.stack([still.rest, still.diffusion]), 0)


def test_written_weights_scatter_about_the_hidden_ones() -> None:
    device = SoftBounds(dw_min=0.01, write_noise=5.0)
    assert device.persistent == ("weights", "hidden", "settings")
    z = np.random.default_rng().standard_normal(1000).astype(np.float32)
    np.testing.assert_allclose(device.written(np.full(1000, 0.2, np.float32), z), 0.2 + 0.05 * z, atol=1e-7)


def test_step_noise_is_additive_or_follows_the_step() -> None:
    w, z = np.array([0.3], np.float32), np.float32(1.5)
    for device, expected in (
        (SoftBounds(**(PLAIN | {"dw_min_std": 0.4})), 0.005 * 1.6),
        (SoftBounds(additive_noise=True, **(PLAIN | {"dw_min_std": 0.4})), 0.005 + 0.006),
        (SoftBoundsReference(reference_mean=0.15, **(PLAIN | {"dw_min_std": 0.4})), 0.0025 + 0.006),
        (linear(gamma_up=1.0, additive_noise=True, dw_min_std=0.4), 0.005 + 0.006),
        (
            ExponentialStep(a_up=0.0, dw_min_std_add=0.02, dw_min_std_slope=0.1, **(PLAIN | {"dw_min_std": 0.4})),
            0.01 + 0.4 * 1.5 * (0.02 + 0.01 + 0.03),
        ),
    ):
        found = device.amount(w, np.array([False]), z, typical(device))
        assert found[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [name for name, device in DEVICE_PRESETS.items() if device.pulsed])
def test_symmetric_presets_have_equal_steps_at_0(name: str) -> None:
    device: Any = DEVICE_PRESETS[name]
    cells, zero = typical(device), np.zeros(1, np.float32)
    up, down = (device.step(zero, np.array([lowers]), cells)[0] for lowers in (False, True))
    assert up > 0
    assert down > 0
    if name not in ("reram-es", "pcm", "exponential-step"):
        assert up == pytest.approx(down, rel=1e-3)
    assert up == pytest.approx(device.granularity, rel=0.6 if name == "reram-es" else 10 if name == "pcm" else 1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearStep(gamma_up=-0.1), "gamma_up = -0.1: write a number of at least 0"),
        (lambda: LinearStep(w_min=0.0), "w_min = 0.0: write a number below 0"),
        (lambda: LinearStep(additive_noise=1), "additive_noise = 1: write true or false"),
        (lambda: SoftBoundsReference(reference_std=-1.0), "reference_std = -1.0: write"),
        (lambda: SoftBoundsReference(reference_mean=float("nan")), "reference_mean = nan: write a weight"),
        (lambda: ExponentialStep(a_up=float("inf")), "a_up = inf: write a number"),
        (lambda: ExponentialStep(dw_min_std_add=-1.0), "dw_min_std_add = -1.0: write a number of at least 0"),
        (lambda: PowerStep(pow_gamma=17.0), "pow_gamma = 17.0: write a number from 0 to 16"),
        (lambda: PowerStep(pow_up_down=1.0), "pow_up_down = 1.0: write a number between -1 and 1"),
        (lambda: PiecewiseStep(piecewise_up=(1.0,)), r"piecewise_up = \(1.0,\): write a list of 2 to 12 factors"),
        (lambda: PiecewiseStep(piecewise_up=1.0), "piecewise_up = 1.0: write a list of 2 to 12 factors"),
        (lambda: PiecewiseStep(piecewise_up=(1.0, -1.0)), "a factor in piecewise_up = -1.0: write"),
        (lambda: PiecewiseStep(piecewise_up=(1.0, 1.0, 1.0)), "piecewise_up has 3 factors and piecewise_down 2"),
        (lambda: ConstantStep(stuck=1.1), "stuck = 1.1: write a share from 0 to 1"),
        (lambda: ConstantStep(lifetime=0.5), "lifetime = 0.5: write 0 for none, or 1 or more"),
        (lambda: ConstantStep(write_noise=-1), "write_noise = -1: write a number of at least 0"),
        (lambda: ConstantStep(log_normal=0.3), "log_normal = 0.3: write true or false"),
    ],
)
def test_values_out_of_range_say_what_to_write(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
