"""What does `profile` miss where it replays only what the critical path makes worth it?  Writes profile_pruning.json.

    python benchmarks/profile_pruning.py [PLANS] [SEED]

Random small networks on random clusters; every candidate is replayed, as `profile` does for short programs, and it is
counted which of them it would have passed over in a long one because the critical path leaves them 1 % of the step or
less.
"""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster.cluster import Cluster
from rpucluster.errors import InputError
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.metrics import seconds_on_path, summarise
from rpucluster.partitioner import partition
from rpucluster.profile.bottlenecks import WORTH, outcome
from rpucluster.profile.candidates import candidates
from rpucluster.timeline import Timeline, replay
from tests.specs import make_cluster, make_job

PLANS = [(1, 1, 1), (2, 1, 1), (4, 1, 1), (1, 2, 1), (1, 4, 1), (2, 2, 1), (2, 2, 2), (4, 2, 1), (1, 2, 2), (1, 1, 4)]
"""Tensor, pipeline, data."""


def timed(job: Job, cluster: Cluster) -> Timeline:
    return replay(lower(partition(job, cluster), job), cluster)


def draw(rng: random.Random) -> tuple[Job, Cluster]:
    tensor, pipeline, data = rng.choice(PLANS)
    minibatch = rng.choice([1, 2, 4, 8])
    job = make_job(
        model={"preset": "mlp", "sizes": rng.choices([16, 32, 48, 64], k=rng.randint(5, 8)), "activation": "tanh"},
        parallel={
            "tensor": tensor, "pipeline": pipeline, "data": data,
            "schedule": rng.choice(["gpipe", "1f1b"]) if pipeline > 1 else "gpipe",
        },
        train={
            "minibatch": minibatch, "microbatch": rng.choice([n for n in (1, 2, 4, 8) if minibatch % n == 0]),
        },
    )  # fmt: skip
    cluster = make_cluster(
        8,
        kind=rng.choice(["ring", "switch", "fully_connected", "mesh"]),
        bandwidth=rng.choice(["0.1 GB/s", "1 GB/s", "50 GB/s"]),
        latency=rng.choice(["0 s", "50 ns", "500 ns"]),
        tiles=1000,
        active_tiles=rng.choice([4, 16, 1000]),
        digital_rate=rng.choice(["100 Mop/s", "1 Gop/s", "1 Top/s"]),
    )
    return job, cluster


def main() -> None:
    given = sys.argv[1:]
    plans, seed = (int(argument) for argument in [*given, *["400", "1"][len(given) :]])
    rng = random.Random(seed)
    found = {"plans": 0, "candidates": 0, "refused": 0, "passed_over": 0, "of_them_gain_more_than_1_percent": 0}
    missed: list[float] = []
    while found["plans"] < plans:
        job, cluster = draw(rng)
        before = timed(job, cluster)
        found["plans"] += 1
        for candidate in candidates(job, cluster, before, summarise(before), seconds_on_path(before)):
            found["candidates"] += 1
            over = candidate.most_s <= WORTH * before.makespan_s
            found["passed_over"] += over
            try:
                gain = outcome(job, cluster, candidate.changes, before, timed).gain
            except InputError:
                found["refused"] += 1
                continue
            if over and gain > WORTH:
                found["of_them_gain_more_than_1_percent"] += 1
                missed.append(round(gain, 4))
    result = {"seed": seed, **found, "gains_missed": sorted(missed, reverse=True)}
    (Path(__file__).parent / "profile_pruning.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
