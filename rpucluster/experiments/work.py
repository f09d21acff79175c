"""The runs of a request: which there are, which are missing, how many epochs they have."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from rpucluster.cluster import CLUSTER_TABLES
from rpucluster.config import split_overrides
from rpucluster.data import load_data
from rpucluster.experiments.executors import Event, in_processes, with_ray
from rpucluster.experiments.points import NEAR, Panel, Point
from rpucluster.experiments.records import Record, Records
from rpucluster.experiments.request import Request
from rpucluster.experiments.results import panel_result
from rpucluster.experiments.schedule import Cost, choose_epochs, images, ordered, recorded, tried, until
from rpucluster.experiments.settings import BASE_JOB
from rpucluster.experiments.trials import QUICK_EPOCHS, QUICK_TEST, QUICK_TRAIN, RATES, Budget, Trial, trials_of
from rpucluster.files import read_json, write_json
from rpucluster.job import JOB_TABLES, load_job
from rpucluster.kernels import warm_up


class Work:
    """The runs of a request: which there are, which are missing, and what they show."""

    def __init__(self, request: Request, panels: Sequence[Panel], records: Records) -> None:
        self.request, self.panels, self.records = request, panels, records
        self.data_sha256 = self._data() if panels else ""
        self.began = time.monotonic()
        self.cost: Cost | None = None
        self._trials: dict[Budget, dict[tuple[str, str], list[Trial]]] = {}
        self.budget = self._budget()

    def _data(self) -> str:
        """Hash of the data set, whichever part of it a run uses."""
        base = load_job(BASE_JOB, split_overrides(self.sets, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES})["job"])
        data = load_data(base.data.model_copy(update={"train_samples": None, "test_samples": None}))
        digest = hashlib.sha256()
        for array in (data.train_x, data.train_y, data.test_x, data.test_y):
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def sets(self) -> tuple[str, ...]:
        path = self.request.data
        return self.request.sets if path is None else (f"data.path={json.dumps(path)}", *self.request.sets)

    def _budget(self) -> Budget:
        request, choice = self.request, self.request.out / "choice.json"
        changes = tuple(item for item in request.sets if not item.startswith("run."))
        budget = Budget(seeds=request.seeds or 3, changes=changes)
        if request.quick:
            budget = dataclasses.replace(
                budget, epochs=QUICK_EPOCHS, train_samples=QUICK_TRAIN, test_samples=QUICK_TEST, rates=RATES[:1]
            )
        if request.epochs is not None:
            return dataclasses.replace(budget, epochs=request.epochs)
        if request.quick or request.hours is None or not self.panels:
            return budget
        if choice.is_file():
            return dataclasses.replace(budget, epochs=int(read_json(choice)["epochs"]))
        if request.hours == 0:
            return budget
        trials = self.trials(budget)
        self.cost = self._cost(trials[0])
        epochs = choose_epochs(
            self.missing, budget, self.cost, images(trials[0]), 3600 * request.hours, request.jobs
        )  # fmt: skip
        write_json(choice, {"epochs": epochs, "hours": request.hours, "jobs": request.jobs, "cost": self.cost.source})
        return dataclasses.replace(budget, epochs=epochs)

    def _cost(self, trial: Trial) -> Cost:
        return recorded(self.records, trial) or tried(trial)

    def points(self, panel: Panel) -> list[Point]:
        """The points of a panel that are asked for, the control first."""
        few = [point for point in panel.points if point.recalled] if self.request.quick else []
        return [panel.control, *(few or panel.points)]

    def by_point(self, budget: Budget) -> dict[tuple[str, str], list[Trial]]:
        """All runs by panel and label of the point."""
        if budget not in self._trials:
            self._trials[budget] = {
                (panel.id, point.label): trials_of(
                    panel, point, budget, self.request.cluster, self.sets, self.data_sha256
                )
                for panel in self.panels
                for point in self.points(panel)
            }
        return self._trials[budget]

    def trials(self, budget: Budget) -> list[Trial]:
        """Every run once, in order."""
        return ordered(trial for trials in self.by_point(budget).values() for trial in trials)

    def missing(self, budget: Budget) -> list[Trial]:
        """Those that no record is of; where thresholds seem to lie by the runs that are there, before other points."""
        deciding = {
            trial.sha256
            for panel in self.panels
            for point in panel_result(panel, self.finished(panel, budget)).deciding
            for trial in self.by_point(budget).get((panel.id, point.label), ())
        }
        missing = [trial for trial in self.trials(budget) if self.records.find(trial.sha256) is None]
        return sorted(missing, key=lambda trial: trial.priority >= NEAR and trial.sha256 not in deciding)

    def run(self, missing: Sequence[Trial]) -> Iterator[Event]:
        """Make runs until all are made or the time is up."""
        request = self.request
        if not missing or request.hours == 0:
            return
        deadline = None
        if request.hours is not None:
            deadline = self.began + 3600 * request.hours
            self.cost = self.cost or self._cost(missing[0])
        jobs = [trial.job for trial in missing]
        # compiled once here, so that the processes find the kernels on disk
        warm_up([d for job in jobs for d in job.devices()], any(job.update.noise_per == "batch" for job in jobs))
        trials = until(missing, deadline, self._expected)
        events = (
            in_processes(trials, request.jobs)
            if request.executor == "local"
            else with_ray(trials, request.jobs, request.address)
        )
        with closing(events):
            yield from events

    def estimate(self, missing: Sequence[Trial]) -> str:
        """How long the missing runs take, in a sentence; empty where nothing tells."""
        cost = self.cost or (recorded(self.records, missing[0]) if missing else None)
        if cost is None:
            return ""
        seconds = sum(cost.wall_s(trial.job.train.epochs, images(trial)) for trial in missing) / self.request.jobs
        return f"all of them take about {seconds / 3600:.1f} h, {self.request.jobs} at a time, by {cost.source}"

    def _expected(self, trial: Trial) -> float:
        # what has just run says more than what was tried
        cost = recorded(self.records, trial) or self.cost
        return cost.wall_s(trial.job.train.epochs, images(trial)) if cost else 0.0

    def hashes(self, figure: str) -> set[str]:
        """The settings of all runs of a figure."""
        by_point = self.by_point(self.budget)
        panels = [panel for panel in self.panels if panel.figure == figure]
        return {t.sha256 for p in panels for point in self.points(p) for t in by_point[p.id, point.label]}

    def finished(self, panel: Panel, budget: Budget | None = None) -> dict[str, list[Record]]:
        """The runs of a panel that are there, by the label of their point."""
        by_point = self.by_point(budget or self.budget)
        trials = {point.label: by_point[panel.id, point.label] for point in self.points(panel)}
        found = {label: [self.records.find(trial.sha256) for trial in those] for label, those in trials.items()}
        return {label: [record for record in those if record is not None] for label, those in found.items()}
