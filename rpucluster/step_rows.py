"""A timed step as rows of plain values: its operations, its links, and when each link was used."""

import math
from typing import Any

import pyarrow as pa

from rpucluster.files import schema
from rpucluster.metrics import Metrics
from rpucluster.program import kind_of
from rpucluster.timeline import Timeline
from rpucluster.trace import bytes_of, microbatch_of
from rpucluster.waits import WORDS, wait_of

Row = dict[str, Any]

EVENTS = schema(
    ("op", pa.int64(), "1"),
    ("accelerator", pa.int64(), "1"),
    ("kind", pa.string(), "1"),
    ("label", pa.string(), "1"),
    ("layer", pa.int64(), "1"),
    ("microbatch", pa.int64(), "1"),
    ("start_modelled_s", pa.float64(), "s"),
    ("end_modelled_s", pa.float64(), "s"),
    ("energy_J", pa.float64(), "J"),
    ("bytes", pa.float64(), "B"),
    ("critical", pa.bool_(), "1"),
    ("waited_for", pa.string(), "1"),
    ("waited_for_op", pa.int64(), "1"),
    ("waited_modelled_s", pa.float64(), "s"),
)
"""events.parquet: one row per operation and accelerator, in the order of the program."""
LINKS = schema(
    ("link", pa.string(), "1"),
    ("axis", pa.string(), "1"),
    ("bytes", pa.float64(), "B"),
    ("busy_modelled_s", pa.float64(), "s"),
    ("utilisation", pa.float64(), "1"),
)
"""links.parquet: one row per link that carries anything, in the order of the network."""
SPANS = schema(
    ("link", pa.string(), "1"),
    ("op", pa.int64(), "1"),
    ("start_modelled_s", pa.float64(), "s"),
    ("end_modelled_s", pa.float64(), "s"),
)
"""link_spans.parquet: one row per link and operation that used it, in the order of the network and of time."""


def event_rows(timeline: Timeline) -> list[Row]:
    """The rows of `EVENTS`."""
    critical = set(timeline.critical_path())
    rows = []
    for op in timeline.program:
        wait = wait_of(timeline, op.id)
        shared = {
            "kind": kind_of(op),
            "label": op.label,
            "layer": op.layer,
            "microbatch": microbatch_of(op),
            "start_modelled_s": timeline.start_s[op.id],
            "end_modelled_s": timeline.finish_s[op.id],
            # shared out evenly, so that the column adds up to what the operations of the step consume
            "energy_J": math.fsum(timeline.energy_J[op.id]) / len(op.accelerators),
            "critical": op.id in critical,
            "waited_for": WORDS[wait.reason],
            "waited_for_op": wait.op if wait.op >= 0 else None,
            "waited_modelled_s": wait.seconds,
        }
        rows += [
            {"op": op.id, "accelerator": accelerator, "bytes": bytes_of(op, accelerator), **shared}
            for accelerator in op.accelerators
        ]
    return rows


def link_rows(metrics: Metrics) -> list[Row]:
    """The rows of `LINKS`."""
    return [
        {
            "link": use.name,
            "axis": use.axis,
            "bytes": use.bytes,
            "busy_modelled_s": use.busy_s,
            "utilisation": use.utilisation,
        }
        for use in metrics.links
    ]


def span_rows(timeline: Timeline) -> list[Row]:
    """The rows of `SPANS`."""
    spans = sorted(timeline.link_spans(), key=lambda span: (span.link, span.begin_s, span.end_s, span.op))
    names = {number: timeline.cluster.network.link(number).name for number in {span.link for span in spans}}
    return [
        {"link": names[span.link], "op": span.op, "start_modelled_s": span.begin_s, "end_modelled_s": span.end_s}
        for span in spans
    ]
