"""Table 2: the system from the tile upward, from a cluster file's accelerator through the modelled numbers.

Times and energies are those that the timeline gives to operations of a program.  The convention of throughput is the
paper's: two operations per cross-point, forward passes only, the array used in full, the periphery hidden behind it.
"""

from dataclasses import dataclass
from functools import partial

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.devices import ConstantStep
from rpucluster.experiments.array_design import ArrayDesign
from rpucluster.experiments.confidence import NO_REFERENCE, Confidence, Reference
from rpucluster.program import Digital, Direction, Op, Program, Read, Update
from rpucluster.timeline import Timeline, replay

R, S, C, CHECKED, B, WEAK, D = (Confidence(code) for code in ("R", "S", "C", "B+", "B", "B-", "D"))
BIT_LENGTH = 10
"""Pulse slots of an update per phase.  B."""
CPU_OPS, GPU_OPS = 0.70e12, 4.29e12
"""Peak of the processors that the paper compares with: the first follows from its 30,000-fold (D), the second is
that of a Tesla K40 (which part it was: B)."""


@dataclass(frozen=True, kw_only=True)
class SystemRow:
    """One quantity of the system, beside its reference."""

    section: str
    quantity: str
    unit: str
    ours: float
    """In `unit`."""
    formula: str
    """What it was computed from."""
    reference: Reference = NO_REFERENCE

    @property
    def ratio(self) -> float | None:
        """Ours over the reference's, where both are numbers."""
        return self.ours / self.reference.value if self.reference.value else None


def _reference(code: Confidence, text: str, value: float | None = None, note: str = "") -> Reference:
    return Reference(code=code, text=text, value=value, note=note)


def system_table(accelerator: Accelerator) -> tuple[SystemRow, ...]:
    """Every row of the table for one kind of accelerator."""
    return (*_array_rows(accelerator), *_tile_rows(accelerator), *_chips(accelerator), *_cluster_rows(accelerator))


def _array_rows(chip: Accelerator) -> list[SystemRow]:
    design = ArrayDesign(
        lines=max(chip.tile_rows, chip.tile_cols),
        integration_s=chip.forward_time,
        pulse_s=chip.pulse_width,
        output_bound=chip.forward.output_bound,
        output_noise=chip.forward.read_noise,
    )
    device = ConstantStep()
    row = partial(SystemRow, section="array")
    return [
        row(
            quantity="weight states", unit="", ours=(device.w_max - device.w_min) / device.dw_min,
            formula="(upper - lower bound) / step", reference=_reference(C, "1200", 1200),
        ),
        row(
            quantity="line length", unit="mm", ours=design.length_um / 1000, formula="lines x pitch",
            reference=_reference(CHECKED, "1.64", 1.64),
        ),
        row(
            quantity="line resistance", unit="Ohm", ours=design.line_ohm, formula="length x 0.36 Ohm/um",
            reference=_reference(CHECKED, "590", 590),
        ),
        row(
            quantity="line capacitance", unit="fF", ours=design.line_farad * 1e15, formula="length x 0.2 fF/um",
            reference=_reference(CHECKED, "328", 328),
        ),
        row(
            quantity="line delay", unit="ns", ours=design.delay_s * 1e9, formula="RC / 2; at most pulse / 10",
            reference=_reference(D, "0.097", 0.097),
        ),
        row(
            quantity="array footprint", unit="mm2", ours=design.area_mm2, formula="length squared",
            reference=_reference(CHECKED, "2.68", 2.68),
        ),
        row(
            quantity="least device resistance", unit="MOhm", ours=design.least_device_ohm / 1e6,
            formula="n^2 R_cell / 0.1", reference=_reference(S, "24", 24, "the resistance that was chosen"),
        ),
        row(
            quantity="tolerated over thermal noise", unit="", ours=design.noise_ratio,
            formula="H19 eq 4; must exceed 1", reference=_reference(D, "1.09", 1.09),
        ),
        row(
            quantity="thermal noise of an output", unit="weight units", ours=design.thermal_noise,
            formula="Johnson noise of 2n devices", reference=_reference(D, "0.055", 0.055),
        ),
        row(
            quantity="least integration time", unit="ns", ours=design.least_integration_s * 1e9,
            formula="where that ratio is 1", reference=_reference(D, "67", 67),
        ),
        row(
            quantity="integrator capacitor", unit="fF", ours=design.integrator_farad * 1e15, formula="H19 eq 5",
            reference=_reference(CHECKED, "103", 103),
        ),
        row(
            quantity="distinguishable outputs", unit="", ours=design.levels, formula="2 x output bound / noise",
            reference=_reference(D, "400, so 9 bits", 400),
        ),
    ]  # fmt: skip


def _tile_rows(chip: Accelerator) -> list[SystemRow]:
    forward, backward = _pass(chip, 1, "forward"), _pass(chip, 1, "backward")
    update = _performed(chip, [_update(chip)])
    cells = chip.tile_rows * chip.tile_cols
    read_s, cycle_s = forward.makespan_s, forward.makespan_s + backward.makespan_s + update.makespan_s
    energy = forward.energy_J
    row = partial(SystemRow, section="tile")
    return [
        row(
            quantity="forward pass", unit="ns", ours=read_s * 1e9, formula="modelled",
            reference=_reference(S, "80", 80),
        ),
        row(
            quantity="update", unit="ns", ours=update.makespan_s * 1e9, formula="modelled: phases x BL x pulse",
            reference=_reference(CHECKED, "20", 20, "H19 counts four phases: 40"),
        ),
        row(
            quantity="layer cycle", unit="ns", ours=cycle_s * 1e9, formula="modelled: forward, backward, update",
            reference=_reference(D, "180", 180, "H19: order of 200"),
        ),
        row(
            quantity="throughput", unit="TeraOps/s", ours=2 * cells / read_s / 1e12,
            formula="2 x cells / forward pass", reference=_reference(D, "419", 419, "H19: about 400 for 4000 x 4000"),
        ),
        row(
            quantity="throughput of training", unit="TeraOps/s", ours=6 * cells / cycle_s / 1e12,
            formula="6 x cells / layer cycle", reference=_reference(D, "559", 559),
        ),
        row(
            quantity="converters", unit="", ours=-(-chip.tile_rows // chip.adc_lines), formula="lines / lines per ADC",
            reference=_reference(D, "256", 256, "from H19's choice of a converter"),
        ),
        row(
            quantity="power of the array pair", unit="W", ours=energy[0].array / read_s,
            formula="modelled energy / pass", reference=_reference(CHECKED, "0.28", 0.28),
        ),
        row(
            quantity="power of the converters", unit="W", ours=energy[0].adc / read_s,
            formula="modelled energy / pass", reference=_reference(D, "1.18", 1.18, "from H19's choice of a converter"),
        ),
        row(
            quantity="power, all in", unit="W", ours=_joules(forward) / read_s,
            formula="modelled energy / pass",
            reference=_reference(D, "5", 5, "ours rests on it: digital units and network get what it leaves"),
        ),
        row(
            quantity="activation functions", unit="GigaOps/s", ours=chip.tile_rows / read_s / 1e9,
            formula="output lines / pass", reference=_reference(S, "51.2", 51.2, "NBF prints 51 as the tile's speed"),
        ),
        row(
            quantity="data rate", unit="GB/s",
            ours=chip.pass_bytes("forward", chip.tile_cols, chip.tile_rows) / read_s / 1e9,
            formula="(DAC + ADC bits) x lines / pass", reference=_reference(S, "90", 90, "89.6 by arithmetic (D)"),
        ),
    ]  # fmt: skip


def _chips(accelerator: Accelerator) -> list[SystemRow]:
    top = {
        "throughput": _reference(D, "20,970", 20_970, "from 30,000-fold and 84,000 GigaOps/s/W"),
        "power": _reference(D, "250", 250),
        "efficiency": _reference(R, "84,000", 84_000, "ours rests on it, through the power"),
        "cpu": _reference(R, "30,000", 30_000, "ours rests on it, through the CPU's speed"),
        "gpu": _reference(S, "5,000", 5_000, "NBF, on the first version"),
        "digital": _reference(D, "2.56", 2.56),
    }
    smallest = {
        "throughput": _reference(D, "419", 419),
        "power": _reference(B, "22", 22, "2 W of it tiles, the rest a CPU core, which the model has not"),
        "efficiency": _reference(D, "19,000", 19_000),
        "cpu": _reference(D, "600", 600),
        "gpu": NO_REFERENCE,
        "digital": _reference(S, "0.051", 0.0512),
    }
    designs = (
        ("50 tiles, all active", 50, 50, top, _reference(D, "0.84", 0.84), _reference(D, "4.5", 4.5)),
        ("100 tiles, 50 active", 100, 50, top, _reference(D, "1.68", 1.68), _reference(D, "4.5", 4.5)),
        ("100 tiles, 1 active", 100, 1, smallest, _reference(D, "1.68", 1.68), _reference(S, "0.09", 0.09)),
    )
    rows: list[SystemRow] = []
    for name, tiles, active, references, weights, network in designs:
        rows += _chip_rows(f"chip of {name}", _with_tiles(accelerator, tiles, active), references, weights, network)
    return rows


def _chip_rows(
    section: str, chip: Accelerator, references: dict[str, Reference], weights: Reference, network: Reference
) -> list[SystemRow]:
    forward = _pass(chip, chip.active_tiles, "forward")
    cells, read_s, energy = chip.tile_rows * chip.tile_cols, forward.makespan_s, _joules(forward)
    ops = 2 * chip.active_tiles * cells / read_s
    row = partial(SystemRow, section=section)
    return [
        row(
            quantity="weights", unit="10^9", ours=chip.tiles * cells / 1e9, formula="tiles x cells",
            reference=weights,
        ),
        row(
            quantity="throughput", unit="TeraOps/s", ours=ops / 1e12, formula="active tiles x tile",
            reference=references["throughput"],
        ),
        row(
            quantity="power", unit="W", ours=energy / read_s, formula="modelled energy / pass",
            reference=references["power"],
        ),
        row(
            quantity="efficiency", unit="GigaOps/s/W", ours=ops * read_s / energy / 1e9, formula="throughput / power",
            reference=references["efficiency"],
        ),
        row(
            quantity="over a CPU", unit="times", ours=ops / CPU_OPS,
            formula="throughput / 0.70 TeraOps/s, which itself follows from the 30,000", reference=references["cpu"],
        ),
        row(
            quantity="over a GPU", unit="times", ours=ops / GPU_OPS, formula="throughput / 4.29 TeraOps/s (Tesla K40)",
            reference=references["gpu"],
        ),
        row(
            quantity="activation functions", unit="TeraOps/s", ours=chip.active_tiles * chip.tile_rows / read_s / 1e12,
            formula="active tiles x tile", reference=references["digital"],
        ),
        row(
            quantity="network on the chip", unit="TB/s",
            ours=chip.active_tiles * chip.pass_bytes("forward", chip.tile_cols, chip.tile_rows) / read_s / 1e12,
            formula="active tiles x tile", reference=network,
        ),
    ]  # fmt: skip


def _cluster_rows(accelerator: Accelerator) -> list[SystemRow]:
    cells = accelerator.tile_rows * accelerator.tile_cols
    return [
        SystemRow(
            section="cluster",
            quantity=f"chips of {tiles} tiles for 10^12 weights",
            unit="",
            ours=-(-(10**12) // (tiles * cells)),
            formula="weights / (tiles x cells), rounded up",
            reference=_reference(D, text, value),
        )
        for tiles, text, value in ((50, "1,190", 1190), (100, "about 600", 600))
    ]


def _with_tiles(chip: Accelerator, tiles: int, active: int) -> Accelerator:
    """The same kind of chip with other numbers of tiles, whose digital side grows with the active ones."""
    share = active / chip.active_tiles
    return chip.model_copy(
        update={
            "tiles": tiles,
            "active_tiles": active,
            "digital_rate": chip.digital_rate * share,
            "on_chip_bandwidth": chip.on_chip_bandwidth * share,
        }
    )


def _pass(chip: Accelerator, tiles: int, direction: Direction) -> Timeline:
    """One vector through so many full tiles, and beside it the activation functions of the vector before."""
    lines = (chip.tile_cols, chip.tile_rows) if direction == "forward" else (chip.tile_rows, chip.tile_cols)
    read = Read(
        id=0, accelerator=0, direction=direction, layer=0, microbatch=0, vectors=1, tiles=tiles,
        cells=tiles * chip.tile_rows * chip.tile_cols, input_lines=tiles * lines[0], output_lines=tiles * lines[1],
        additions=0,
    )  # fmt: skip
    function = Digital(
        id=1, accelerator=0, kind="activation", layer=0, microbatch=0, operations=tiles * lines[1]
    )  # fmt: skip
    return _performed(chip, [read, function])


def _update(chip: Accelerator) -> Op:
    return Update(
        id=0, accelerator=0, layer=0, samples=1, tiles=1, cells=chip.tile_rows * chip.tile_cols,
        lines=chip.tile_rows + chip.tile_cols, bit_length=BIT_LENGTH,
    )  # fmt: skip


def _performed(chip: Accelerator, ops: list[Op]) -> Timeline:
    program = Program(ops=tuple(ops), accelerators=(0,), samples=1, microbatches=1, minibatch=1)
    return replay(program, Cluster(name="chip", accelerator=chip))


def _joules(timeline: Timeline) -> float:
    return sum(sum(energy) for energy in timeline.energy_J)
