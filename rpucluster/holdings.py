"""What an accelerator holds: its layer shards, and the few flat arrays that all of their tiles live in."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from rpucluster.algorithms import Storage
from rpucluster.arrays import aligned_empty
from rpucluster.cluster import Accelerator as AcceleratorSpec
from rpucluster.job import Job
from rpucluster.kernels import UPDATE_FLOATS, UPDATE_INTS, pack_read, pack_update, step
from rpucluster.layers import ACTIVATIONS
from rpucluster.model import Layer
from rpucluster.plan import Block, LayerPlan, Plan, Range
from rpucluster.settings import stored_lanes
from rpucluster.tile import GridParts, TileGrid


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a tape must know of a layer shard on its accelerator."""

    slot: int
    """Its row in the table of shards."""
    index: int
    """The layer's place in the network."""
    layer: Layer
    gives: Range
    """Outputs of the layer whose sums it makes."""
    needs: Range
    """Inputs of the layer that it takes; the bias line is its own."""
    bias_line: bool

    @property
    def rows(self) -> int:
        """Lines that carry outputs and errors."""
        return self.gives[1] - self.gives[0]

    @property
    def cols(self) -> int:
        """Lines that carry inputs."""
        return self.needs[1] - self.needs[0] + self.bias_line


@dataclass(frozen=True, kw_only=True)
class Held:
    """One layer shard on an accelerator."""

    shard: Shard
    grid: TileGrid
    bias: Any
    """Digital biases of its outputs, float32 (rows,)."""


class Holdings:
    """The shards of accelerator `number` with their initial weights."""

    def __init__(self, number: int, job: Job, spec: AcceleratorSpec, plan: Plan, xp: ModuleType) -> None:
        place = {accelerator: (r, s, t) for r, s, t, accelerator in plan.ranks()}
        self.replica, stage, rank = place[number]
        blocks = [(layer, block) for layer in plan.stage_layers(stage) if (block := layer.blocks[rank]) is not None]
        self._job, self._spec, self._plan, self._xp = job, spec, plan, xp
        self.counts, self.sums = np.zeros(step.COUNTS, np.int64), np.zeros(2, np.float64)
        self._spans = _spans(job, blocks)
        ends = self._spans[-1] if blocks else np.zeros(8, np.int64)
        self._weights, self._lanes = aligned_empty(xp, int(ends[1]), "f4"), xp.empty(int(ends[3]), "i2")
        self._averages, self._biases = xp.zeros((2, int(ends[5])), "f4"), xp.zeros(int(ends[7]), "f4")
        self.by_slot = [self._hold(slot, layer, block) for slot, (layer, block) in enumerate(blocks)]
        """The shards, in the order of the layers."""
        self.by_layer = {held.shard.index: held for held in self.by_slot}
        last = plan.layers[-1]
        self.reports = last.layer in self.by_layer and rank == last.holders[0]
        """Whether this accelerator is the one of its replica that counts loss and hits."""
        self.memory = self._memory() if blocks else None
        """What tapes are performed on; None where there are no shards."""

    @property
    def cells(self) -> int:
        """Cross-points of all shards."""
        return int(self._weights.size)

    def shards(self) -> dict[int, Shard]:
        """The shards by layer."""
        return {layer: held.shard for layer, held in self.by_layer.items()}

    def compiles(self, row: Any) -> bool:
        """Whether a row of a tape is work for a part of compiled code; shapes and settings decide."""
        if row[step.CODE] in step.LEFT_TO_ARRAYS:
            return False
        grid, vectors = self.by_slot[row[step.SLOT]].grid, int(row[step.ROWS])
        if row[step.CODE] == step.READ:
            return not grid.large_read(vectors)
        return row[step.CODE] != step.UPDATE or not grid.large_update(vectors)

    def _hold(self, slot: int, layer: LayerPlan, block: Block) -> Held:
        job, spec, plan = self._job, self._spec, self._plan
        model, span = job.network.layers[layer.layer], self._spans[slot].tolist()
        grid = TileGrid(
            layer=layer.layer,
            replica=self.replica,
            rows=model.rows,
            cols=model.cols,
            tile_rows=plan.tile_rows,
            tile_cols=plan.tile_cols,
            row_tiles=block.tile_rows,
            col_tiles=block.tile_cols,
            device=job.device_of(layer.layer),
            forward=spec.forward,
            backward=spec.backward,
            forward_management=job.forward,
            backward_management=job.backward,
            update=job.update,
            seed=job.train.seed,
            xp=self._xp,
            threads=job.run.threads,
            tolerances=job.run.tolerances,
            algorithm=job.algorithm_of(layer.layer),
            fast_device=job.fast_device_of(layer.layer),
            storage=Storage(self._weights[span[0] : span[1]], self._lanes[span[2] : span[3]]),
            averages=self._averages[:, span[4] : span[5]],
        )
        grid.initialise(job.train.initial_scale / float(np.sqrt(model.inputs + 1)))
        needs = (min(block.cols[0], model.inputs), min(block.cols[1], model.inputs))
        shard = Shard(
            slot=slot,
            index=layer.layer,
            layer=model,
            gives=block.rows,
            needs=needs,
            bias_line=block.cols[1] > model.inputs,
        )
        digital = model.bias == "digital"
        return Held(shard=shard, grid=grid, bias=self._biases[span[6] : span[7]] if digital else None)

    def _memory(self) -> step.Memory:
        parts = [held.grid.parts() for held in self.by_slot]
        shards = np.zeros((len(parts), step.SHARD_COLUMNS), np.int64)
        shards[:, step.CELL : step.TILE_STOP + 1] = self._spans[:, :6]
        for row, held, part, bias in zip(shards, self.by_slot, parts, self._spans[:, 6], strict=True):
            row[step.LINES_OUT], row[step.LINES_IN] = held.shard.rows, held.shard.cols
            row[step.BIAS_START] = -1 if held.bias is None else bias
            row[step.FUNCTION] = ACTIVATIONS[held.shard.layer.activation].code
            row[step.PULSED] = part.update_rule is not None
        updates, reads = [_pack_update(part) for part in parts], [_pack_reads(part) for part in parts]
        return step.Memory(
            shards=shards,
            weights=self._weights,
            lanes=self._lanes,
            table=self._xp.concatenate([part.table for part in parts]),
            update_keys=self._xp.concatenate([part.update_keys for part in parts]),
            read_keys=self._xp.concatenate([part.read_keys for part in parts], axis=1),
            update_ints=np.stack([ints for ints, _ in updates]),
            update_floats=np.stack([floats for _, floats in updates]),
            read_ints=np.stack([ints for ints, _ in reads]),
            read_floats=np.stack([floats for _, floats in reads]),
            averages=self._averages,
            biases=self._biases,
            counts=self.counts,
            sums=self.sums,
        )


def _spans(job: Job, blocks: list[tuple[LayerPlan, Block]]) -> Any:
    """Where each shard lies among the cells, stored lanes, tiles and digital biases: int64 (shards, 8), start and stop
    of each."""
    sizes = [
        (
            block.cells,
            block.cells * stored_lanes(job.run.tolerances, job.device_of(layer.layer)),
            block.tiles,
            (block.rows[1] - block.rows[0]) * (job.network.layers[layer.layer].bias == "digital"),
        )
        for layer, block in blocks
    ]
    stops = np.cumsum(np.array(sizes, np.int64).reshape(-1, 4), axis=0)
    return np.stack([stops - np.array(sizes, np.int64).reshape(-1, 4), stops], axis=2).reshape(-1, 8)


def _pack_update(part: GridParts) -> tuple[Any, Any]:
    if part.update_rule is None:
        return np.zeros(UPDATE_INTS, np.int64), np.zeros(UPDATE_FLOATS, np.float32)
    return pack_update(part.update_rule)


def _pack_reads(part: GridParts) -> tuple[Any, Any]:
    forward, backward = pack_read(part.forward_rule), pack_read(part.backward_rule)
    return np.stack([forward[0], backward[0]]), np.stack([forward[1], backward[1]])
