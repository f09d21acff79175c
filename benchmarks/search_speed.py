"""What a search takes: its bounds, its replays and its memory.

    python benchmarks/search_speed.py          # each search in a process of its own, on one core

Writes search_speed.json beside it; search_speed.md says what that means.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

JOBS = ("gpt_175b", "gpt_1t")


def measure(name: str) -> dict[str, Any]:
    """One search; the bounds are what is left of its time without replays."""
    from rpucluster.cluster import load_cluster
    from rpucluster.job import load_job
    from rpucluster.search import search as module

    job, cluster = load_job(name), load_cluster("rpu_pod_4096")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    replays: list[float] = []
    perform = module.estimate

    def timed(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return perform(*args, **options)
        finally:
            replays.append(time.perf_counter() - began)

    module.estimate = timed
    found = module.search(job, cluster)
    bounds_s = found.wall_s - sum(replays)
    best = found.found[0]
    return {
        "job": name,
        "plans": found.plans,
        "fitting": found.fitting,
        "bounds_wall_s": bounds_s,
        "plans_per_s": found.plans / bounds_s,
        "fitting_per_s": found.fitting / bounds_s,
        "replays_wall_s": replays,
        "wall_s": found.wall_s,
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "before_MB": before / 1e3,
        "best": list(best.candidate[:10]),
        "modelled_step_s": best.modelled_s,
        "exact": best.why_not_exact is None,
        "no_plan_below_s": found.unsettled_s,
        "gap": found.gap,
    }


def main() -> None:
    """Measure all jobs, or the one that is named."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    rows = [
        json.loads(subprocess.run([sys.executable, __file__, job], check=True, capture_output=True, text=True).stdout)
        for job in JOBS
    ]
    Path(__file__).with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
