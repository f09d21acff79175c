"""The electrical design of one crossbar array: what its size, devices and integration time imply, and demand."""

import math
from dataclasses import dataclass

BOLTZMANN = 1.380649e-23
"""Joules per kelvin (exact, SI)."""


@dataclass(frozen=True, kw_only=True)
class ArrayDesign:
    """A square array of `lines` x `lines` devices read for `integration_s`; SI units but for micrometres.

    The letters are how sure each number is, as in `rpucluster.experiments.confidence`; H19 is Haensch, Gokmen and
    Puri, Proc. IEEE 107:108 (2019).
    """

    lines: int = 4096
    """Rows, and columns.  S."""
    integration_s: float = 80e-9
    """Of one read.  S."""
    pulse_s: float = 1e-9
    """Of one update pulse.  B+."""
    voltage: float = 1.0
    """Of a read pulse.  S."""
    device_ohm: float = 24e6
    """Mean resistance of a device.  S."""
    on_off: float = 8.0
    """Largest over smallest conductance.  S."""
    activity: float = 0.2
    """Share of the lines that are driven at a time.  B+."""
    pitch_um: float = 0.4
    """From one line to the next: 200 nm wide, 200 nm apart.  B+."""
    line_ohm_per_um: float = 0.36
    """B+; times the pitch it is the 144 mOhm per cell of H19."""
    line_farad_per_um: float = 0.2e-15
    """B+."""
    weight_bound: float = 0.6
    """Mean weight bound, in weight units.  C."""
    output_bound: float = 12.0
    """Output at which the integrator saturates, in weight units.  C."""
    output_noise: float = 0.06
    """Noise of an output, in weight units.  S."""
    temperature: float = 300.0
    """Kelvin; assumed."""

    @property
    def length_um(self) -> float:
        """Length of a line."""
        return self.lines * self.pitch_um

    @property
    def line_ohm(self) -> float:
        """Resistance of a whole line."""
        return self.length_um * self.line_ohm_per_um

    @property
    def line_farad(self) -> float:
        """Capacitance of a whole line."""
        return self.length_um * self.line_farad_per_um

    @property
    def delay_s(self) -> float:
        """RC / 2 of the distributed line; the design wants it below a tenth of a pulse."""
        return self.line_ohm * self.line_farad / 2

    @property
    def area_mm2(self) -> float:
        """Footprint; the two arrays of a pair lie on top of each other."""
        return (self.length_um / 1000) ** 2

    @property
    def least_device_ohm(self) -> float:
        """At which the voltage drops by a tenth along a line: n^2 R_cell / R_device = 0.1 (H19 eq 6)."""
        return self.lines**2 * self.line_ohm_per_um * self.pitch_um / 0.1

    @property
    def power_w(self) -> float:
        """Of a pair of arrays while it reads."""
        return float(2 * self.activity * self.lines**2 * self.voltage**2 / self.device_ohm)

    @property
    def noise_ratio(self) -> float:
        """Tolerated noise over thermal noise, above 1 in a design that holds.

        H19 eq 4, whose factor 1/10 is output_noise / weight_bound:
        1/10 (b-1)/(b+1) V sqrt(t / (n R k T)).
        """
        thermal = math.sqrt(self.integration_s / (self.lines * self.device_ohm * BOLTZMANN * self.temperature))
        return self.output_noise / self.weight_bound * self._contrast * self.voltage * thermal

    @property
    def thermal_noise(self) -> float:
        """Johnson noise of the 2n devices of an output, integrated, in weight units."""
        return self.output_noise / self.noise_ratio

    @property
    def least_integration_s(self) -> float:
        """The time for which the noise ratio is 1."""
        return self.integration_s / self.noise_ratio**2

    @property
    def integrator_farad(self) -> float:
        """H19 eq 5: 40 (b-1)/(b+1) t / R, whose 40 is twice the output bound over the weight bound."""
        return 2 * self.output_bound / self.weight_bound * self._contrast * self.integration_s / self.device_ohm

    @property
    def levels(self) -> float:
        """Outputs that the noise lets apart: the range over one standard deviation."""
        return 2 * self.output_bound / self.output_noise

    @property
    def _contrast(self) -> float:
        return (self.on_off - 1) / (self.on_off + 1)
