"""What finished runs say about each panel: errors of its points with intervals, and where the threshold lies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rpucluster.experiments.points import PENALTY, Panel, Point
from rpucluster.experiments.records import Record
from rpucluster.experiments.threshold import Estimate, Threshold, estimate, threshold


@dataclass(frozen=True, kw_only=True)
class PointResult:
    """The runs of one point."""

    point: Point
    records: tuple[Record, ...]
    """By seed."""

    @property
    def errors(self) -> tuple[float, ...]:
        """Test error after the last epoch of each run, a fraction of 1."""
        return tuple(record.test_error for record in self.records)

    @property
    def error(self) -> Estimate | None:
        """Their mean; None without a run."""
        return estimate(self.errors) if self.records else None

    @property
    def curve(self) -> tuple[float | None, ...]:
        """Mean test error by epoch over the runs; None where an epoch was not tested."""
        columns = zip(*(record.test_errors for record in self.records), strict=True)
        means = []
        for column in columns:
            known = [error for error in column if error is not None]
            means.append(sum(known) / len(known) if known else None)
        return tuple(means)


@dataclass(frozen=True, kw_only=True)
class PanelResult:
    """One panel: its control, its points and its threshold."""

    panel: Panel
    control: PointResult
    points: tuple[PointResult, ...]

    @property
    def threshold(self) -> Threshold | None:
        """None without a swept parameter, or with fewer than two of its points or no control run."""
        known = [result for result in self.points if result.records]
        if not (self.panel.swept and self.control.records and len(known) >= 2):
            return None
        return threshold(
            [result.point.value or 0.0 for result in known],
            [result.errors for result in known],
            self.control.errors,
            PENALTY,
            self.panel.scale == "log",
        )

    @property
    def deciding(self) -> tuple[Point, ...]:
        """The points whose runs say most about the threshold: on both sides of it, as far as known runs tell, and
        between; or the end of what is known, where it lies beyond.

        Empty without a swept parameter, or with fewer than two of its points or no control run.
        """
        known = [i for i, result in enumerate(self.points) if result.records]
        if not (self.panel.swept and self.control.records and len(known) >= 2):
            return ()
        limit = math.fsum(self.control.errors) / len(self.control.errors) + PENALTY
        means = [math.fsum(self.points[i].errors) / len(self.points[i].errors) for i in known]
        above = next((k for k, mean in enumerate(means) if mean > limit), len(known))
        mild = known[above - 1] if above > 0 else max(known[0] - 1, 0)
        severe = known[above] if above < len(known) else known[-1] + 1
        return tuple(result.point for result in self.points[mild : severe + 1])

    def penalty(self, result: PointResult) -> Estimate | None:
        """How much more error than the control's a point has, with the interval of runs paired by their seeds.

        The runs of a seed share their initial weights and the order of their samples.  None where no seed has both.
        """
        by_seed = {record.seed: record.test_error for record in self.control.records}
        pairs = [r.test_error - by_seed[r.seed] for r in result.records if r.seed in by_seed]
        return estimate(pairs) if pairs else None


def panel_result(panel: Panel, records: Mapping[str, Sequence[Record]]) -> PanelResult:
    """Put a panel's finished runs together; `records` are by the label of the point."""

    def of(point: Point) -> PointResult:
        return PointResult(point=point, records=tuple(sorted(records.get(point.label, ()), key=lambda r: r.seed)))

    return PanelResult(
        panel=panel,
        control=of(panel.control),
        points=tuple(of(point) for point in panel.points),
    )
