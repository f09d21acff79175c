"""Operations and programs written by hand, for tests of what times and sums them."""

import random
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


def digital(op: int, accelerator: int, operations: int, deps: Sequence[int] = (), vectors: int = 1) -> Digital:
    return Digital(
        id=op,
        accelerator=accelerator,
        kind="activation",
        layer=0,
        microbatch=0,
        operations=operations,
        vectors=vectors,
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


def random_program(seed: int, count: int) -> Program:
    """Operations of all kinds on four accelerators, with up to two dependencies each among the twelve before."""
    draw = random.Random(seed)
    ops: list[Op] = []
    for i in range(count):
        deps = sorted({draw.randrange(max(0, i - 12), i) for _ in range(draw.randrange(3))}) if i else []
        a, b = draw.randrange(4), draw.randrange(4)
        match draw.randrange(4):
            case 0:
                keys: dict[str, Any] = {"layer": b, "tiles": 1 + b, "additions": draw.choice([0, 50])}
                ops.append(read(i, a, deps, vectors=draw.choice([1, 4]), **keys))
            case 1:
                ops.append(digital(i, a, 25 * b, deps))
            case 2:
                ops.append(send(i, a, b, draw.choice([0, 100, draw.randrange(2000)]), deps))
            case _:
                ops.append(collective(i, "all_reduce", sorted({a, b}), draw.choice([0, 1000]), deps))
    everyone = tuple(range(4))
    return Program(ops=tuple(ops), accelerators=everyone, samples=4, microbatches=1, minibatch=4)
