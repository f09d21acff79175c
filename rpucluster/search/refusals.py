"""What is said where no plan is legal or fits: what there is, and what would do."""

import math
from collections.abc import Collection, Iterable

from rpucluster.cluster import Cluster
from rpucluster.conventional import setting_of
from rpucluster.conventional.memory import bytes_per_parameter
from rpucluster.errors import CapacityError, ConfigError, PlanError
from rpucluster.job import Job
from rpucluster.search.bounds import Bounds
from rpucluster.search.space import KEPT, OF_PROCESSORS, OF_RPUS, Batch, Candidate, Kept, with_plan
from rpucluster.units import format_quantity


def check_kept(keep: Collection[str], cluster: Cluster) -> None:
    """Raise `ConfigError` for what is no key, or none of the accelerators of the cluster."""
    wrong, whose = (OF_PROCESSORS, "GPUs and CPUs") if cluster.has_tiles else (OF_RPUS, "RPUs")
    there = [key for key in KEPT if key not in wrong]
    for word in keep:
        if word not in there:
            why = f" is for {whose}, which {cluster.name} has not" if word in wrong else ""
            raise ConfigError(f"--keep {word}{why}: write {', '.join(there)}")


def no_legal_plan(job: Job, cluster: Cluster, keep: Collection[Kept]) -> PlanError:
    """No plan has what is kept."""
    parallel, train = job.parallel, job.train
    values = {
        "tensor": parallel.tensor,
        "pipeline": parallel.pipeline,
        "data": parallel.data,
        "microbatch": train.microbatch,
        "schedule": f"{parallel.schedule} x {parallel.virtual_stages}",
    }
    held = ", ".join(f"{key} = {value}" for key, value in values.items() if key in keep) or "nothing"
    return PlanError(
        f"no plan is legal: {cluster.name} has {cluster.accelerators:,} accelerators, {job.name} "
        f"{len(job.network.layers):,} layers, a global batch of {train.minibatch * parallel.data:,} samples and "
        f"[parallel] expert = {parallel.expert}, and {held} is kept; keep less, or change these with --set"
    )


def too_few_tiles(
    job: Job, cluster: Cluster, legal: Iterable[Batch], bounds: Bounds, keep: Collection[Kept]
) -> CapacityError:
    """On RPUs, no plan has room for the tiles that each accelerator is given."""
    chip, layers = cluster.accelerator, job.network.layers
    cells, held = job.network.weights, cluster.accelerators * chip.tiles * chip.tile_rows * chip.tile_cols
    tiles = sum(la.arrays * -(-la.rows // chip.tile_rows) * -(-la.cols // chip.tile_cols) for la in layers)
    takes = -(-tiles // chip.tiles)
    if takes > cluster.accelerators:
        what = f"it takes {takes:,} such accelerators or more: raise a [network.axis] size"
    else:
        kept = [key for key in keep if key in ("tensor", "pipeline", "schedule")]
        what = f"its {tiles:,} tiles would fit on {takes:,}, but not by whole tiles and layers and with degrees that "
        what += "are tried: " + (f"leave out --keep {','.join(kept)}" if kept else "change a [network.axis] size")
    most = min(bounds.tiles(*degrees) for degrees in {each.degrees[:2] for each in legal})
    return CapacityError(
        f"no plan fits: {job.name} has {cells:,} weights and {cluster.name} holds {held:,} in {cluster.accelerators:,} "
        f"accelerators of {chip.tiles:,} tiles, of which edges stay empty; {what}"
        + (f", or write [accelerator] tiles = {most:.0f} or more" if math.isfinite(most) else "")
    )


def too_slow(job: Job, cluster: Cluster, budget_s: float) -> PlanError:
    """No replay came to its end."""
    return PlanError(
        f"no plan of {job.name} on {cluster.name} could be replayed in {budget_s:g} s on this machine; write "
        f"--budget-s {max(60, 4 * budget_s):g}, or hold what you know with --keep"
    )


def too_little_memory(job: Job, cluster: Cluster, needs: float, plan: Candidate) -> CapacityError:
    """On GPUs and CPUs, the plan that needs least needs too much."""
    memory, setting = cluster.processor.memory, setting_of(with_plan(job, plan))
    state = sum(layer.parameters for layer in job.network.layers) * bytes_per_parameter(setting)
    return CapacityError(
        f"no plan fits: the one that needs least, {plan.tensor} x {plan.pipeline} x {plan.data} with microbatch = "
        f'{plan.microbatch} and recompute = "{plan.recompute}", takes {format_quantity(needs, "size")} on an '
        f"accelerator of {cluster.name}, which has {format_quantity(memory, 'size')}; weights, gradients and "
        f"optimizer state alone fill {math.ceil(state / memory):,}: raise a [network.axis] size or [accelerator] memory"
    )
