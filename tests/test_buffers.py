"""What accelerators hold outside of tiles: closed forms for equal layers, one in each run, and the check of the buffer.

The unit is a microbatch of one layer's inputs (or outputs: the layers are square); all words are 16 bits wide.
"""

from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from rpucluster.buffers import BufferUse, buffer_uses
from rpucluster.cluster import Cluster
from rpucluster.coordinator import run
from rpucluster.errors import CapacityError
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.modelled import model
from rpucluster.partitioner import partition
from rpucluster.projection.held import for_all, uses_of_representatives
from rpucluster.projection.planned import plan_report
from rpucluster.projection.symmetry import symmetry_of
from rpucluster.schedule import in_flight
from tests.projected import cases, random_decoder, random_pipeline
from tests.specs import make_cluster, make_job

WIDTH, MICROBATCH = 64, 2
UNIT = WIDTH * MICROBATCH
CELLS = WIDTH * WIDTH


def job_of(
    schedule: str,
    stages: int,
    microbatches: int,
    sync: str = "factors",
    chunks: int = 1,
    layers_per_stage: int = 1,
    **more: Any,
) -> Job:
    return make_job(
        model={"sizes": [WIDTH] * (stages * max(chunks, layers_per_stage) + 1), "bias": "none"},
        train={"minibatch": MICROBATCH * microbatches, "microbatch": MICROBATCH},
        words={"factor_bits": 16, "sum_bits": 16, "gradient_bits": 16, **more.pop("words", {})},
        parallel={"pipeline": stages, "schedule": schedule, "virtual_stages": chunks, "data_sync": sync, **more},
    )


def uses_of(job: Job) -> tuple[BufferUse, ...]:
    plan = partition(job, make_cluster(16, tile=128))
    return buffer_uses(lower(plan, job), plan, job)


def units(use: BufferUse) -> float:
    """Of a program whose words are all 16 bits wide."""
    assert sum(use.elements.values()) * 2 == use.peak_bytes
    return use.peak_bytes / 2 / UNIT


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "microbatches"), [(2, 1), (2, 4), (4, 4), (3, 8)])
def test_inputs_and_errors_wait_for_the_flush(schedule: str, stages: int, microbatches: int) -> None:
    """Whatever the schedule: m microbatches of inputs and m of errors at the last derivative, and the activation and
    the error that it works on.  The last stage has its loss in place of a derivative, with no error from behind."""
    uses = uses_of(job_of(schedule, stages, microbatches))
    assert [units(use) for use in uses[:-1]] == [2 * microbatches + 2] * (stages - 1)
    assert units(uses[-1]) == 2 * microbatches + 1


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "microbatches"), [(2, 1), (2, 4), (4, 4), (3, 8), (5, 3)])
def test_only_microbatches_in_flight_wait_for_dense_gradients(schedule: str, stages: int, microbatches: int) -> None:
    """k = min(p - s, m) of stage s under 1F1B, all m under GPipe, each with its inputs and outputs there.

    The first to come back turns its outputs into errors, goes into the gradient, and leaves; where more microbatches
    follow there is such a derivative beside the gradient, with an error before and one behind the function."""
    uses = uses_of(job_of(schedule, stages, microbatches, "gradient"))
    for stage, use in enumerate(uses[:-1]):
        flying = microbatches if schedule == "gpipe" else min(stages - stage, microbatches)
        assert use.in_flight == flying
        assert use.elements["gradients"] == CELLS
        assert units(use) == CELLS / UNIT + 2 * flying + (2 if microbatches > flying else 0)
    assert uses[-1].in_flight == (microbatches if schedule == "gpipe" else 1)


@pytest.mark.parametrize(("stages", "microbatches"), [(2, 1), (2, 4), (4, 4), (3, 8), (5, 3)])
def test_asynchronous_factors_wait_for_their_own_update_only(stages: int, microbatches: int) -> None:
    """Inputs and outputs of min(p - s, m) microbatches and two errors at a derivative; inputs, outputs and errors of
    one at the loss."""
    uses = uses_of(job_of("async", stages, microbatches))
    for stage, use in enumerate(uses[:-1]):
        assert use.in_flight == min(stages - stage, microbatches)
        assert units(use) == 2 * use.in_flight + 2
    assert (uses[-1].in_flight, units(uses[-1])) == (1, 3)


@pytest.mark.parametrize(("stages", "chunks", "microbatches"), [(2, 2, 4), (4, 2, 8), (3, 3, 6), (2, 4, 8)])
def test_interleaving_holds_more(stages: int, chunks: int, microbatches: int) -> None:
    """2 (p - s - 1) + (v - 1) p + 1 microbatches of a run are in flight on stage s, where 1F1B has p - s of v runs."""
    found = uses_of(job_of("interleaved", stages, microbatches, "gradient", chunks))
    expected = [in_flight("interleaved", s, stages, microbatches, chunks) for s in range(stages)]
    assert [use.in_flight for use in found] == expected
    assert expected == [
        min(2 * (stages - s - 1) + (chunks - 1) * stages + 1, microbatches * chunks) for s in range(stages)
    ]
    # v layers in one run of a stage: each of its p microbatches holds v inputs and the outputs of the last
    plain = uses_of(job_of("1f1b", stages, microbatches, "gradient", layers_per_stage=chunks))
    assert plain[0].in_flight == min(stages, microbatches)
    assert found[0].peak_bytes > plain[0].peak_bytes


@pytest.mark.parametrize("data", [2, 4])
def test_replicas_hold_the_factors_of_all_when_they_update(data: int) -> None:
    """m microbatches of inputs and errors of each replica, at the flush of a layer."""
    for use in uses_of(job_of("gpipe", 2, 3, data=data)):
        assert units(use) == 2 * 3 * data
        assert use.elements["factors"] == 2 * 3 * (data - 1) * UNIT


def test_bytes_have_the_widths_of_the_job() -> None:
    """One layer: at its activation there are inputs, sums and activations."""
    (use,) = uses_of(job_of("gpipe", 1, 1, words={"factor_bits": 8, "sum_bits": 40}))
    assert use.elements == {"activations": 2 * UNIT, "errors": 0, "factors": 0, "sums": UNIT, "gradients": 0}
    assert use.peak_bytes == (2 * 8 + 40) / 8 * UNIT


def test_shares_of_tensors_hold_shares_of_values() -> None:
    """One layer from 64 to 32 over two ranks, at its loss: half of the outputs are made on each, but the loss needs
    all; of a split by inputs each rank holds half of those."""
    for split, inputs, errors in (("output", 64, 16), ("input", 32, 32)):
        job = make_job(
            model={"sizes": [64, 32], "bias": "none"},
            train={"minibatch": 4, "microbatch": 4},
            words={"sum_bits": 8},
            parallel={"tensor": 2, "tensor_split": split},
        )
        plan = partition(job, make_cluster(2, tile=16))
        for use in buffer_uses(lower(plan, job), plan, job):
            assert (use.elements["activations"], use.elements["errors"]) == (4 * (inputs + 32), 4 * errors)


def test_a_buffer_that_is_too_small_is_refused(tmp_path: Path) -> None:
    job = job_of("1f1b", 2, 4)
    needed = max(use.peak_bytes for use in model(job, _with_buffer(None)).buffers)
    assert needed == (2 * 4 + 2) * UNIT * 2
    report = plan_report(job, _with_buffer(f"{needed} B"))
    assert [row["peak_bytes"] for row in report["buffers"]] == [needed, needed - 2 * UNIT]
    assert {row["buffer_bytes"] for row in report["buffers"]} == {needed}
    with pytest.raises(CapacityError) as error:
        run(job, _with_buffer("2.5 kB"), executor="local", out=tmp_path / "run")
    assert str(error.value) == (
        "accelerator 0 has to hold 2.56 kB at once but [accelerator] buffer of small is 2.5 kB; write "
        'accelerator.buffer = "2.56 kB", lower [train] minibatch, or raise [parallel] tensor or pipeline'
    )
    assert not (tmp_path / "run").exists()


def test_representatives_hold_what_all_accelerators_hold() -> None:
    """Of long steps it is found from one microbatch; a program of all is the reference."""
    compared = 0
    few = cases(range(5), random_pipeline)  # which are long
    for seed, job, cluster, plan in chain(cases(range(80)), cases(range(80), random_decoder), few):
        symmetry = symmetry_of(plan, job, cluster)
        if job.train.minibatch // job.train.microbatch < 3 or not symmetry.exact:
            continue
        whole = buffer_uses(lower(plan, job), plan, job)
        found = list(for_all(uses_of_representatives(plan, job, symmetry), plan, symmetry))
        found.sort(key=attrgetter("accelerator"))
        assert tuple(found) == whole, (seed, job.name)
        compared += 1
    assert compared >= 50


def _with_buffer(buffer: str | None) -> Cluster:
    return make_cluster(2, tile=128, **({} if buffer is None else {"buffer": buffer}))
