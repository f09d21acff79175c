"""The machine: one kind of accelerator, and the network that joins so many of it.

Where the numbers come from is said by the codes of the paper's reconstruction: R and S read, C read in code
of the same group, B+ recalled and reproducing a number that was read, B recalled, D derived by arithmetic
from such, U unknown and thus our assumption.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from rpucluster.config import (
    AsTable,
    Bytes,
    BytesPerSecond,
    Joules,
    JoulesPerByte,
    OpsPerSecond,
    Seconds,
    Spec,
    Watts,
    apply_override,
    find,
    read_toml,
    validated,
)
from rpucluster.errors import InputError, PlanError
from rpucluster.periphery import Converters
from rpucluster.processor import Processor
from rpucluster.topology import Faults, Network

CLUSTER_TABLES = ("accelerator", "network", "faults")
"""The tables of a cluster file that `--set` reaches."""

UNQUANTISED_BITS = 32
"""Bits that a value takes on chip where its converter does not quantise (0 bits)."""

# The paper's top design draws 5 W per active tile all-in (D: 2 * 4096^2 operations in 80 ns at 84,000
# GigaOps/s/W [R] are 4.993 W).  Its parts, in joules for one pass of one 4096 x 4096 tile:
_TILE, _PASS = 4096, 80e-9
_ALL_IN = 5.0 * _PASS  # D
# a pair of arrays, a fifth of the lines active, 1 V across 24 MOhm: 0.28 W (B+)
_READ_CELL = 2 * 0.2 * 1.0**2 / 24e6 * _PASS
_ADC_SAMPLE = 23e-12  # S [H19, citing a 2017 converter]: 51.2 GS/s are 1.18 W (D)
# What remains, 3.54 W, pays for the digital units and the network on the chip.  The paper's division of it is
# not known (U): one half each is our assumption, over 4096 operations and 14 bits for each of 4096 lines.
_HALF_OF_REST = (_ALL_IN - _TILE**2 * _READ_CELL - _TILE * _ADC_SAMPLE) / 2
_DIGITAL_OP = _HALF_OF_REST / _TILE
_ON_CHIP_BYTE = _HALF_OF_REST / (_TILE * 14 / 8)
# Update pulses: no number was read (U).  Our assumption is the power of a read (the same pair of arrays,
# lines, voltage and activity) for the 1 ns of a slot.
_PULSE_CELL = _READ_CELL / _PASS * 1e-9


def default_active_tiles(data: dict[str, Any]) -> int:
    return min(50, int(data["tiles"]))


def _default_digital_rate(data: dict[str, Any]) -> float:
    return float(data["tile_rows"] * data["active_tiles"] / data["forward_time"])


def _default_on_chip_bandwidth(data: dict[str, Any]) -> float:
    converters: Converters = data["forward"]
    bits = converters.input_bits or UNQUANTISED_BITS, converters.output_bits or UNQUANTISED_BITS
    per_pass = (data["tile_cols"] * bits[0] + data["tile_rows"] * bits[1]) / 8
    return float(per_pass * data["active_tiles"] / data["forward_time"])


class Accelerator(Spec):
    """One RPU chip: its tiles, their periphery and timing, its digital side and what everything costs."""

    kind: Literal["rpu"] = "rpu"
    """What the accelerators are; `processor.Processor` describes the others."""
    preset: Literal["rpu-paper"] = "rpu-paper"
    """Gives the keys that are not written; `rpu-paper` is the top design of Gokmen & Vlasov 2016."""

    tile_rows: int = Field(4096, ge=1)
    """Output lines of a tile.  S."""
    tile_cols: int = Field(4096, ge=1)
    """Input lines of a tile.  S."""
    tiles: int = Field(100, ge=1)
    """Tiles on the chip.  S for 100 [NBF, on v1]; the count of the top design is not known (D: 50 or 100)."""
    active_tiles: int = Field(default_factory=default_active_tiles, ge=1)
    """Tiles that may work at once; an operation of more takes turns.  D: 50 give the paper's throughput."""

    layer_streaming: bool = False
    """Whether a layer begins with the first vector that the one before has finished, on the same accelerator, instead
    of with the last.  U: the paper does not say; our assumption is the simpler machine."""

    queue: Literal["arrival", "program"] = "arrival"
    """What the digital units do first where work waits for them: what came first, or what stands first in the program,
    which is the order of the schedule.  U: our assumption is the simpler machine."""

    forward_time: Seconds = Field("80 ns", gt=0, lt=math.inf, validate_default=True)
    """Integration time of a forward pass.  S."""
    backward_time: Seconds = Field("80 ns", gt=0, lt=math.inf, validate_default=True)
    """Integration time of a backward pass.  S."""
    pulse_width: Seconds = Field("1 ns", gt=0, lt=math.inf, validate_default=True)
    """Length of one pulse slot of an update.  B+."""
    update_phases: int = Field(2, ge=1)
    """Polarity phases of an update, each of a whole pulse train.  B: two; H19 counts four."""
    adc_lines: int = Field(16, ge=1)
    """Output lines that share one converter, one after the other.  S [H19]."""
    conversion_time: Seconds = Field("5 ns", ge=0, lt=math.inf, validate_default=True)
    """Of one ADC sample.  S [H19]: 200 MS/s; 16 lines take the 80 ns of a pass, which hides them."""

    buffer: Annotated[Bytes, Field(gt=0)] | None = None
    """Memory for what waits outside of tiles: activations, errors, sums, dense gradients.  Unwritten, it is not
    checked.  U: the paper does not say."""

    forward: Annotated[Converters, AsTable()] = Converters()
    """Converters, output bound and read noise of a forward pass."""
    backward: Annotated[Converters, AsTable()] = Converters()
    """The same of a backward pass."""

    digital_rate: OpsPerSecond = Field(default_factory=_default_digital_rate, gt=0)
    """Of the digital units together.  Unwritten, it keeps up with the arrays: one operation per output line
    and forward pass of every active tile.  D: 51.2 Gop/s per active tile of the paper."""
    on_chip_bandwidth: BytesPerSecond = Field(default_factory=_default_on_chip_bandwidth, gt=0)
    """Of the network on the chip, to and from all tiles together.  Unwritten, it keeps up with the arrays:
    every line's bits per forward pass of every active tile.  D: 89.6 GB/s per active tile of the paper."""

    read_energy: Joules = Field(f"{_READ_CELL!r} J", ge=0, lt=math.inf, validate_default=True)
    """Of one cell in one pass.  B+: 1.33 fJ, from 0.28 W per tile."""
    adc_energy: Joules = Field(f"{_ADC_SAMPLE!r} J", ge=0, lt=math.inf, validate_default=True)
    """Of one ADC sample.  S [H19]: 23 pJ."""
    pulse_energy: Joules = Field(f"{_PULSE_CELL!r} J", ge=0, lt=math.inf, validate_default=True)
    """Of one cell in one pulse slot.  U; our assumption is the power of a read, 17 aJ in 1 ns."""
    digital_energy: Joules = Field(f"{_DIGITAL_OP!r} J", ge=0, lt=math.inf, validate_default=True)
    """Of one digital operation.  D and our assumption: half of what 5 W per active tile leaves, 34.6 pJ."""
    on_chip_energy: JoulesPerByte = Field(f"{_ON_CHIP_BYTE!r} J/B", ge=0, lt=math.inf, validate_default=True)
    """Of one byte to or from a tile.  D and our assumption: the other half, 19.8 pJ per byte."""
    idle_power: Watts = Field("0 W", ge=0, lt=math.inf, validate_default=True)
    """Drawn while neither arrays nor digital units work.  U; the 5 W per active tile are all-in, so zero."""

    @model_validator(mode="after")
    def _active_tiles_exist(self) -> "Accelerator":
        if self.active_tiles > self.tiles:
            raise ValueError(
                f"active_tiles = {self.active_tiles} but there are {self.tiles} tiles; lower active_tiles or "
                f"raise tiles"
            )
        return self

    def pass_time(self, direction: Literal["forward", "backward"]) -> float:
        """Seconds of one analog pass: its integration, or its conversions where they take longer.

        The conversions of one pass run during the integration of the next.
        """
        integration, lines = (
            (self.forward_time, self.tile_rows) if direction == "forward" else (self.backward_time, self.tile_cols)
        )
        return float(max(integration, min(self.adc_lines, lines) * self.conversion_time))

    def pass_bytes(self, direction: Literal["forward", "backward"], input_lines: float, output_lines: float) -> float:
        """Bytes that one pass over so many lines moves on the chip, at the width of the converters."""
        converters = self.forward if direction == "forward" else self.backward
        bits = input_lines * (converters.input_bits or UNQUANTISED_BITS)
        return (bits + output_lines * (converters.output_bits or UNQUANTISED_BITS)) / 8

    def waves(self, tiles: int) -> int:
        """Turns in which so many tiles work, no more at once than may be active."""
        return -(-tiles // self.active_tiles)


_TAGS = {"rpu": "an RPU", "gpu": "a processor", "cpu": "a processor"}
# not identifiers, so that error messages leave them out of the place of a key


def _tag_of(table: Any) -> str | None:
    kind = table.get("kind", "rpu") if isinstance(table, dict) else getattr(table, "kind", "rpu")
    return _TAGS.get(kind) if isinstance(kind, str) else None


Chip = Annotated[
    Annotated[Accelerator, Tag("an RPU")] | Annotated[Processor, Tag("a processor")],
    Discriminator(
        _tag_of, custom_error_type="kind", custom_error_message='[accelerator] kind must be "rpu", "gpu" or "cpu"'
    ),
]
"""What the `[accelerator]` table describes, by its `kind`."""


class Cluster(Spec):
    """Accelerators of one kind and the network that joins them."""

    name: str
    """What reports call the machine; the stem of its file unless the file says otherwise."""
    chip: Chip = Field(alias="accelerator")
    """The `[accelerator]` table."""
    network: Network = Network()
    """The `[network]` table with its `[[network.axis]]` or `[[network.link]]` tables."""
    faults: Faults = Faults()
    """The `[faults]` table: links that failed, links and accelerators that are slow."""

    @model_validator(mode="after")
    def _network_has_the_faults(self) -> "Cluster":
        if self.faults != Faults():
            try:
                self.__dict__["network"] = self.network.with_faults(self.faults)
            except InputError as error:
                raise ValueError(str(error)) from None
        return self

    @model_serializer(mode="wrap")
    def _as_in_the_file(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """With the name of the table, whether by alias or not."""
        return {"accelerator" if key == "chip" else key: value for key, value in handler(self).items()}

    @property
    def has_tiles(self) -> bool:
        """Whether its accelerators are RPUs."""
        return isinstance(self.chip, Accelerator)

    @property
    def accelerator(self) -> Accelerator:
        """One RPU of the cluster.  Raises `PlanError` where its accelerators are of another kind."""
        if not isinstance(self.chip, Accelerator):
            raise PlanError(
                f'{self.name} has [accelerator] kind = "{self.chip.kind}", which has no tiles; name a cluster of RPUs '
                f"here, or use project or search, which take both"
            )
        return self.chip

    @property
    def processor(self) -> Processor:
        """One GPU or CPU of the cluster.  Raises `PlanError` where its accelerators are RPUs."""
        if not isinstance(self.chip, Processor):
            raise PlanError(
                f'{self.name} has [accelerator] kind = "{self.chip.kind}"; name a cluster whose accelerators are of '
                f'kind "gpu" or "cpu" here'
            )
        return self.chip

    @property
    def accelerators(self) -> int:
        """How many accelerators the network joins."""
        return self.network.accelerators


def load_cluster(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Cluster:
    """Read a cluster file, or a shipped one by name, with ``section.key=value`` overrides on top.

    Raises `ConfigError`, one line that names the file, the table, the key and what to write.
    """
    path = find("cluster", name_or_path)
    tables = read_toml(path)
    for override in overrides:
        apply_override(tables, override)
    return validated(Cluster, {"name": path.stem, **tables}, path.name)
