"""What an accelerator of a stage has to hold: weights, gradients, optimizer state, activations."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rpucluster.conventional.chain import Chain
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


def parameters(work: Work, setting: Setting) -> float:
    """Parameters of a layer that one tensor rank holds; norms are counted as if they were shared too."""
    # where there are stages, the other end of the pipeline has the embedding
    copied = work.layer.weights if work.layer.tied and setting.parallel.pipeline > 1 else 0
    return (work.layer.parameters + copied) / setting.parallel.tensor


@dataclass(frozen=True, kw_only=True)
class Held:
    """What an accelerator of each stage holds, by stage."""

    parameters: NDArray[np.float64]
    waiting: NDArray[np.float64]
    """Bytes that wait for the way back of one microbatch, of one of its runs of layers."""
    working: NDArray[np.float64]
    """Bytes that recomputation of the largest block brings back."""


def held(chain: Chain, cuts: NDArray[np.int64], setting: Setting) -> Held:
    """What does not depend on how many microbatches are in flight; the runs of the chain go round the stages."""
    stages, chunks = setting.parallel.pipeline, setting.parallel.virtual_stages
    recompute = setting.options.recompute
    layers = chain.per_run(cuts).reshape(chunks, stages, -1).sum(axis=0)
    # the last layer goes back at once and works on what it has
    kept = [0.0 if work.ends else kept_bytes(work, setting, recompute) for work in chain.kinds]
    back = [kept_bytes(work, setting, "none") - bytes_ for work, bytes_ in zip(chain.kinds, kept, strict=True)]
    distinct = {block: sum(back[kind] for kind in block) for block in set(chain.blocks)}
    largest = np.maximum.reduceat([distinct[block] for block in chain.blocks], cuts[:-1])
    return Held(
        parameters=layers @ np.array([parameters(work, setting) for work in chain.kinds]),
        waiting=layers @ np.array(kept) / chunks,
        working=largest.reshape(chunks, stages).max(axis=0),
    )


def bytes_per_parameter(setting: Setting) -> float:
    """Of weights, gradients and optimizer state together."""
    return setting.element_bytes + setting.gradient_bytes + ADAM_BYTES


def stage_memories(chain: Chain, cuts: NDArray[np.int64], setting: Setting) -> list[Memory]:
    """What an accelerator of each stage holds when it holds most."""
    parallel, of = setting.parallel, held(chain, cuts, setting)
    stages, chunks = parallel.pipeline, parallel.virtual_stages
    return [
        Memory(
            weights=float(of.parameters[stage]) * setting.element_bytes,
            gradients=float(of.parameters[stage]) * setting.gradient_bytes,
            optimizer=float(of.parameters[stage]) * ADAM_BYTES,
            activations=in_flight(parallel.schedule, stage, stages, setting.microbatches, chunks)
            * float(of.waiting[stage]),
            working=float(of.working[stage]),
        )
        for stage in range(stages)
    ]


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
