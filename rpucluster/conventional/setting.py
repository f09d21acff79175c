"""How a job is spread over conventional accelerators: degrees, batches, widths and options in one value."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import PlanError
from rpucluster.job.conventional import ConventionalSpec
from rpucluster.job.training import ParallelSpec, WordsSpec


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What does not depend on layers or machine.  Raises `PlanError` for what conventional training has not."""

    parallel: ParallelSpec
    minibatch: int
    """Samples per replica and step."""
    microbatch: int
    options: ConventionalSpec
    words: WordsSpec

    def __post_init__(self) -> None:
        parallel = self.parallel
        if parallel.schedule == "async":
            raise PlanError(
                '[parallel] schedule = "async" is for RPUs, whose stages update at once; write "1f1b" for GPUs and CPUs'
            )
        if parallel.expert > 1:
            raise PlanError(f"[parallel] expert = {parallel.expert} is for RPUs; write 1 for GPUs and CPUs")
        if parallel.schedule == "interleaved" and self.microbatches % parallel.pipeline:
            raise PlanError(
                f"{self.microbatches} microbatches cannot be interleaved over [parallel] pipeline = "
                f'{parallel.pipeline}; write a multiple, or schedule = "1f1b"'
            )

    @property
    def microbatches(self) -> int:
        """Of a step, per replica."""
        return self.minibatch // self.microbatch

    @property
    def element_bytes(self) -> float:
        """Of weights, activations and errors."""
        return self.words.factor_bits / 8

    @property
    def gradient_bytes(self) -> float:
        """Of gradients as they are added up and exchanged."""
        return self.words.gradient_bits / 8

    @property
    def sequence_parallel(self) -> bool:
        """Whether norms and residual sums are shared by tokens."""
        return self.options.sequence_parallel and self.parallel.tensor > 1

    @property
    def whole_share(self) -> float:
        """The part of what tensor ranks share only in sequence parallelism that one of them has."""
        return 1 / self.parallel.tensor if self.sequence_parallel else 1.0

    @property
    def mesh(self) -> NDArray[np.int64]:
        """The accelerator of each replica, stage and tensor rank; `placement` names the innermost axis first."""
        parallel = self.parallel
        sizes = {"data": parallel.data, "pipeline": parallel.pipeline, "tensor": parallel.tensor}
        outermost_first = parallel.placement[::-1]
        numbers = np.arange(math.prod(sizes.values())).reshape([sizes[axis] for axis in outermost_first])
        return numbers.transpose([outermost_first.index(axis) for axis in sizes])
