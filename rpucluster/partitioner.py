"""`partition(job, cluster)`: which accelerator holds which whole tiles."""

from collections.abc import Sequence
from itertools import pairwise

from rpucluster.cluster import Cluster
from rpucluster.errors import CapacityError, PlanError
from rpucluster.job import Job
from rpucluster.model import DenseLayer
from rpucluster.plan import Block, LayerPlan, Plan, Range, Split, covers


def partition(job: Job, cluster: Cluster) -> Plan:
    """Assign every tile of the job's network to an accelerator of the cluster.

    Raises `PlanError` where the parallel degrees do not suit the network or the cluster and `CapacityError`
    where an accelerator would need more tiles than it has.
    """
    parallel, chip = job.parallel, cluster.accelerator
    layers = job.network.layers
    wanted = parallel.tensor * parallel.pipeline * parallel.data
    if wanted > cluster.accelerators:
        raise PlanError(
            f"[parallel] tensor {parallel.tensor} x pipeline {parallel.pipeline} x data {parallel.data} takes "
            f"{wanted} accelerators but {cluster.name} has {cluster.accelerators}; lower one of them or raise "
            f"[network.axis] size"
        )
    _check_pipeline(job, len(layers))
    grids = [(_ceil(la.rows, chip.tile_rows), _ceil(la.cols, chip.tile_cols)) for la in layers]
    if parallel.tensor > 1 and all(grid == (1, 1) for grid in grids):
        raise PlanError(
            f"[parallel] tensor = {parallel.tensor} but every layer fits one {chip.tile_rows} x "
            f"{chip.tile_cols} tile, so none can be split; write 1 or lower [accelerator] tile_rows and tile_cols"
        )
    runs = _balance(grids, job, cluster)
    candidates = [_candidates(i, layer, runs[i], grids[i], job, cluster) for i, layer in enumerate(layers)]
    plan = Plan(
        layers=tuple(_cheapest(candidates, job)),
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        virtual_stages=parallel.virtual_stages,
        data=parallel.data,
        placement=tuple(parallel.placement),
        tile_rows=chip.tile_rows,
        tile_cols=chip.tile_cols,
        tiles_available=chip.tiles,
        accelerators_available=cluster.accelerators,
    )
    _check_capacity(plan, cluster)
    return plan


def _check_pipeline(job: Job, layers: int) -> None:
    parallel, train = job.parallel, job.train
    if parallel.schedule != "interleaved":
        if parallel.pipeline > layers:
            raise PlanError(
                f"[parallel] pipeline = {parallel.pipeline} but the network has {layers} layers; write at most {layers}"
            )
        return
    runs = parallel.pipeline * parallel.virtual_stages
    if runs > layers:
        raise PlanError(
            f"[parallel] pipeline {parallel.pipeline} x virtual_stages {parallel.virtual_stages} takes {runs} layers "
            f"but the network has {layers}; lower one of them"
        )
    microbatches = train.minibatch // train.microbatch
    if microbatches % parallel.pipeline:
        raise PlanError(
            f"[train] minibatch {train.minibatch} in microbatches of {train.microbatch} are {microbatches}, which "
            f'[parallel] schedule = "interleaved" needs to be a multiple of pipeline = {parallel.pipeline}; change '
            f"minibatch or microbatch"
        )


def _check_capacity(plan: Plan, cluster: Cluster) -> None:
    for stage in range(plan.pipeline):
        for rank in range(plan.tensor):
            blocks = [layer.blocks[rank] for layer in plan.stage_layers(stage)]
            needed = sum(block.tiles for block in blocks if block is not None)
            if needed > plan.tiles_available:
                raise CapacityError(
                    f"stage {stage} needs {needed:,} tiles on one accelerator but an accelerator of {cluster.name} "
                    f"has {plan.tiles_available:,}; raise [parallel] tensor or pipeline, or [accelerator] tiles"
                )


def _candidates(
    index: int, layer: DenseLayer, run: int, grid: tuple[int, int], job: Job, cluster: Cluster
) -> list[LayerPlan]:
    """The layer under each split that is asked for; under ``auto``, those that use the most ranks."""
    asked = job.parallel.tensor_split if layer.tensor_split is None else layer.tensor_split
    splits: tuple[Split, ...] = ("output", "input") if asked == "auto" else (asked,)
    plans = [_layer_plan(index, layer, run, grid, split, job, cluster) for split in splits]
    most = max(len(plan.holders) for plan in plans)
    return [plan for plan in plans if len(plan.holders) == most]


def _layer_plan(
    index: int, layer: DenseLayer, run: int, grid: tuple[int, int], split: Split, job: Job, cluster: Cluster
) -> LayerPlan:
    chip = cluster.accelerator
    chunk, stage = divmod(run, job.parallel.pipeline)
    blocks: list[Block | None] = []
    for share in _shares(grid[0] if split == "output" else grid[1], job.parallel.tensor):
        if share[0] == share[1]:
            blocks.append(None)
            continue
        tile_rows, tile_cols = (share, (0, grid[1])) if split == "output" else ((0, grid[0]), share)
        blocks.append(
            Block(
                tile_rows=tile_rows,
                tile_cols=tile_cols,
                rows=(tile_rows[0] * chip.tile_rows, min(tile_rows[1] * chip.tile_rows, layer.rows)),
                cols=(tile_cols[0] * chip.tile_cols, min(tile_cols[1] * chip.tile_cols, layer.cols)),
            )
        )
    return LayerPlan(
        layer=index,
        name=layer.name,
        stage=stage,
        chunk=chunk,
        split=split,
        inputs=layer.inputs,
        outputs=layer.outputs,
        array=(layer.rows, layer.cols),
        tile_grid=grid,
        blocks=tuple(blocks),
    )


def _shares(tiles: int, ranks: int) -> list[Range]:
    """Cut `tiles` into contiguous shares that differ by at most one; ranks beyond the tiles get empty ones.

    Larger shares come last: where the bias opens a column of tiles of its own, the columns before it are still cut
    as the rows of the layer before are.
    """
    filled = min(tiles, ranks)
    each, more = divmod(tiles, filled)
    edges = [0]
    for rank in range(filled):
        edges.append(edges[-1] + each + (rank >= filled - more))
    return [*pairwise(edges), *[(tiles, tiles)] * (ranks - filled)]


def _balance(grids: Sequence[tuple[int, int]], job: Job, cluster: Cluster) -> list[int]:
    """Cut the layers into runs so that the slowest is as quick as can be, then the fullest as empty; which run each
    layer is in.

    A layer takes one pass forward, one backward (not the first: nothing is behind it) and one update per
    sample, whatever its size; arrays do not slow down with their size, only with their number of waves.
    """
    chip = cluster.accelerator
    runs = job.parallel.pipeline * job.parallel.virtual_stages
    update = chip.update_phases * job.update.bit_length * chip.pulse_width
    costs = []
    for i, grid in enumerate(grids):
        tiles = grid[0] * grid[1]
        passes = chip.pass_time("forward") + (chip.pass_time("backward") if i else 0)
        costs.append((chip.waves(tiles) * (passes + update), tiles))
    count = len(grids)
    before = [(0.0, 0)]
    for seconds, tiles in costs:
        before.append((before[-1][0] + seconds, before[-1][1] + tiles))

    def load(start: int, stop: int) -> tuple[float, int]:
        # rounded, so that equal loads compare equal whatever the order of their sum
        return round((before[stop][0] - before[start][0]) * 1e15), before[stop][1] - before[start][1]

    # best[k][j]: the smallest (slowest, fullest) over ways to cut the first j layers into k runs, and its last cut
    best: list[dict[int, tuple[tuple[float, int], int]]] = [{0: ((0.0, 0), 0)}]
    for k in range(1, runs + 1):
        row: dict[int, tuple[tuple[float, int], int]] = {}
        for j in range(k, count - (runs - k) + 1):
            options = []
            for i, (worst, _) in best[k - 1].items():
                if i < j:
                    last = load(i, j)
                    options.append(((max(worst[0], last[0]), max(worst[1], last[1])), i))
            row[j] = min(options)
        best.append(row)
    owner = [0] * count
    stop = count
    for k in range(runs, 0, -1):
        start = best[k][stop][1]
        owner[start:stop] = [k - 1] * (stop - start)
        stop = start
    return owner


def _cheapest(candidates: Sequence[Sequence[LayerPlan]], job: Job) -> list[LayerPlan]:
    """Of the candidates of each layer, those that make the ranks exchange the fewest bits per sample.

    Dynamic programming over the layers, since what a layer's split costs depends only on the split before it.
    Equal costs go to the plan whose fullest ranks hold fewer tiles.
    """
    paths: list[tuple[float, int, list[LayerPlan]]] = [(0.0, 0, [])]
    for options in candidates:
        paths = [
            min(
                (
                    (
                        bits + _exchanged_bits(path[-1] if path else None, here, job),
                        most + _fullest(here),
                        [*path, here],
                    )
                    for bits, most, path in paths
                ),
                key=lambda option: option[:2],
            )
            for here in options
        ]
    return min(paths, key=lambda option: option[:2])[2]


def _fullest(layer: LayerPlan) -> int:
    return max(block.tiles for block in layer.blocks if block is not None)


def _exchanged_bits(before: LayerPlan | None, here: LayerPlan, job: Job) -> float:
    """Bits per sample on all wires: all-reduces of partial sums, gathers of activations and errors.

    A gather brings each element to every other rank, an all-reduce brings it to one place and back.
    """
    others = len(here.holders) - 1
    summed = here.outputs if here.split == "input" else (here.inputs if before else 0)
    bits = 2 * others * summed * job.words.sum_bits
    if before is not None:
        gathers = (not covers(before.gives, here.needs)) + (not covers(here.needs, before.gives))
        others = len({*before.holders, *here.holders}) - 1
        bits += gathers * others * here.inputs * job.words.factor_bits
    return bits


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
