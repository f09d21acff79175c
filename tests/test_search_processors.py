"""The search on GPUs against trying everything, and against the plans that Megatron-LM was measured with."""

import json
import re
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import pytest

from rpucluster.cli import main
from rpucluster.cluster import Cluster, load_cluster
from rpucluster.conventional import ConventionalStep, Links, baseline, chain
from rpucluster.errors import CapacityError, ConfigError, PlanError
from rpucluster.job import Job, load_job
from rpucluster.search.processor_bounds import Prices
from rpucluster.search.processor_space import choices_of, shapes
from rpucluster.search.search import search
from rpucluster.search.space import Candidate, with_plan
from tests.specs import make_job

DECODER: dict[str, Any] = {
    "preset": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 128, "vocabulary": 500, "sizes": None,
}  # fmt: skip
CHIP: dict[str, Any] = {
    "kind": "gpu", "peak_rate": "20 TFLOP/s", "half_size": 8, "kernel_time": "2 us", "memory_bandwidth": "1 TB/s",
    "busy_power": "400 W",
}  # fmt: skip
DEGREES = (1, 2, 4, 8)
SEEDS = (0, 1, 2, 3, 4, 5, 6, 9)


def case(seed: int) -> tuple[Job, Cluster]:
    """Small networks on eight GPUs, with links, latencies and memories from ample to what decides."""
    model: dict[str, Any] = DECODER if seed % 3 else {"sizes": [512, 1024, 1024, 1024, 512]}
    job = make_job(
        model=model,
        train={"minibatch": 8, "microbatch": 2},
        conventional={"overlap_data": seed % 2 == 0, "scatter_gather": seed % 5 != 0},
    )
    axis = {"kind": "switch", "latency": "1 us"}
    axes = [
        axis | {"name": "node", "size": 4, "bandwidth": "100 GB/s", "energy_per_byte": "80 pJ/B"},
        axis | {"name": "rail", "size": 2, "bandwidth": ["5 GB/s", "80 GB/s"][seed % 2]},
    ]
    memory, idle = ["1 GB", "60 MB", "35 MB"][seed // 2 % 3], ["50 W", "500 W"][seed // 4 % 2]
    chip = CHIP | {"memory": memory, "idle_power": idle}
    tables = {"name": "pod", "accelerator": chip, "network": {"axis": axes, "endpoint_delay": "5 us"}}
    return job, Cluster.model_validate(tables)


def everything(job: Job, cluster: Cluster) -> dict[Candidate, ConventionalStep | None]:
    """What every plan takes, GPipe included; None for what does not fit."""
    links, total = Links(cluster.network), job.train.minibatch * job.parallel.data
    network, found = chain(job.network.layers), {}
    runs = [(name, v) for name, v in (("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 4))]
    for tensor, pipeline, data in product(DEGREES, repeat=3):
        if tensor * pipeline * data > 8 or total % data or (tensor == 8 and job.network.layers[0].kind != "dense"):
            continue
        for (schedule, chunks), microbatch in product(runs, DEGREES):
            blocks = pipeline * chunks <= len(network.blocks)
            if (total // data) % microbatch or not blocks or (schedule == "interleaved" and pipeline == 1):
                continue
            if schedule == "interleaved" and total // data // microbatch % pipeline:
                continue
            for order, redone, shared in product(
                permutations(("tensor", "pipeline", "data")), ("none", "selective", "full"), (True, False)
            ):
                plan = Candidate(
                    tensor, pipeline, data, 1, total // data, microbatch, schedule, chunks, "gradient", order,  # type: ignore[arg-type]
                    redone, shared,  # type: ignore[arg-type]
                )  # fmt: skip
                try:
                    found[plan] = baseline(with_plan(job, plan), cluster, links, network)
                except CapacityError:
                    found[plan] = None
    return found


@lru_cache
def tried_of(seed: int) -> dict[Candidate, ConventionalStep | None]:
    return everything(*case(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_of_everything_is_found(seed: int) -> None:
    job, cluster = case(seed)
    tried = tried_of(seed)
    fitting = {plan: step for plan, step in tried.items() if step is not None}
    assert len(fitting) > 100
    quickest, thriftiest = search(job, cluster), search(job, cluster, by="energy")
    assert quickest.found[0].modelled_s == pytest.approx(min(s.modelled_step_s for s in fitting.values()), rel=1e-12)
    assert thriftiest.found[0].energy_J == pytest.approx(min(s.energy_J for s in fitting.values()), rel=1e-12)
    assert quickest.gap == 0
    for found in (quickest, thriftiest):
        assert found.timed + found.bounded <= found.fitting <= found.plans
        for each in found.found:
            assert each.modelled_s == fitting[each.candidate].modelled_step_s
            assert each.bound_s <= each.modelled_s * (1 + 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_is_that_of_the_closed_form_and_bounds_are_below_it(seed: int) -> None:
    job, cluster = case(seed)
    tried, network = tried_of(seed), chain(job.network.layers)
    choices = choices_of(job, network, ())
    prices = Prices(job, cluster, network, choices)
    looked = 0
    for shape in shapes(job, cluster, network):
        memory, least = prices.memory(shape), prices.least(shape)
        for k, (choice, count) in enumerate(zip(choices, shape.microbatches(choices), strict=True)):
            for placement in shape.placements if count else ():
                plan = shape.plan(choice, placement)
                step = tried[plan]
                assert (step is not None) == (memory[k] <= cluster.processor.memory)
                if step is None:
                    continue
                looked += 1
                assert memory[k] == pytest.approx(step.memory.total, rel=1e-12)
                closer = prices.closer(shape, plan)
                assert least.seconds[k] <= closer.seconds[0] * (1 + 1e-12)
                assert closer.seconds[0] <= step.modelled_step_s * (1 + 1e-12)
                assert least.joules[k] <= closer.joules[0] * (1 + 1e-12)
                assert closer.joules[0] <= step.energy_J * (1 + 1e-12)
                if plan.accelerators == plan.tensor:  # nothing is left out
                    assert closer.seconds[0] == pytest.approx(step.modelled_step_s, rel=1e-12)
    assert looked > 50


def test_the_front_has_the_quickest_of_each_number_of_gpus_that_nothing_beats() -> None:
    job, cluster = case(1)
    quickest: dict[int, float] = {}
    for plan, step in tried_of(1).items():
        if step is not None:
            quickest[plan.accelerators] = min(quickest.get(plan.accelerators, float("inf")), step.modelled_step_s)
    front = search(job, cluster, by="pareto").found
    for accelerators, seconds in quickest.items():
        assert any(
            each.candidate.accelerators <= accelerators and each.modelled_s <= seconds * (1 + 1e-12) for each in front
        )
    figures = [(each.modelled_s, each.energy_J, each.candidate.accelerators) for each in front]
    for i, mine in enumerate(figures):
        for j, other in enumerate(figures):
            assert i == j or not all(a <= b for a, b in zip(other, mine, strict=True))


MEGATRON = [
    # Narayanan et al. 2021, table 2, GPT-175B: replicas, of 8 x 12 A100s each
    (4, 384), (8, 768), (16, 1536),
]  # fmt: skip


@pytest.mark.parametrize(("data", "gpus"), MEGATRON)
def test_the_plans_of_megatron_are_among_those_that_are_looked_at(data: int, gpus: int) -> None:
    job = load_job("gpt_175b")
    cluster = load_cluster("a100_3072", [f"network.axis.rail.size={gpus // 8}"])
    network = chain(job.network.layers)
    choices = choices_of(job, network, ())
    theirs = [s for s in shapes(job, cluster, network) if s[:3] == (8, 12, data) and s.schedule == "1f1b"]
    assert len(theirs) == 1
    assert ("tensor", "data", "pipeline") in theirs[0].placements
    there = {choice for choice, m in zip(choices, theirs[0].microbatches(choices), strict=True) if m}
    assert {(1, "full", False), (1, "selective", True)} <= there


def test_the_best_plan_is_no_slower_than_that_of_megatron() -> None:
    job = load_job("gpt_175b")
    cluster = load_cluster("a100_3072", ["network.axis.rail.size=48"])
    shape = {"tensor": 8, "pipeline": 12, "data": 4, "schedule": "1f1b", "placement": ("tensor", "data", "pipeline")}
    theirs = job.model_copy(
        update={
            "parallel": job.parallel.model_copy(update=shape),
            "train": job.train.model_copy(update={"minibatch": 384, "microbatch": 1}),
        }
    )
    best = search(theirs, cluster).found[0].modelled_s
    for recompute, shared in (("full", False), ("selective", True)):
        options = theirs.conventional.model_copy(update={"recompute": recompute, "sequence_parallel": shared})
        assert best <= baseline(theirs.model_copy(update={"conventional": options}), cluster).modelled_step_s


def test_what_is_kept_stays() -> None:
    job, cluster = case(1)
    keep = ["tensor", "schedule", "recompute", "sequence_parallel", "microbatch"]
    found = search(job, cluster, keep=keep)  # type: ignore[arg-type]
    for each in found.found:
        plan = each.candidate
        assert (plan.tensor, plan.schedule, plan.recompute, plan.microbatch) == (1, "gpipe", "selective", 2)
        assert plan.minibatch * plan.data == 8


@pytest.mark.parametrize(("key", "cluster"), [("data_sync", "a100_3072"), ("recompute", "laptop")])
def test_keys_of_other_machines_are_refused(key: str, cluster: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--keep {key} is for .*, which {cluster} has not: write tensor, "):
        search(load_job("digits"), load_cluster(cluster), keep=[key])  # type: ignore[list-item]


def test_what_fits_nowhere_says_what_would() -> None:
    job, cluster = case(1)

    def having(memory: str) -> Cluster:
        return cluster.model_copy(update={"chip": cluster.processor.model_validate({**CHIP, "memory": memory})})

    with pytest.raises(CapacityError, match=r"^no plan fits: the one that needs least, \d x \d x \d with ") as caught:
        search(job, having("5 MB"))
    needed = re.search(r"takes ([\d.]+ \w+) on an accelerator", str(caught.value))
    assert needed is not None
    number, unit = needed[1].split()
    assert search(job, having(f"{float(number) * 1.01} {unit}")).fitting > 0


def test_experts_over_replicas_are_refused() -> None:
    job, cluster = case(1)
    spread = job.model_copy(update={"parallel": job.parallel.model_copy(update={"expert": 2, "data": 2})})
    with pytest.raises(PlanError, match=r"expert = 2 is for RPUs; write 1"):
        search(spread, cluster)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = ["search", "gpt_175b", "--cluster", "a100_3072", "--keep", "recompute,sequence_parallel,microbatch"]
    assert main(command) == 0
    words = capsys.readouterr().out.split()
    # nothing is cut in a terminal of usual width
    assert {"accele-", "schedule", "recompute", "modelled", "interleaved", "x6", "selective", "+seq"} <= set(words)

    monkeypatch.setenv("COLUMNS", "200")
    command = ["search", "mlp_1b", "--cluster", "a100_3072", "--set", "network.axis.rail.size=2"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\d+ legal plans: [\d,]+ do not fit, [\d,]+ ruled out by a bound, \d+ priced in full", shown)
    assert "proved: no other of these plans is better" in shown
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plans_evaluated"] == told["plans_bounded"] + told["plans_replayed"] > 100
    steps = [row["modelled_step_s"] for row in told["rows"]]
    assert steps == sorted(steps)
    assert {"weights", "accelerators", "tiles", "tensor", "recompute", "sequence_parallel"} <= told["rows"][0].keys()
