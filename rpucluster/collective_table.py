"""The collective benchmark: sizes, times, algorithm and bus bandwidths, by the conventions of nccl-tests.

Sizes are those of the buffer that the benchmark calls S: of an all-gather the gathered output, of a reduce-scatter the
input, of an all-to-all, all-reduce, broadcast or send what each member holds.  Algorithm bandwidth is S over the time.
Bus bandwidth multiplies it by what the busiest port of any algorithm has to carry, which makes it comparable with the
bandwidth of a link: 2 (n - 1) / n for an all-reduce, (n - 1) / n for an all-gather, reduce-scatter or all-to-all, and
1 otherwise (NVIDIA/nccl-tests, doc/PERFORMANCE.md).
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rpucluster.collective import ALGORITHMS, CollectiveCost, CollectiveKind, cost, send_cost
from rpucluster.errors import InputError
from rpucluster.topology import Network
from rpucluster.units import parse_quantity

Kind = CollectiveKind | Literal["send"]
KINDS: tuple[Kind, ...] = (*get_args(CollectiveKind), "send")
SIZES = "1KiB:1GiB:x4"
"""The sweep of the benchmark where no size is given."""

_MOST_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One size of the benchmark."""

    kind: str
    algorithm: str
    bytes: float
    """S of the benchmark."""
    chunks: int
    active_chunks: int
    accelerators: int
    """Members of the group."""
    modelled_s: float
    algbw_Bps: float | None
    """None where it took no time."""
    busbw_Bps: float | None


def kind_named(text: str) -> Kind:
    """The kind of collective of a name.  Raises `InputError`."""
    for kind in KINDS:
        if text.replace("-", "_") == kind:
            return kind
    close = difflib.get_close_matches(text, KINDS, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"write {', '.join(KINDS)}"
    raise InputError(f"no collective is called {text!r}; {hint}")


def parse_sizes(text: str, option: str = "--bytes") -> list[float]:
    """Read ``"4KiB"``, ``"1MB"``, ``"1024"`` (bytes) or a sweep ``"1KiB:1GiB:x4"`` into bytes, ascending.

    Raises `InputError`.
    """
    low, *rest = text.split(":")
    if not rest:
        return [_size(low, option)]
    hint = f"{option} {text}: write a size such as 4KiB, or a sweep LOW:HIGH:xSTEP such as {SIZES}"
    if len(rest) != 2 or not rest[1].startswith("x"):
        raise InputError(hint)
    try:
        step = float(rest[1][1:])
    except ValueError:
        raise InputError(hint) from None
    begin, end = _size(low, option), _size(rest[0], option)
    if not (1 < step < math.inf and 0 < begin <= end):
        raise InputError(f"{option} {text}: the sizes must rise from more than 0 by a step of more than 1")
    sizes = [begin]
    while sizes[-1] * step <= end * (1 + 1e-9):
        sizes.append(sizes[-1] * step)
        if len(sizes) > _MOST_ROWS:
            raise InputError(f"{option} {text}: more than {_MOST_ROWS} sizes; take a larger step")
    return sizes


def parse_algorithms(text: str) -> tuple[Any, ...]:
    """Read ``"auto"``, ``"ring"`` or ``"ring,halving_doubling"``.  Raises `InputError`."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in (*ALGORITHMS, "auto"):
            raise InputError(
                f"--algorithm {text}: no algorithm is called {name!r}; write {', '.join(ALGORITHMS)} or auto"
            )
    return names


def members_over(network: Network, axes: str | None) -> range | tuple[int, ...]:
    """The accelerators that differ from accelerator 0 along these axes only, ``"board,rack"``; or all of them.

    Raises `InputError` for an axis that is not there.
    """
    if axes is None:
        return range(network.accelerators)
    names = [name.strip() for name in axes.split(",")]
    known = [axis.name for axis in network.axis]
    for name in names:
        if name not in known:
            there = f"its axes are {', '.join(known)}" if known else "it has no axes"
            raise InputError(f"--over {axes}: the network has no axis {name!r}; {there}")
    members, stride = [0], 1
    for axis in network.axis:
        if axis.name in names:
            members = [member + stride * place for place in range(axis.size) for member in members]
        stride *= axis.size
    return tuple(members)


def bus_factor(kind: Kind, n: int) -> float:
    """Bus bandwidth over algorithm bandwidth among n members."""
    if kind == "all_reduce":
        return 2 * (n - 1) / n
    return (n - 1) / n if kind in ("all_gather", "reduce_scatter", "all_to_all") else 1.0


def measure(
    kind: Kind,
    network: Network,
    sizes: Sequence[float],
    *,
    members: Sequence[int],
    algorithm: Sequence[Any] = ("auto",),
    chunks: int = 1,
    active_chunks: int = 1,
    shards: bool = False,
) -> list[Row]:
    """One row for each size.

    With `shards`, sizes are those of a member's share of an all-gather, reduce-scatter or all-to-all.  A send goes from
    the first member to the second.  Raises `InputError`.
    """
    n = len(members)
    if n < 2:
        raise InputError(f"{kind} among {n} accelerator: it takes two; choose a larger cluster or other axes in --over")
    if shards and kind not in ("all_gather", "reduce_scatter", "all_to_all"):
        raise InputError(f"{kind} has no shards; write --bytes instead of --shard-bytes")
    if kind == "send" and tuple(algorithm) != ("auto",):
        raise InputError("send has no algorithms; leave --algorithm out")
    rows = []
    for size in sizes:
        whole = float(size * n if shards else size)
        price = _price(kind, network, whole, members, algorithm, chunks, active_chunks)
        bandwidth = whole / price.modelled_s if price.modelled_s > 0 else None
        rows.append(
            Row(
                kind=kind,
                algorithm=price.algorithm if kind != "send" else "send",
                bytes=int(whole) if whole.is_integer() else whole,
                chunks=chunks,
                active_chunks=active_chunks,
                accelerators=2 if kind == "send" else n,
                modelled_s=price.modelled_s,
                algbw_Bps=bandwidth,
                busbw_Bps=None if bandwidth is None else bandwidth * bus_factor(kind, n),
            )
        )
    return rows


def _price(
    kind: Kind,
    network: Network,
    size: float,
    members: Sequence[int],
    algorithm: Sequence[Any],
    chunks: int,
    active_chunks: int,
) -> CollectiveCost:
    if kind == "send":
        if chunks == active_chunks == 1:
            return send_cost(members[0], members[1], size, network)
        # chunks of a send are those of a broadcast to one other
        kind, members, algorithm = "broadcast", members[:2], ("ring",)
    n = len(members)
    block = size / n if kind == "all_gather" else size
    names = algorithm[0] if len(algorithm) == 1 else algorithm
    return cost(kind, members, [block] * n, network, names, chunks=chunks, active_chunks=active_chunks)


def _size(text: str, option: str) -> float:
    size = float(text) if text.strip().isdecimal() else parse_quantity(text, "size")
    if not 0 < size < math.inf:
        raise InputError(f"{option} {text}: write a size of more than 0 bytes")
    return size
