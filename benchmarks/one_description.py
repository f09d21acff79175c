"""One description: what accelerators on Ray counted, operation by operation, beside what the plan of the job says.

    python benchmarks/one_description.py [STEPS]

Performs a few training steps of each job on Ray actors, and says how many operations of each kind agree with the
program that the timeline prices: vector passes of reads, cycles of updates, elements that each member gives and takes
in a transfer.  Pulse slots, of samples and of single rows, are counted by accelerator; where an accelerator has one
update in a step, as in the second job, that is by operation too.  The jobs keep away from what the data decide: bound
management, which repeats passes, and dynamic bit length are off.  Writes one_description.json and .md beside this file.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.accelerator import Counts, Steps
from rpucluster.calls import givers, takers
from rpucluster.cluster import load_cluster
from rpucluster.data import load_data
from rpucluster.job import load_job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import Pool, RayPool, ray_session
from rpucluster.program import Collective, Program, Purpose, Read, Send, Update

_FIXED = ('forward.bound_management="none"', "update.dynamic_bit_length=false")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job on a cluster."""

    name: str
    job: str
    cluster: str
    sets: tuple[str, ...] = ()


CASES = (
    Case(
        name="digits: tensor 2 x data 2, factors",
        job="digits",
        cluster="ring8",
        sets=("parallel.pipeline=1", "parallel.data=2", "accelerator.tile_rows=32", "accelerator.tile_cols=32"),
    ),
    Case(
        name="digits: pipeline 3, 1F1B, a layer a stage",
        job="digits",
        cluster="laptop",
        sets=("parallel.tensor=1", "parallel.pipeline=3", "parallel.schedule=1f1b", "train.microbatch=4"),
    ),
    Case(
        name="digits: tensor 2 x pipeline 2 x data 2, dense gradients",
        job="digits",
        cluster="ring8",
        sets=(
            "parallel.data=2",
            "parallel.data_sync=gradient",
            "accelerator.tile_rows=32",
            "accelerator.tile_cols=32",
            "run.accelerators_per_worker=2",
        ),
    ),
    Case(
        name="wide layers: tensor 2 x pipeline 2 x data 2, averages",
        job="mlp_wide",
        cluster="ring8",
        sets=("parallel.data_sync=average", "parallel.average_every=2"),
    ),
)
KINDS = ("vector passes", "update cycles", "elements given", "elements taken", "pulse slots")
Key = tuple[Any, ...]


def planned(program: Program, times: int) -> dict[str, Counter[Key]]:
    """What so many performances of a program count, by kind of count: of each operation, and of each giver and taker
    of a transfer, and the pulse slots of each accelerator."""
    found: dict[str, Counter[Key]] = {kind: Counter() for kind in KINDS}
    for op in program:
        match op:
            case Read():
                found["vector passes"][op.id, op.accelerator] = times * op.vectors * op.tiles
            case Update():
                found["update cycles"][op.id, op.accelerator] = times * op.cycles
                lines = 0 if op.alone is None else round(op.alone.writes * op.alone.slots)
                found["pulse slots"][op.accelerator,] += times * (op.slots + lines)
            case Collective() | Send():
                for giver in givers(op):
                    elements = op.elements if isinstance(op, Send) else op.elements[op.members.index(giver)]
                    found["elements given"][op.id, giver] = times * elements
                    for taker in takers(op):
                        if taker != giver:
                            found["elements taken"][op.id, giver, taker] = times * elements
            case _:
                pass
    return found


def counted(program: Program, name: str, counts: Mapping[int, Counts]) -> dict[str, Counter[Key]]:
    """The same, as accelerators counted it in the program that they know by `name`."""
    found: dict[str, Counter[Key]] = {kind: Counter() for kind in KINDS}
    for number, count in counts.items():
        for (of, op), n in count.performed.items():
            if of == name:
                kind = "vector passes" if isinstance(program.ops[op], Read) else "update cycles"
                found[kind][op, number] += n
        for (of, op), n in count.emitted.items():
            if of == name:
                found["elements given"][op, number] += n
        for (of, op, giver), n in count.absorbed.items():
            if of == name:
                found["elements taken"][op, giver, number] += n
        found["pulse slots"][number,] = count.pulses.slots + count.pulses.line_slots
    return found


def perform(case: Case, steps: int, pools: type[Pool] = RayPool) -> Iterator[tuple[Purpose, Program, int, Any]]:
    """Train a job for some steps, averaging replicas once where it does that.

    Gives each of its programs with how often it was performed and what was counted.
    """
    job = load_job(case.job, [each for each in (*_FIXED, *case.sets) if not each.startswith("accelerator.")])
    cluster = load_cluster(case.cluster, [each for each in case.sets if each.startswith("accelerator.")])
    plan, data = partition(job, cluster), load_data(job.data)
    averages = job.parallel.data > 1 and job.parallel.data_sync == "average"
    programs: dict[Purpose, Program] = {"train": lower(plan, job)}
    if averages:
        programs["average"] = lower(plan, job, "average")
    pool = pools(job, cluster, plan)  # type: ignore[call-arg]
    try:
        for name, program in programs.items():
            pool.load(name, program)
        pool.set_data("digits", data.train_x, data.train_y)
        indices = np.arange(steps * programs["train"].samples).reshape(steps, -1) % len(data.train_y)
        fed = Steps(first_sample=0, learning_rate=0.001, indices=indices)
        pool.perform("train", "digits", fed)
        if averages:
            pool.perform("average", "digits", fed.part(0, 1))
        counts = pool.counts()
    finally:
        pool.close()
    for name, program in programs.items():
        yield name, program, steps if name == "train" else 1, counted(program, name, counts)


def compare(case: Case, steps: int, pools: type[Pool] = RayPool) -> list[dict[str, Any]]:
    """A row for each program and kind of count: how many there are, how many differ, and their sums."""
    rows = []
    for name, program, times, found in perform(case, steps, pools):
        for kind, expected in planned(program, times).items():
            if kind == "pulse slots" and name != "train":  # counted over all programs; averaging fires none
                continue
            here = found[kind]
            keys = {key for key in expected | here if expected[key] or here[key]}
            if keys:
                rows.append({
                    "job": case.name,
                    "program": name,
                    "accelerators": len(program.accelerators),
                    "performed": times,
                    "count": kind,
                    "compared": len(keys),
                    "differ": sum(expected[key] != here[key] for key in keys),
                    "planned": expected.total(),
                    "counted": here.total(),
                })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=int, nargs="?", default=4)
    steps = parser.parse_args().steps
    with ray_session(None):
        rows = [row for case in CASES for row in compare(case, steps)]
    here = Path(__file__)
    here.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    lines = [
        "# What a plan says, and what accelerators on Ray counted",
        "",
        "By `one_description.py`. Compared one by one: an operation, or an operation with a giver (and a taker), or, of"
        " pulse slots, an accelerator.",
        "",
        "| job | program | accelerators | times | count | compared | differ | planned | counted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['job']} | {row['program']} | {row['accelerators']} | {row['performed']} | {row['count']} |"
        f" {row['compared']:,} | {row['differ']} | {row['planned']:,} | {row['counted']:,} |"
        for row in rows
    ]
    text = "\n".join(lines) + "\n"
    here.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
