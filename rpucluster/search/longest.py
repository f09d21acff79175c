"""The longest of what has to happen one after the other in a step: `longest`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.schedule import Schedule
from rpucluster.search.layouts import Layout, Loads

Floats = NDArray[np.float64]


class Flush(NamedTuple):
    """What replicas exchange and update, once or after each microbatch; the first index is 1, or by size."""

    exchange_s: Floats
    """(., sites) of the slowest rank."""
    update_s: Floats
    load: Floats
    """(., sites, ranks, axes): for how long it keeps the accelerator's own link."""
    joules: Floats
    """(., sites) of all accelerators."""


class Travel(NamedTuple):
    """A microbatch on its way through all runs, transfers included; by size and run."""

    forward: Floats
    backward: Floats
    head: Floats
    """Until it comes to a run."""
    tail: Floats
    """From where it leaves a run on its way back, until it has left the first."""
    trip: Floats
    """From the first read of a run until its read on the way back has ended."""
    behind_first: Floats
    """What `tail` has behind the last read back of all, by size."""
    load: Floats
    """For how long an accelerator's own links are kept by what tensor ranks and stages send: by size, stage, rank and
    axis of the network."""
    joules: Floats
    """Of the transfers of a replica, by size."""


def longest(
    layout: Layout,
    travel: Travel,
    loads: Loads,
    flush: Flush,
    count: NDArray[np.int64],
    schedule: Schedule,
    dense: bool,
    behind_last: Floats | None,
) -> Floats:
    """Seconds of a step by size of the microbatch; each sum that is compared here is said in docs/search.md."""
    stages, many, at_once = layout.stages, count[:, None], schedule == "async"
    head, tail = travel.head[:, :stages], travel.tail[:, :stages]
    flushed = flush.exchange_s + flush.update_s
    # the first layer is updated once its arrays have been read back
    at_end = np.maximum(flushed[:, layout.pieces.site[:1]] - travel.behind_first[:, None], 0.0)
    quickest = np.where(layout.layers_of > 0, flush.update_s[:, None], np.inf).min(axis=2)
    exchanged = np.tensordot(flush.load, layout.layers_of, axes=([1], [1])).transpose(0, 3, 1, 2)
    exchanged = exchanged * (many[..., None, None] if at_once else 1)
    linked = (many[..., None, None] * travel.load + exchanged).max(axis=(2, 3), initial=0.0)
    through = head + many * loads.both + tail  # when the last microbatch is back, as each stage has it
    last_back = [through]
    found = [head + linked, head + many * (loads.gradient if dense else loads.both)]
    if at_once:
        found.append(many * flushed.max(axis=1, keepdims=True))
    if schedule != "gpipe":
        # stages limit the microbatches on their way
        first = flushed[:, layout.pieces.site[layout.starts]] if at_once else 0.0
        trips = -(-many // _ahead(layout, schedule, count)) * (travel.trip + first)
        trips = np.where(travel.trip > 0, travel.head + trips, 0.0) + travel.tail
        last_back.append(trips[:, :stages])
        found.append(trips + (0.0 if at_once else at_end))
    elif behind_last is not None:
        # all have gone forward before any goes back
        after = (travel.head + travel.forward)[:, -1:] - (travel.head + travel.forward)[:, -stages:]
        turned = (head + many * loads.forward + after - np.where(np.arange(stages) < stages - 1, behind_last, 0.0)).max(
            axis=1, keepdims=True
        )
        arrives = (travel.tail[:, -1:] - travel.tail - travel.backward)[:, :stages]
        arrives[:, -1] = 0.0
        backs = loads.backward_gradient if dense else loads.backward
        last_back.append(turned + arrives + many * loads.backward + tail)
        found.append(turned + arrives + many * backs)
    if not at_once:
        back = np.max(last_back, axis=0)
        found.append(back + at_end)
        if layout.chunks == 1 and stages > 1:
            # a stage exchanges once the last microbatch has come back to it
            later = np.maximum.accumulate(back[:, ::-1], axis=1)[:, ::-1][:, 1:]
            come = later - (tail + travel.backward)[:, :-1]
            found.append(come + exchanged.max(axis=(2, 3), initial=0.0)[:, :-1] + quickest[:, :-1])
    least: Floats = np.max([each.max(axis=1) for each in found], axis=0)
    return least


def _ahead(layout: Layout, schedule: Schedule, count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Most microbatches that are on their way behind each run; by size and run.

    Of the n-th turn forward and the k-th back, the former comes first where n is less than k and the turns ahead.
    """
    stages, chunks = layout.stages, layout.chunks
    many, stage = count[:, None], np.arange(stages)[None]
    if schedule != "interleaved":
        return np.maximum(np.minimum(stages - stage, many), 1)
    chunk = np.arange(chunks)[:, None]
    ahead = np.minimum(2 * (stages - stage - 1) + (chunks - 1) * stages + 1, (many * chunks)[..., None])
    need = ahead - (2 * chunk - chunks + 1) * stages
    whole, rest = need // (stages * chunks), need % (stages * chunks)
    most = np.where(rest < stages, whole * stages + rest, (whole + 1) * stages)
    return np.maximum(most, 1).reshape(len(count), -1)
