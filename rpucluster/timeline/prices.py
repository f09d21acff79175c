"""What an operation costs on a cluster: its demands on arrays, digital units, the chip's network and links."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.collective import Chosen, CollectiveCost, cost, send_cost
from rpucluster.program import Collective, Digital, Op, Read, Rewrite, Send, Update


class Energy(NamedTuple):
    """Joules of one operation, or of many, by what consumes them."""

    array: float = 0.0
    adc: float = 0.0
    update: float = 0.0
    digital: float = 0.0
    on_chip: float = 0.0
    links: float = 0.0


class Price(NamedTuple):
    """What one operation takes when nothing else is on the machine."""

    energy: Energy
    seconds: float
    """From its start to its end."""
    analog_s: float = 0.0
    """Of the arrays, from its start."""
    lead_s: float = 0.0
    """What passes before its transfers on the chip and its digital work begin."""
    on_chip_s: float = 0.0
    """Of the network on the chip."""
    digital_s: float = 0.0
    """Of the digital units."""
    sending: CollectiveCost | None = None
    """Of a transfer: what it puts on links."""


class Counted(NamedTuple):
    """What depends on the data, as a real run counted it; means, so times with them are lower bounds where several
    tiles work side by side and the slowest counts."""

    forward_repeats: float = 0.0
    """Further passes per vector that bound management asked for."""
    backward_repeats: float = 0.0
    slots_per_cycle: float = math.inf
    """Pulse slots of an update cycle, where a dynamic bit length makes them fewer than the largest."""


NOTHING_COUNTED = Counted()


def price_of(
    op: Op, cluster: Cluster, counted: Counted = NOTHING_COUNTED, algorithm: Sequence[Chosen] = ("auto",)
) -> Price:
    """What an operation costs on a cluster; `algorithm` of a collective, where it is known which one is quickest.

    Raises `InputError` for accelerators that the network does not have.
    """
    chip = cluster.accelerator
    match op:
        case Read():
            return _read(op, chip, 1 + counted[op.direction == "backward"])
        case Digital():
            return _streamed(Energy(digital=op.operations * chip.digital_energy), digital=op.operations, chip=chip)
        case Update():
            return _update(op, chip, min(op.bit_length, counted.slots_per_cycle))
        case Rewrite():
            return _rewrite(op, chip)
        case Collective():
            network = cluster.network
            chunks, active = network.chunks, network.active_chunks
            sending = cost(op.kind, op.members, op.bytes, network, algorithm, chunks=chunks, active_chunks=active)
            return _sent(sending)
        case Send():
            return _sent(send_cost(op.source, op.destination, op.bytes, cluster.network))


def _streamed(
    energy: Energy, *, chip: Accelerator, lead: float = 0.0, analog: float = 0.0, moved: float = 0.0, digital: float = 0
) -> Price:
    """`lead` seconds of arrays alone, then `analog` more beside `moved` bytes on the chip and `digital` operations;
    the slowest of these counts."""
    on_chip_s, digital_s = moved / chip.on_chip_bandwidth, digital / chip.digital_rate
    return Price(
        energy=energy,
        seconds=lead + max(analog, on_chip_s, digital_s),
        analog_s=lead + analog,
        lead_s=lead,
        on_chip_s=on_chip_s,
        digital_s=digital_s,
    )


def _read(op: Read, chip: Accelerator, passes: float) -> Price:
    """`passes` for each vector, one after the other; on-chip transfers and additions stream beside them."""
    vectors = op.vectors * passes
    moved = vectors * chip.pass_bytes(op.direction, op.input_lines, op.output_lines)
    operations = op.vectors * (op.additions + op.serial_operations)  # of the pass that is kept
    energy = Energy(
        array=vectors * op.cells * chip.read_energy,
        adc=vectors * op.output_lines * chip.adc_energy,
        digital=operations * chip.digital_energy,
        on_chip=moved * chip.on_chip_energy,
    )
    analog = vectors * chip.waves(op.tiles) * chip.pass_time(op.direction)
    if not op.serial_operations:
        return _streamed(energy, analog=analog, moved=moved, digital=operations, chip=chip)
    # nothing of one vector overlaps with anything of the next
    beside = (moved / chip.on_chip_bandwidth, operations / chip.digital_rate)
    return _streamed(energy, lead=analog + min(beside), moved=moved, digital=operations, chip=chip)


def _update(op: Update, chip: Accelerator, bit_length: float) -> Price:
    """Pulse cycles of so many slots, then lines by themselves, whose digital work and transfers on the chip stream
    beside them."""
    # x and delta lie at the tiles from their passes, so pulse cycles move nothing on the chip
    slots = op.samples * chip.update_phases * bit_length if op.pulsed else 0
    seconds = slots * chip.pulse_width * chip.waves(op.tiles)
    pulsed = slots * op.cells * op.planes * chip.pulse_energy
    lines = op.alone
    if lines is None:
        return _streamed(Energy(update=pulsed), lead=seconds, chip=chip)
    line_slots = chip.update_phases * lines.slots
    analog = lines.passes_in_turn * chip.pass_time(lines.direction)
    analog += lines.writes_in_turn * line_slots * chip.pulse_width
    # our assumption (U): what is read crosses the chip at the width of the ADC, pulse counts at that of the DAC
    moved = chip.pass_bytes("forward", lines.written, lines.values)
    return _streamed(
        Energy(
            array=lines.values * chip.read_energy,
            adc=lines.values * chip.adc_energy,
            update=pulsed + line_slots * lines.written * chip.pulse_energy,
            digital=lines.operations * chip.digital_energy,
            on_chip=moved * chip.on_chip_energy,
        ),
        lead=seconds,
        analog=analog * chip.waves(op.tiles),
        moved=moved,
        digital=lines.operations,
        chip=chip,
    )


def _rewrite(op: Rewrite, chip: Accelerator) -> Price:
    """Row by row: a backward pass reads a row out, a whole update programs one; each cell is reached once.

    Our assumptions (U): each cell is driven at the average activity, and its value crosses the chip at the
    width of the converters, ADC when read out and DAC when programmed.
    """
    if op.kind == "read_out":
        seconds = op.rows * chip.pass_time("backward")
        moved = chip.pass_bytes("backward", 0, op.cells)
        energy = Energy(
            array=op.cells * chip.read_energy,
            adc=op.cells * chip.adc_energy,
            on_chip=moved * chip.on_chip_energy,
        )
    else:
        slots = chip.update_phases * op.bit_length
        seconds = op.rows * slots * chip.pulse_width
        moved = chip.pass_bytes("forward", op.cells, 0)
        energy = Energy(
            update=slots * op.cells * chip.pulse_energy,
            on_chip=moved * chip.on_chip_energy,
        )
    return _streamed(energy, analog=seconds * chip.waves(op.tiles), moved=moved, chip=chip)


def _sent(sending: CollectiveCost) -> Price:
    return Price(energy=Energy(links=sending.energy_J), seconds=sending.modelled_s, sending=sending)
