"""Devices of every model and option, for tests of what is performed."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from rpucluster.devices import (
    ConstantStep,
    ExponentialStep,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    Pulsed,
    SoftBounds,
    SoftBoundsReference,
)

COARSE = {"dw_min": 0.03}
LAWS: dict[str, Pulsed] = {
    "constant": ConstantStep(**COARSE, log_normal=True),
    "constant-signed": ConstantStep(**COARSE, fold=False, dw_min_dtod=1.5, w_max_dtod=1.0, w_min_dtod=1.0),
    "linear": LinearStep(**COARSE, gamma_up=0.4, gamma_down=0.2),
    "linear-own": LinearStep(**COARSE, gamma_up=0.4, gamma_down=0.2, mean_bound_reference=False, additive_noise=True),
    "linear-equal": LinearStep(**COARSE, gamma_up=0.4, gamma_up_dtod=0.0, gamma_down_dtod=0.0),
    "soft": SoftBounds(**COARSE),
    "soft-additive": SoftBounds(**COARSE, additive_noise=True),
    "reference": SoftBoundsReference(**COARSE, reference_mean=0.02, reference_std=0.1, subtract_symmetry_point=True),
    "reference-slopes": SoftBoundsReference(**COARSE, slope_up_dtod=0.2, slope_down_dtod=0.3, additive_noise=False),
    "exponential": ExponentialStep(**COARSE),
    "exponential-noise": ExponentialStep(**COARSE, dw_min_std_add=0.05, dw_min_std_slope=0.1, w_min=0.0, a=-1.0, b=0.0),
    "power": PowerStep(**COARSE, pow_gamma=1.7, pow_up_down=0.2, pow_up_down_dtod=0.1),
    "power-equal": PowerStep(**COARSE, pow_gamma_dtod=0.0),
    "piecewise": PiecewiseStep(**COARSE, piecewise_up=(1.0, 0.3, 0.7), piecewise_down=(0.2, 1.0, 0.0)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "quiet": {"dw_min_std": 0.0},
    "stuck": {"stuck": 0.3},
    "half-select": {"half_select": 0.1},
    "half-select-quiet": {"half_select": 0.3, "dw_min_std": 0.0},
    "write-noise": {"write_noise": 2.0},
    "decay": {"lifetime": 20.0, "lifetime_dtod": 0.3, "reset_level": 0.05, "reset_level_dtod": 0.02},
    "diffusion": {"diffusion": 0.01, "diffusion_dtod": 0.3},
    "all": {
        "stuck": 0.1, "half_select": 0.2, "write_noise": 1.0, "lifetime": 9.0, "diffusion": 0.01, "log_normal": True,
    },
}  # fmt: skip


def devices() -> Any:
    """Any model with any options; hypothesis draws them."""
    return st.builds(
        lambda law, option, noise: dataclasses.replace(LAWS[law], **({"dw_min_std": noise} | OPTIONS[option])),
        st.sampled_from(sorted(LAWS)),
        st.sampled_from(sorted(OPTIONS)),
        st.sampled_from([0.0, 0.3, 3.0]),
    )
