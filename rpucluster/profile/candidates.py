"""What might hold a step up, as what-ifs that the critical path makes worth trying."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.metrics import Metrics
from rpucluster.profile.breakdown import LINKS, Crossed
from rpucluster.program import Collective, Digital, Op, Read, Rewrite, Send, Update, kind_of
from rpucluster.timeline import Timeline
from rpucluster.topology import Axis, Connection
from rpucluster.units import format_quantity

PARALLEL = {"factors": "data", "gradient": "data", "weights": "data"}
"""What moves a payload where that is not tensor parallelism; sends are those of the pipeline."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One change of the job or the cluster that may shorten the step."""

    name: str
    """The resource and what becomes of it, such as ``axis "board" bandwidth x2``."""
    resource: str
    """bandwidth, latency, digital_units, on_chip_network, active_tiles, forward, backward, update, layer_by_layer,
    slow_accelerator, slow_links, failed_links, pipeline_bubble or microbatch_size."""
    changes: tuple[str, ...]
    """As ``--what-if`` takes them."""
    most_s: float
    """What it can take from the step at most, if the critical path stays what it is."""
    why: str
    """A sentence without its full stop: how the critical path knows this resource."""


def candidates(
    job: Job, cluster: Cluster, timeline: Timeline, metrics: Metrics, on_path: dict[int, float]
) -> list[Candidate]:
    """Every change that is tried, whatever it may gain; `on_path` is `metrics.seconds_on_path`."""
    found = _network(cluster, timeline, on_path)
    found += _chip(cluster, timeline, on_path)
    found += _faults(cluster, timeline, on_path)
    found += _microbatches(job, timeline, metrics, on_path)
    return found


def _network(cluster: Cluster, timeline: Timeline, on_path: dict[int, float]) -> list[Candidate]:
    crossing: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    parallel: dict[str, set[str]] = defaultdict(set)
    crossed = Crossed(timeline)
    for op_id, seconds in on_path.items():
        op = timeline.program.ops[op_id]
        if isinstance(op, Collective | Send):
            for name in crossed(op_id):
                crossing[name][f"{kind_of(op).replace('_', '-')} of {_payload(op)}"] += seconds
                parallel[name].add("pipeline" if isinstance(op, Send) else PARALLEL.get(op.payload, "tensor"))
    network = cluster.network
    places: list[tuple[str, str, Sequence[Axis | Connection], str]] = [
        (axis.name, f'axis "{axis.name}"', (axis,), "axis") for axis in network.axis
    ]
    if network.connections:
        places.append((LINKS, "links", network.connections, "link"))
    found = []
    for place, words, wires, table in places:
        kinds = crossing.get(place, {})
        seconds = math.fsum(kinds.values())
        role = "/".join(sorted(parallel[place], key=("tensor", "pipeline", "data").index))
        longest = ", ".join(
            f"{name} {_time(part)}" for name, part in sorted(kinds.items(), key=lambda item: -item[1])[:3]
        )
        for key, change in (("bandwidth", "x2"), ("latency", "/2")):
            changes = tuple(f"network.{table}.{wire.name}.{key}={change}" for wire in wires if _finite(wire, key))
            if changes:
                found.append(
                    Candidate(
                        name=f"{role} {words} {key} {change}".lstrip(),
                        resource=key,
                        changes=changes,
                        most_s=seconds / 2,
                        why=f"transfers over {'it' if table == 'axis' else 'them'} are "
                        f"{_share(seconds, timeline)}: {longest}",
                    )
                )
    return found


def _finite(wire: Axis | Connection, key: str) -> bool:
    """Whether there is anything to gain from more bandwidth, or from less latency."""
    return bool(wire.bandwidth < math.inf if key == "bandwidth" else wire.latency > 0)


def _chip(cluster: Cluster, timeline: Timeline, on_path: dict[int, float]) -> list[Candidate]:
    chip, ops = cluster.accelerator, timeline.program.ops

    def path_s(*kinds: type[Op], direction: str | None = None) -> float:
        return math.fsum(
            seconds
            for op, seconds in on_path.items()
            if isinstance(ops[op], kinds) and direction in (None, getattr(ops[op], "direction", None))
        )

    digital, arrays = path_s(Digital), path_s(Read, Update, Rewrite)
    joined = math.fsum(s for i, s in on_path.items() if isinstance(op := ops[i], Read) and op.additions)
    found = [
        Candidate(
            name="digital units x2",
            resource="digital_units",
            changes=("accelerator.digital_rate=x2",),
            most_s=(digital + joined + path_s(Update)) / 2,
            why=f"digital work is {_share(digital, timeline)}"
            + (f", and reads that also add partial sums up are {_time(joined)} more" if joined else ""),
        ),
        Candidate(
            name="on-chip network x2",
            resource="on_chip_network",
            changes=("accelerator.on_chip_bandwidth=x2",),
            most_s=arrays / 2,
            why=f"reads and updates, which move their vectors over it, are {_share(arrays, timeline)}",
        ),
    ]
    if chip.active_tiles < chip.tiles:
        more = min(2 * chip.active_tiles, chip.tiles)
        found.append(
            Candidate(
                name=f"active tiles {chip.active_tiles} -> {more}",
                resource="active_tiles",
                changes=(f"accelerator.active_tiles={more}",),
                most_s=arrays * (1 - chip.active_tiles / more),
                why=f"arrays work during {_share(arrays, timeline)}",
            )
        )
    for resource, key, lines in (
        ("forward", "forward_time", chip.tile_rows),
        ("backward", "backward_time", chip.tile_cols),
    ):
        seconds = path_s(Read, direction=resource)
        # a pass ends with its conversions, which the integration alone may not outrun
        bound = min(chip.adc_lines, lines) * chip.conversion_time > getattr(chip, key) / 2
        changes = (f"accelerator.{key}=/2", *(("accelerator.conversion_time=/2",) if bound else ()))
        found.append(
            Candidate(
                name=f"{resource} passes twice as fast",
                resource=resource,
                changes=changes,
                most_s=seconds / 2,
                why=f"{resource} passes are {_share(seconds, timeline)}",
            )
        )
    if not chip.layer_streaming:
        passing = digital + path_s(Read)
        found.append(
            Candidate(
                name="layers that pass vectors on one by one",
                resource="layer_by_layer",
                changes=("accelerator.layer_streaming=true",),
                most_s=passing,
                why=f"reads and digital work, which begin once all vectors of a microbatch are there, are "
                f"{_share(passing, timeline)}",
            )
        )
    updates = path_s(Update, Rewrite)
    found.append(
        Candidate(
            name="update pulses twice as fast",
            resource="update",
            changes=("accelerator.pulse_width=/2",),
            most_s=updates / 2,
            why=f"updates are {_share(updates, timeline)}",
        )
    )
    return found


def _faults(cluster: Cluster, timeline: Timeline, on_path: dict[int, float]) -> list[Candidate]:
    """What is slow as fast as the rest of its kind, and what has failed repaired."""
    faults, ops = cluster.faults, timeline.program.ops
    found = []
    for number, factor in faults.slowdowns.items():
        seconds = math.fsum(s for op, s in on_path.items() if number in ops[op].accelerators)
        found.append(
            Candidate(
                name=f"accelerator {number}, {factor:g} times as slow as the others, as fast as they are",
                resource="slow_accelerator",
                changes=(f"faults.slow_accelerators.{number}=1",),
                most_s=seconds * (1 - 1 / factor),
                why=f"operations of accelerator {number} are {_share(seconds, timeline)}",
            )
        )
    sending = math.fsum(s for op, s in on_path.items() if isinstance(ops[op], Collective | Send))
    for key, what in (("slow_links", "slow"), ("failed_links", "failed")):
        names = list(getattr(faults, key))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            found.append(
                Candidate(
                    name=f"{what} link {names[0]}{more} as the others",
                    resource=key,
                    changes=(f"faults.{key}={'{}' if key == 'slow_links' else '[]'}",),
                    most_s=sending,
                    why=f"transfers are {_share(sending, timeline)}",
                )
            )
    return found


def _microbatches(job: Job, timeline: Timeline, metrics: Metrics, on_path: dict[int, float]) -> list[Candidate]:
    """More and smaller microbatches, which fill a pipeline; fewer and larger ones, which send fewer messages."""
    train, stages, ops = job.train, job.parallel.pipeline, timeline.program.ops
    count = timeline.program.microbatches
    found = []
    if stages > 1:
        if train.microbatch > 1:
            size = train.microbatch // next(n for n in range(2, train.microbatch + 1) if train.microbatch % n == 0)
            name, change = f"microbatches of {size} instead of {train.microbatch}", f"train.microbatch={size}"
        else:
            name, change = f"a minibatch of {2 * train.minibatch} instead of {train.minibatch}", "train.minibatch=x2"
        found.append(
            Candidate(
                name=f"pipeline of {stages} stages: {name}",
                resource="pipeline_bubble",
                changes=(change,),
                most_s=(metrics.idle_fraction + metrics.exposed_communication_fraction) * timeline.makespan_s,
                why=f"accelerators are idle {100 * metrics.idle_fraction:.0f} % of the step on average, with "
                f"{count} microbatch{'es' if count > 1 else ''} in {stages} stages",
            )
        )
        if job.parallel.schedule in ("gpipe", "1f1b"):
            found.append(
                Candidate(
                    name=f"pipeline of {stages} stages: interleaved, two runs of layers each",
                    resource="pipeline_bubble",
                    changes=("parallel.schedule=interleaved", "parallel.virtual_stages=2"),
                    most_s=metrics.idle_fraction * timeline.makespan_s,
                    why=f"accelerators are idle {100 * metrics.idle_fraction:.0f} % of the step on average",
                )
            )
    sending = math.fsum(s for op, s in on_path.items() if isinstance(ops[op], Collective | Send))
    if train.minibatch % (2 * train.microbatch) == 0:
        found.append(
            Candidate(
                name=f"microbatches of {2 * train.microbatch} instead of {train.microbatch}",
                resource="microbatch_size",
                changes=("train.microbatch=x2",),
                most_s=sending / 2,
                why=f"transfers, of which there would be half as many, are {_share(sending, timeline)}",
            )
        )
    return found


def _payload(op: Collective | Send) -> str:
    return op.payload.replace("_", " ") + ("" if op.payload.endswith("s") else "s")


def _share(seconds: float, timeline: Timeline) -> str:
    share = seconds / timeline.makespan_s if timeline.makespan_s else 0.0
    return f"{_time(seconds)} of the critical path ({100 * share:.0f} %)"


def _time(seconds: float) -> str:
    return format_quantity(seconds, "time").replace(" u", " µ")
