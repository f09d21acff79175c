"""Cutting a program into calls: what each accelerator does between giving one message and the next.

Communication is performed by carrying payloads from call to call.  A call absorbs what others gave, performs
operations, and ends by giving payloads, so a training step needs no more calls to an accelerator than it has
moments of giving.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rpucluster.program import Collective, Program, Send


@dataclass(frozen=True, kw_only=True)
class Call:
    """One uninterrupted piece of one accelerator's program."""

    accelerator: int
    ops: tuple[int, ...]
    """Operations to perform, in order; for a communication operation: to absorb what arrived."""
    emits: tuple[int, ...]
    """Communication operations whose payload this call gives at its end."""
    inbox: tuple[tuple[int, int], ...]
    """The payloads that this call absorbs, as (operation, giving accelerator)."""


@dataclass(kw_only=True)
class _OpenCall:
    ops: list[int] = field(default_factory=list)
    emits: list[int] = field(default_factory=list)
    inbox: list[tuple[int, int]] = field(default_factory=list)


def givers(op: Collective | Send) -> tuple[int, ...]:
    """The accelerators that give something in a communication; a member with an empty block gives nothing."""
    if isinstance(op, Send):
        return (op.source,)
    return tuple(member for member, n in zip(op.members, op.elements, strict=True) if n)


def takers(op: Collective | Send) -> tuple[int, ...]:
    """The accelerators that take the result of a communication."""
    return (op.destination,) if isinstance(op, Send) else op.members


def cut(program: Program) -> tuple[Call, ...]:
    """All calls of a program, in an order in which each finds its payloads already given."""
    done: list[Call] = []
    opened: dict[int, _OpenCall] = {accelerator: _OpenCall() for accelerator in program.accelerators}

    def close(accelerator: int) -> None:
        call = opened[accelerator]
        opened[accelerator] = _OpenCall()
        for op, giver in call.inbox:
            if op in opened[giver].emits:
                close(giver)
        if call.ops or call.emits:
            done.append(
                Call(
                    accelerator=accelerator,
                    ops=tuple(call.ops),
                    emits=tuple(call.emits),
                    inbox=tuple(call.inbox),
                )
            )

    def perform(accelerator: int, op: int, sources: Sequence[int] = ()) -> None:
        if opened[accelerator].emits:
            close(accelerator)
        call = opened[accelerator]
        call.ops.append(op)
        call.inbox.extend((op, source) for source in sources)

    for op in program:
        if not isinstance(op, Collective | Send):
            perform(op.accelerator, op.id)
            continue
        for giver in givers(op):
            opened[giver].emits.append(op.id)
        for taker in takers(op):
            perform(taker, op.id, [giver for giver in givers(op) if giver != taker])
    for accelerator in program.accelerators:
        close(accelerator)
    return tuple(done)
