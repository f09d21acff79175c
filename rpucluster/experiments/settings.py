"""The settings that the paper's experiments share, as ``section.key=value``."""

from rpucluster.experiments.confidence import Confidence, Reference
from rpucluster.experiments.points import CONTROL, FIRST, Point

BASE_JOB, BASE_CLUSTER = "mnist_paper", "paper_chip"

VALIDATION_IMAGES = 10_000
"""The last so many training images, on which settings are chosen."""
VALIDATION = (f"data.validation={VALIDATION_IMAGES}",)

FLOATING_POINT = ("device.preset=floating-point",)
NO_MANAGEMENT = (
    "forward.noise_management=none",
    "forward.bound_management=none",
    "backward.noise_management=none",
    "backward.bound_management=none",
)
NO_CONVERTERS = tuple(
    f"accelerator.{direction}.{key}=0" for direction in ("forward", "backward") for key in ("input_bits", "output_bits")
)


def noise(sigma: float) -> tuple[str, ...]:
    """Noise of the outputs of both passes, in units of the activation temperature, which is 1."""
    return (f"accelerator.forward.read_noise={sigma}", f"accelerator.backward.read_noise={sigma}")


def output_bound(bound: float) -> tuple[str, ...]:
    """Bound of the outputs of both passes."""
    return (f"accelerator.forward.output_bound={bound}", f"accelerator.backward.output_bound={bound}")


def weight_bound(bound: float) -> tuple[str, ...]:
    """Mean bound of the weights, of both signs."""
    return (f"device.w_max={bound}", f"device.w_min={-bound}")


EXACT_READS = (*NO_MANAGEMENT, *NO_CONVERTERS, *output_bound(float("inf")), *noise(0.0))
"""Products as a computer makes them; under test is only the update."""
UNBOUNDED = weight_bound(100.0)
"""Bounds that no weight reaches."""
STOCHASTIC_UPDATE = (
    "device.preset=ideal",
    "device.dw_min=0.001",
    *UNBOUNDED,
    "update.bit_length=10",
    "update.update_management=false",
    "update.dynamic_bit_length=false",
    *EXACT_READS,
)
"""The base of Fig 3: stochastic pulses of 10 slots, step 0.001, k = 0, and no imperfection (B)."""

CONTROL_POINT = Point(
    label="floating point",
    sets=FLOATING_POINT,
    priority=CONTROL,
    recalled=True,
    reference=Reference(code=Confidence.RECALLED, text="2.0 %", value=0.020, note="at epoch 30"),
)
VALIDATION_CONTROL = Point(label="floating point", sets=(*FLOATING_POINT, *VALIDATION), priority=FIRST)
BASE_POINT = Point(
    label="stochastic pulses alone",
    sets=STOCHASTIC_UPDATE,
    priority=CONTROL,
    reference=Reference(code=Confidence.RECALLED, text="as floating point", value=0.020),
)
