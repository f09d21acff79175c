"""Plans: every tile is placed once, shares are whole tiles, and what does not fit is refused in one line."""

import itertools

import pytest

from rpucluster.errors import CapacityError, PlanError
from rpucluster.partitioner import partition
from rpucluster.plan import Plan, covers
from tests.specs import make_cluster, make_job

DEGREES = [(t, p, d) for t, p, d in itertools.product((1, 2, 3), (1, 2, 3), (1, 2)) if t * p * d <= 8]


def plan_of(tensor: int = 1, pipeline: int = 1, data: int = 1, split: str = "auto") -> Plan:
    parallel = {"tensor": tensor, "pipeline": pipeline, "data": data, "tensor_split": split}
    return partition(make_job(parallel=parallel), make_cluster(18))


@pytest.mark.parametrize(("tensor", "pipeline", "data"), DEGREES)
@pytest.mark.parametrize("split", ["auto", "output", "input"])
def test_every_tile_is_held_once_by_each_replica(tensor: int, pipeline: int, data: int, split: str) -> None:
    plan = plan_of(tensor, pipeline, data, split)
    seen: set[tuple[int, int, int, int]] = set()
    for shard in plan.shards():
        block = shard.block
        for row, col in itertools.product(range(*block.tile_rows), range(*block.tile_cols)):
            tile = (shard.replica, shard.layer, row, col)
            assert tile not in seen
            seen.add(tile)
        assert block.rows[0] == block.tile_rows[0] * plan.tile_rows
        assert block.cols[0] == block.tile_cols[0] * plan.tile_cols
    expected = {
        (replica, layer.layer, row, col)
        for replica in range(data)
        for layer in plan.layers
        for row, col in itertools.product(range(layer.tile_grid[0]), range(layer.tile_grid[1]))
    }
    assert seen == expected
    cells = sum(shard.block.cells for shard in plan.shards())
    assert cells == data * sum(layer.shape.weights for layer in plan.layers)


@pytest.mark.parametrize(("tensor", "pipeline", "data"), DEGREES)
def test_stages_are_runs_of_layers_on_accelerators_of_their_own(tensor: int, pipeline: int, data: int) -> None:
    plan = plan_of(tensor, pipeline, data)
    stages = [layer.stage for layer in plan.layers]
    assert stages == sorted(stages)
    assert set(stages) == set(range(pipeline))
    numbers = [accelerator for *_, accelerator in plan.ranks()]
    assert sorted(numbers) == list(range(tensor * pipeline * data))


def test_placement_names_the_innermost_axis_first() -> None:
    for order in itertools.permutations(("tensor", "pipeline", "data")):
        parallel = {"tensor": 2, "pipeline": 3, "data": 2, "placement": list(order)}
        plan = partition(make_job(parallel=parallel), make_cluster(12))
        step = {
            "tensor": plan.accelerator(0, 0, 1),
            "pipeline": plan.accelerator(0, 1, 0),
            "data": plan.accelerator(1, 0, 0),
        }
        assert sorted(step, key=step.__getitem__) == list(order)
        assert step[order[0]] == 1


def test_shares_differ_by_one_tile_and_small_layers_use_fewer_ranks() -> None:
    """64-24-20-10 in 8 x 8 tiles has 3, 3 and 2 tile rows; over 2 ranks the first two split 1 and 2."""
    plan = plan_of(tensor=2, split="output")
    assert [[b and b.tile_rows for b in layer.blocks] for layer in plan.layers] == [
        [(0, 1), (1, 3)],
        [(0, 1), (1, 3)],
        [(0, 1), (1, 2)],
    ]
    plan = plan_of(tensor=3, split="output")
    assert plan.layers[2].holders == (0, 1)
    assert plan.layers[2].gives == ((0, 8), (8, 10), None)


def test_auto_pairs_an_output_split_with_an_input_split() -> None:
    """Blocks of outputs that are the next layer's blocks of inputs move nothing between the two layers."""
    job = make_job(model={"sizes": [64, 32, 64, 10]}, parallel={"tensor": 2})
    plan = partition(job, make_cluster(2))
    assert [layer.split for layer in plan.layers] == ["output", "output", "input"]
    assert covers(plan.layers[1].gives, plan.layers[2].needs)
    assert covers(plan.layers[2].needs, plan.layers[1].gives)


def test_the_bias_column_belongs_to_the_last_input_block() -> None:
    """Its rank needs no input for it: 64 inputs and the bias are 9 tile columns, the ninth only the bias."""
    plan = partition(make_job(parallel={"tensor": 9, "tensor_split": "input"}), make_cluster(9))
    assert plan.layers[0].needs[8] == (64, 64)
    block = plan.layers[0].blocks[8]
    assert block is not None
    assert block.cols == (64, 65)


def test_stages_are_balanced_by_time_and_then_by_tiles() -> None:
    """Four equal layers: the first is quicker, having nothing to pass an error to, but two and two is still best."""
    plan = partition(
        make_job(model={"sizes": [64, 64, 64, 64, 10]}, parallel={"pipeline": 2}), make_cluster(2, tile=16)
    )
    assert [layer.stage for layer in plan.layers] == [0, 0, 1, 1]


def test_interleaved_runs_are_dealt_to_the_stages_in_turn() -> None:
    """Run k p + s is chunk k of stage s, which needs the tiles of all its runs: 4 + 4 of six layers of 2 x 2 tiles."""
    job = make_job(
        model={"sizes": [16] * 7, "bias": "none"},
        train={"minibatch": 12},
        parallel={"pipeline": 3, "virtual_stages": 2, "schedule": "interleaved"},
    )
    plan = partition(job, make_cluster(3, tiles=8))
    assert [(layer.stage, layer.chunk) for layer in plan.layers] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert [[layer.layer for layer in plan.stage_layers(s)] for s in range(3)] == [[0, 3], [1, 4], [2, 5]]
    assert [layer.layer for layer in plan.chunk_layers(1, 1)] == [4]
    with pytest.raises(
        CapacityError, match="stage 0 needs 8 tiles on one accelerator but an accelerator of small has 7"
    ):
        partition(job, make_cluster(3, tiles=7, active_tiles=7))


def test_what_does_not_fit_says_what_is_needed_and_which_key_helps() -> None:
    with pytest.raises(CapacityError) as error:
        partition(make_job(), make_cluster(4, tiles=40, active_tiles=40))
    assert str(error.value) == (
        "stage 0 needs 45 tiles on one accelerator but an accelerator of small has 40; write parallel.tensor = 2, "
        "parallel.pipeline = 2 or accelerator.tiles = 45"
    )
    with pytest.raises(PlanError, match=r"tensor 2 x pipeline 2 x data 2 takes 8 accelerators but small has 4"):
        partition(make_job(parallel={"tensor": 2, "pipeline": 2, "data": 2}), make_cluster(4))
    with pytest.raises(PlanError, match=r"pipeline = 4 but the network has 3 layers; write parallel.pipeline = 3"):
        partition(make_job(parallel={"pipeline": 4}), make_cluster(4))
    with pytest.raises(PlanError, match=r"tensor = 2 but every layer fits one 256 x 256 tile"):
        partition(make_job(parallel={"tensor": 2}), make_cluster(4, tile=256))


def test_accelerators_may_be_left_over() -> None:
    plan = partition(make_job(), make_cluster(4))
    assert plan.accelerators == (0,)
    assert plan.accelerators_available == 4
