"""Layers that are counted, planned and timed: what passes arrays and links against hand counts and closed forms."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.cluster import Cluster
from rpucluster.coordinator import run
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.modelled import model
from rpucluster.partitioner import partition
from rpucluster.profile.step import profile
from rpucluster.program import Collective, Digital, Program, Read, Send, Update
from tests.specs import make_cluster

INSTANT = {"digital_rate": "1e30 op/s", "on_chip_bandwidth": "1e30 B/s", "active_tiles": 100_000, "tiles": 100_000}
"""A chip whose arrays alone take time."""
TOKENS, HIDDEN = 24, 32
DECODER = {"preset": "gpt", "layers": 2, "hidden": HIDDEN, "heads": 4, "sequence": TOKENS, "vocabulary": 40}


def counted(the_model: dict[str, Any], *, minibatch: int = 1, microbatch: int = 1, **parallel: Any) -> Job:
    tables = {
        "name": "counted",
        "model": the_model,
        "data": {"name": "none", "samples": 100},
        "train": {"epochs": 1, "learning_rate": 0.1, "minibatch": minibatch, "microbatch": microbatch},
        "parallel": parallel,
    }
    return Job.model_validate(tables)


def program_of(job: Job, cluster: Cluster) -> Program:
    return lower(partition(job, cluster), job)


def chips(count: int, tile: int = 16, **more: Any) -> Cluster:
    return make_cluster(count, tile=tile, **(INSTANT | more))


@pytest.mark.parametrize("preset", ["lenet5", "lenet5-rpu", "alexnet", "vgg16", "resnet50"])
@pytest.mark.parametrize("tensor", [1, 3])
def test_every_multiplication_of_a_network_happens_in_some_array(preset: str, tensor: int) -> None:
    job = counted({"preset": preset}, minibatch=4, microbatch=2, tensor=tensor)
    program = program_of(job, chips(tensor, tile=64))
    done = Counter[str]()
    for op in program:
        if isinstance(op, Read):
            done[op.direction] += op.vectors * op.cells
        elif isinstance(op, Update):
            done["update"] += op.samples * op.cells
    layers = job.network.layers
    assert done["forward"] == done["update"] == 4 * sum(layer.macs for layer in layers)
    assert done["backward"] == 4 * sum(layer.macs for layer in layers[1:])  # nothing is behind the first


def test_a_convolution_takes_a_pass_and_an_update_cycle_for_each_position() -> None:
    # LeNet of the RPU papers, one image, arrays alone: 80 ns a vector each way, 20 ns a cycle, layer after layer
    job = counted({"preset": "lenet5-rpu"})
    step = model(job, chips(1, tile=4096)).metrics.modelled_step_s
    passes = [576, 64, 1, 1]
    back = sum(passes[1:]) * 80e-9
    assert step == pytest.approx(sum(passes) * 80e-9 + back + passes[0] * 20e-9, rel=1e-12)


def test_convolutions_that_do_not_fit_the_active_tiles_take_turns() -> None:
    job = counted({"preset": "lenet5-rpu"})
    few = model(job, chips(1, tile=16, active_tiles=1)).metrics.modelled_step_s
    grids = [1 * 2, 2 * 26, 8 * 33, 1 * 9]
    passes = [576, 64, 1, 1]
    work = [tiles * vectors for tiles, vectors in zip(grids, passes, strict=True)]
    assert few == pytest.approx(sum(work) * 80e-9 + sum(work[1:]) * 80e-9 + sum(work) * 20e-9, rel=1e-12)


def test_stages_send_images_and_not_the_columns_made_of_them() -> None:
    job = counted({"preset": "lenet5-rpu"}, minibatch=6, microbatch=3, pipeline=2)
    plan = partition(job, chips(2, tile=4096))
    cut = next(layer for layer in plan.layers if layer.stage == 1)
    sends = [op for op in lower(plan, job) if isinstance(op, Send)]
    assert {op.elements for op in sends} == {3 * cut.inputs}
    assert len(sends) == 2 * 2  # two microbatches, there and back


def test_inside_a_residual_block_the_shortcut_travels_too() -> None:
    job = counted({"preset": "resnet50"}, pipeline=53)
    plan = partition(job, chips(53, tile=4096))
    layers = plan.layers
    for op in lower(plan, job):
        if isinstance(op, Send):
            made = layers[op.layer].shape
            assert op.elements == made.outputs + made.carried
    block = [layer.shape for layer in layers if layer.name.startswith("conv3_1.")]
    assert [layer.name[-1] for layer in block] == ["t", "a", "b", "c"]
    assert [layer.carried for layer in block] == [512 * 28 * 28] * 3 + [0]


def test_tensor_ranks_of_a_decoder_add_up_twice_a_block_each_way() -> None:
    # Shoeybi et al. 2019, section 3: two all-reduces forward and two backward in each block, of a token's features
    job = counted(DECODER, minibatch=2, microbatch=2, tensor=2)
    collectives = [op for op in program_of(job, chips(2, tile=8)) if isinstance(op, Collective)]
    sums = Counter((op.payload, op.elements[0]) for op in collectives)
    assert sums == {
        ("partial_output", 2 * TOKENS * HIDDEN): 2 * 2,
        ("partial_error", 2 * TOKENS * HIDDEN): 2 * 2 + 1,  # and the logits
        ("loss", 3 * 2 * TOKENS): 1,
    }


def test_attention_and_norms_are_digital_work_shared_by_heads() -> None:
    one, two = (counted(DECODER, tensor=tensor) for tensor in (1, 2))
    work: list[Counter[str]] = []
    for job, count in ((one, 1), (two, 2)):
        done = Counter[str]()
        for op in program_of(job, chips(count, tile=8)):
            if isinstance(op, Digital) and op.accelerator == 0 and op.layer == 4:
                done[op.kind] += op.operations
        work.append(done)
    scores = 4 * TOKENS**2
    assert work[0]["activation"] == 3 * TOKENS * HIDDEN + 5 * scores + 4 * TOKENS**2 * HIDDEN
    assert work[0]["activation"] == 2 * work[1]["activation"]
    assert work[0]["derivative"] == 5 * scores + 8 * TOKENS**2 * HIDDEN
    assert work[0]["prepare"] == work[1]["prepare"] == 7 * TOKENS * HIDDEN  # every rank norms the whole stream


def test_errors_reach_the_embedding() -> None:
    program = program_of(counted(DECODER), chips(1))
    assert any(isinstance(op, Read) and op.direction == "backward" and op.layer == 0 for op in program)


def test_experts_exchange_tokens_and_replicas_the_factors_of_their_own() -> None:
    job = counted(DECODER | {"experts": 8, "routed": 2}, data=4, expert=2)
    plan = partition(job, chips(4))
    up = next(layer for layer in plan.layers if layer.shape.dispatch)
    assert up.arrays == 4  # of eight experts, half on each of two replicas
    program = lower(plan, job)
    exchanged = [op for op in program if isinstance(op, Collective) and op.kind == "all_to_all"]
    assert {op.members for op in exchanged} == {(0, 1), (2, 3)}
    assert {op.elements[0] for op in exchanged} == {2 * TOKENS * HIDDEN}  # each token goes to two experts
    assert len(exchanged) == 2 * 2 * 4  # groups, blocks; there and back, forward and backward
    shared = [op for op in program if isinstance(op, Collective) and op.layer == up.layer and op.payload == "factors"]
    assert {op.members for op in shared} == {(0, 2), (1, 3)}
    reads = [op for op in program if isinstance(op, Read) and op.layer == up.layer and op.direction == "forward"]
    # two replicas' tokens, two experts each, over eight experts
    assert {op.vectors for op in reads} == {2 * TOKENS * 2 // 8}
    updates = [op for op in program if isinstance(op, Update) and op.layer == up.layer]
    assert {op.samples for op in updates} == {4 * TOKENS * 2 // 8}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_expert_parallelism_moves_weights_and_work_but_loses_none(
    data: int, tensor: int, expert: int, minibatch: int
) -> None:
    expert = min(expert, data)
    job = counted(DECODER | {"experts": 8, "routed": 2}, minibatch=minibatch, data=data, tensor=tensor, expert=expert)
    program = program_of(job, chips(data * tensor, tile=8))
    done = sum(op.vectors * op.cells for op in program if isinstance(op, Read) and op.direction == "forward")
    assert done == data * minibatch * sum(layer.macs for layer in job.network.layers)


def test_steps_of_a_recurrent_layer_wait_for_its_gates() -> None:
    layers = [{"kind": "lstm", "inputs": 6, "outputs": 8, "steps": 11, "last": True}, {"outputs": 3}]
    cluster = chips(1, tile=64, digital_rate="1e9 op/s")
    job = counted({"layer": layers})
    step = model(job, cluster).metrics.modelled_step_s
    gates = 9 * 8 / 1e9
    # eleven steps of 80 ns and the gates; the dense layer and the loss (4 operations of 3 outputs); eleven cycles
    forward = 11 * (80e-9 + gates) + 80e-9 + 12 / 1e9
    backward = 80e-9  # the dense layer's; the first layer reads no errors, since nothing is behind it
    assert step == pytest.approx(forward + backward + 11 * 20e-9, rel=1e-12)


def test_errors_pass_a_recurrent_layer_step_by_step_too() -> None:
    layers = [
        {"kind": "lstm", "inputs": 6, "outputs": 8, "steps": 11},
        {"kind": "gru", "outputs": 5, "steps": 11, "last": True},
        {"outputs": 3},
    ]
    program = program_of(counted({"layer": layers}), chips(1, tile=64))
    serial = {(op.direction, op.layer): op.vectors * op.serial_operations for op in program if isinstance(op, Read)}
    assert serial["forward", 0] == 11 * 9 * 8
    assert serial["forward", 1] == 22 * (8 * 5 // 2)
    assert serial["backward", 1] >= 11 * 13 * 5  # rounded up to whole operations a pass
    assert serial["forward", 2] == serial["backward", 2] == 0


def test_recurrent_layers_stay_on_one_rank() -> None:
    layers = [{"kind": "lstm", "inputs": 40, "outputs": 40, "steps": 3, "last": True}, {"outputs": 40}, {"outputs": 3}]
    plan = partition(counted({"layer": layers}, tensor=2), chips(2, tile=8))
    assert [len(layer.holders) for layer in plan.layers] == [1, 2, 2]


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"data": 3, "expert": 2}, "[parallel] expert = 2 replicas share experts but data = 3 is no multiple of it"),
        (
            {"data": 3, "expert": 3},
            "[parallel] expert = 3 does not divide the 8 experts of block1.up; write parallel.expert = 1",
        ),
    ],
)
def test_experts_that_cannot_be_shared_are_refused(parallel: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError) as refusal:
        partition(counted(DECODER | {"experts": 8}, **parallel), chips(4))
    assert message in str(refusal.value)


def test_expert_parallelism_needs_experts() -> None:
    with pytest.raises(PlanError) as refusal:
        partition(counted(DECODER, data=2, expert=2), chips(2))
    assert str(refusal.value) == "[parallel] expert = 2 but no layer has experts; write parallel.expert = 1"


def test_what_is_counted_is_not_trained() -> None:
    with pytest.raises(PlanError) as refusal:
        run(counted({"preset": "lenet5"}), chips(1), executor="local")
    assert str(refusal.value) == (
        "layer conv1 of counted is counted, not trained (convolution); only dense layers have arrays: use plan, "
        "profile, project or search"
    )


def test_steps_of_too_many_operations_are_not_written_down_one_by_one() -> None:
    job = counted({"sizes": [8] * 101, "preset": "mlp"}, minibatch=20_000)
    for look in (model, profile):
        with pytest.raises(PlanError) as refusal:
            look(job, chips(1))
        assert str(refusal.value) == (
            "a step of counted has more than 8,000,000 operations, which are too many to look at one by one; use plan "
            "or project, which look at representatives, or raise [train] microbatch"
        )
