"""The summary of a finished run."""

import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rpucluster import __version__
from rpucluster.accelerator import Counts
from rpucluster.arrays import array_module
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.modelled import Modelled
from rpucluster.program import Read
from rpucluster.runlog import EpochRow
from rpucluster.tile_counts import ReadCount


@dataclass(kw_only=True)
class WallTimes:
    """Where the host's time went, in seconds."""

    start_wall_s: float = 0.0
    """Until the first step; after a restart also since the checkpoint gone back to, whose steps are done again."""
    executor_start_wall_s: float = 0.0
    """Of it, until the accelerators stood ready."""
    train_wall_s: float = 0.0
    evaluate_wall_s: float = 0.0
    checkpoint_wall_s: float = 0.0
    """That training waited for checkpoints."""


def summary(
    job: Job,
    cluster: Cluster,
    executor: str,
    modelled: Modelled,
    *,
    last: EpochRow,
    averages: int,
    digest: str,
    counts: dict[int, Counts],
    times: WallTimes,
    wall_s: float,
) -> dict[str, Any]:
    """What `summary.json` holds of a run whose last epoch is `last`; `counts` are the accelerators'."""
    metrics, plan = modelled.metrics, modelled.plan
    pulses = [c.pulses for c in counts.values()]
    reads = [c.reads for c in counts.values()]
    return {
        "job": job.name,
        "cluster": cluster.name,
        "executor": executor,
        "seed": job.train.seed,
        "arrays": array_module(job.run.arrays).__name__,
        "test_accuracy": last.test_accuracy,
        "test_loss": last.test_loss,
        "train_loss": last.train_loss,
        "train_accuracy": last.train_accuracy,
        "weights": job.network.weights,
        "weights_sha256": digest,
        "accelerators": len(plan.accelerators),
        "accelerators_available": cluster.accelerators,
        "tiles": sum(shard.block.tiles for shard in plan.shards()),
        "steps": last.step,
        "samples": last.samples,
        "epochs": last.epoch,
        "modelled_step_s": metrics.modelled_step_s,
        "modelled_s": last.modelled_s,
        "modelled_energy_J": last.modelled_energy_J,
        "modelled_energy_per_step_J": metrics.energy_J,
        "wall_s": wall_s,
        **asdict(times),
        "samples_per_s": last.samples / times.train_wall_s,
        "compute_fraction": metrics.compute_fraction,
        "exposed_communication_fraction": metrics.exposed_communication_fraction,
        "idle_fraction": metrics.idle_fraction,
        "bubble": metrics.bubble,
        "counts": {
            "passes": sum(r.passes for r in reads),
            "repeats": sum(r.repeats for r in reads),
            **_repeats_per_pass(job, modelled, last.step, reads),
            "update_cycles": sum(p.cycles for p in pulses),
            "pulse_slots": sum(p.slots for p in pulses),
            "coincidences": sum(p.coincidences for p in pulses),
            "expected_coincidences": sum(p.expected_coincidences for p in pulses),
            "line_passes": sum(p.line_passes for p in pulses),
            "line_slots": sum(p.line_slots for p in pulses),
            "line_pulses": sum(p.line_pulses for p in pulses),
            "averages": averages,
        },
        "versions": {
            "rpucluster": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def _repeats_per_pass(job: Job, modelled: Modelled, steps: int, reads: list[ReadCount]) -> dict[str, float]:
    """Mean repeats by bound management of a forward and of a backward pass of a tile, evaluation included.

    Repeats are counted without their direction.  Where only one direction manages its bounds they are all its own;
    where both do, we assume that both repeat equally often.
    """
    backward = steps * sum(
        op.vectors * op.tiles for op in modelled.train if isinstance(op, Read) and op.direction == "backward"
    )
    forward = sum(r.passes for r in reads) - backward
    passes = {"forward": forward, "backward": backward}
    managed = [way for way in passes if getattr(job, way).bound_management != "none"]
    rate = sum(r.repeats for r in reads) / (sum(passes[way] for way in managed) or 1)
    return {f"repeats_per_{way}_pass": rate if way in managed else 0.0 for way in passes}
