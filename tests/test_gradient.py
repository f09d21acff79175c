"""Dense gradients: what they are, how rows of them are programmed, what they cost; and what stays the same."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.coordinator import run
from rpucluster.devices import device_from
from rpucluster.errors import NumericalError
from rpucluster.job import Job
from rpucluster.kernels import for_module
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.program import Collective, Digital, Program, Update
from rpucluster.tile import UpdateSettings
from rpucluster.tile_counts import PulseCount
from rpucluster.timeline import replay
from tests.grids import SHAPES, assert_same_bits, grids_of, ideal, make_grid, signals
from tests.specs import make_cluster, make_job

STEP = 0.001
"""Of the ideal device."""
NOISY = "gokmen-vlasov"


def gradients(seed: int, rows: int, cols: int, scale: float = 1.0) -> Any:
    return signals(seed, rows, cols, scale)


# --- rows of pulses ---


def test_the_mean_change_is_the_gradient_times_the_rate() -> None:
    """Each slot of a column fires with p = |lr g| / (BL dw) while the row is on, so a cell gets a binomial number of
    steps: mean BL p, variance BL p (1 - p), independent of the other cells."""
    bits, rate, times = 9, 0.3, 400
    seed = int(np.random.default_rng().integers(1 << 30))
    wanted = np.random.default_rng(seed).uniform(-1, 1, (13, 20)).astype("f4") * bits * STEP / rate
    grid = make_grid(13, 20, tile=(5, 8), device=ideal(), update=UpdateSettings(bit_length=bits))
    total, squares = np.zeros((13, 20)), np.zeros((13, 20))
    for i in range(times):
        grid.set_weights(np.zeros((13, 20)))
        counts = grid.write_rows(wanted, rate, first_sample=64 * i)
        steps = np.rint(grid.weights().astype(np.float64) / STEP)
        np.testing.assert_allclose(grid.weights(), steps * STEP, atol=1e-7)
        assert counts.line_pulses == np.abs(steps).sum()
        assert counts.line_slots == bits * 13 * 3  # each row of each of three tiles side by side
        total += steps
        squares += steps**2
    p = np.abs(wanted) * rate / (bits * STEP)
    mean, variance = -np.sign(wanted) * bits * p, bits * p * (1 - p)
    z = (total - times * mean) / np.sqrt(times * variance + 1e-9)
    assert np.abs(z).max() < 5, seed
    assert abs((z**2).mean() - 1) < 5 * np.sqrt(2 / z.size), seed
    spread = squares / times - (total / times) ** 2
    # the mean over 260 cells of variances from 400 draws each
    assert spread.mean() == pytest.approx(variance.mean(), rel=5 * np.sqrt(2 / times / z.size) * 1.5), seed


def test_a_row_cannot_change_by_more_than_its_slots() -> None:
    grid = make_grid(4, 6, device=ideal(), update=UpdateSettings(bit_length=7))
    grid.write_rows(np.full((4, 6), 3.0, "f4"), 1.0, first_sample=0)
    np.testing.assert_allclose(grid.weights(), -7 * STEP, rtol=1e-6)


def test_even_trains_carry_the_nearest_number_of_pulses() -> None:
    gradient = gradients(3, 6, 9, scale=0.004)
    grid = make_grid(6, 9, device=ideal(), update=UpdateSettings(bit_length=31, pulses="deterministic"))
    grid.write_rows(gradient, 0.5, first_sample=0)
    steps = np.minimum(np.abs(gradient * np.float32(0.5)) / np.float32(31 * STEP), 1) * 31
    np.testing.assert_allclose(grid.weights() / STEP, -np.sign(gradient) * np.rint(steps), atol=1e-3)


@pytest.mark.parametrize(
    "exact", [{"device": device_from("floating-point")}, {"update": UpdateSettings(pulses="none")}]
)
def test_exact_changes_take_all_of_the_gradient(exact: dict[str, Any]) -> None:
    gradient, start = gradients(5, 11, 9), 0.1 * gradients(6, 11, 9)
    grid = make_grid(11, 9, tile=(4, 5), **exact)
    grid.set_weights(start)
    assert grid.write_rows(gradient, 0.01, first_sample=0) == PulseCount()
    np.testing.assert_array_equal(grid.weights(), start - gradient * np.float32(0.01))
    with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
        grid.write_rows(np.full((11, 9), np.nan, "f4"), 0.01, first_sample=0)


def test_a_gradient_that_is_not_finite_is_told() -> None:
    with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
        make_grid(3, 4).write_rows(np.full((3, 4), np.inf, "f4"), 0.01, first_sample=0)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 1 << 20))
def test_a_row_does_not_depend_on_the_shard_that_holds_it(shape: tuple[int, int, int, int], seed: int) -> None:
    """With every imperfection of the devices."""
    rows, cols, tall, wide = shape
    common: dict[str, Any] = {
        "tile": (tall, wide),
        "device": device_from(NOISY),
        "update": UpdateSettings(bit_length=5),
    }
    gradient = gradients(seed, rows, cols, scale=0.01)
    whole = make_grid(rows, cols, **common)
    whole.initialise(0.2)
    whole.write_rows(gradient, 0.2, first_sample=seed)
    for r in range(-(-rows // tall)):
        part = make_grid(rows, cols, row_tiles=(r, r + 1), **common)
        part.initialise(0.2)
        (top, bottom), (left, right) = part.row_range, part.col_range
        part.write_rows(gradient[top:bottom, left:right], 0.2, first_sample=seed)
        assert_same_bits([part.weights(), whole.weights()[top:bottom]])
    for c in range(-(-cols // wide)):
        part = make_grid(rows, cols, col_tiles=(c, c + 1), **common)
        part.initialise(0.2)
        (left, right) = part.col_range
        part.write_rows(np.ascontiguousarray(gradient[:, left:right]), 0.2, first_sample=seed)
        assert_same_bits([part.weights(), np.ascontiguousarray(whole.weights()[:, left:right])])


@pytest.mark.parametrize("device", [NOISY, "reram-sb", "reram-es"])
def test_compiled_kernels_write_the_rows_of_the_specification(device: str) -> None:
    kernels = [for_module(np, "reference"), for_module(np, "numba")]
    grids = grids_of(kernels, 12, 17, tile=(5, 9), device=device_from(device), update=UpdateSettings(bit_length=6))
    for grid in grids:
        grid.initialise(0.2)
        grid.write_rows(gradients(8, 12, 17, scale=0.02), 0.3, first_sample=40)
    assert_same_bits([grid.weights() for grid in grids])


def test_other_rows_see_the_pulses_of_a_row_on_half_of_their_lines() -> None:
    """Columns fire for every row of the tile: where half-selected cells move, they move in all of them, and by a change
    of which only half_select is left; in another tile nothing happens."""
    device = ideal(half_select=0.1)
    grid = make_grid(6, 2, tile=(3, 2), device=device, update=UpdateSettings(bit_length=8))
    gradient = np.zeros((6, 2), "f4")
    gradient[1] = 8 * STEP, 0  # the first column fires in every slot of row 1
    grid.write_rows(gradient, 1.0, first_sample=0)
    weights = grid.weights() / STEP
    np.testing.assert_allclose(weights[1, 0], -8, rtol=1e-5)
    np.testing.assert_allclose(np.abs(weights[[0, 2], 0]), 0.8, rtol=1e-5)
    assert (weights[3:] == 0).all()


# --- training ---


def trained(folder: Path, job: Job, executor: Any = "local") -> dict[str, Any]:
    return run(job, make_cluster(8), executor=executor, out=folder / "run").summary


def weights_of(folder: Path, job: Job) -> dict[tuple[int, int], Any]:
    return run(job, make_cluster(8), executor="local", out=folder / "run").directory.read_checkpoint()[0]


def dense(**parallel: Any) -> dict[str, Any]:
    return {"data_sync": "gradient", **parallel}


@pytest.mark.parametrize("bias", ["column", "digital"])
def test_exact_devices_train_with_gradients_as_with_factors(bias: str, tmp_path: Path) -> None:
    """On one replica or two, to rounding: the sums are the same, in another order."""
    same: dict[str, Any] = {"device": {"preset": "floating-point"}, "model": {"bias": bias}}
    eight, four = {"minibatch": 8, "microbatch": 4}, {"minibatch": 4, "microbatch": 4}
    expected = weights_of(tmp_path / "factors", make_job(train=eight, **same))
    one = weights_of(tmp_path / "one", make_job(train=eight, parallel=dense(), **same))
    two = weights_of(tmp_path / "two", make_job(train=four, parallel=dense(data=2, tensor=2), **same))
    for layer in range(3):
        np.testing.assert_allclose(one[0, layer], expected[0, layer], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(two[0, layer], expected[0, layer], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(two[0, layer], two[1, layer])


def test_replicas_write_the_same_rows(tmp_path: Path) -> None:
    """Devices that are alike stay alike, since the trains do not depend on the replica; others do not."""
    alike = weights_of(tmp_path / "ideal", make_job(parallel=dense(data=2), device={"preset": "ideal"}))
    apart = weights_of(tmp_path / "noisy", make_job(parallel=dense(data=2)))
    for layer in range(3):
        np.testing.assert_array_equal(alike[0, layer], alike[1, layer])
        assert not np.array_equal(apart[0, layer], apart[1, layer])


@pytest.mark.parametrize("bias", ["column", "digital"])
def test_a_plan_does_not_change_dense_gradients(bias: str, tmp_path: Path) -> None:
    plans = [
        dense(),
        dense(tensor=2, tensor_split="output"),
        dense(tensor=3, tensor_split="input"),
        dense(tensor=2, pipeline=2, schedule="1f1b"),
        dense(virtual_stages=3, schedule="interleaved"),
    ]
    found = [trained(tmp_path / str(i), make_job(parallel=plan, model={"bias": bias})) for i, plan in enumerate(plans)]
    for key in ("weights_sha256", "train_loss", "test_loss"):
        assert len({summary[key] for summary in found}) == 1, key
    for key in ("line_slots", "line_pulses"):
        assert len({summary["counts"][key] for summary in found}) == 1, key
    assert found[0]["counts"]["line_pulses"] > 0


def test_ray_does_not_change_dense_gradients(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    job = make_job(parallel=dense(data=2, pipeline=2), run={"accelerators_per_worker": 2}, model={"bias": "digital"})
    found, expected = trained(tmp_path / "ray", job, executor="ray"), trained(tmp_path / "local", job)
    assert found["weights_sha256"] == expected["weights_sha256"]


def test_asynchronous_replicas_write_the_gradient_of_each_microbatch(tmp_path: Path) -> None:
    same: dict[str, Any] = {"device": {"preset": "ideal"}}
    alike = weights_of(tmp_path / "replicas", make_job(parallel=dense(data=2, schedule="async"), **same))
    for layer in range(3):
        np.testing.assert_array_equal(alike[0, layer], alike[1, layer])
    whole = {"minibatch": 8, "microbatch": 8}
    found, expected = (
        trained(tmp_path / name, make_job(train=whole, parallel=dense(data=2, schedule=name), **same))
        for name in ("async", "gpipe")
    )
    assert found["weights_sha256"] == expected["weights_sha256"]


# --- what it costs ---

SIZES = [64, 24, 20, 10]


def program_of(minibatch: int = 8, bits: int = 32, sync: str = "gradient", **parallel: Any) -> Program:
    job = make_job(
        train={"minibatch": minibatch, "microbatch": 4},
        words={"gradient_bits": bits},
        parallel={"data_sync": sync, **parallel},
    )
    return lower(partition(job, make_cluster(8, kind="ring")), job)


@pytest.mark.parametrize(("tensor", "data", "bits"), [(1, 2, 32), (2, 2, 16), (1, 4, 8)])
def test_replicas_exchange_every_weight_once(tensor: int, data: int, bits: int) -> None:
    """in x out x bits / 8 bytes of each replica, whatever the minibatch, the bias column included."""
    for minibatch in (4, 16):
        reduced = [op for op in program_of(minibatch, bits, tensor=tensor, data=data) if isinstance(op, Collective)]
        gradients = [op for op in reduced if op.payload == "gradient"]
        assert {op.kind for op in gradients} == {"all_reduce"}
        cells = sum((a + 1) * b for a, b in pairwise(SIZES))
        assert sum(op.bytes[0] for op in gradients) == cells * bits / 8
        assert all(len(op.members) == data for op in gradients)


def test_one_replica_exchanges_nothing() -> None:
    assert not any(isinstance(op, Collective) for op in program_of())


@pytest.mark.parametrize("data", [2, 4])
def test_factors_move_less_than_gradients_below_the_crossover(data: int) -> None:
    """Global batch 2 in out b_g / ((in + out) b_f), of one layer on a ring: an all-gather brings (r - 1) / r of all
    factors to each of r replicas, an all-reduce brings twice (r - 1) / r of the gradient there."""
    inputs, outputs = 60, 20
    crossover = 2 * inputs * outputs * 32 / ((inputs + outputs) * 16)  # 60 samples

    def link_bytes(sync: str, batch: int) -> float:
        job = make_job(
            model={"sizes": [inputs, outputs], "bias": "none"},
            train={"minibatch": batch // data, "microbatch": batch // data},
            parallel={"data": data, "data_sync": sync},
        )
        cluster = make_cluster(data, kind="ring")
        return sum(replay(lower(partition(job, cluster), job), cluster).link_bytes.values())

    at = round(crossover)
    assert link_bytes("factors", at) == pytest.approx(link_bytes("gradient", at))
    assert link_bytes("factors", at - 4) < link_bytes("gradient", at - 4)
    assert link_bytes("factors", at + 4) > link_bytes("gradient", at + 4)


def test_a_gradient_costs_digital_work_and_a_cycle_for_each_row() -> None:
    """Two operations for each cell and sample; then as many cycles as the tallest tile has rows, whatever the samples,
    where factors have one for each sample."""
    cells = [24 * 65, 20 * 25, 10 * 21]
    cluster = make_cluster(8, kind="ring", update_phases=2, pulse_width="3 ns", digital_rate="inf op/s")
    for minibatch in (4, 16):
        program = program_of(minibatch)
        digital = [op for op in program if isinstance(op, Digital) and op.kind == "gradient"]
        assert sum(op.operations for op in digital) == 2 * minibatch * sum(cells)
        assert len(digital) == 3 * minibatch // 4
        updates = [op for op in program if isinstance(op, Update)]
        assert [op.cycles for op in updates] == [0, 0, 0]
        rows = {op.layer: op.alone.writes for op in updates if op.alone}
        assert rows == {0: 24 * 9, 1: 20 * 4, 2: 10 * 3}  # each row of tile columns side by side
        timeline = replay(program, cluster)
        for op in updates:
            slots = 8 * 2 * 7  # rows of a tile, phases, slots
            assert timeline.finish_s[op.id] - timeline.start_s[op.id] == pytest.approx(slots * 3e-9)
            assert timeline.energy_J[op.id].update == pytest.approx(
                14 * cells[op.layer] * cluster.accelerator.pulse_energy
            )
            assert timeline.energy_J[op.id].digital == pytest.approx(
                cells[op.layer] * cluster.accelerator.digital_energy
            )


def test_gradients_are_taken_once_the_errors_are_there() -> None:
    program = program_of(pipeline=2, data=2)
    ahead: list[set[int]] = []
    for op in program:
        ahead.append(set(op.deps).union(*(ahead[dep] for dep in op.deps)))
    for op in program:
        if isinstance(op, Update):
            before = [program.ops[i] for i in ahead[op.id]]
            summed = [o for o in before if isinstance(o, Digital) and o.kind == "gradient" and o.layer == op.layer]
            assert len(summed) == 2 * 2  # microbatches x replicas
