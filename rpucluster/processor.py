"""A conventional accelerator, GPU or CPU, as a roofline whose roofs matrices of ordinary size do not reach."""

import math
from typing import Literal

from pydantic import Field

from rpucluster.config import Bytes, BytesPerSecond, FlopsPerSecond, Seconds, Spec, Watts


class Processor(Spec):
    """One GPU or CPU: how fast it multiplies, how fast its memory is, and what it draws.

    A kernel takes `kernel_time` and then the longer of two times: its floating-point operations at
    `peak_rate * efficiency / (1 + half_size (1/m + 1/n + 1/k))`, and its bytes at
    `memory_bandwidth * memory_efficiency`.
    """

    kind: Literal["gpu", "cpu"]
    """What it is called in tables; both are modelled alike."""
    peak_rate: FlopsPerSecond = Field(gt=0, lt=math.inf)
    """Of dense matrix products at the width of ``[words] factor_bits``; a multiply-accumulate is two operations."""
    memory: Bytes = Field(gt=0, lt=math.inf)
    """What weights, gradients, optimizer state and activations have to fit into."""
    memory_bandwidth: BytesPerSecond = Field(gt=0, lt=math.inf)
    """Of that memory, read and written bytes together."""
    efficiency: float = Field(0.8, gt=0, le=1)
    """The share of the peak rate that a product of endless matrices reaches.  U; fit it to measured products."""
    half_size: float = Field(0.0, ge=0, lt=math.inf, allow_inf_nan=False)
    """Length of one side of a product at which, the other two being endless, half of that share is left."""
    memory_efficiency: float = Field(0.8, gt=0, le=1)
    """The share of the memory bandwidth that streaming kernels reach.  B: usual for stream benchmarks."""
    kernel_time: Seconds = Field("0 s", ge=0, lt=math.inf, validate_default=True)
    """What every kernel takes besides its work: launch and tail."""
    busy_power: Watts = Field(ge=0, lt=math.inf)
    """Drawn while it computes or communicates."""
    idle_power: Watts = Field("0 W", ge=0, lt=math.inf, validate_default=True)
    """Drawn while it waits."""

    def product_s(self, count: float, m: float, n: float, k: float, word: float) -> float:
        """Seconds of `count` products of an (m, k) and a (k, n) matrix of words of so many bytes, in one kernel."""
        rate = self.peak_rate * self.efficiency / (1 + self.half_size * (1 / m + 1 / n + 1 / k))
        moved = count * (m * k + k * n + m * n) * word
        return float(self.kernel_time + max(2 * count * m * n * k / rate, self._moving_s(moved)))

    def stream_s(self, moved: float, kernels: int = 1) -> float:
        """Seconds of element-wise kernels that read and write so many bytes together."""
        return float(kernels * self.kernel_time + self._moving_s(moved))

    def _moving_s(self, moved: float) -> float:
        return float(moved / (self.memory_bandwidth * self.memory_efficiency))
