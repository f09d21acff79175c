"""Representative accelerators against all of them, and repeated patterns against the operations one by one."""

import pytest

from rpucluster.cluster import Cluster
from rpucluster.lowering import lower
from rpucluster.metrics import summarise
from rpucluster.partitioner import partition
from rpucluster.program import Op
from rpucluster.projection.score import score_of
from rpucluster.projection.step import estimate
from rpucluster.projection.symmetry import symmetry_of
from rpucluster.projection.unrolled import unroll
from rpucluster.schedule import interleave
from rpucluster.timeline import replay
from rpucluster.timeline.clock import play
from rpucluster.timeline.prices import price_of
from tests.projected import cases, random_decoder
from tests.specs import make_cluster, make_job

CLOSE = 1e-12


def test_representatives_are_the_whole_machine_wherever_they_are_said_to_be() -> None:
    exact = uneven = 0
    for seed, job, cluster, plan in cases(range(270)):
        symmetry = symmetry_of(plan, job, cluster)
        if not symmetry.exact:
            continue
        exact += 1
        uneven += len(symmetry.classes) > 1
        whole = replay(lower(plan, job), cluster, compiled=False)
        some = replay(lower(plan, job, written=symmetry.written), cluster, compiled=False)
        moments = {key(op): (whole.start_s[op.id], whole.finish_s[op.id]) for op in whole.program}
        for op in some.program:
            mine = some.start_s[op.id], some.finish_s[op.id]
            assert mine == pytest.approx(moments[key(op)], rel=CLOSE, abs=CLOSE * whole.makespan_s), (seed, op.label)
        metrics, found = summarise(whole), estimate(job, cluster, plan).step
        step = metrics.modelled_step_s
        assert found.modelled_s == pytest.approx(step, rel=CLOSE), seed
        assert found.operations == len(whole.program), seed
        assert found.energy_J == pytest.approx(
            dict(metrics.energy_by_component_J), rel=CLOSE, abs=CLOSE * metrics.energy_J
        ), seed
        assert found.link_bytes == pytest.approx(metrics.link_bytes, rel=CLOSE), seed
        shares = found.seconds["exposed_communication"] / step, found.seconds["bubble"] / step
        assert shares == pytest.approx((metrics.exposed_communication_fraction, metrics.bubble), abs=CLOSE), seed
        assert sum(found.seconds.values()) == pytest.approx(step, rel=CLOSE), seed
    assert exact >= 200
    assert uneven >= 50


def test_representatives_of_transformers_and_experts_are_the_whole_machine_too() -> None:
    exact = shared = 0
    for seed, job, cluster, plan in cases(range(2000, 2080), random_decoder):
        symmetry = symmetry_of(plan, job, cluster)
        if not symmetry.exact:
            continue
        exact += 1
        shared += plan.expert > 1
        metrics, found = summarise(replay(lower(plan, job), cluster, compiled=False)), estimate(job, cluster, plan).step
        step = metrics.modelled_step_s
        assert found.modelled_s == pytest.approx(step, rel=CLOSE), seed
        assert found.energy_J == pytest.approx(
            dict(metrics.energy_by_component_J), rel=CLOSE, abs=CLOSE * metrics.energy_J
        ), seed
        assert found.link_bytes == pytest.approx(metrics.link_bytes, rel=CLOSE), seed
        assert found.seconds["exposed_communication"] / step == pytest.approx(
            metrics.exposed_communication_fraction, abs=CLOSE
        ), seed
    assert exact >= 30
    assert shared >= 5


def test_a_repeated_pattern_is_the_program_to_the_bit() -> None:
    for seed, job, cluster, plan in (*cases(range(1000, 1100)), *cases(range(1100, 1120), random_decoder)):
        written = symmetry_of(plan, job, cluster).written
        program = lower(plan, job, written=written)
        score = score_of(plan, job, written)
        turns = interleave(job.parallel.schedule, plan.pipeline, score.microbatches, plan.virtual_stages)
        unrolled = unroll(score, turns)
        prices = [price_of(op, cluster) for op in unrolled.examples]
        slow = [1.0] * len(unrolled.accelerators)
        state = play(unrolled.order, prices, unrolled.held, slow, cluster, compiled=False)
        timeline = replay(program, cluster, compiled=False)
        assert (tuple(state.start), tuple(state.finish)) == (timeline.start_s, timeline.finish_s), seed
        kinds = [(type(op), op.accelerators, op.layer) for op in program]
        repeated = [unrolled.pattern[i] for i in unrolled.of]
        assert [(type(op), op.accelerators, op.layer) for op in repeated] == kinds, seed


def test_averaging_replicas_is_summed_up_like_all_of_it() -> None:
    job = make_job(parallel={"data": 3, "tensor": 2, "data_sync": "average"}, model={"sizes": [16, 16, 16]})
    cluster = make_cluster(6)
    found = estimate(job, cluster)
    metrics = summarise(replay(lower(found.plan, job, "average"), cluster))
    assert found.exact
    assert found.average is not None
    assert found.average.modelled_s == pytest.approx(metrics.modelled_step_s, rel=CLOSE)
    assert found.average.energy_J == pytest.approx(dict(metrics.energy_by_component_J), rel=CLOSE)


def test_copies_that_share_a_ring_are_not_taken_for_exact_but_replayed_while_they_are_few() -> None:
    job = make_job(parallel={"data": 2, "tensor": 2}, model={"sizes": [16, 16, 16], "bias": "digital"})
    cluster = make_cluster(4, kind="ring")
    found = symmetry_of(partition(job, cluster), job, cluster)
    assert found.why_not is not None
    assert "tensor and data share axis board, a ring" in found.why_not
    whole = replay(lower(partition(job, cluster), job), cluster)
    assert estimate(job, cluster).exact
    assert estimate(job, cluster).step.modelled_s == whole.makespan_s


def test_with_a_slow_accelerator_its_class_is_as_slow_as_it_is() -> None:
    job = make_job(parallel={"data": 2, "tensor": 2}, model={"sizes": [16, 16, 16], "bias": "digital"})
    tables = make_cluster(4).model_dump(exclude={"faults"})
    cluster = Cluster.model_validate(tables | {"faults": {"slow_accelerators": {"3": 2.0}}})
    found = symmetry_of(partition(job, cluster), job, cluster)
    assert found.why_not == "[faults] make some accelerators or links unlike the others"
    assert found.classes == ((0, 1),)


def test_uneven_shares_are_a_class_each() -> None:
    # 5 tile rows on 2 ranks: 2 and 3
    job = make_job(parallel={"tensor": 2, "tensor_split": "output"}, model={"sizes": [16, 40, 16], "bias": "digital"})
    cluster = make_cluster(2)
    assert symmetry_of(partition(job, cluster), job, cluster).classes == ((0,), (1,))


def key(op: Op) -> tuple[object, ...]:
    names = (getattr(op, name, "") for name in ("kind", "direction", "payload", "microbatch"))
    return (type(op).__name__, op.accelerators, op.layer, *names)
