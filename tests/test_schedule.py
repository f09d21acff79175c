"""Schedules: every order is performable, holds what it says, and has the bubble of its closed form."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.cluster import Cluster
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.metrics import summarise
from rpucluster.partitioner import partition
from rpucluster.program import Digital, Program, Read
from rpucluster.schedule import Schedule, in_flight, interleave
from rpucluster.timeline import replay
from tests.specs import make_cluster, make_job

PLAIN: list[Schedule] = ["gpipe", "1f1b", "async"]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, int, int, int]:
    stages, chunks = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    schedule: Schedule = draw(st.sampled_from([*PLAIN, "interleaved"]))
    if schedule == "interleaved":
        return schedule, stages, stages * draw(st.integers(1, 4)), chunks
    return schedule, stages, draw(st.integers(1, 12)), 1


@given(schedules())
def test_every_turn_comes_once_and_finds_its_inputs(case: tuple[Schedule, int, int, int]) -> None:
    schedule, stages, microbatches, chunks = case
    order = interleave(schedule, stages, microbatches, chunks)
    actions = {"forward", "backward"} | ({"update"} if schedule == "async" else set())
    assert Counter(order) == Counter(
        itertools.product(actions, range(stages), range(chunks), range(microbatches))  # each once
    )
    done = set()
    for action, stage, chunk, m in order:
        run = chunk * stages + stage
        if action == "forward" and run > 0:
            assert ("forward", run - 1, m) in done
        if action == "backward":
            assert ("forward", run, m) in done
            assert run == stages * chunks - 1 or ("backward", run + 1, m) in done
        if action == "update":
            assert ("backward", run, m) in done
        done.add((action, run, m))


@given(schedules())
def test_no_more_microbatches_are_in_flight_than_is_said(case: tuple[Schedule, int, int, int]) -> None:
    schedule, stages, microbatches, chunks = case
    flying, most = Counter[int](), Counter[int]()
    for turn in interleave(schedule, stages, microbatches, chunks):
        flying[turn.stage] += {"forward": 1, "backward": -1, "update": 0}[turn.action]
        most[turn.stage] = max(most[turn.stage], flying[turn.stage])
    assert not any(flying.values())
    assert [most[s] for s in range(stages)] == [
        in_flight(schedule, s, stages, microbatches, chunks) for s in range(stages)
    ]


@given(schedules())
def test_stages_take_microbatches_in_ascending_order(case: tuple[Schedule, int, int, int]) -> None:
    """Through each run of layers, forward and back: what sums over samples then has one order for all schedules."""
    schedule, stages, microbatches, chunks = case
    seen: dict[tuple[str, int, int], list[int]] = {}
    for action, stage, chunk, m in interleave(schedule, stages, microbatches, chunks):
        seen.setdefault((action, stage, chunk), []).append(m)
    assert all(found == list(range(microbatches)) for found in seen.values())


def test_interleaved_order_of_two_stages_with_two_chunks() -> None:
    """Figure 4 of Narayanan et al. (2021) for p = 2, v = 2, m = 4: what stage 0 and stage 1 do, as microbatch and
    chunk, capitals forward."""
    order = interleave("interleaved", 2, 4, 2)
    shown = [
        " ".join(
            f"{('F' if t.action == 'forward' else 'b')}{t.microbatch}{'xy'[t.chunk]}" for t in order if t.stage == s
        )
        for s in range(2)
    ]
    assert shown == [
        "F0x F1x F0y F1y F2x b0y F3x b1y F2y b0x F3y b1x b2y b3y b2x b3x",
        "F0x F1x F0y b0y F1y b1y F2x b0x F3x b1x F2y b2y F3y b3y b2x b3x",
    ]


# --- bubbles ---

FORWARD_NS, BACKWARD_NS = 70, 110


def equal_runs(
    schedule: str, stages: int, microbatches: int, chunks: int = 1, layers_per_run: int = 1
) -> tuple[Job, Cluster]:
    """Equal square layers, each in one tile; the layers of an accelerator take turns; nothing else takes time."""
    job = make_job(
        model={"sizes": [64] * (stages * chunks * layers_per_run + 1)},
        train={"minibatch": 2 * microbatches, "microbatch": 2},
        parallel={"pipeline": stages, "schedule": schedule, "virtual_stages": chunks},
        update={"bit_length": 1},
    )
    cluster = make_cluster(
        stages,
        bandwidth="inf B/s",
        latency="0 s",
        tile=128,
        active_tiles=1,
        forward_time=f"{FORWARD_NS} ns",
        backward_time=f"{BACKWARD_NS} ns",
        conversion_time="0 s",
        pulse_width="1e-30 s",
        digital_rate="inf op/s",
        on_chip_bandwidth="inf B/s",
    )
    return job, cluster


def with_first_backward(program: Program) -> Program:
    """The first layer, which passes no error on, reads backward all the same, in the place of its derivative: so all
    layers take the same time."""
    pattern = next(op for op in program if isinstance(op, Read) and op.direction == "backward")
    ops = [
        replace(pattern, id=op.id, accelerator=op.accelerator, layer=0, microbatch=op.microbatch, deps=op.deps)
        if isinstance(op, Digital) and op.kind == "derivative" and op.layer == 0
        else op
        for op in program
    ]
    return replace(program, ops=tuple(ops))


@pytest.mark.parametrize("layers_per_run", [1, 3])
@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("microbatches", [1, 2, 4, 7, 16])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_bubble_of_equal_stages(schedule: str, stages: int, microbatches: int, layers_per_run: int) -> None:
    """(p - 1) / (m + p - 1), layer by layer, without communication, digital work and update (Huang et al. 2019): each
    stage works m forward and m backward passes, and p - 1 of each more go by until the last is through."""
    job, cluster = equal_runs(schedule, stages, microbatches, layers_per_run=layers_per_run)
    metrics = summarise(replay(with_first_backward(lower(partition(job, cluster), job)), cluster))
    assert metrics.bubble == pytest.approx((stages - 1) / (microbatches + stages - 1), rel=1e-9)
    assert metrics.exposed_communication_fraction == 0
    passes = 2 * (FORWARD_NS + BACKWARD_NS) * 1e-9 * layers_per_run
    assert metrics.modelled_step_s == pytest.approx((microbatches + stages - 1) * passes)


@pytest.mark.parametrize("chunks", [2, 3, 5])
@pytest.mark.parametrize(("stages", "rounds"), [(2, 1), (2, 4), (3, 2), (4, 1), (4, 3), (8, 2)])
def test_bubble_of_interleaved_equal_runs(stages: int, rounds: int, chunks: int) -> None:
    """(p - 1) / v / (m + (p - 1) / v) (Narayanan et al. 2021, section 2.2.2): a run is a v-th of a stage, so the
    pipeline fills and drains in a v-th of the time."""
    microbatches = stages * rounds
    job, cluster = equal_runs("interleaved", stages, microbatches, chunks)
    metrics = summarise(replay(with_first_backward(lower(partition(job, cluster), job)), cluster))
    waits = (stages - 1) / chunks
    assert metrics.bubble == pytest.approx(waits / (microbatches + waits), rel=1e-9)


@pytest.mark.parametrize("schedule", PLAIN)
@pytest.mark.parametrize(("stages", "microbatches"), [(2, 4), (4, 4), (3, 7)])
def test_first_stage_is_idle_for_the_backward_passes_that_it_does_not_have(
    schedule: str, stages: int, microbatches: int
) -> None:
    """The program as it is, one layer a stage: the others take m (f + b), the first m f; the last one can only start
    after (p - 1) f, and after its last forward pass p - 1 backward passes follow, of which the first stage has none."""
    job, cluster = equal_runs(schedule, stages, microbatches)
    metrics = summarise(replay(lower(partition(job, cluster), job), cluster))
    forward, backward = 2 * FORWARD_NS * 1e-9, 2 * BACKWARD_NS * 1e-9
    assert metrics.modelled_step_s == pytest.approx(
        (stages - 1) * forward + microbatches * (forward + backward) + (stages - 2) * backward
    )


# --- what cannot be ---


def test_what_does_not_fit_a_schedule_is_refused() -> None:
    wide = make_cluster(18)
    runs = {"pipeline": 2, "virtual_stages": 2, "schedule": "interleaved"}
    with pytest.raises(
        PlanError,
        match=r"pipeline 2 x virtual_stages 2 takes 4 layers but the network has 3; write parallel.pipeline = 1$",
    ):
        partition(make_job(parallel=runs), wide)
    uneven = make_job(model={"sizes": [64, 20, 20, 20, 10]}, train={"minibatch": 12}, parallel=runs)
    with pytest.raises(PlanError) as error:
        partition(uneven, wide)
    assert str(error.value) == (
        '[train] minibatch 12 in microbatches of 4 are 3, which [parallel] schedule = "interleaved" needs to be a '
        "multiple of pipeline = 2; write parallel.pipeline = 1, train.microbatch = 6 or train.minibatch = 16"
    )
    with pytest.raises(ValueError, match="3 microbatches cannot be interleaved over 2 stages"):
        interleave("interleaved", 2, 3, 2)
