"""Whole programs: a training step, an evaluation batch, an averaging of the replicas."""

from collections.abc import Collection

from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.lowering.draft import Draft
from rpucluster.lowering.passes import backward_run, forward_run
from rpucluster.lowering.updates import accumulate, average_shard, update
from rpucluster.plan import Plan
from rpucluster.program import Program, Purpose
from rpucluster.schedule import interleave


def lower(
    plan: Plan,
    job: Job,
    purpose: Purpose = "train",
    batch: int | None = None,
    written: Collection[int] | None = None,
) -> Program:
    """Write the program of one training step, of one evaluation batch, or of one averaging of the replicas.

    ``"train"`` follows ``[parallel] schedule`` and ends with the updates, of which ``"async"`` has one after each
    backward; before each, replicas all-gather their factors under ``data_sync = "factors"`` or add up their dense
    gradients under ``"gradient"``.
    ``"evaluate"`` is a forward pass of `batch` samples through replica 0; ``"average"`` reads all weights out,
    averages them over the replicas and programs them back.

    `written` are tensor ranks to write the operations of, in the first replica alone, with the collectives that they
    take part in among all their members; left out, everything is written.
    """
    if purpose == "average":
        return _average(plan, job, written)
    if purpose == "evaluate":
        return _evaluate(plan, job, job.evaluate.batch if batch is None else batch, written)
    return _train(plan, job, written)


def _train(plan: Plan, job: Job, written: Collection[int] | None) -> Program:
    microbatches = job.train.microbatches
    draft = Draft(plan, job, "train", microbatches, job.train.microbatch, range(plan.data), written)
    schedule = job.parallel.schedule
    chunks = [[plan.chunk_layers(s, k) for k in range(plan.virtual_stages)] for s in range(plan.pipeline)]
    for turn in interleave(schedule, plan.pipeline, microbatches, plan.virtual_stages):
        layers = chunks[turn.stage][turn.chunk]
        if turn.action == "update":
            update(draft, layers, turn.microbatch)
            continue
        for first in range(0, len(draft.written_replicas), plan.expert):
            replicas = draft.written_replicas[first : first + plan.expert]
            if turn.action == "forward":
                forward_run(draft, layers, replicas, turn.microbatch)
                continue
            backward_run(draft, layers, replicas, turn.microbatch)
            for replica in replicas if job.parallel.data_sync == "gradient" else ():
                accumulate(draft, layers, replica, turn.microbatch)
    if schedule != "async":
        update(draft, plan.layers)
    return draft.finish()


def _evaluate(plan: Plan, job: Job, batch: int, written: Collection[int] | None) -> Program:
    draft = Draft(plan, job, "evaluate", 1, batch, range(1), written)
    forward_run(draft, plan.layers, range(1), 0)
    return draft.finish()


def _average(plan: Plan, job: Job, written: Collection[int] | None) -> Program:
    if plan.data < 2:
        raise PlanError("nothing to average: [parallel] data is 1")
    draft = Draft(plan, job, "average", 1, 1, range(plan.data), written)
    for layer in plan.layers:
        for rank in draft.ranks(layer):
            average_shard(draft, layer, rank)
    return draft.finish()
