"""Training algorithms on pulses, unit cells of several devices, and the planes of devices that they work on.

One small file per algorithm: a frozen dataclass of settings, which says what an update costs and makes the *trainer*
of a shard: its planes, whatever else it holds, and the update.  Everything acts on each tile by itself.
"""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rpucluster.algorithms.agad import Agad as Agad
from rpucluster.algorithms.base import Algorithm as Algorithm
from rpucluster.algorithms.base import Memory as Memory
from rpucluster.algorithms.base import Moved as Moved
from rpucluster.algorithms.base import Shard as Shard
from rpucluster.algorithms.base import Trainer as Trainer
from rpucluster.algorithms.base import Work as Work
from rpucluster.algorithms.base import require_whole_pulses as require_whole_pulses
from rpucluster.algorithms.chopped import ChoppedTikiTakaV2 as ChoppedTikiTakaV2
from rpucluster.algorithms.mixed_precision import MixedPrecision as MixedPrecision
from rpucluster.algorithms.one_sided import OneSided as OneSided
from rpucluster.algorithms.plane import Part as Part
from rpucluster.algorithms.plane import Plane as Plane
from rpucluster.algorithms.plane import Storage as Storage
from rpucluster.algorithms.plane import checked as checked
from rpucluster.algorithms.plane import in_tiles as in_tiles
from rpucluster.algorithms.rows import write_rows as write_rows
from rpucluster.algorithms.sgd import Sgd as Sgd
from rpucluster.algorithms.tiki_taka import TikiTaka as TikiTaka
from rpucluster.algorithms.tiki_taka_v2 import TikiTakaV2 as TikiTakaV2
from rpucluster.algorithms.transfer import Transfer as Transfer
from rpucluster.algorithms.vector_cell import DeviceChoice as DeviceChoice
from rpucluster.algorithms.vector_cell import VectorCell as VectorCell

ALGORITHMS: Mapping[str, Any] = {
    kind.kind: kind for kind in (Sgd, TikiTaka, TikiTakaV2, ChoppedTikiTakaV2, Agad, MixedPrecision)
}
"""Settings by the name that a job gives the algorithm."""


def algorithm_from(kind: str, settings: Mapping[str, Any]) -> Algorithm:
    """The algorithm of that kind with some of its settings.

    Raises ValueError for an unknown kind or setting, naming the nearest known one, and for a value out of range.
    """
    if kind not in ALGORITHMS:
        raise ValueError(f'kind = "{kind}" is no algorithm; {_nearest(kind, list(ALGORITHMS))}')
    known = [field.name for field in fields(ALGORITHMS[kind])]
    for name in settings:
        if name not in known:
            raise ValueError(f'kind = "{kind}" has no setting {name}; {_nearest(name, known)}')
    algorithm: Algorithm = ALGORITHMS[kind](**settings)
    return algorithm


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(known)}" if known else "it has none"
