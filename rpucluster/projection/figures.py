"""What a step costs as the columns of a row, on RPUs and on conventional accelerators."""

from typing import Any

from rpucluster.conventional import ConventionalStep
from rpucluster.job import Job
from rpucluster.projection.step import Estimate


def figures(job: Job, found: Estimate) -> dict[str, Any]:
    """A step on RPUs."""
    plan, step = found.plan, found.step
    batch = job.train.minibatch * plan.data
    return {
        "weights": job.network.weights,
        "accelerators": plan.tensor * plan.pipeline * plan.data,
        "tiles": plan.data * sum(layer.arrays * layer.tile_grid[0] * layer.tile_grid[1] for layer in plan.layers),
        "tensor": plan.tensor,
        "pipeline": plan.pipeline,
        "data": plan.data,
        "global_batch": batch,
        "microbatch": job.train.microbatch,
        "modelled_step_s": step.modelled_s,
        "samples_per_s": batch / step.modelled_s if step.modelled_s else None,
        "modelled_energy_J": step.all_J,
        "communication_fraction": step.communication_fraction,
        "exact": found.exact,
        "why_not_exact": found.why_not_exact,
        "operations": step.operations,
        "link_bytes": step.link_bytes,
        **{f"{component}_s": seconds for component, seconds in step.seconds.items()},
        **{f"energy_{component}_J": joules for component, joules in step.energy_J.items()},
    }


def conventional_figures(job: Job, step: ConventionalStep) -> dict[str, Any]:
    """A step on GPUs or CPUs, which have no tiles; seconds by the same components as far as they are alike."""
    parallel = job.parallel
    return {
        "weights": job.network.weights,
        "accelerators": step.accelerators,
        "tiles": 0,
        "tensor": parallel.tensor,
        "pipeline": parallel.pipeline,
        "data": parallel.data,
        "global_batch": step.samples,
        "microbatch": job.train.microbatch,
        "modelled_step_s": step.modelled_step_s,
        "samples_per_s": step.samples_per_s,
        "modelled_energy_J": step.energy_J,
        "communication_fraction": step.communication_fraction,
        "exact": False,
        "why_not_exact": "a closed form (docs/baselines.md)",
        "forward_s": step.forward_s,
        "backward_s": step.backward_s,
        "recompute_s": step.recompute_s,
        "update_s": step.optimizer_s,
        "exposed_communication_s": step.communication_s,
        "bubble_s": step.bubble_s,
        "flops_per_s": step.flops_per_s,
    }
