"""What an accelerator of a stage has to hold: weights, gradients, optimizer state, activations."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rpucluster.conventional.setting import Setting
from rpucluster.conventional.work import Work
from rpucluster.errors import CapacityError
from rpucluster.processor import Processor
from rpucluster.schedule import in_flight
from rpucluster.units import format_quantity

ADAM_BYTES = 12
"""Of optimizer state per parameter: a copy in single precision and two moments (Narayanan et al. 2021)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes by kind on the fullest accelerator."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """Of all microbatches in flight, or what recomputation starts from."""
    working: float
    """What recomputation of the largest block brings back."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


def stage_parameters(stage: Sequence[Work], setting: Setting) -> float:
    """Parameters of one tensor rank of a stage; norms are counted as if they were shared too."""
    held = sum(work.layer.parameters for work in stage)
    if setting.parallel.pipeline > 1:  # the other end of the pipeline has the embedding
        held += sum(work.layer.weights for work in stage if work.layer.tied)
    return held / setting.parallel.tensor


def stage_memory(stage: int, own: Sequence[Sequence[Work]], setting: Setting) -> Memory:
    """What an accelerator of a stage holds, whose runs of layers are `own`, when it holds most."""
    parallel = setting.parallel
    parameters = sum(stage_parameters(run, setting) for run in own)
    flying = in_flight(parallel.schedule, stage, parallel.pipeline, setting.microbatches, parallel.virtual_stages)
    waiting = sum(_kept_bytes(run, setting) for run in own) / len(own)
    return Memory(
        weights=parameters * setting.element_bytes,
        gradients=parameters * setting.gradient_bytes,
        optimizer=parameters * ADAM_BYTES,
        activations=flying * waiting,
        working=max(_working_bytes(run, setting) for run in own),
    )


def check(memory: Memory, stage: int, processor: Processor, cluster: str) -> None:
    """Raise `CapacityError` where it does not fit."""
    if memory.total > processor.memory:
        parts = ", ".join(
            f"{field.name} {format_quantity(getattr(memory, field.name), 'size')}" for field in fields(memory)
        )
        raise CapacityError(
            f"stage {stage} needs {format_quantity(memory.total, 'size')} on each accelerator ({parts}) but one of "
            f"{cluster} has {format_quantity(processor.memory, 'size')}; raise [parallel] tensor or pipeline, lower "
            f'[train] microbatch, or write [conventional] recompute = "full"'
        )


def kept_bytes(work: Work, setting: Setting, recompute: str) -> float:
    """Bytes of a layer that wait for the way back of one microbatch, on one tensor rank."""
    ranks = setting.parallel.tensor
    if recompute == "full" and not work.ends:
        # blocks keep what goes into them; a norm in front takes the residual stream, which is its input
        elements = work.layer.inputs * setting.whole_share if work.opens else 0.0
    else:
        elements = work.whole_kept * setting.whole_share + work.shared_kept / ranks
        if recompute == "none":
            elements += work.score_kept / ranks
    return setting.microbatch * setting.element_bytes * elements


def _kept_bytes(run: Sequence[Work], setting: Setting) -> float:
    # the last layer goes back at once and works on what it has
    return sum(kept_bytes(work, setting, setting.options.recompute) for work in run if not work.ends)


def _working_bytes(run: Sequence[Work], setting: Setting) -> float:
    largest = block = 0.0
    for work in run:
        if work.opens:
            block = 0.0
        block += kept_bytes(work, setting, "none") - (
            kept_bytes(work, setting, setting.options.recompute) if not work.ends else 0.0
        )
        largest = max(largest, block)
    return largest
