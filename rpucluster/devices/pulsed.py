"""What all devices that are moved by pulses have in common: spreads, bounds, stuck cells, and what time does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from rpucluster.devices.base import LANE_UNIT, Cells, Int16, Law, require, require_flags
from rpucluster.elementary import exp
from rpucluster.rng import Float32

COMMON_CONSTANTS: Final = 13
"""Constants of every pulsed device; those of its law follow."""
F32 = np.float32
_ONE = F32(1)


class Relaxation(NamedTuple):
    """What one update operation's time does to some cells; float32 (n,) each."""

    keep: Float32
    """Share of the distance from the rest weight that is left."""
    rest: Float32
    """The weight that a cell decays to."""
    diffusion: Float32
    """Standard deviation of the random walk."""


@dataclass(frozen=True, kw_only=True)
class Pulsed(ABC):
    """Parameters of every pulsed device; weights in weight units, spreads relative unless said.

    A cell's lanes are normals z0 to z5 and z8 to z11 and uniforms u6 and u7: z0 gain, z1 difference of up and down,
    z2 upper and z3 lower bound, z4, z5 and z11 of the law, u6 whether and u7 where it is stuck, z8 lifetime,
    z9 diffusion, z10 rest weight.  Only as many blocks of four as some spread needs are drawn.

    The defaults are the combined model of Gokmen and Vlasov, Front. Neurosci. 10:333 (2016) ("RPU baseline"), read as
    the defaults of aihwkit, the simulator of the same group.  Raises ValueError for a value out of range.
    """

    pulsed: ClassVar[bool] = True
    law: ClassVar[Law]

    dw_min: float = 0.001
    """Mean weight change of one coincidence where the factor of the law is 1; above 0.  Read as aihwkit's default."""
    dw_min_dtod: float = 0.3
    """Device-to-device standard deviation of the step; at least 0.  Read as aihwkit's default."""
    log_normal: bool = False
    """The gain of a device is exp(dw_min_dtod z) rather than 1 + dw_min_dtod z; its median is 1, not its mean.
    aihwkit: dw_min_dtod_log_normal; the median was measured there."""
    fold: bool = True
    """Whether a step or bound that is drawn beyond zero is folded to its magnitude, as aihwkit does.  Else it keeps its
    sign: such a device moves the wrong way, or has both bounds on one side of zero; for constant steps only."""
    dw_min_std: float = 0.3
    """Cycle-to-cycle standard deviation of one step, relative to the device's own; at least 0.

    One step of a device with a large value may change sign.  Read as aihwkit's default.
    """
    w_max: float = 0.6
    """Mean upper bound of the weight; above 0.  Read as aihwkit's default."""
    w_max_dtod: float = 0.3
    """Device-to-device standard deviation of the upper bound.  Read as aihwkit's default."""
    w_min: float = -0.6
    """Mean lower bound of the weight; at most 0, drawn independently of the upper.  Read as aihwkit's default."""
    w_min_dtod: float = 0.3
    """Device-to-device standard deviation of the lower bound.  Read as aihwkit's default."""
    up_down: float = 0.0
    """Systematic asymmetry, between -1 and 1: positive weakens every down step by this share, negative every up
    step.  The paper's mean is 0; that one direction alone weakens was measured on aihwkit."""
    up_down_dtod: float = 0.01
    """Device-to-device standard deviation of the asymmetry, added to one direction and taken from the other,
    so that the ratio of the two steps spreads by twice as much: 2 percent as restated by Haensch et al. (2019)."""
    stuck: float = 0.0
    """Share of cells that nothing moves, 0 to 1.  aihwkit: corrupt_devices_prob."""
    stuck_range: float = 0.1
    """A stuck cell stays at a weight drawn uniformly from the part of +-stuck_range within its bounds; at least 0.
    aihwkit: corrupt_devices_range; that the range ends at the bounds was measured there."""
    half_select: float = 0.0
    """The nonlinearity factor k of Gokmen and Vlasov (2016): change by a pulse on one line alone as a share of that by
    a coincidence, 0 to 1; 0.5 is a linear device, and k of at most 0.1 their specification."""
    write_noise: float = 0.0
    """Standard deviation, in units of dw_min, between the hidden weight that pulses move and the weight that is read;
    drawn anew for a cell whenever a pulse, decay, diffusion or setting writes it; at least 0.  aihwkit:
    write_noise_std, whose rules were measured there."""
    lifetime: float = 0.0
    """Update operations in which the distance from the rest weight falls by a factor e (1 - 1 / lifetime each);
    0 for no decay, else at least 1.  aihwkit: lifetime."""
    lifetime_dtod: float = 0.0
    """Device-to-device standard deviation of the lifetime.  aihwkit: lifetime_dtod."""
    reset_level: float = 0.0
    """Mean rest weight that decay leads to.  aihwkit: reset."""
    reset_level_dtod: float = 0.0
    """Device-to-device standard deviation of the rest weight, in weight units.  aihwkit: reset_dtod, documented there
    as relative, but measured in weight units."""
    diffusion: float = 0.0
    """Standard deviation of the random walk in one update operation, in weight units.  aihwkit: diffusion."""
    diffusion_dtod: float = 0.0
    """Device-to-device standard deviation of the diffusion.  aihwkit: diffusion_dtod."""

    def __post_init__(self) -> None:
        require("dw_min", self.dw_min, self.dw_min > 0, "a number above 0, such as 0.001")
        for name in ("dw_min", "w_max", "w_min", "lifetime", "diffusion"):
            self.require_spread(f"{name}_dtod")
        for name in ("dw_min_std", "up_down_dtod"):
            self.require_spread(name)
        require("w_max", self.w_max, self.w_max > 0, "a number above 0, such as 0.6")
        require("w_min", self.w_min, self.w_min <= 0, "a number of at most 0, such as -0.6")
        require("up_down", self.up_down, -1 < self.up_down < 1, "a number between -1 and 1, such as 0.0")
        for name in ("stuck", "half_select"):
            require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a share from 0 to 1, such as 0.1")
        for name in ("stuck_range", "write_noise", "reset_level_dtod", "diffusion"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "a number of at least 0, such as 0.1")
        require("lifetime", self.lifetime, self.lifetime == 0 or self.lifetime >= 1, "0 for none, or 1 or more")
        require("reset_level", self.reset_level, True, "a weight, such as 0.0")
        require_flags(self, "log_normal", "fold")
        if not self.fold and self.law != Law.CONSTANT:
            raise ValueError("fold = false: only constant steps keep their sign; write fold = true")

    def require_spread(self, *names: str) -> None:
        """Raise ValueError, one line, for a relative spread below 0."""
        for name in names:
            require(name, getattr(self, name), getattr(self, name) >= 0, "a relative spread of at least 0, such as 0.3")

    @property
    def persistent(self) -> tuple[str, ...]:
        """The weights, and with write noise the hidden ones that pulses move, and how often they were set."""
        return ("weights", "hidden", "settings") if self.write_noise > 0 else ("weights",)

    @property
    def plain(self) -> bool:
        """Whether only steps and bounds of each cell matter: n pulses are one draw, and nothing else ever moves it."""
        options = (self.log_normal, not self.fold, self.stuck, self.half_select, self.write_noise)
        return self.law == Law.CONSTANT and not any(options) and not self.relaxes

    @property
    def relaxes(self) -> bool:
        """Whether weights change with time, pulses or not."""
        return self.lifetime > 0 or self.diffusion > 0

    @property
    def granularity(self) -> float:
        """Mean weight change of one coincidence near weight 0, in which the pulse generator counts: dw_min here.

        For every law it is what aihwkit takes, as measured there, so that equal settings fire equal pulses.
        """
        return self.dw_min

    @property
    def law_lanes(self) -> int:
        """Lanes that the law needs: 4, 8 or 12."""
        return 4

    @property
    def lanes(self) -> int:
        """Lanes of a cell, int16 numbers: 4, 8 or 12."""
        own = 8 if self.stuck > 0 else 4
        if self.lifetime * (self.lifetime_dtod + self.reset_level_dtod) + self.diffusion * self.diffusion_dtod > 0:
            own = 12
        return max(own, self.law_lanes)

    def common_constants(self) -> tuple[float, ...]:
        """The first `COMMON_CONSTANTS` constants of every law, in this order."""
        return (
            self.dw_min, self.dw_min_dtod, self.up_down_dtod, min(self.up_down, 0.0), min(-self.up_down, 0.0),
            self.w_max, self.w_max_dtod, self.w_min, self.w_min_dtod,
            self.stuck, self.stuck_range, float(self.log_normal), float(self.fold),
        )  # fmt: skip

    def common_cells(self, lanes: Int16) -> Cells:
        """Steps and bounds before the law and before cells get stuck; int16 (lanes, n) to float32 (n,).

        gain = 1 + dw_min_dtod z0, or exp(dw_min_dtod z0), r = up_down_dtod z1, steps dw_min |gain + bias +- r|,
        bounds |w_max (1 + w_max_dtod z2)| and -|w_min (1 + w_min_dtod z3)| (aihwkit's construction); without `fold`
        none of them is folded.
        """
        one = F32(1)
        dw_min, dw_min_dtod, up_down_dtod, bias_up, bias_down, w_max, w_max_dtod, w_min, w_min_dtod = (
            F32(constant) for constant in self.common_constants()[:9]
        )
        z0, z1, z2, z3 = (normal(lanes[i]) for i in range(4))
        gain = exp(dw_min_dtod * z0) if self.log_normal else one + dw_min_dtod * z0
        r = up_down_dtod * z1
        nothing = np.zeros_like(gain)
        cells = Cells(
            up=((gain + bias_up) + r) * dw_min,
            down=((gain + bias_down) - r) * dw_min,
            lower=w_min * (one + w_min_dtod * z3),
            upper=w_max * (one + w_max_dtod * z2),
            e0=nothing,
            e1=nothing,
        )
        if not self.fold:
            return cells
        return cells._replace(
            up=np.abs(cells.up), down=np.abs(cells.down), lower=-np.abs(cells.lower), upper=np.abs(cells.upper)
        )

    def with_stuck(self, cells: Cells, lanes: Int16) -> Cells:
        """Cells whose u6 is below ``stuck`` get steps and numbers of the law 0, and both bounds at one weight.

        It is low + (high - low) u7, between low = -stuck_range and high = stuck_range as clipped to the bounds.
        """
        if not self.stuck > 0:
            return cells
        stuck = uniform(lanes[6]) < F32(self.stuck)
        low = np.minimum(np.maximum(-F32(self.stuck_range), cells.lower), cells.upper)
        high = np.minimum(np.maximum(F32(self.stuck_range), cells.lower), cells.upper)
        value = low + (high - low) * uniform(lanes[7])
        nothing = np.zeros_like(value)
        held = Cells(up=nothing, down=nothing, lower=value, upper=value, e0=nothing, e1=nothing)
        return Cells(*(np.where(stuck, fixed, free) for fixed, free in zip(held, cells, strict=True)))

    @abstractmethod
    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""

    def spread(self, w: Any, lowers: Any, size: Any, cells: Cells) -> Any:
        """What step noise is relative to: of a pulse whose mean size is ``size``, that size."""
        return size

    def amount(self, w: Any, lowers: Any, z: Any, cells: Cells, n: Any = _ONE) -> Any:
        """Size of n pulses that all meet the weight w, with one draw z of step noise: n sizes, plus sqrt(n) dw_min_std
        z times what noise is relative to."""
        size = self.step(w, lowers, cells)
        return size * n + self.spread(w, lowers, size, cells) * ((F32(self.dw_min_std) * np.sqrt(n)) * z)

    def fire(self, w: Any, lowers: Any, z: Any, cells: Cells) -> Any:
        """Weights after one pulse each, which lowers or raises them, with step noise z; clipped to their bounds."""
        amount = self.amount(w, lowers, z, cells)
        return within(np.where(lowers, w - amount, w + amount), cells)

    def half_selected(self, w: Any, lowers: Any, n: Any, z: Any, cells: Cells) -> Any:
        """Weights after n pulses (float32, at least 1) on one of their two lines alone: one draw, ``half_select`` of
        the size of n coincidences.

        All n meet the weight w and are clipped once, which is an approximation: within them a step that depends on the
        weight does not change, and a bound is met once.  n is at most 31, and k n steps are a few steps for the k of
        at most 0.1 that arrays are built for.  One draw of n pulses has the mean and the variance of n draws.
        """
        amount = self.amount(w, lowers, z, cells, n) * F32(self.half_select)
        return within(np.where(lowers, w - amount, w + amount), cells)

    def written(self, hidden: Any, z: Any) -> Any:
        """The weight that is read once the hidden one is written: hidden + (write_noise dw_min) z, beyond the bounds
        if it falls there."""
        return hidden + F32(self.write_noise * self.dw_min) * z

    def relaxation(self, lanes: Int16) -> Relaxation:
        """What one update operation's time does to cells with these lanes; float32 (n,) each.

        keep = 1 - 1 / max(lifetime (1 + lifetime_dtod z8), 1), rest = reset_level + reset_level_dtod z10,
        diffusion |diffusion (1 + diffusion_dtod z9)| (aihwkit's construction).
        """
        one = F32(1)
        z8, z9, z10 = (normal(lanes[i]) if self.lanes > i else np.zeros(lanes.shape[1], F32) for i in (8, 9, 10))
        lifetime = np.maximum(F32(self.lifetime) * (one + F32(self.lifetime_dtod) * z8), one)
        return Relaxation(
            keep=one - one / lifetime if self.lifetime > 0 else np.ones_like(z8),
            rest=F32(self.reset_level) + F32(self.reset_level_dtod) * z10,
            diffusion=np.abs(F32(self.diffusion) * (one + F32(self.diffusion_dtod) * z9)),
        )

    def relaxed(self, w: Any, z: Any, of: Relaxation, cells: Cells) -> Any:
        """Weights (the hidden ones, with write noise) after one update operation's time: first decay, then diffusion
        with the normals z, then the clip."""
        if self.lifetime > 0:
            w = (w - of.rest) * of.keep + of.rest
        if self.diffusion > 0:
            w = w + of.diffusion * z
        return within(w, cells)


def within(w: Any, cells: Cells) -> Any:
    """Weights clipped to the bounds of their cells: those that are at a bound stay as they are, signs of 0 included."""
    w = np.where(w < cells.lower, cells.lower, w)
    return np.where(w > cells.upper, cells.upper, w)


def normal(lane: Int16) -> Float32:
    """Standard normals of a lane."""
    return lane.astype(np.float32) * F32(LANE_UNIT)


def uniform(lane: Int16) -> Float32:
    """Uniform numbers in (0, 1) of a lane: odd multiples of 2^-17."""
    return (lane.view(np.uint16).astype(np.float32) + F32(0.5)) * F32(2.0**-16)
