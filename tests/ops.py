"""Operations and programs written by hand, for tests of what times and sums them."""

from collections.abc import Sequence
from typing import Any

from rpucluster.program import Collective, CollectiveKind, Digital, Op, Program, Read, Send


def read(op: int, accelerator: int, deps: Sequence[int] = (), **keys: Any) -> Read:
    """One vector through one tile: 80 ns."""
    counts: dict[str, Any] = {
        "direction": "forward",
        "layer": 0,
        "microbatch": 0,
        "vectors": 1,
        "tiles": 1,
        "cells": 256,
        "input_lines": 16,
        "output_lines": 16,
        "additions": 0,
    }
    return Read(id=op, accelerator=accelerator, deps=tuple(deps), **(counts | keys))


def digital(op: int, accelerator: int, operations: int, deps: Sequence[int] = ()) -> Digital:
    return Digital(
        id=op,
        accelerator=accelerator,
        kind="activation",
        layer=0,
        microbatch=0,
        operations=operations,
        deps=tuple(deps),
    )


def send(op: int, source: int, destination: int, elements: int, deps: Sequence[int] = ()) -> Send:
    """Elements of one byte."""
    return Send(
        id=op,
        source=source,
        destination=destination,
        elements=elements,
        word_bits=8,
        payload="activation",
        layer=0,
        microbatch=0,
        deps=tuple(deps),
    )


def collective(
    op: int, kind: CollectiveKind, members: Sequence[int], elements: int, deps: Sequence[int] = ()
) -> Collective:
    """Equal contributions of elements of one byte."""
    return Collective(
        id=op,
        kind=kind,
        members=tuple(members),
        elements=(elements,) * len(members),
        word_bits=8,
        payload="activation",
        layer=0,
        microbatch=0,
        deps=tuple(deps),
    )


def program(*ops: Op) -> Program:
    accelerators = sorted({accelerator for op in ops for accelerator in op.accelerators})
    return Program(ops=ops, accelerators=tuple(accelerators), samples=1, microbatches=1, minibatch=1)
