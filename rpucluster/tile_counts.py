"""What tiles count while they are read and updated."""

from dataclasses import dataclass


@dataclass(slots=True)
class PulseCount:
    """What updates counted; counts add.  Not frozen: that costs a microsecond, a tenth of a small update."""

    slots: int = 0
    """Pulse slots used, summed over tiles and samples."""
    coincidences: int = 0
    """Pulses that changed a cell."""
    expected_coincidences: float = 0.0
    """Sum over cells and samples of slots * p * q: what ``coincidences`` is on average."""
    cycles: int = 0
    """Update cycles: tiles times samples."""
    line_passes: int = 0
    """Lines of tiles that an algorithm read by themselves."""
    line_slots: int = 0
    """Pulse slots of lines that an algorithm wrote by themselves, summed over tiles."""
    line_pulses: int = 0
    """Pulses fired there."""

    def __add__(self, other: "PulseCount") -> "PulseCount":
        return PulseCount(
            slots=self.slots + other.slots,
            coincidences=self.coincidences + other.coincidences,
            expected_coincidences=self.expected_coincidences + other.expected_coincidences,
            cycles=self.cycles + other.cycles,
            line_passes=self.line_passes + other.line_passes,
            line_slots=self.line_slots + other.line_slots,
            line_pulses=self.line_pulses + other.line_pulses,
        )


@dataclass(kw_only=True, slots=True)
class ReadCount:
    """What reads counted; counts add.  Not frozen, as `PulseCount`."""

    passes: int = 0
    """Vectors through tiles, repeats not included."""
    repeats: int = 0
    """Further passes that bound management asked for."""

    def __add__(self, other: "ReadCount") -> "ReadCount":
        return ReadCount(passes=self.passes + other.passes, repeats=self.repeats + other.repeats)
