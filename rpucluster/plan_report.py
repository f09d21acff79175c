"""A plan as plain values: what ``plan`` prints, ``plan.json`` holds and the reports draw."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rpucluster.axis_traffic import AxisUse
from rpucluster.buffers import BufferUse
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.metrics import LinkUse
from rpucluster.plan import Plan


class Step(Protocol):
    """What a step costs, as `Metrics` says it, or a projection."""

    @property
    def modelled_step_s(self) -> float: ...
    @property
    def energy_J(self) -> float: ...
    @property
    def links(self) -> Sequence[LinkUse]: ...
    @property
    def axes(self) -> Sequence[AxisUse]: ...


def describe(
    job: Job,
    cluster: Cluster,
    plan: Plan,
    step: Step,
    buffers: Iterable[BufferUse],
    why_not_exact: str | None = None,
) -> dict[str, Any]:
    """Which layer shards sit on which accelerator, how full each is, what it holds besides and what each axis and link
    carries in a step; why what is said of a step is not known to be exact, if it is not.
    """
    shards = list(plan.shards())
    tiles, cells = Counter[int](), Counter[int]()
    for shard in shards:
        tiles[shard.accelerator] += shard.block.tiles
        cells[shard.accelerator] += shard.block.cells
    tile_cells = plan.tile_rows * plan.tile_cols
    places = {a: (replica, stage, rank) for replica, stage, rank, a in plan.ranks() if a in tiles}
    used = sum(tiles.values())
    return {
        "job": job.name,
        "cluster": cluster.name,
        "tensor": plan.tensor,
        "pipeline": plan.pipeline,
        "virtual_stages": plan.virtual_stages,
        "data": plan.data,
        "expert": plan.expert,
        "schedule": job.parallel.schedule,
        "data_sync": job.parallel.data_sync if plan.data > 1 or job.parallel.data_sync == "gradient" else None,
        "minibatch": job.train.minibatch,
        "microbatch": job.train.microbatch,
        "tile_rows": plan.tile_rows,
        "tile_cols": plan.tile_cols,
        "accelerators_available": plan.accelerators_available,
        "accelerators": len(places),
        "tiles": used,
        "tiles_available": plan.accelerators_available * plan.tiles_available,
        "weights": job.network.weights,
        "fill": sum(cells.values()) / (used * tile_cells),
        "modelled_step_s": step.modelled_step_s,
        "modelled_energy_per_step_J": step.energy_J,
        "why_not_exact": why_not_exact,
        "layers": [
            {
                "layer": layer.layer,
                "name": layer.name,
                "kind": layer.shape.kind,
                "rows": layer.shape.rows,
                "cols": layer.shape.cols,
                "arrays": layer.shape.arrays,
                "positions": layer.shape.positions,
                "weights": layer.shape.weights,
                "split": layer.split,
                "stage": layer.stage,
                "chunk": layer.chunk,
                "tile_grid": list(layer.tile_grid),
                "tiles": layer.shape.arrays * layer.tile_grid[0] * layer.tile_grid[1],
                "ranks": len(layer.holders),
            }
            for layer in plan.layers
        ],
        "shards": [
            {
                "layer": shard.layer,
                "name": shard.name,
                "replica": shard.replica,
                "stage": shard.stage,
                "tensor_rank": shard.tensor_rank,
                "accelerator": shard.accelerator,
                "arrays": shard.block.arrays,
                "tile_rows": list(shard.block.tile_rows),
                "tile_cols": list(shard.block.tile_cols),
                "rows": list(shard.block.rows),
                "cols": list(shard.block.cols),
                "tiles": shard.block.tiles,
                "weights": shard.block.cells,
            }
            for shard in shards
        ],
        "by_accelerator": [
            {
                "accelerator": a,
                "replica": places[a][0],
                "stage": places[a][1],
                "tensor_rank": places[a][2],
                "tiles": tiles[a],
                "tiles_available": plan.tiles_available,
                "weights": cells[a],
                "fill": cells[a] / (tiles[a] * tile_cells),
            }
            for a in sorted(places)
        ],
        "buffers": [
            {
                "accelerator": use.accelerator,
                "in_flight_microbatches": use.in_flight,
                **{f"{kind}_elements": elements for kind, elements in use.elements.items()},
                "peak_bytes": use.peak_bytes,
                "buffer_bytes": cluster.accelerator.buffer,
            }
            for use in buffers
        ],
        "axes": [
            {
                "axis": use.axis,
                "kind": use.kind,
                "size": use.size,
                "bytes_per_step": dict(use.bytes),
                "busiest_link_bytes": use.busiest_bytes,
                "busiest_link_utilisation": use.utilisation,
            }
            for use in step.axes
        ],
        "links": [
            {"link": use.name, "axis": use.axis, "bytes_per_step": use.bytes, "utilisation": use.utilisation}
            for use in step.links
        ],
        "warnings": _warnings(job, cluster, plan),
    }


def _warnings(job: Job, cluster: Cluster, plan: Plan) -> list[str]:
    found = []
    if plan.data > 1 and job.parallel.data_sync == "factors":
        chip = cluster.accelerator
        pulses = chip.update_phases * job.update.bit_length * chip.pulse_width
        bound = (chip.pass_time("forward") + chip.pass_time("backward") + pulses) / pulses
        found.append(
            f"every replica fires the updates of all samples, so however many replicas there are, they are at most "
            f"{bound:.3g} times as fast as one"
        )
    of_layers: dict[str, list[str]] = {}
    for layer in plan.layers:
        lines = layer.shape.cols - 1
        if layer.shape.bias == "column" and lines % plan.tile_cols == 0:
            text = (
                f"the bias column opens a new tile column of its own, since {lines} inputs fill "
                f'{lines // plan.tile_cols} tiles exactly; bias = "digital" avoids it'
            )
            of_layers.setdefault(text, []).append(layer.name)
        if len(layer.holders) < plan.tensor:
            text = (
                f"only {len(layer.holders)} of {plan.tensor} tensor ranks hold tiles of it "
                f"({layer.tile_grid[0]} x {layer.tile_grid[1]} tiles, {layer.split} split)"
            )
            of_layers.setdefault(text, []).append(layer.name)
    for text, names in of_layers.items():
        several = f"{names[0]} and {len(names) - 1} more" if len(names) > 3 else ", ".join(names)
        found.append(f"{several}: {text}")
    return found
