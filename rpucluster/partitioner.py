"""`partition(job, cluster)`: which accelerator holds which whole tiles."""

from collections.abc import Sequence
from itertools import pairwise

from rpucluster.cluster import Cluster
from rpucluster.errors import CapacityError
from rpucluster.job import Job
from rpucluster.model import Layer
from rpucluster.plan import Block, LayerPlan, Plan, Range, Split, covers
from rpucluster.proposals import Case, RefusedError, error_of
from rpucluster.stages import balance


def partition(job: Job, cluster: Cluster) -> Plan:
    """Assign every tile of the job's network to an accelerator of the cluster.

    Raises `PlanError` where the parallel degrees do not suit the network or the cluster and `CapacityError`
    where an accelerator would need more tiles than it has; both say what would do.
    """
    case = Case(job, cluster, cluster.accelerators)
    try:
        return _plan(*case)
    except RefusedError as refusal:
        raise error_of(refusal, case, _refused) from None


def _refused(case: Case) -> RefusedError | None:
    try:
        _plan(*case)
    except RefusedError as refusal:
        return refusal
    return None


def _plan(job: Job, cluster: Cluster, accelerators: int) -> Plan:
    """Raises `RefusedError`."""
    parallel, chip = job.parallel, cluster.accelerator
    layers = job.network.layers
    wanted = parallel.tensor * parallel.pipeline * parallel.data
    if wanted > accelerators:
        raise RefusedError(
            f"[parallel] tensor {parallel.tensor} x pipeline {parallel.pipeline} x data {parallel.data} takes "
            f"{wanted} accelerators but {cluster.name} has {accelerators}",
            lower=("tensor", "pipeline", "data"),
            accelerators=wanted,
            otherwise="lower two of them, and raise a [network.axis] size",
        )
    _check_pipeline(job, len(layers))
    _check_experts(job)
    grids = [(_ceil(la.rows, chip.tile_rows), _ceil(la.cols, chip.tile_cols)) for la in layers]
    if parallel.tensor > 1 and all(grid == (1, 1) or la.recurrent for la, grid in zip(layers, grids, strict=True)):
        raise RefusedError(
            f"[parallel] tensor = {parallel.tensor} but every layer fits one {chip.tile_rows} x "
            f"{chip.tile_cols} tile or is recurrent, so none can be split",
            lower=("tensor",),
            otherwise="write tensor = 1 or lower [accelerator] tile_rows and tile_cols",
        )
    plan = Plan(
        layers=cut(job, cluster, balance(layers, job, cluster)),
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        virtual_stages=parallel.virtual_stages,
        data=parallel.data,
        expert=parallel.expert,
        placement=tuple(parallel.placement),
        tile_rows=chip.tile_rows,
        tile_cols=chip.tile_cols,
        tiles_available=chip.tiles,
        accelerators_available=accelerators,
    )
    _check_capacity(plan, cluster)
    return plan


def cut(job: Job, cluster: Cluster, runs: Sequence[int]) -> tuple[LayerPlan, ...]:
    """The layers as tensor ranks share them, in given runs; how each is cut does not depend on the runs."""
    chip, layers = cluster.accelerator, job.network.layers
    grids = [(_ceil(la.rows, chip.tile_rows), _ceil(la.cols, chip.tile_cols)) for la in layers]
    candidates = [_candidates(i, layer, runs[i], grids[i], job, cluster) for i, layer in enumerate(layers)]
    return tuple(_cheapest(candidates, job))


def _check_pipeline(job: Job, layers: int) -> None:
    parallel, train = job.parallel, job.train
    if parallel.schedule != "interleaved":
        if parallel.pipeline > layers:
            raise RefusedError(
                f"[parallel] pipeline = {parallel.pipeline} but the network has {layers} layers",
                lower=("pipeline",),
                otherwise=f"write pipeline = {layers} or less",
            )
        return
    runs = parallel.pipeline * parallel.virtual_stages
    if runs > layers:
        raise RefusedError(
            f"[parallel] pipeline {parallel.pipeline} x virtual_stages {parallel.virtual_stages} takes {runs} layers "
            f"but the network has {layers}",
            lower=("pipeline", "virtual_stages"),
            otherwise="lower both of them",
        )
    microbatches = train.microbatches
    if microbatches % parallel.pipeline:
        step = train.microbatch * parallel.pipeline
        sizes = [size for size in range(train.minibatch, 0, -1) if train.minibatch % (size * parallel.pipeline) == 0]
        raise RefusedError(
            f"[train] minibatch {train.minibatch} in microbatches of {train.microbatch} are {microbatches}, which "
            f'[parallel] schedule = "interleaved" needs to be a multiple of pipeline = {parallel.pipeline}',
            lower=("pipeline",),
            train=[
                *(("microbatch", size) for size in sizes),
                ("minibatch", _ceil(train.minibatch, step) * step),
            ],
            otherwise="change minibatch or microbatch",
        )


def _check_experts(job: Job) -> None:
    expert = job.parallel.expert
    if expert == 1:
        return
    if job.parallel.data % expert:
        raise RefusedError(
            f"[parallel] expert = {expert} replicas share experts but data = {job.parallel.data} is no multiple of it",
            lower=("expert", "data"),
            otherwise="change one of them",
        )
    mixtures = [layer for layer in job.network.layers if layer.routed is not None]
    if not mixtures:
        raise RefusedError(
            f"[parallel] expert = {expert} but no layer has experts", lower=("expert",), otherwise="write expert = 1"
        )
    for layer in mixtures:
        if layer.arrays % expert:
            raise RefusedError(
                f"[parallel] expert = {expert} does not divide the {layer.arrays} experts of {layer.name}",
                lower=("expert",),
                otherwise="write a divisor",
            )


def _check_capacity(plan: Plan, cluster: Cluster) -> None:
    needed = [
        (sum(block.tiles for layer in layers if (block := layer.blocks[rank]) is not None), -stage)
        for stage in range(plan.pipeline)
        if (layers := plan.stage_layers(stage))
        for rank in range(plan.tensor)
    ]
    most, stage = max(needed)
    if most > plan.tiles_available:
        raise RefusedError(
            f"stage {-stage} needs {most:,} tiles on one accelerator but an accelerator of {cluster.name} has "
            f"{plan.tiles_available:,}",
            higher=("tensor", "pipeline"),
            tiles=most,
            otherwise="raise [parallel] tensor and pipeline, or [accelerator] tiles",
            kind=CapacityError,
        )


def _candidates(
    index: int, layer: Layer, run: int, grid: tuple[int, int], job: Job, cluster: Cluster
) -> list[LayerPlan]:
    """The layer under each split that is asked for; under ``auto``, those that use the most ranks."""
    asked = job.parallel.tensor_split if layer.tensor_split is None else layer.tensor_split
    splits: tuple[Split, ...] = ("output", "input") if asked == "auto" else (asked,)
    plans = [_layer_plan(index, layer, run, grid, split, job, cluster) for split in splits]
    most = max(len(plan.holders) for plan in plans)
    return [plan for plan in plans if len(plan.holders) == most]


def _layer_plan(
    index: int, layer: Layer, run: int, grid: tuple[int, int], split: Split, job: Job, cluster: Cluster
) -> LayerPlan:
    chip, tensor = cluster.accelerator, job.parallel.tensor
    chunk, stage = divmod(run, job.parallel.pipeline)
    arrays = layer.arrays // (1 if layer.routed is None else job.parallel.expert)
    blocks: list[Block | None] = []
    # a recurrent layer would exchange its state at every step, so it stays on one rank
    whole = grid[0] if split == "output" else grid[1]
    shares = _shares(whole, 1 if layer.recurrent else tensor)
    for share in [*shares, *[(whole, whole)] * (tensor - len(shares))]:
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
                arrays=arrays,
            )
        )
    return LayerPlan(
        layer=index,
        shape=layer,
        stage=stage,
        chunk=chunk,
        split=split,
        arrays=arrays,
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
    summed = here.shape.sums if here.split == "input" else (here.inputs if before else 0)
    bits = 2 * others * summed * job.words.sum_bits
    if before is not None:
        gathers = (not covers(before.gives, here.needs)) + (not covers(here.needs, before.gives))
        others = len({*before.holders, *here.holders}) - 1
        bits += gathers * others * here.inputs * job.words.factor_bits
    return bits


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
