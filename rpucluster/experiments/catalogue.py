"""The paper's experiments, declared: which settings are trained with, and what each is compared with."""

import dataclasses
from collections.abc import Sequence

from rpucluster.errors import ConfigError
from rpucluster.experiments.confidence import Confidence, Reference
from rpucluster.experiments.points import CONTROL, FAR, FIRST, NEAR, NEXT, SECOND, Panel, Point
from rpucluster.experiments.settings import (
    BASE_POINT,
    CONTROL_POINT,
    NO_CONVERTERS,
    NO_MANAGEMENT,
    STOCHASTIC_UPDATE,
    VALIDATION,
    VALIDATION_CONTROL,
    noise,
    output_bound,
    weight_bound,
)
from rpucluster.experiments.stress_tests import STRESS_TESTS

B, S, WEAK = Confidence.RECALLED, Confidence.RESTATED, Confidence.WEAK
_BARE = ("device.preset=rpu-baseline", *NO_MANAGEMENT, *NO_CONVERTERS, *output_bound(12.0), *noise(0.06))
"""The combined device and noise without converters or management: whether the paper's runs had either is unknown."""


def _pulse_length(slots: int, reference: Reference) -> Point:
    return Point(
        label=f"BL {slots}",
        value=float(slots),
        sets=(*STOCHASTIC_UPDATE, f"update.bit_length={slots}", f"device.dw_min={0.01 / slots}"),
        priority=CONTROL if slots == 10 else NEXT,
        recalled=True,
        reference=reference,
    )


def _half_select(k: float, reference: Reference | None = None) -> Point:
    return Point(
        label=f"k = {k:g}",
        value=k,
        sets=(*STOCHASTIC_UPDATE, f"device.half_select={k}"),
        priority=NEAR if k in (0.05, 0.1, 0.2) else NEXT if k == 0.4 else FAR,
        recalled=k in (0.1, 0.4, 0.5),
        **({} if reference is None else {"reference": reference}),
    )


_FIG2 = (
    Panel(
        figure="fig2",
        name="A",
        title="length of the pulse trains",
        control=CONTROL_POINT,
        points=(
            _pulse_length(10, Reference(code=B, text="as floating point", value=0.020)),
            _pulse_length(2, Reference(code=B, text="worse")),
            _pulse_length(1, Reference(code=B, text="worse still")),
        ),
        note="step = 0.01 / BL, so that the gain is 1 at the first learning rate; it follows the later ones",
    ),
    Panel(
        figure="fig2",
        name="B",
        title="nonlinearity of a half-selected pulse",
        parameter="k",
        control=CONTROL_POINT,
        points=(
            _half_select(0.01),
            _half_select(0.05),
            _half_select(0.1, Reference(code=B, text="as floating point", value=0.020)),
            _half_select(0.2),
            _half_select(0.4),
            _half_select(0.5, Reference(code=B, text="does not converge")),
        ),
        scale="linear",
        threshold=Reference(code=B, text="<= 0.1", value=0.1),
        note="BL 10 and step 0.001; a pulse on one line alone changes the device by k steps",
    ),
)

_THRESHOLDS = (
    *("device.dw_min=0.01", "device.dw_min_std=1.5", "device.dw_min_dtod=1.1"),
    *weight_bound(0.3),
    *("device.w_max_dtod=0.8", "device.w_min_dtod=0.8", "device.up_down=0.05", "device.up_down_dtod=0.03"),
    *noise(0.1),
)
_FIG4 = (
    Panel(
        figure="fig4",
        name="models",
        title="several imperfections at once",
        control=CONTROL_POINT,
        points=(
            BASE_POINT,
            Point(
                label="model 3: RPU-baseline",
                sets=_BARE,
                priority=SECOND,
                recalled=True,
                reference=Reference(code=S, text="<= 0.3 % over floating point", note="2.3 % is recalled (B)"),
            ),
            Point(
                label="RPU-baseline, settings of mnist_paper",
                sets=(),
                priority=SECOND,
                recalled=True,
                reference=Reference(code=S, text="<= 0.3 % over floating point", note="2.3 % is recalled (B)"),
            ),
            Point(
                label="steps and bounds spread (C, D, E)",
                sets=(
                    *STOCHASTIC_UPDATE,
                    *("device.dw_min_std=1.5", "device.dw_min_dtod=1.1"),
                    *weight_bound(1.0),
                    *("device.w_max_dtod=0.8", "device.w_min_dtod=0.8"),
                ),
                priority=NEXT,
                recalled=True,
                reference=Reference(code=WEAK, text="about 2.9 %", value=0.029),
            ),
            Point(
                label="asymmetry (F, H)",
                sets=(*STOCHASTIC_UPDATE, "device.up_down=0.05", "device.up_down_dtod=0.03"),
                priority=NEXT,
                recalled=True,
                reference=Reference(code=WEAK, text="about 2.7 %", value=0.027, note="recalled for F, G, H"),
            ),
            Point(
                label="model 1: all at their thresholds",
                sets=(*STOCHASTIC_UPDATE, *_THRESHOLDS),
                priority=NEXT,
                recalled=True,
                reference=Reference(code=B, text="about 5.0 %", value=0.05),
            ),
        ),
        note="model 2 is not known but for two partial sets, which stand in for it; of the two asymmetries, which "
        "exclude each other, F is taken at 5 %",
    ),
)

_CANDIDATES = (
    ("bare: no converters, no management", _BARE),
    ("bare + abs-max backward", (*_BARE, "backward.noise_management=abs_max")),
    ("5-bit inputs, 9-bit outputs", ("device.preset=rpu-baseline", *NO_MANAGEMENT)),
    ("5-bit inputs, 9-bit outputs + abs-max backward", ()),
    ("the same, abs-max both ways", ("forward.noise_management=abs_max",)),
    ("the same + update management", ("update.update_management=true",)),
    ("7-bit inputs + abs-max backward", ("accelerator.forward.input_bits=7", "accelerator.backward.input_bits=7")),
)
_MNIST = (
    Panel(
        figure="mnist",
        name="validation",
        title="choice of the periphery",
        control=VALIDATION_CONTROL,
        points=tuple(Point(label=label, sets=(*sets, *VALIDATION), priority=FIRST) for label, sets in _CANDIDATES),
        first_seed=101,  # so that the seeds of the test set are fresh
        note="trained on the first 50,000 training images and tested on the last 10,000; the test set plays no part",
    ),
    Panel(
        figure="mnist",
        name="test",
        title="the criterion: 0.3 % over floating point",
        control=dataclasses.replace(CONTROL_POINT, priority=SECOND),
        points=(
            dataclasses.replace(BASE_POINT, priority=SECOND),
            *(point for point in _FIG4[0].points if point.priority == SECOND),
        ),
        note="the settings of mnist_paper, chosen on the validation images, and for comparison none",
    ),
)

FIGURES = {"fig2": _FIG2, "fig3": STRESS_TESTS, "fig4": _FIG4, "mnist": _MNIST}
"""The panels of every figure."""


def panels_of(figures: Sequence[str], only: Sequence[str] = ()) -> tuple[Panel, ...]:
    """The panels of some figures, or those of them that `only` names (``"A"`` or ``"fig3.A"``).

    Raises `ConfigError` for a name that no panel has.
    """
    there = [panel for figure in figures for panel in FIGURES.get(figure, ())]
    for name in only:
        if not any(name in (panel.name, panel.id) for panel in there):
            known = ", ".join(panel.name for panel in there) or "none"
            raise ConfigError(f"--only {name}: no such panel of {', '.join(figures)}; panels are {known}")
    return tuple(panel for panel in there if not only or panel.name in only or panel.id in only)
