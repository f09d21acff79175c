"""Every option of the periphery alone, against its closed form: mean, variance, scale or exact solution."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.devices import FloatingPoint
from rpucluster.errors import NumericalError
from rpucluster.kernels import KernelChoice
from rpucluster.rng import Purpose
from rpucluster.tile import Converters, Management, TileGrid, from_fixed
from rpucluster.tile_counts import ReadCount
from tests.grids import make_grid, rms, signals

KERNELS: tuple[KernelChoice, ...] = ("reference", "numba")
SILENT: dict[str, Any] = {"input_bits": 0, "output_bits": 0, "output_bound": float("inf"), "read_noise": 0.0}


def grid_of(w: Any, management: Management | None = None, kernels: KernelChoice = "numba", **read: Any) -> TileGrid:
    """One tile with given weights below 1, perfect but for what is given."""
    w = np.asarray(w, np.float32)
    grid = make_grid(*w.shape, read=Converters(**(SILENT | read)), management=management, kernels=kernels)
    grid.set_weights(w)
    return grid


def z_of(values: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
    """Deviations of the sample means and of the sample variances of normal values (n, k), in standard errors."""
    n = len(values)
    return (values.mean(0) - mean) / np.sqrt(variance / n), (values.var(0) / variance - 1) / np.sqrt(2 / n)


# --- noise management ---


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_constant_scale_is_a_read_of_scaled_inputs(kernels: KernelChoice) -> None:
    read = {"input_bits": 5, "output_bits": 9, "output_bound": 2.0, "read_noise": 0.06}
    w, x = signals(1, 8, 6, 0.3), signals(2, 4, 6, 0.1)
    plain = grid_of(w, kernels=kernels, **read).forward(x * 8, first_sample=0)
    constant = Management(noise_management="constant", scale=0.125)
    scaled = grid_of(w, constant, kernels, **read).forward(x, first_sample=0)
    np.testing.assert_array_equal(scaled, plain / 8)  # powers of two: no other rounding
    assert scaled.any()


def averages_of(peaks: Any, decay: float) -> list[float]:
    """The scale of each sample: the average before it, or its own where there is none yet."""
    scales, average = [], 0.0
    for peak in peaks:
        scales.append(average or peak)
        average = decay * average + (1 - decay) * peak if average else peak
    return scales


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_running_average_is_that_of_the_samples_before(kernels: KernelChoice) -> None:
    # two tiles of one cell: codes are multiples of a third of the scale, and the second sees other samples
    decay = 0.75
    management = Management(noise_management="average_abs_max", average_decay=decay)
    read = Converters(**(SILENT | {"input_bits": 3}))
    x = np.abs(signals(5, 40, 2)) * np.float32([1, 0.01])
    x[:3, 0] = 0  # nothing there yet: exact zeros, and the first that is not zero counts
    grid = make_grid(2, 2, tile=(1, 1), read=read, management=management, kernels=kernels)
    grid.set_weights(np.eye(2, dtype=np.float32))
    y = grid.forward(x, first_sample=0)
    for tile in (0, 1):
        scales = np.array(averages_of(x[:, tile], decay))
        live = scales > 0
        codes = np.clip(np.rint(3 * x[live, tile] / scales[live]) / 3, -1, 1)
        np.testing.assert_allclose(y[live, tile], scales[live] * codes, rtol=1e-5)
        assert not y[~live, tile].any()
    assert len({round(float(s), 6) for s in scales}) > 20


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_running_average_goes_on_from_call_to_call_and_not_while_evaluating(kernels: KernelChoice) -> None:
    management = Management(noise_management="average_abs_max", average_decay=0.9)
    read = Converters(output_bound=2.0)
    x, d = signals(1, 12, 20), signals(2, 12, 10, 0.01)
    grids = [
        make_grid(10, 20, tile=(5, 8), read=read, management=management, kernels=kernels, seed=4) for _ in range(3)
    ]
    for grid in grids:
        grid.initialise(0.5)
    whole = grids[0].read_forward(x, first_sample=0)[0], grids[0].read_backward(d, first_sample=0)[0]
    for b in range(12):
        if b == 6:  # a restart in between, after an evaluation
            grids[1].read_forward(100 * x, first_sample=0, purpose=Purpose.EVALUATE)
            state = grids[1].state()
            assert {name: array.shape for name, array in state.items()} == {
                "weights": (10, 20),
                "forward_averages": (2, 3),
                "backward_averages": (2, 3),
            }
            grids[2].load_state(state)
        grid = grids[1 if b < 6 else 2]
        np.testing.assert_array_equal(grid.read_forward(x[b : b + 1], first_sample=b)[0][0], whole[0][b])
        np.testing.assert_array_equal(grid.read_backward(d[b : b + 1], first_sample=b)[0][0], whole[1][b])
    for name, value in grids[0].state().items():
        np.testing.assert_array_equal(grids[2].state()[name], value)


def test_only_grids_with_a_running_average_keep_one() -> None:
    assert set(make_grid(3, 4).state()) == {"weights"}
    management = Management(noise_management="average_abs_max")
    forward = make_grid(3, 4, forward_management=management)
    assert set(forward.state()) == {"weights", "forward_averages"}
    assert set(make_grid(3, 4, device=FloatingPoint(), management=management).state()) == {"weights"}
    with pytest.raises(ValueError, match=r"forward_averages of shape \(3, 4\) for \(1, 1\) tiles"):
        forward.load_state({"weights": np.zeros((3, 4)), "forward_averages": np.zeros((3, 4))})
    with pytest.raises(ValueError, match=r"state has \['weights'\], without forward_averages"):
        forward.load_state({"weights": np.zeros((3, 4))})


# --- bound management ---


@pytest.mark.parametrize("kernels", KERNELS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 50.0]), managed=st.booleans())
def test_the_worst_case_never_saturates_twice(kernels: KernelChoice, seed: int, scale: float, managed: bool) -> None:
    w = np.random.default_rng(seed).uniform(-0.6, 0.6, (7, 30)).astype(np.float32)
    x = signals(seed, 3, 30, scale)
    x[0] = scale * np.sign(w[2])  # the worst there is for one line
    management = Management(
        noise_management="abs_max" if managed else "none", bound_management="worst_case", assumed_weight=0.6
    )
    grid = grid_of(w, management, kernels, output_bound=1.0)
    y, count = grid.read_forward(x, first_sample=0)
    exact = x @ w.T.astype(np.float64)
    analog = np.abs(exact) / (np.abs(x).max(1, keepdims=True) if managed else 1)
    unclipped = managed or np.abs(x).max() <= 1  # else the first try is another product
    if unclipped and np.abs(analog - 1).min() > 1e-5:
        assert count == ReadCount(passes=3, repeats=int((analog > 1).any(1).sum()))
        np.testing.assert_allclose(from_fixed(y), exact, rtol=2e-6, atol=2e-6 * scale)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_worst_case_scales_by_weight_and_sum(kernels: KernelChoice) -> None:
    # noise shows the scale: 0.6 * sum |x| / bound = 0.6 * 10 / 2 = 3
    management = Management(bound_management="worst_case", assumed_weight=0.6)
    samples = 2000 if kernels == "reference" else 20_000
    x = np.tile(np.float32([1, -1] * 5), (samples, 1))
    grid = grid_of(0.5 * np.sign(x[:1]), management, kernels, output_bound=2.0, read_noise=0.06)
    sums, count = grid.read_forward(x, first_sample=0)
    assert count.repeats == samples  # 5 is far beyond 2
    mean, spread = z_of(from_fixed(sums).astype(np.float64), 5.0, (3 * 0.06) ** 2)
    assert np.abs([*mean, *spread]).max() < 5.5


def test_the_worst_case_repeats_once_even_if_weights_are_larger_than_assumed() -> None:
    management = Management(bound_management="worst_case", assumed_weight=0.1)
    grid = grid_of(np.full((1, 4), 0.8), management, output_bound=0.5)
    sums, count = grid.read_forward(np.ones((1, 4), np.float32), first_sample=0)
    # scale 0.1 * 4 / 0.5 = 0.8 is below the 1 that there is; 3.2 saturates again
    assert count.repeats == 1
    assert from_fixed(sums)[0, 0] == 0.5


# --- converters ---


@pytest.mark.parametrize("kernels", KERNELS)
def test_stochastic_rounding_of_inputs_keeps_their_mean(kernels: KernelChoice) -> None:
    # 3 bits: codes are multiples of a third; the unit matrix shows those of each line
    samples = 2000 if kernels == "reference" else 40_000
    value = np.float32([0.0, 0.1, 1 / 6, 0.3, 0.5, 0.9, 1.0, -0.05, -0.4, -1.0, 3.0])
    grid = grid_of(np.eye(11), None, kernels, input_bits=3, input_rounding="stochastic")
    y = grid.forward(np.tile(value, (samples, 1)), first_sample=0).astype(np.float64)
    inside = np.clip(value.astype(np.float64), -1, 1)
    part = 3 * inside - np.floor(3 * inside)
    fixed = (part < 1e-6) | (part > 1 - 1e-6)
    np.testing.assert_allclose(y[:, fixed], np.tile(inside[fixed], (samples, 1)), atol=1e-6)
    codes = 3 * y[:, ~fixed]
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-5)
    assert ((np.rint(codes) == np.floor(3 * inside[~fixed])) | (np.rint(codes) == np.ceil(3 * inside[~fixed]))).all()
    z = (y.mean(0) - inside)[~fixed] / np.sqrt((part * (1 - part) / 9)[~fixed] / samples)
    assert np.abs(z).max() < 5.5
    # lines are rounded independently
    assert np.abs(np.corrcoef(codes.T) - np.eye(codes.shape[1])).max() < 5.5 / np.sqrt(samples)


@pytest.mark.parametrize("kernels", KERNELS)
def test_stochastic_rounding_of_outputs_keeps_their_mean(kernels: KernelChoice) -> None:
    # 3 bits over +-0.75: steps of 0.25
    samples = 2000 if kernels == "reference" else 40_000
    w = np.float32([[0.1], [0.25], [0.3], [-0.6], [0.7], [0.9]])
    grid = grid_of(w, None, kernels, output_bits=3, output_bound=0.75, output_rounding="stochastic")
    y = grid.forward(np.ones((samples, 1), np.float32), first_sample=0).astype(np.float64)
    np.testing.assert_array_equal(y * 4, np.rint(y * 4))
    np.testing.assert_array_equal(y[:, 1], 0.25)
    np.testing.assert_array_equal(y[:, 5], 0.75)
    part = 4 * w[:, 0].astype(np.float64) % 1
    random = [0, 2, 3, 4]
    z = (y.mean(0) - w[:, 0])[random] / np.sqrt((part * (1 - part) / 16)[random] / samples)
    assert np.abs(z).max() < 5.5


def test_stochastic_rounding_of_inputs_and_outputs_and_noise_are_independent() -> None:
    # all three of one line at once: their variances add
    read = {"input_bits": 4, "input_rounding": "stochastic", "output_bits": 6, "output_rounding": "stochastic"}
    grid = grid_of([[1.0]], output_bound=2.0, read_noise=0.1, input_noise=0.05, **read)
    y = grid.forward(np.full((40_000, 1), 0.3, np.float32), first_sample=0).astype(np.float64)
    step, code = 2 / 31, 7 * 0.3
    part = code - np.floor(code)
    # an output whose noise is wider than a step is as if it were rounded anywhere: the mean of r (1 - r) is 1/6
    variance = part * (1 - part) / 49 + 0.05**2 + 0.1**2 + step**2 / 6
    assert abs(y.mean() - 0.3) < 5.5 * np.sqrt(variance / len(y))
    assert abs(y.var() / variance - 1) < 5.5 * np.sqrt(2 / len(y))


# --- noise ---


@pytest.mark.parametrize("backward", [False, True])
def test_noise_of_inputs_is_shared_by_the_outputs(backward: bool) -> None:
    w, n = signals(1, 5, 7, 0.3), 40_000
    x = np.tile(signals(2, 1, 5 if backward else 7, 0.5), (n, 1))
    grid = grid_of(w, input_noise=0.2)
    y = (grid.backward if backward else grid.forward)(x, first_sample=3).astype(np.float64)
    m = (w.T if backward else w).astype(np.float64)
    covariance = 0.04 * m @ m.T
    mean, spread = z_of(y, np.clip(x[0], -1, 1) @ m.T, np.diag(covariance))
    assert np.abs([*mean, *spread]).max() < 5.5
    found = np.cov(y.T)
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert np.abs((found - covariance) / error).max() < 5.5


@pytest.mark.parametrize("backward", [False, True])
def test_noise_of_weights_grows_with_the_length_of_the_inputs(backward: bool) -> None:
    w, n = signals(1, 5, 7, 0.3), 40_000
    line = signals(2, 1, 5 if backward else 7, 0.5)
    m = (w.T if backward else w).astype(np.float64)
    for read_noise in (0.0, 0.02):
        grid = grid_of(w, weight_read_noise=0.05, read_noise=read_noise)
        y = (grid.backward if backward else grid.forward)(np.tile(line, (n, 1)), first_sample=0).astype(np.float64)
        v = np.clip(line[0], -1, 1).astype(np.float64)
        variance = 0.05**2 * (v @ v) + read_noise**2
        mean, spread = z_of(y, v @ m.T, np.full(len(m), variance))
        assert np.abs([*mean, *spread]).max() < 5.5
        # each output has weights of its own
        assert np.abs(np.corrcoef(y.T) - np.eye(len(m))).max() < 5.5 / np.sqrt(n)
    silent = grid_of(w, weight_read_noise=0.05).forward(np.zeros((2, 7), np.float32), first_sample=0)
    assert not silent.any()


def test_noise_of_weights_is_that_of_weights_drawn_anew() -> None:
    # the law itself: every weight of every read with a normal of its own
    rng, n = np.random.default_rng(7), 20_000
    w, v = rng.uniform(-0.5, 0.5, (1, 9)), np.float32(rng.uniform(-1, 1, 9))
    drawn = ((w + 0.1 * rng.standard_normal((n, 9))) * v).sum(1)
    y = grid_of(w, weight_read_noise=0.1).forward(np.tile(v, (n, 1)), first_sample=0)[:, 0].astype(np.float64)
    both = np.sort(drawn), np.sort(y)
    everywhere = np.concatenate(both)
    gap = np.abs(np.subtract(*(np.searchsorted(one, everywhere, side="right") / n for one in both))).max()
    assert gap < 3.0 / np.sqrt(n / 2)  # Kolmogorov-Smirnov: 2 exp(-2 * 3^2) = 3e-8


# --- wires ---


def ladder(g: Any, v: Any, r: float) -> float:
    """Current out of a line of conductances g, driven by v, with a resistance r behind each cell: solved exactly."""
    n = len(g)
    a = np.diag(g + 1 / r + np.where(np.arange(n) > 0, 1 / r, 0))  # Kirchhoff at each node of the line
    a -= (np.eye(n, k=1) + np.eye(n, k=-1)) / r
    return float(np.linalg.solve(a, g * v)[-1] / r)


def exact_output(w: Any, v: Any, r: float, baseline: float) -> float:
    """What a pair of such lines gives for one row of weights."""
    return ladder(baseline + np.maximum(w, 0), v, r) - ladder(baseline + np.maximum(-w, 0), v, r)


def wired(w: Any, r: float, kernels: KernelChoice = "numba", baseline: float = 0.0) -> TileGrid:
    """A tile whose lines have resistance r behind each cell, in units of the resistance of weight 1."""
    return grid_of(w, None, kernels, wire_resistance=r, mean_conductance=1.0, baseline_conductance=baseline)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("backward", [False, True])
def test_voltage_drop_is_that_of_the_ladder_to_first_order(kernels: KernelChoice, backward: bool) -> None:
    rng, n, baseline = np.random.default_rng(3), 60, 0.086
    w = rng.uniform(-0.6, 0.6, (n, 4)) if backward else rng.uniform(-0.6, 0.6, (4, n))
    w = w.astype(np.float32).astype(np.float64)
    x = rng.uniform(-0.2, 1, (3, n)).astype(np.float32)
    lines = w.T if backward else w
    ideal = x.astype(np.float64) @ lines.T
    errors = []
    for r in (2e-5, 1e-5):
        grid = wired(w, r, kernels, baseline)
        y = (grid.backward if backward else grid.forward)(x, first_sample=0).astype(np.float64)
        exact = np.array([[exact_output(line, v, r, baseline) for line in lines] for v in x.astype(np.float64)])
        drop = np.abs(exact - ideal).max()
        assert drop > 50 * np.abs(y - exact).max()
        errors.append(np.abs(y - exact).max())
    # what is left is of second order; float32 leaves 1e-6
    assert errors[0] > 2e-5
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("kernels", KERNELS)
def test_voltage_drop_of_a_uniform_line(kernels: KernelChoice) -> None:
    # P_l = l g v and G_l = l g, so that the output lacks r g^2 v (1 + 4 + ... + n^2)
    n, g, r = 1000, 0.5, 1e-7
    for w, grid in ((g, wired(np.full((1, n), g), r, kernels)), (-g, wired(np.full((1, n), -g), r, kernels))):
        y = grid.forward(np.full((1, n), 0.25, np.float32), first_sample=0)[0, 0]
        lost = r * g * g * 0.25 * n * (n + 1) * (2 * n + 1) / 6
        assert y == pytest.approx(np.sign(w) * (n * g * 0.25 - lost), rel=2e-6)
        assert lost > 0.01 * n * g * 0.25


def test_the_papers_tile_loses_a_few_percent() -> None:
    # 4096 cells of 0.144 ohm and 24 Mohm: the criterion n^2 R_wire / R_device is 0.1, and the drop a third of it
    n = 4096
    read = {"wire_resistance": 0.144 / 24e6, "baseline_conductance": 0.0, "mean_conductance": 0.386}
    grid = grid_of(np.full((1, n), 0.386), **read)
    y = grid.forward(np.ones((1, n), np.float32), first_sample=0)[0, 0]
    assert 1 - y / (n * 0.386) == pytest.approx(n**2 * 6e-9 / 3, rel=1e-3)


def test_voltage_drop_comes_before_noise_and_the_adc() -> None:
    grid = grid_of(np.full((1, 100), 0.9), wire_resistance=1e-5, mean_conductance=1.0, output_bits=9, output_bound=90.0)
    y = grid.forward(np.ones((1, 100), np.float32), first_sample=0)[0, 0]
    baseline = 0.086
    lost = 1e-5 * (0.9**2 + 2 * 0.9 * baseline) * 100 * 101 * 201 / 6  # (w + b)^2 - b^2
    assert y == pytest.approx(np.rint((90 - lost) / (90 / 255)) * (90 / 255), rel=1e-6)


# --- all together ---

ANY_READ = st.fixed_dictionaries(
    {
        "input_bits": st.sampled_from([0, 2, 7]),
        "output_bits": st.sampled_from([0, 9]),
        "output_bound": st.sampled_from([0.25, 12.0]),
        "read_noise": st.sampled_from([0.0, 0.06]),
        "input_noise": st.sampled_from([0.0, 0.1]),
        "weight_read_noise": st.sampled_from([0.0, 0.1]),
        "wire_resistance": st.sampled_from([0.0, 1e-6]),
    }
)
ANY_MANAGEMENT = st.builds(
    Management,
    noise_management=st.sampled_from(["none", "abs_max", "average_abs_max", "constant"]),
    bound_management=st.sampled_from(["none", "iterative", "worst_case"]),
    scale=st.sampled_from([0.25, 3.0]),
)


@pytest.mark.parametrize("kernels", KERNELS)
@given(
    read=ANY_READ,
    management=ANY_MANAGEMENT,
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    seed=st.integers(0, 1000),
)
def test_what_is_not_finite_is_refused_and_what_is_gives_finite_outputs(
    kernels: KernelChoice, read: dict[str, Any], management: Management, rows: int, cols: int, bad: float, seed: int
) -> None:
    grid = make_grid(rows, cols, tile=(7, 9), read=Converters(**read), management=management, kernels=kernels)
    grid.initialise(0.9)
    x = signals(seed, 3, cols, 10.0 ** (seed % 7 - 3))
    y, count = grid.read_forward(x, first_sample=seed)
    assert np.isfinite(from_fixed(y)).all()
    most = {"none": 0, "iterative": 10, "worst_case": 1}[management.bound_management]
    assert count.repeats <= most * count.passes
    if not (read["read_noise"] or read["input_noise"] or read["output_bits"]):
        zeros = grid.forward(np.zeros((2, cols), np.float32), first_sample=0)
        assert not zeros.any()  # no noise of its own, and weights multiply nothing
    x[seed % 3, seed % cols] = bad
    with pytest.raises(NumericalError, match="an input or error signal is not finite"):
        grid.read_forward(x, first_sample=0)


@given(read=ANY_READ, management=ANY_MANAGEMENT, seed=st.integers(0, 1000), backward=st.booleans())
def test_a_sample_is_read_alike_in_any_batch(
    read: dict[str, Any], management: Management, seed: int, backward: bool
) -> None:
    rounding = {f"{way}_rounding": "stochastic" for way in ("input", "output") if read[f"{way}_bits"]}
    grids = [
        make_grid(50, 70, tile=(33, 41), read=Converters(**read, **rounding), management=management) for _ in range(3)
    ]
    x = signals(seed, 7, 50 if backward else 70)
    sums: list[list[Any]] = []
    for grid, parts in zip(grids, (1, 2, 7), strict=True):
        grid.initialise(0.9)
        sums.append([])
        for part in np.array_split(np.arange(7), parts):
            one = (grid.read_backward if backward else grid.read_forward)(x[part], first_sample=int(part[0]))
            sums[-1].append(one[0])
    for other in sums[1:]:
        np.testing.assert_array_equal(np.concatenate(other), sums[0][0])


@pytest.mark.parametrize("shape", [(3, 2000), (1100, 1300), (1300, 1100), (130, 897)])
@pytest.mark.parametrize("device", [None, FloatingPoint()], ids=["pulsed", "exact"])
def test_a_sample_of_a_large_tile_is_read_alike_in_any_batch(shape: tuple[int, int], device: Any) -> None:
    # blocks of columns, panels, copies of panels: which of the loops computes a product depends on the batch
    management = Management(noise_management="abs_max", bound_management="iterative")
    grid = make_grid(*shape, device=device, read=Converters(output_bound=1.0), management=management)
    grid.initialise(0.9)
    for read, lines in ((grid.read_forward, shape[1]), (grid.read_backward, shape[0])):
        x = signals(6, 50, lines)
        whole = read(x, first_sample=0)[0]
        for samples in (1, 2, 3, 4, 8, 9, 12, 49):
            np.testing.assert_array_equal(read(x[:samples], first_sample=0)[0], whole[:samples])
        if device is not None:
            w = grid.weights().astype(np.float64)
            exact = x @ (w.T if lines == shape[1] else w)
            assert rms(from_fixed(whole) - exact) < 1e-6 * np.sqrt(lines)


# --- messages ---


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Converters, {"input_bits": 1}, "input_bits = 1: write 0 for no quantisation, or 2 to 16"),
        (Converters, {"output_bits": 2.5}, "output_bits = 2.5: write"),
        (Converters, {"output_bound": 0.0}, "output_bound = 0.0: write a number above 0"),
        (Converters, {"output_bound": float("inf")}, "output_bound = inf with output_bits = 9: write output_bits = 0"),
        (Converters, {"read_noise": -1.0}, "read_noise = -1.0: write a number of at least 0, such as 0.06"),
        (Converters, {"read_noise": float("nan")}, "read_noise = nan: write"),
        (Converters, {"input_noise": -1.0}, "input_noise = -1.0: write a number of at least 0, such as 0.01"),
        (
            Converters,
            {"wire_resistance": float("inf")},
            "wire_resistance = inf: write a number of at least 0, such as 6e-9",
        ),
        (Converters, {"mean_conductance": 0.0}, "mean_conductance = 0.0: write a number above 0, such as 0.386"),
        (Converters, {"input_rounding": "up"}, 'input_rounding = "up": write "nearest" or "stochastic"'),
        (
            Converters,
            {"output_rounding": "stochastic", "output_bits": 0},
            'output_rounding = "stochastic" with output_bits = 0: write 2 to 16 bits',
        ),
        (
            Management,
            {"noise_management": "max"},
            'noise_management = "max": write "none", "abs_max", "average_abs_max" or "constant"',
        ),
        (
            Management,
            {"bound_management": "shift"},
            'bound_management = "shift": write "none", "iterative" or "worst_case"',
        ),
        (Management, {"scale": 0.0}, "scale = 0.0: write a number above 0, such as 0.1"),
        (Management, {"assumed_weight": -1.0}, "assumed_weight = -1.0: write a number above 0, such as 0.6"),
        (Management, {"average_decay": 1.0}, "average_decay = 1.0: write 0 to below 1, such as 0.99"),
    ],
)
def test_settings_out_of_range_say_what_to_write(kind: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)
