"""Sweeps, scaling, rows and the command, against plans and replays of their own."""

import gc
import json
import math

import pytest

from rpucluster.cli.main import main
from rpucluster.cluster import load_cluster
from rpucluster.errors import ConfigError, PlanError
from rpucluster.job import load_job
from rpucluster.modelled import model
from rpucluster.partitioner import partition
from rpucluster.projection.held import uses_of_representatives
from rpucluster.projection.rows import Projection, project, specs_at
from rpucluster.projection.scaling import Scaling
from rpucluster.projection.sweep import parse_sweep, points
from rpucluster.projection.symmetry import symmetry_of
from rpucluster.projection.threshold import SHARE

JOB, CLUSTER = "mlp_1b", "ring8"
SMALL = ("model.sizes=[64, 32, 32, 32, 10]", "accelerator.tile_rows=8", "accelerator.tile_cols=8")


@pytest.mark.parametrize(
    ("text", "values", "unit"),
    [
        ("network.axis.board.bandwidth=10GB/s:1TB/s:x10", (10e9, 100e9, 1000e9), "B/s"),
        ("train.minibatch=64:4096:x4", (64, 256, 1024, 4096), None),
        ("weights=1e9:1e11:x10", (10**9, 10**10, 10**11), None),
        ("accelerators=3:10:x2", (3, 6), None),  # 12 is beyond
        ("train.learning_rate=0.5:0.6:x1.1", (0.5, 0.55), None),
        ("parallel.schedule=gpipe,1f1b", ("gpipe", "1f1b"), None),
        ("accelerator.pulse_width=1 ns, 2 us", (1e-9, 2e-6), "s"),
        ("model.sizes=[64,10],[64,20,10]", ("[64,10]", "[64,20,10]"), None),
    ],
)
def test_sweeps_are_ranges_or_lists_of_numbers_quantities_or_words(
    text: str, values: tuple[object, ...], unit: str | None
) -> None:
    sweep = parse_sweep(text)
    assert sweep.unit == unit
    assert sweep.values == (values if isinstance(values[0], str) else pytest.approx(values))


@pytest.mark.parametrize(
    "text",
    ["weights", "=1,2", "weights=", "weights=1:2", "weights=1:2:3", "weights=2:1:x2", "weights=1:2:x1", "a.b=x:y:x2"],
)
def test_what_is_no_sweep_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="--sweep"):
        parse_sweep(text)


def test_points_are_all_combinations_and_the_last_varies_fastest() -> None:
    both = (parse_sweep("accelerators=1,2"), parse_sweep("weights=5,6"))
    assert [tuple(point.values()) for point in points(both)] == [(1, 5), (1, 6), (2, 5), (2, 6)]
    with pytest.raises(ConfigError, match="swept twice"):
        points((both[0], both[0]))


def test_garbage_is_collected_again_after_a_row_and_after_an_error() -> None:
    """A projection keeps the collector from running, and the caller has it back as it was."""
    for sets in (SMALL, (*SMALL, "parallel.tensor=1000")):
        for enabled in (True, False):
            (gc.enable if enabled else gc.disable)()
            try:
                project(JOB, CLUSTER, Projection(), sets)
            except ConfigError:
                assert "parallel.tensor=1000" in sets
            finally:
                left = gc.isenabled()
                gc.enable()
            assert left == enabled


def test_a_row_is_what_plan_and_replay_of_the_changed_files_say() -> None:
    rows = project(JOB, CLUSTER, Projection(sweeps=(parse_sweep("train.minibatch=16,32"),)), SMALL)
    for row, minibatch in zip(rows, (16, 32), strict=True):
        sets = (*SMALL, f"train.minibatch={minibatch}")
        job = load_job(JOB, [s for s in sets if not s.startswith("accelerator")])
        found = model(job, load_cluster(CLUSTER, [s for s in sets if s.startswith("accelerator")]))
        assert row["train.minibatch"] == minibatch
        assert row["modelled_step_s"] == pytest.approx(found.metrics.modelled_step_s, rel=1e-12)
        assert row["modelled_energy_J"] == pytest.approx(found.metrics.energy_J, rel=1e-12)
        assert row["communication_fraction"] == pytest.approx(found.metrics.exposed_communication_fraction, rel=1e-9)
        assert row["samples_per_s"] == pytest.approx(minibatch / found.metrics.modelled_step_s)
        assert row["tiles"] == sum(shard.block.tiles for shard in found.plan.shards())
        steps = 60_000 // minibatch
        assert row["modelled_train_s"] == pytest.approx(steps * row["modelled_step_s"])
        parts = ("forward", "backward", "update", "digital", "exposed_communication", "bubble")
        assert sum(row[f"{part}_s"] for part in parts) == pytest.approx(row["modelled_step_s"])
        assert sum(v for k, v in row.items() if k.startswith("energy_")) == pytest.approx(row["modelled_energy_J"])


@pytest.mark.parametrize(("weak", "batch"), [(False, 64), (True, 64 * 4)])
def test_more_replicas_share_the_global_batch_out_or_bring_their_own(weak: bool, batch: int) -> None:
    projection = Projection(sweeps=(parse_sweep("accelerators=32"),), scaling=Scaling(weak=weak))
    job, cluster = specs_at(JOB, CLUSTER, projection, (), {"accelerators": 32})
    assert (job.parallel.data, cluster.accelerators) == (4, 32)
    assert job.train.minibatch * job.parallel.data == batch
    assert job.train.minibatch % job.train.microbatch == 0


def test_the_axis_that_carries_the_degree_grows() -> None:
    projection = Projection(sweeps=(parse_sweep("accelerators=64"),), scaling=Scaling(degree="tensor"))
    sets = ("parallel.tensor=4", "parallel.pipeline=1", "parallel.data=4")
    # torus4x4 has axes x and y of 4: tensor lies along x
    job, cluster = specs_at(JOB, "torus4x4", projection, sets, {"accelerators": 64})
    assert [axis.size for axis in cluster.network.axis] == [16, 4]
    assert job.parallel.tensor == 16


def test_weights_widen_the_hidden_layers_alone() -> None:
    projection = Projection(sweeps=(parse_sweep("weights=4e9"),))
    job, _ = specs_at(JOB, CLUSTER, projection, (), {"weights": 4e9})
    sizes = job.model.sizes
    assert sizes is not None
    assert (sizes[0], sizes[-1]) == (784, 10)
    assert job.network.weights == pytest.approx(4e9, rel=1e-3)
    assert len(set(sizes[1:-1])) == 1
    # four times the weights are twice the width, as far as hidden layers make up the network
    assert sizes[1] == pytest.approx(math.sqrt(4e9 / 1.09e9) * 16384, rel=0.02)


def test_tiles_are_square_in_a_sweep_of_their_size() -> None:
    projection = Projection(sweeps=(parse_sweep("tile_size=512,1024"),))
    _, cluster = specs_at(JOB, CLUSTER, projection, (), {"tile_size": 512})
    assert (cluster.accelerator.tile_rows, cluster.accelerator.tile_cols) == (512, 512)
    with pytest.raises(ConfigError, match=r"tile_size=0\.5: write whole numbers"):
        specs_at(JOB, CLUSTER, projection, (), {"tile_size": 0.5})


@pytest.mark.parametrize("key", ["bl", "minibatch", "tilesize"])
def test_a_key_of_no_file_is_refused_before_any_row(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"--sweep {key}: no such key; write weights, accelerators, tile_size, or a"):
        project(JOB, CLUSTER, Projection(sweeps=(parse_sweep(f"{key}=1:8:x2"),)))


def test_more_turns_than_can_be_put_in_their_order_are_refused() -> None:
    job = load_job("digits", ["train.minibatch=1000000000000"])
    cluster = load_cluster("laptop")
    plan = partition(job, cluster)
    with pytest.raises(PlanError, match=r"pass in [\d,]+ turns, .* raise \[train\] microbatch or lower minibatch"):
        uses_of_representatives(plan, job, symmetry_of(plan, job, cluster))


def test_a_point_that_does_not_fit_is_a_row_with_its_error() -> None:
    rows = project(JOB, CLUSTER, Projection(sweeps=(parse_sweep("accelerator.tiles=1,100"),)))
    assert "needs" in rows[0]["error"]
    assert rows[0]["accelerator.tiles"] == 1
    assert "error" not in rows[1]
    with pytest.raises(ConfigError, match=r"needs"):
        project(JOB, CLUSTER, Projection(sweeps=(parse_sweep("accelerator.tiles=1,2"),)))


def test_the_threshold_is_where_exposed_communication_passes_a_tenth() -> None:
    key = "network.axis.board.bandwidth"
    sets = ("network.axis.board.latency=1 ns", "network.axis.board.kind=switch")
    (row,) = project(JOB, CLUSTER, Projection(threshold=key), sets)
    enough = row["threshold_B_per_s"]
    assert row["communication_fraction_at_endless_bandwidth"] < SHARE
    for factor, above in ((1.0, False), (1 / 1.02, True)):
        (there,) = project(JOB, CLUSTER, Projection(), (*sets, f"{key}={enough * factor!r} B/s"))
        assert (there["communication_fraction"] >= SHARE) is above
    (slow,) = project(JOB, CLUSTER, Projection(threshold=key), ("network.axis.board.latency=1 ms",))
    assert slow["threshold_B_per_s"] is None
    assert slow["communication_fraction_at_endless_bandwidth"] >= SHARE
    with pytest.raises(ConfigError, match=r"write network\.axis\.NAME\.bandwidth; there is board"):
        project(JOB, CLUSTER, Projection(threshold="network.axis.rack.bandwidth"))


def test_the_command_prints_rows_as_json_or_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["project", JOB, "--cluster", CLUSTER, "--sweep", "accelerators=8,16,24"]
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["accelerators"] for row in rows] == [8, 16, 24]
    assert "error" in rows[2]
    needed = ("weights", "tiles", "tensor", "pipeline", "data", "modelled_step_s", "samples_per_s")
    assert all(rows[0][name] for name in (*needed, "modelled_energy_J", "communication_fraction"))
    assert main(arguments) == 0
    assert "whole multiples or" in capsys.readouterr().out
    assert main(["project", JOB, "--cluster", CLUSTER, "--sweep", "nothing.here=1"]) == 2
    assert "unknown section nothing" in capsys.readouterr().err
