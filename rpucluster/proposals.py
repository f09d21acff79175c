"""What to write instead where a plan is refused: keys with values, each of which has been tried."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from rpucluster.cluster import Cluster, default_active_tiles
from rpucluster.errors import PlanError
from rpucluster.job import Job

Degree = Literal["tensor", "pipeline", "virtual_stages", "data", "expert"]
TRIED = 12
"""Values of a key that are tried at most; each takes as long as a plan (our choice)."""


class RefusedError(Exception):
    """Why there is no plan, and which keys may change that."""

    def __init__(
        self,
        said: str,
        *,
        lower: Iterable[Degree] = (),
        higher: Iterable[Degree] = (),
        train: Iterable[tuple[Literal["minibatch", "microbatch"], int]] = (),
        tiles: int | None = None,
        accelerators: int | None = None,
        otherwise: str,
        kind: type[PlanError] = PlanError,
    ) -> None:
        super().__init__(said)
        self.said, self.otherwise, self.kind = said, otherwise, kind
        self.lower, self.higher, self.train = tuple(lower), tuple(higher), tuple(train)
        self.tiles, self.accelerators = tiles, accelerators
        """Of an accelerator, and of the cluster: what it would take."""


class Case(NamedTuple):
    """What a plan is wanted for."""

    job: Job
    cluster: Cluster
    accelerators: int
    """Of the cluster."""

    def having(self, table: Literal["parallel", "train"], key: str, value: int) -> "Case":
        """With another value of a key of the job."""
        changed = getattr(self.job, table).model_copy(update={key: value})
        return self._replace(job=self.job.model_copy(update={table: changed}))

    def with_tiles(self, tiles: int) -> "Case":
        """With so many tiles on an accelerator."""
        chip = self.cluster.accelerator
        changed = {"tiles": tiles}
        if "active_tiles" not in chip.model_fields_set:
            changed |= {"active_tiles": default_active_tiles(changed)}
        return self._replace(cluster=self.cluster.model_copy(update={"chip": chip.model_copy(update=changed)}))


Refused = Callable[[Case], RefusedError | None]
"""Why a case has no plan; None where it has one."""


def error_of(refusal: RefusedError, case: Case, refused: Refused) -> PlanError:
    """The error of a refused plan, with values of single keys that are enough, or of two keys together."""
    found: list[str] = []
    wanting: list[tuple[str, Case, RefusedError]] = []
    for key, changes in _changes(refusal, case):
        for value, changed in changes:
            still = refused(changed)
            if still is None:
                found.append(f"{key} = {value}")
                break
            wanting.append((f"{key} = {value}", changed, still))
    for text, changed, still in wanting[:TRIED] if not found else ():
        if more := _first(still, changed, refused):
            found.append(f"{text} and {more}")
            break
    if not found:
        return refusal.kind(f"{refusal.said}; {refusal.otherwise}")
    *some, last = found
    return refusal.kind(f"{refusal.said}; write {', '.join(some)}{' or ' * bool(some)}{last}")


def _first(refusal: RefusedError, case: Case, refused: Refused) -> str:
    """The first value that is enough, or nothing."""
    for key, changes in _changes(refusal, case):
        for value, changed in changes:
            if refused(changed) is None:
                return f"{key} = {value}"
    return ""


def _changes(refusal: RefusedError, case: Case) -> Iterator[tuple[str, list[tuple[int, Case]]]]:
    """Keys that may help, each with the values to try, the nearest first."""
    for degree in (*refusal.lower, *refusal.higher):
        values = _values(degree, case, down=degree in refusal.lower)
        yield f"parallel.{degree}", [(value, case.having("parallel", degree, value)) for value in values]
    for key in dict.fromkeys(key for key, _ in refusal.train):
        sizes = [size for name, size in refusal.train if name == key][:TRIED]
        yield f"train.{key}", [(size, case.having("train", key, size)) for size in sizes]
    if refusal.tiles is not None:
        yield "accelerator.tiles", [(refusal.tiles, case.with_tiles(refusal.tiles))]
    axes = case.cluster.network.axis
    if refusal.accelerators is not None and axes:
        others = case.cluster.accelerators // axes[-1].size
        size = -(-refusal.accelerators // others)
        yield f"network.axis.{axes[-1].name}.size", [(size, case._replace(accelerators=others * size))]


def _values(degree: Degree, case: Case, *, down: bool) -> list[int]:
    """What a degree may be instead, the nearest first, with no more accelerators than there are."""
    parallel = case.job.parallel
    now: int = getattr(parallel, degree)
    room = max(parallel.pipeline, len(case.job.network.layers))
    if degree in ("tensor", "pipeline", "data"):
        room = case.accelerators * now // (parallel.tensor * parallel.pipeline * parallel.data)
    if down:
        top = min(now - 1, room)
        least = 2 if degree == "virtual_stages" else 1  # one run a stage is another schedule
        return [value for value in dict.fromkeys((*range(top, max(0, top - TRIED), -1), 1)) if least <= value < now]
    steps = (now + 1, now + 2, now + 3, 3 * now // 2, *(now << k for k in range(1, 8)), room)
    return sorted({value for value in steps if now < value <= room})[:TRIED]
