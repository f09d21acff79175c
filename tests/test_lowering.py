"""Programs: their counts against the shapes they come from, and their order."""

import itertools

import pytest

from rpucluster.errors import PlanError
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.program import Collective, Program, Read, Rewrite, Send, Update
from tests.specs import make_cluster, make_job

DEGREES = [(t, p, d) for t, p, d in itertools.product((1, 2, 3), (1, 2, 3), (1, 2)) if t * p * d <= 8]


def program_of(tensor: int = 1, pipeline: int = 1, data: int = 1, **more: object) -> Program:
    job = make_job(parallel={"tensor": tensor, "pipeline": pipeline, "data": data, **more})
    return lower(partition(job, make_cluster(18)), job)


@pytest.mark.parametrize(("tensor", "pipeline", "data"), DEGREES)
@pytest.mark.parametrize("split", ["auto", "output", "input"])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "async"])
def test_no_plan_changes_the_analog_work(tensor: int, pipeline: int, data: int, split: str, schedule: str) -> None:
    """Tile passes: every tile reads every sample forward, and backward except in the first layer; under factors
    every replica's tiles fire the updates of all samples."""
    program = program_of(tensor, pipeline, data, tensor_split=split, schedule=schedule)
    tiles = [3 * 9, 3 * 4, 2 * 3]  # 24 x 65, 20 x 25, 10 x 21 in 8 x 8 tiles
    cells = [24 * 65, 20 * 25, 10 * 21]
    reads = [op for op in program if isinstance(op, Read)]
    forward = [op for op in reads if op.direction == "forward"]
    backward = [op for op in reads if op.direction == "backward"]
    updates = [op for op in program if isinstance(op, Update)]
    assert sum(op.tiles * op.vectors for op in forward) == 8 * data * sum(tiles)
    assert sum(op.cells * op.vectors for op in forward) == 8 * data * sum(cells)
    assert sum(op.tiles * op.vectors for op in backward) == 8 * data * sum(tiles[1:])
    assert sum(op.cycles for op in updates) == 8 * data * data * sum(tiles)
    assert sum(op.slots for op in updates) == 7 * 8 * data * data * sum(tiles)
    assert program.samples == 8 * data


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (3, 1), (2, 2), (1, 3)])
def test_lines_and_additions_match_the_tiles(tensor: int, pipeline: int) -> None:
    """Summed over ranks, the converters and additions are those of the tiles, however they are shared."""
    program = program_of(tensor, pipeline)
    first = [op for op in program if isinstance(op, Read) and op.direction == "forward" and op.layer == 0]
    per_microbatch = [op for op in first if op.microbatch == 0]
    assert sum(op.input_lines for op in per_microbatch) == 65 * 3
    assert sum(op.output_lines for op in per_microbatch) == 24 * 9
    within = sum(op.additions for op in per_microbatch)
    across = sum(
        op.elements[0] // 4 * (len(op.members) - 1)
        for op in program
        if isinstance(op, Collective) and op.payload == "partial_output" and (op.layer, op.microbatch) == (0, 0)
    )
    assert within + across == 24 * (9 - 1)


@pytest.mark.parametrize(("tensor", "pipeline", "data"), DEGREES)
@pytest.mark.parametrize("schedule", ["gpipe", "async"])
def test_operations_wait_for_what_they_use(tensor: int, pipeline: int, data: int, schedule: str) -> None:
    """An update waits, directly or not, for every read of its layer on its accelerator that was issued before it, and
    what is issued after it waits for the update: which weights a read sees is fixed by the program."""
    program = program_of(tensor, pipeline, data, schedule=schedule)
    ahead: list[set[int]] = []
    for op in program:
        ahead.append(set(op.deps).union(*(ahead[dep] for dep in op.deps)))
    for op in program:
        if isinstance(op, Update):
            for read in program:
                if isinstance(read, Read) and (read.layer, read.accelerator) == (op.layer, op.accelerator):
                    first, then = sorted((read.id, op.id))
                    assert first in ahead[then]
        if isinstance(op, Read) and op.layer > 0 and op.direction == "forward":
            assert op.deps


def test_evaluation_reads_forward_on_the_first_replica_only() -> None:
    job = make_job(parallel={"tensor": 2, "data": 2})
    program = lower(partition(job, make_cluster(4)), job, "evaluate", batch=20)
    assert program.accelerators == (0, 1)
    assert {op.direction for op in program if isinstance(op, Read)} == {"forward"}
    assert not any(isinstance(op, Update | Rewrite) for op in program)
    assert program.samples == 20


def test_averaging_moves_every_weight_once_per_replica() -> None:
    job = make_job(model={"bias": "digital"}, parallel={"tensor": 2, "data": 2, "data_sync": "average"})
    program = lower(partition(job, make_cluster(4)), job, "average")
    moved = [op for op in program if isinstance(op, Collective)]
    assert sum(op.elements[0] for op in moved) == 24 * 64 + 20 * 24 + 10 * 20 + _digital_biases(program)
    written = [op for op in program if isinstance(op, Rewrite) and op.kind == "program"]
    assert sum(op.cells for op in written) == 2 * (24 * 64 + 20 * 24 + 10 * 20)
    with pytest.raises(PlanError, match="nothing to average"):
        lower(partition(make_job(), make_cluster(4)), make_job(), "average")


def _digital_biases(program: Program) -> int:
    """Every rank of an input split keeps all of the layer's biases, so they count once per holder."""
    holders: dict[int, int] = {}
    for op in program:
        if isinstance(op, Collective):
            holders[op.layer] = holders.get(op.layer, 0) + 1
    rows = {0: 24, 1: 20, 2: 10}
    cells = {0: 24 * 64, 1: 20 * 24, 2: 10 * 20}
    total = 0
    for layer in rows:
        sent = sum(op.elements[0] for op in program if isinstance(op, Collective) and op.layer == layer)
        total += sent - cells[layer]
        assert sent - cells[layer] in (rows[layer], rows[layer] * holders[layer])
    return total


def test_stages_pass_each_value_on_once() -> None:
    """Pipeline of three stages: per microbatch two activations go forward and two errors back."""
    program = program_of(pipeline=3)
    sends = [op for op in program if isinstance(op, Send)]
    assert sorted((op.payload, op.layer, op.microbatch, op.source, op.destination, op.elements) for op in sends) == [
        ("activation", 0, 0, 0, 1, 4 * 24),
        ("activation", 0, 1, 0, 1, 4 * 24),
        ("activation", 1, 0, 1, 2, 4 * 20),
        ("activation", 1, 1, 1, 2, 4 * 20),
        ("error", 0, 0, 1, 0, 4 * 24),
        ("error", 0, 1, 1, 0, 4 * 24),
        ("error", 1, 0, 2, 1, 4 * 20),
        ("error", 1, 1, 2, 1, 4 * 20),
    ]


def test_asynchronous_stages_update_behind_each_backward() -> None:
    """Two stages, two microbatches: the first stage has sent both ahead when the first comes back."""
    program = program_of(pipeline=2, schedule="async")
    last = {0: 0, 1: 2}  # the layer of each stage whose pass ends a microbatch there
    seen = {
        stage: [
            (type(op).__name__, op.microbatch)
            for op in program.issued_by(stage)
            if op.layer == last[stage]
            and (isinstance(op, Update) or (isinstance(op, Read) and op.direction == "forward"))
        ]
        for stage in (0, 1)
    }
    assert seen == {
        0: [("Read", 0), ("Read", 1), ("Update", 0), ("Update", 1)],
        1: [("Read", 0), ("Update", 0), ("Read", 1), ("Update", 1)],
    }


def test_factors_are_what_the_replicas_exchange() -> None:
    """Per layer and replica: minibatch x (inputs + outputs) words, the bias line not counted."""
    program = program_of(data=2)
    moved = {op.layer: op.elements for op in program if isinstance(op, Collective)}
    assert moved == {0: (8 * (64 + 24),) * 2, 1: (8 * (24 + 20),) * 2, 2: (8 * (20 + 10),) * 2}
