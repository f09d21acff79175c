"""A program as arrays of numbers, so that it can be replayed many times: what waits for what, and on what."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.program import Collective, Digital, Op, Program, Read, Rewrite, Send, Update

ARRAYS, DIGITAL, TRANSFER = range(3)
"""What an operation works with: the arrays of a shard, the digital units, or links."""
DEPENDS, STREAMS, TURN = range(3)
"""Why an operation follows another: it takes what that makes; the same, vector by vector on one accelerator, so that
it may begin with the first; or both need the same arrays."""

COUNTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    Read: attrgetter(
        "direction", "vectors", "tiles", "cells", "input_lines", "output_lines", "additions", "serial_operations"
    ),
    Digital: attrgetter("operations", "__class__"),
    Update: attrgetter("samples", "tiles", "cells", "bit_length", "pulsed", "planes", "alone"),
    Rewrite: attrgetter("kind", "rows", "tiles", "cells", "bit_length"),
    Collective: attrgetter("kind", "members", "elements", "word_bits"),
    Send: attrgetter("source", "destination", "elements", "word_bits"),
}
"""Everything that the price of an operation depends on."""


class Order(NamedTuple):
    """The numbers of a program that the replay reads, by operation unless said otherwise."""

    works_with: NDArray[np.int8]
    """`ARRAYS`, `DIGITAL` or `TRANSFER`."""
    place: NDArray[np.int32]
    """Of its accelerator in `Program.accelerators`; -1 of a transfer."""
    tiles: NDArray[np.int64]
    """Tiles that it occupies."""
    vectors: NDArray[np.int64]
    """Vectors that pass one after the other, at least 1."""
    price: NDArray[np.int32]
    """Which of `Arranged.examples` it costs as much as."""
    waiting: NDArray[np.int32]
    """How many operations it follows."""
    first: NDArray[np.int64]
    """Where its followers start in `follower`; one more entry than operations."""
    follower: NDArray[np.int32]
    why: NDArray[np.int8]
    """Beside `follower`: `DEPENDS`, `STREAMS` or `TURN`."""
    issued_first: NDArray[np.int64]
    """The first operation with arrays of each accelerator, by place; -1 where there is none."""
    issued_next: NDArray[np.int64]
    """The next operation with arrays of the same accelerator; -1 after the last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arranged:
    """A program beside its `Order`."""

    program: Program
    order: Order
    examples: tuple[Op, ...]
    """One operation of each price: most of a step repeat another but for their microbatch."""
    held: tuple[int, ...]
    """Tiles of the shards that work, by the place of their accelerator."""


def arrange(program: Program) -> Arranged:
    """Number what the replay of a program needs to know of it, whatever the cluster; O(operations + dependencies)."""
    n = len(program)
    places = {accelerator: i for i, accelerator in enumerate(program.accelerators)}
    works_with, place, tiles = [TRANSFER] * n, [-1] * n, [0] * n
    passing, price, stream = [1] * n, [0] * n, [-1] * n
    prices: dict[object, int] = {}
    examples: list[Op] = []
    before: list[int] = []
    after: list[int] = []
    why: list[int] = []
    latest: dict[tuple[int, int], int] = {}
    issued_first, issued_last, issued_next = [-1] * len(places), [-1] * len(places), [-1] * n
    shards: dict[tuple[int, int], int] = {}
    for i, op in enumerate(program.ops):
        kind = type(op)
        counts = COUNTS[kind](op)
        known = prices.get(counts)
        if known is None:
            known = prices[counts] = len(examples)
            examples.append(op)
        price[i] = known
        before += op.deps
        after += [i] * len(op.deps)
        why += [DEPENDS] * len(op.deps)
        if isinstance(op, Collective | Send):
            continue
        place[i] = places[op.accelerator]
        if isinstance(op, Digital):
            works_with[i] = DIGITAL
            passing[i] = op.vectors
            stream[i] = op.microbatch
            continue
        works_with[i] = ARRAYS
        if issued_last[place[i]] < 0:
            issued_first[place[i]] = i
        else:
            issued_next[issued_last[place[i]]] = i
        issued_last[place[i]] = i
        tiles[i] = op.tiles
        if isinstance(op, Read):
            passing[i] = op.vectors
            stream[i] = op.microbatch
        shard = (place[i], op.layer)
        shards[shard] = max(op.tiles, shards.get(shard, 0))
        previous = latest.get(shard)
        if previous is not None:
            before.append(previous)
            after.append(i)
            why.append(TURN)
        latest[shard] = i
    held = [0] * len(places)
    for (at, _), count in shards.items():
        held[at] += count
    edges = np.array([before, after, why], np.int64).reshape(3, -1)
    where, of, width = np.array(place, np.int32), np.array(stream), np.array(passing, np.int64)
    source, target = edges[0], edges[1]
    streams = (edges[2] == DEPENDS) & (of[source] == of[target]) & (of[source] >= 0) & (where[source] == where[target])
    edges[2, streams & (width[source] == width[target])] = STREAMS
    edges = edges[:, np.argsort(source, kind="stable")]
    order = Order(
        works_with=np.array(works_with, np.int8),
        place=where,
        tiles=np.array(tiles, np.int64),
        vectors=width,
        price=np.array(price, np.int32),
        waiting=np.bincount(target, minlength=n).astype(np.int32),
        first=np.concatenate(([0], np.cumsum(np.bincount(source, minlength=n)))).astype(np.int64),
        follower=edges[1].astype(np.int32),
        why=edges[2].astype(np.int8),
        issued_first=np.array(issued_first, np.int64),
        issued_next=np.array(issued_next, np.int64),
    )
    return Arranged(program=program, order=order, examples=tuple(examples), held=tuple(held))
