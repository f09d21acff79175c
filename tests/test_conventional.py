"""Training steps on GPUs: against published closed forms, and what must hold for any network and machine."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.cluster import load_cluster
from rpucluster.collective import cost, send_cost
from rpucluster.conventional import Links, Setting, baseline, chain, step
from rpucluster.conventional.memory import kept_bytes, stage_memories
from rpucluster.conventional.work import works
from rpucluster.errors import CapacityError, PlanError
from rpucluster.job import load_job
from rpucluster.model import Layer
from rpucluster.model.images import alexnet, resnet50, vgg16
from rpucluster.model.network import mlp
from rpucluster.model.transformer import block, gpt
from rpucluster.topology import Network
from tests.conventional import machine, setting

DEGREES = st.sampled_from([1, 2, 4, 8])


def blocks(count: int, hidden: int = 256, heads: int = 8, tokens: int = 128) -> list[Layer]:
    """Equal blocks, without embedding and logits."""
    return [part for i in range(count) for part in block(name=f"block{i}", hidden=hidden, heads=heads, tokens=tokens)]


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 6),
    heads=st.sampled_from([8, 16]),
    features=st.sampled_from([16, 64, 128]),
    tokens=st.sampled_from([64, 256, 2048]),
    words=st.sampled_from([1024, 51200]),
    tensor=DEGREES,
    data=DEGREES,
    minibatch=st.sampled_from([4, 8]),
)
def test_flops_are_those_of_narayanan(
    layers: int, heads: int, features: int, tokens: int, words: int, tensor: int, data: int, minibatch: int
) -> None:
    """Narayanan et al. 2021, equation 3, with full recomputation; their 72 B s l h^2 (...) without."""
    hidden = heads * features
    shape = gpt(layers=layers, hidden=hidden, heads=heads, sequence=tokens, vocabulary=words)
    batch, s, h = minibatch * data, tokens, hidden
    for recompute, factor, part in (("full", 96, 16), ("none", 72, 12)):
        plan = setting(minibatch=minibatch, tensor=tensor, data=data, options={"recompute": recompute})
        expected = factor * batch * s * layers * h**2 * (1 + s / (6 * h) + words / (part * layers * h))
        assert step(shape, plan, machine(tensor * data)).flops == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("network", [alexnet, vgg16, resnet50])
def test_flops_of_images_are_six_for_each_multiply_accumulate(network: Any) -> None:
    """One product forward, two back: errors and gradients; the bias of a digital unit is an addition."""
    layers = network()
    macs = sum(
        layer.positions * layer.passes * layer.rows * (layer.cols - (layer.bias == "column")) for layer in layers
    )
    assert step(layers, setting(minibatch=8, microbatch=8), machine(1)).flops == 6 * 8 * macs


@settings(max_examples=30, deadline=None)
@given(tensor=DEGREES, sequence=st.booleans(), heads=st.sampled_from([8, 16]), tokens=st.sampled_from([64, 2048]))
def test_kept_activations_are_those_of_korthikanti(tensor: int, sequence: bool, heads: int, tokens: int) -> None:
    """Korthikanti et al. 2022, table 2: bytes of one block and microbatch on each tensor rank."""
    hidden, microbatch = heads * 64, 2
    plan = setting(microbatch=microbatch, tensor=tensor, options={"sequence_parallel": sequence})
    stream = tokens * microbatch * hidden
    scores = 5 * heads * tokens / hidden
    whole = 10 / tensor if sequence and tensor > 1 else 10
    shapes = works(blocks(2, hidden, heads, tokens))[:4]

    def kept(recompute: str) -> float:
        return sum(kept_bytes(work, plan, recompute) for work in shapes)

    assert kept("none") == pytest.approx(stream * (whole + 24 / tensor + scores / tensor))
    assert kept("selective") == pytest.approx(stream * (whole + 24 / tensor))
    assert kept("full") == pytest.approx(2 * stream * whole / 10)


@settings(max_examples=40, deadline=None)
@given(
    pipeline=st.sampled_from([2, 3, 4]),
    chunks=st.sampled_from([1, 2, 3]),
    each=st.sampled_from([1, 2]),
    rounds=st.integers(1, 5),
    schedule=st.sampled_from(["gpipe", "1f1b"]),
)
def test_bubble_of_equal_stages(pipeline: int, chunks: int, each: int, rounds: int, schedule: str) -> None:
    """(p - 1) / (v m) of the work (Narayanan et al. 2021, sections 2.2.1 and 2.2.2); GPipe's is that of 1F1B."""
    m = rounds * pipeline
    plan = setting(minibatch=m, pipeline=pipeline, virtual_stages=chunks, schedule=schedule)
    found = step(blocks(pipeline * chunks * each), plan, machine(pipeline))
    work = found.forward_s + found.backward_s
    assert found.bubble_s / work == pytest.approx((pipeline - 1) / (chunks * m))


@settings(max_examples=30, deadline=None)
@given(tensor=DEGREES, data=DEGREES, efficiency=st.floats(0.1, 1), microbatch=st.sampled_from([1, 2, 4]))
def test_a_machine_without_other_limits_multiplies_at_its_rate(
    tensor: int, data: int, efficiency: float, microbatch: int
) -> None:
    """There are only products where memory, network and kernels take no time, and all draw their busy power."""
    cluster = machine(tensor * data, efficiency=efficiency, network={"energy_per_byte": "0 J/B"})
    plan = setting(tensor=tensor, data=data, microbatch=microbatch)
    found = step(blocks(3), plan, cluster)
    assert found.flops_per_s == pytest.approx(100e12 * efficiency, rel=1e-4)
    assert found.energy_J == pytest.approx(400 * found.modelled_step_s * tensor * data)
    # all that is left is what the memory takes, at 10^24 B/s
    assert found.communication_s == 0


@settings(max_examples=30, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2]),
    data=st.sampled_from([1, 2]),
    options=st.fixed_dictionaries(
        {
            "recompute": st.sampled_from(["none", "selective", "full"]),
            "sequence_parallel": st.booleans(),
            "overlap_tensor": st.booleans(),
            "overlap_data": st.booleans(),
            "fused_accumulation": st.booleans(),
            "scatter_gather": st.booleans(),
            "sends": st.sampled_from(["together", "apart"]),
        }
    ),
)
def test_seconds_add_up_and_power_is_bounded(tensor: int, pipeline: int, data: int, options: dict[str, Any]) -> None:
    wire = {"bandwidth": "20 GB/s", "latency": "2 us", "energy_per_byte": "0 J/B"}
    cluster = machine(16, network=wire, memory_bandwidth="1 TB/s", kernel_time="2 us")
    plan = setting(tensor=tensor, pipeline=pipeline, data=data, options=options)
    found = step(gpt(layers=4, hidden=256, heads=8, sequence=128, vocabulary=1024), plan, cluster)
    parts = (
        found.forward_s, found.backward_s, found.recompute_s, found.tensor_s, found.pipeline_s, found.bubble_s,
        found.data_s, found.optimizer_s,
    )  # fmt: skip
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(found.modelled_step_s)
    members = tensor * pipeline * data
    assert 50 * members <= found.energy_J / found.modelled_step_s <= 400 * members * (1 + 1e-12)


@pytest.mark.parametrize(("recompute", "count"), [("none", 4), ("full", 6)])
def test_a_block_takes_so_many_all_reduces(recompute: str, count: int) -> None:
    """Two forward, two back (Shoeybi et al. 2019), two more where the way forward is done again."""
    cluster = machine(4, network={"bandwidth": "10 GB/s", "latency": "1 us"})
    plan = setting(minibatch=6, microbatch=2, tensor=4, options={"recompute": recompute})
    found = step(blocks(3), plan, cluster)
    each = cost("all_reduce", range(4), [2 * 2 * 128 * 256] * 4, cluster.network).modelled_s
    # the last layer goes back at once, so its all-reduce is not done again
    last = 1 if recompute == "full" else 0
    assert found.tensor_s == pytest.approx(3 * (3 * count - last) * each)


def test_sequence_parallelism_halves_all_reduces() -> None:
    """A ring's reduce-scatter and all-gather take together what its all-reduce takes; with overlap, what hides behind
    a slow product is free, so that two of four halves back and four forward are left of each block."""
    cluster = machine(4, network={"bandwidth": "10 GB/s", "kind": "ring"})
    whole = step(blocks(2), setting(tensor=4), cluster)
    halves = {"sequence_parallel": True, "overlap_tensor": True}
    assert step(blocks(2), setting(tensor=4, options=halves), machine(4)).tensor_s == 0
    slow = machine(4, network={"bandwidth": "10 GB/s", "kind": "ring"}, peak_rate="1 GFLOP/s")
    found = step(blocks(2), setting(tensor=4, options=halves), slow)
    assert found.tensor_s == pytest.approx(whole.tensor_s * (4 + 2) / 8)
    # without overlap the inputs of two layers are gathered once more
    apart = step(blocks(2), setting(tensor=4, options={"sequence_parallel": True}), slow)
    assert apart.tensor_s == pytest.approx(whole.tensor_s * (8 + 2) / 8)


def test_replicas_exchange_gradients_once_a_step() -> None:
    cluster = machine(8, network={"bandwidth": "10 GB/s", "latency": "1 us"})
    layers = mlp([512, 1024, 256], bias="none").layers
    found = step(layers, setting(data=8, bits=32), cluster)
    nbytes = 4 * (512 * 1024 + 1024 * 256)
    assert found.data_s == pytest.approx(cost("all_reduce", range(8), [nbytes] * 8, cluster.network).modelled_s)
    hidden = step(layers, setting(data=8, bits=32, options={"overlap_data": True}), cluster)
    slot = hidden.backward_s / 4
    assert hidden.data_s == pytest.approx(max(0, found.data_s - slot))


def test_links_take_energy_for_what_they_carry() -> None:
    """A ring all-reduce of n members puts 2 (n - 1) / n of the buffer on each of n links."""
    quiet = {"kind": "ring", "energy_per_byte": "0 J/B"}
    layers = mlp([512, 256], bias="none").layers
    plan = setting(data=4)
    cluster = machine(4, network=quiet | {"energy_per_byte": "1 nJ/B"})
    found, silent = step(layers, plan, cluster), step(layers, plan, machine(4, network=quiet))
    nbytes = 512 * 256 * 2
    assert found.energy_J - silent.energy_J == pytest.approx(1e-9 * 4 * nbytes * 2 * 3 / 4)


def test_sends_go_out_for_each_run_of_layers() -> None:
    """Two a microbatch and run, of an activation there and an error back; twice as many where receipts wait too."""
    cluster = machine(2, network={"bandwidth": "1 GB/s", "latency": "0 s"})
    one = 128 * 256 * 2 / 1e9
    plan = {"minibatch": 4, "pipeline": 2}
    assert step(blocks(4), setting(**plan), cluster).pipeline_s == pytest.approx(4 * 2 * one)  # type: ignore[arg-type]
    assert step(blocks(4), setting(**plan, virtual_stages=2), cluster).pipeline_s == pytest.approx(4 * 4 * one)
    apart = setting(**plan, options={"sends": "apart"})  # type: ignore[arg-type]
    assert step(blocks(4), apart, cluster).pipeline_s == pytest.approx(4 * 4 * one)


def test_memory_of_weights_gradients_and_optimizer() -> None:
    """2 + 2 + 12 bytes a parameter in mixed precision (Narayanan et al. 2021), 2 + 4 + 12 with wider gradients."""
    shape = gpt(layers=4, hidden=256, heads=8, sequence=128, vocabulary=1024)
    parameters = sum(layer.parameters for layer in shape)
    held = step(shape, setting(), machine(1)).memory
    assert (held.weights, held.gradients, held.optimizer) == (2 * parameters, 2 * parameters, 12 * parameters)
    assert step(shape, setting(bits=32), machine(1)).memory.gradients == 4 * parameters
    # the tied logits have the embedding once more where they are on another stage
    network = chain(shape)
    stages = stage_memories(network, network.cuts(2), setting(pipeline=2))
    assert sum(stage.weights for stage in stages) == 2 * (parameters + 1024 * 256)


def test_stages_keep_what_is_in_flight() -> None:
    """1F1B keeps as many microbatches as there are stages from here on, GPipe all of them; interleaved, a stage of r
    runs has 2 (p - s - 1) + (r - 1) p + 1 of its runs in flight (Narayanan et al. 2021, section 2.2)."""
    whole = chain(blocks(8))
    one = stage_memories(whole, whole.cuts(4), setting(minibatch=1, pipeline=4))[0].activations
    for schedule, runs, flying in (("1f1b", 1, [4, 3, 2]), ("gpipe", 1, [16] * 3), ("interleaved", 2, [5.5, 4.5, 3.5])):
        plan = setting(minibatch=16, pipeline=4, virtual_stages=runs, schedule=schedule)
        held = stage_memories(whole, whole.cuts(4 * runs), plan)
        assert [stage.activations / one for stage in held[:3]] == pytest.approx(flying)


@settings(max_examples=60, deadline=None)
@given(runs=st.integers(1, 12), sizes=st.lists(st.integers(1, 2000), min_size=2, max_size=14))
def test_runs_are_the_chain_in_order(runs: int, sizes: list[int]) -> None:
    network = chain(mlp(sizes).layers)
    if runs > len(sizes) - 1:
        with pytest.raises(PlanError, match="blocks; write at most as many"):
            network.cuts(runs)
        return
    cuts = network.cuts(runs)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, len(sizes) - 1, runs + 1)
    assert (cuts[1:] > cuts[:-1]).all()
    assert (network.per_run(cuts).sum(axis=0) == network.counts[-1]).all()
    # no run is further from an even share than the largest layer, unless runs of one layer push it
    macs = network.macs[cuts[1:] - 1]
    even = network.macs[-1] * np.arange(1, runs + 1) / runs
    if len(sizes) > 3 * runs and min(sizes) * 2 > max(sizes):
        assert (abs(macs - even) <= max(work.macs for work in network.kinds)).all()


def test_equal_blocks_are_shared_evenly_and_logits_go_last() -> None:
    network = chain(gpt(layers=12, hidden=64, heads=4, sequence=32, vocabulary=5000))
    assert network.per_run(network.cuts(6)).sum(axis=1).tolist() == [8, 8, 8, 8, 8, 9]
    # the first attention has the embedding: five kinds of a block and the logits
    assert len(network.kinds) == 6


def test_half_size_halves() -> None:
    chip = machine(1, half_size=64.0).processor
    endless = 1e9
    whole = 2 * 64 * endless * endless / 50e12
    assert chip.product_s(1, 64, endless, endless, 2) == pytest.approx(2 * whole, rel=1e-6)


def test_small_products_wait_for_the_memory() -> None:
    """One vector through a matrix reads it once, two bytes for two operations."""
    chip = machine(1, memory_bandwidth="1 TB/s", memory_efficiency=0.5).processor
    assert chip.product_s(1, 1, 4096, 4096, 2) == pytest.approx(2 * (4096**2 + 2 * 4096) / 0.5e12)
    assert math.isclose(chip.stream_s(1e9), 2e-3)


def test_what_does_not_fit_says_what_would() -> None:
    plan = setting(minibatch=1)
    with pytest.raises(CapacityError) as error:
        step(blocks(4), plan, machine(1, memory="10 MB"))
    assert str(error.value).startswith("stage 0 needs ")
    assert "one of test has 10 MB; raise [parallel] tensor or pipeline" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "async"}, 'schedule = "async" is for RPUs'),
        ({"expert": 2, "data": 2}, "expert = 2 is for RPUs"),
        ({"pipeline": 3, "virtual_stages": 2}, "4 microbatches cannot be interleaved over [parallel] pipeline = 3"),
    ],
)
def test_plans_of_rpus_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        setting(**change)
    assert message in str(error.value)


def test_a_job_on_gpus(tmp_path: Path) -> None:
    """A job gives the same step as its layers and settings; its defaults are Megatron's best practice."""
    path = tmp_path / "small.toml"
    path.write_text(
        """
[model]
preset = "gpt3-125m"
[data]
name = "none"
samples = 1000
[train]
epochs = 1
minibatch = 8
microbatch = 2
learning_rate = 0.01
[parallel]
tensor = 2
data = 4
schedule = "1f1b"
"""
    )
    job, cluster = load_job(path), load_cluster("a100_3072")
    found = baseline(job, cluster)
    best = {"recompute": "selective", "sequence_parallel": True, "overlap_tensor": True}
    plan = setting(minibatch=8, microbatch=2, tensor=2, data=4, options=best, bits=32)
    shape = gpt(layers=12, hidden=768, heads=12, sequence=2048, vocabulary=51200)
    assert found == step(chain(shape), plan, cluster)
    assert (found.samples, found.accelerators) == (32, 8)
    links = Links(cluster.network)
    assert baseline(job, cluster, links, chain(job.network.layers)) == baseline(job, cluster, links) == found


@settings(max_examples=30, deadline=None)
@given(
    key=st.sampled_from(["peak_rate", "memory_bandwidth", "bandwidth", "latency", "kernel_time", "half_size"]),
    tensor=st.sampled_from([1, 4]),
    pipeline=st.sampled_from([1, 2]),
    data=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "selective", "full"]),
)
def test_a_better_machine_is_never_slower(key: str, tensor: int, pipeline: int, data: int, recompute: str) -> None:
    worse: dict[str, Any] = {
        "peak_rate": "100 TFLOP/s", "memory_bandwidth": "1 TB/s", "bandwidth": "20 GB/s", "latency": "2 us",
        "kernel_time": "4 us", "half_size": 50.0,
    }  # fmt: skip
    better = worse | {
        key: {
            "peak_rate": "200 TFLOP/s", "memory_bandwidth": "2 TB/s", "bandwidth": "40 GB/s", "latency": "1 us",
            "kernel_time": "2 us", "half_size": 25.0,
        }[key]
    }  # fmt: skip
    plan = setting(tensor=tensor, pipeline=pipeline, data=data, options={"recompute": recompute})
    shape = gpt(layers=4, hidden=256, heads=8, sequence=128, vocabulary=1024)
    seconds = []
    for keys in (worse, better):
        network = {"bandwidth": keys.pop("bandwidth"), "latency": keys.pop("latency")}
        seconds.append(step(shape, plan, machine(16, network=network, **keys)).modelled_step_s)
    assert seconds[1] <= seconds[0] * (1 + 1e-12)
    if key in ("memory_bandwidth", "kernel_time", "half_size"):  # always something of these
        assert seconds[1] < seconds[0]


def test_groups_that_straddle_nodes_are_the_slow_ones() -> None:
    """Of tensor groups of six on nodes of eight two in four straddle: the step waits for them, the energy is of all."""
    axes = [
        {"name": "node", "kind": "switch", "size": 8, "bandwidth": "100 GB/s", "latency": "1 us"},
        {"name": "rail", "kind": "switch", "size": 3, "bandwidth": "10 GB/s", "latency": "5 us"},
    ]
    cluster = machine(1).model_copy(update={"network": Network.model_validate({"axis": axes})})
    links, plan, nbytes = Links(cluster.network), setting(tensor=6, data=4), 1e6
    groups = [range(first, first + 6) for first in range(0, 24, 6)]
    each = [cost("all_reduce", group, [nbytes] * 6, cluster.network) for group in groups]
    assert each[0].modelled_s < each[1].modelled_s
    found = links.tensor("all_reduce", plan, nbytes)
    assert found.modelled_s == pytest.approx(max(price.modelled_s for price in each))
    assert found.energy_J == pytest.approx(sum(price.energy_J for price in each) / 4)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.permutations([2, 3, 4]),
    placement=st.permutations(["tensor", "pipeline", "data"]),
)
def test_the_mesh_has_each_accelerator_once_and_its_innermost_axis_side_by_side(
    sizes: list[int], placement: list[str]
) -> None:
    tensor, pipeline, data = sizes
    mesh = setting(tensor=tensor, pipeline=pipeline, data=data, placement=placement).mesh
    assert mesh.shape == (data, pipeline, tensor)
    assert sorted(mesh.ravel().tolist()) == list(range(24))
    axis = ["data", "pipeline", "tensor"].index(placement[0])
    assert (np.diff(mesh, axis=axis) == 1).all()


def test_a_network_that_is_written_out_link_by_link() -> None:
    """GPUs on the fat tree: sends up to its spine are the slow ones, so the pipeline moves at their pace."""
    tree = load_cluster("fat_tree16")
    cluster = tree.model_copy(update={"chip": machine(1).chip})
    plan = setting(pipeline=16, minibatch=1)
    found = step(blocks(16), plan, cluster)
    nbytes = 2 * 128 * 256
    ways = [send_cost(stage, stage + 1, nbytes, tree.network).modelled_s for stage in range(15)]
    assert max(ways) > min(ways)
    assert found.pipeline_s == pytest.approx(2 * max(ways))


def test_a_slow_gpu_is_refused() -> None:
    cluster = load_cluster("a100_3072", ['faults.slow_accelerators={"3" = 1.5}'])
    with pytest.raises(PlanError, match="slow_accelerators is for RPUs"):
        step(blocks(1), setting(), cluster)


def test_more_than_there_are() -> None:
    plan: Setting = setting(tensor=4, data=4)
    with pytest.raises(PlanError, match=r"tensor x pipeline x data = 16 but test has 8"):
        step(blocks(1), plan, machine(8))
