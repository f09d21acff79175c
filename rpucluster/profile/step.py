"""`profile(job, cluster)`: everything that is known about one modelled training step, as plain values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpucluster.cluster import Cluster, load_cluster
from rpucluster.job import Job, load_job
from rpucluster.lowering import lower
from rpucluster.metrics import Metrics, seconds_on_path, summarise
from rpucluster.modelled import require_few_operations
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.profile import breakdown
from rpucluster.profile.bottlenecks import WORTH, bottlenecks, outcome
from rpucluster.profile.candidates import candidates
from rpucluster.program import kind_of
from rpucluster.runlog import RunDirectory
from rpucluster.step_rows import event_rows, span_rows
from rpucluster.timeline import NOTHING_COUNTED, Arranged, Counted, Timeline, arrange, replay
from rpucluster.trace import microbatch_of
from rpucluster.waits import WORDS, wait_of

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of one modelled training step."""

    timeline: Timeline
    metrics: Metrics
    content: Row
    """Plain JSON values; docs/profile.md says what the keys mean."""

    @property
    def events(self) -> list[Row]:
        """The operations of the step, as `step_rows.EVENTS` describes them."""
        return event_rows(self.timeline)

    @property
    def link_spans(self) -> list[Row]:
        """When each link was used, as `step_rows.SPANS` describes it."""
        return span_rows(self.timeline)


def specs_of_run(path: Path) -> tuple[Job, Cluster, Counted]:
    """The job and the cluster of a finished run, and what its counts say of repeated reads and of update cycles of a
    dynamic length, on average over the whole run.

    Raises `RunDirectoryError` where it is no finished run.
    """
    run = RunDirectory.open(path)
    counts = run.read_summary()["counts"]
    job = load_job(path / "job.toml")
    forward, backward = (float(counts.get(f"repeats_per_{way}_pass", 0.0)) for way in ("forward", "backward"))
    shortened = job.update.dynamic_bit_length and counts["update_cycles"] > 0
    slots = counts["pulse_slots"] / counts["update_cycles"] if shortened else math.inf
    return job, load_cluster(path / "cluster.toml"), Counted(forward, backward, slots)


class _Replayer:
    """Plans, lowers and replays; keeps the first program and the last, since most what-ifs change the cluster alone."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self._kept: list[tuple[Job, Plan, Arranged]] = []

    def __call__(self, job: Job, cluster: Cluster) -> Timeline:
        plan = partition(job, cluster)
        arranged = next((program for its, on, program in self._kept if (its, on) == (job, plan)), None)
        if arranged is None:
            require_few_operations(plan, job)
            arranged = arrange(lower(plan, job))
            self._kept = [*self._kept[:1], (job, plan, arranged)]
        return replay(arranged, cluster, counted=self._counted)


def profile(job: Job, cluster: Cluster, what_if: Sequence[str] = (), counted: Counted = NOTHING_COUNTED) -> Profile:
    """Replay a job's training step, take it apart, and try what would shorten it.

    `counted` is what depends on the data, from a real run.
    Each of `what_if` is ``section.key=value``, replayed by itself, and all of them together where there are several.
    Raises the classes of `rpucluster.errors` where the job does not fit the cluster, with or without the changes.
    """
    timed = _Replayer(counted)
    timeline = timed(job, cluster)
    metrics = summarise(timeline)
    asked = [[change] for change in what_if] + ([list(what_if)] if len(what_if) > 1 else [])
    answers = [outcome(job, cluster, changes, timeline, timed).to_dict() for changes in asked]
    on_path = seconds_on_path(timeline)
    tried = bottlenecks(job, cluster, timeline, candidates(job, cluster, timeline, metrics, on_path), timed)
    content = {
        "job": job.name,
        "cluster": cluster.name,
        "modelled_step_s": timeline.makespan_s,
        "samples": timeline.program.samples,
        "operations": len(timeline.program),
        "counted": None
        if counted == NOTHING_COUNTED
        else {
            "repeats_per_forward_pass": counted.forward_repeats,
            "repeats_per_backward_pass": counted.backward_repeats,
            "slots_per_cycle": counted.slots_per_cycle if math.isfinite(counted.slots_per_cycle) else None,
            "step_without_s": _Replayer(NOTHING_COUNTED)(job, cluster).makespan_s,
        },
        "compute_fraction": metrics.compute_fraction,
        "exposed_communication_fraction": metrics.exposed_communication_fraction,
        "idle_fraction": metrics.idle_fraction,
        "bubble": metrics.bubble,
        "energy_J": metrics.energy_J,
        "energy_by_component_J": dict(metrics.energy_by_component_J),
        "critical_path_s": dict(metrics.critical_path_s),
        "bottlenecks": [each.to_dict() for each in tried.replayed if each.outcome.gain > WORTH],
        "no_bottlenecks": [each.to_dict() for each in tried.replayed if each.outcome.gain <= WORTH],
        "not_tried": [candidate.name for candidate in tried.too_small],
        "not_possible": [{"name": candidate.name, "because": because} for candidate, because in tried.refused],
        "what_if": answers,
        "exposed_communication": breakdown.exposed(timeline),
        **_sums(job, timeline, metrics, on_path),
        "resources": breakdown.resources(timeline),
        "links": metrics.to_dict()["links"],
        "critical_path": _critical_path(job, timeline, on_path),
    }
    return Profile(timeline=timeline, metrics=metrics, content=content)


def _sums(job: Job, timeline: Timeline, metrics: Metrics, on_path: dict[int, float]) -> dict[str, list[Row]]:
    parts = breakdown.by_accelerator_and_layer(timeline, on_path)
    names = [layer.name for layer in job.network.layers]
    idle = breakdown.idle_parts(timeline)
    accelerators = []
    for use in metrics.to_dict()["accelerators"]:
        number = use["accelerator"]
        before, after = idle[number]
        mine = breakdown.added([sums for (accelerator, _), sums in parts.items() if accelerator == number])
        accelerators.append({**use, "idle_before_s": before, "idle_after_s": after, **mine.to_dict()})
    layers = []
    for layer in sorted({layer for _, layer in parts}):
        mine = breakdown.added([sums for (_, its), sums in parts.items() if its == layer])
        layers.append({"layer": layer, "name": names[layer], **mine.to_dict()})
    both = [
        {"accelerator": accelerator, "layer": layer, "name": names[layer], **sums.to_dict()}
        for (accelerator, layer), sums in parts.items()
    ]
    return {"accelerators": accelerators, "layers": layers, "accelerators_by_layer": both}


def _critical_path(job: Job, timeline: Timeline, on_path: dict[int, float]) -> list[Row]:
    rows = []
    for op_id, seconds in on_path.items():
        op, wait = timeline.program.ops[op_id], wait_of(timeline, op_id)
        rows.append(
            {
                "op": op_id,
                "label": op.label,
                "kind": kind_of(op),
                "accelerators": list(op.accelerators),
                "layer": op.layer,
                "microbatch": microbatch_of(op),
                "start_s": timeline.start_s[op_id],
                "duration_s": timeline.finish_s[op_id] - timeline.start_s[op_id],
                "on_path_s": seconds,
                "waited_s": wait.seconds,
                "waited_for": WORDS[wait.reason],
                "waited_for_op": wait.op if wait.op >= 0 else None,
            }
        )
    return rows
