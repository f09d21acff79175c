"""Simulate clusters of analog (RPU) accelerators: the real training math and the modelled time and energy.

from rpucluster import load_cluster, load_job, run

result = run(load_job("digits"), load_cluster("laptop"))
print(result.summary["test_accuracy"], result.summary["modelled_step_s"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rpucluster.cluster import Cluster as Cluster
    from rpucluster.cluster import load_cluster as load_cluster
    from rpucluster.coordinator import Callbacks as Callbacks
    from rpucluster.coordinator import Progress as Progress
    from rpucluster.coordinator import Run as Run
    from rpucluster.coordinator import run as run
    from rpucluster.errors import RpuclusterError as RpuclusterError
    from rpucluster.job import Job as Job
    from rpucluster.job import load_job as load_job
    from rpucluster.lowering import lower as lower
    from rpucluster.metrics import Metrics as Metrics
    from rpucluster.metrics import summarise as summarise
    from rpucluster.partitioner import partition as partition
    from rpucluster.plan import Plan as Plan
    from rpucluster.program import Program as Program
    from rpucluster.projection.planned import plan_report as plan_report
    from rpucluster.runlog import EpochRow as EpochRow
    from rpucluster.runlog import RunDirectory as RunDirectory
    from rpucluster.tile import TileGrid as TileGrid
    from rpucluster.timeline import Timeline as Timeline
    from rpucluster.timeline import replay as replay

_HOME = {
    "Callbacks": "coordinator",
    "Cluster": "cluster",
    "EpochRow": "runlog",
    "Job": "job",
    "Metrics": "metrics",
    "Plan": "plan",
    "Program": "program",
    "Progress": "coordinator",
    "RpuclusterError": "errors",
    "Run": "coordinator",
    "RunDirectory": "runlog",
    "TileGrid": "tile",
    "Timeline": "timeline",
    "load_cluster": "cluster",
    "load_job": "job",
    "lower": "lowering",
    "partition": "partitioner",
    "plan_report": "projection.planned",
    "replay": "timeline",
    "run": "coordinator",
    "summarise": "metrics",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # imported when first asked for, so that `rpucluster --help` waits for neither Numba nor Arrow
    if name in _HOME:
        return getattr(import_module(f"rpucluster.{_HOME[name]}"), name)
    raise AttributeError(f"module rpucluster has no attribute {name}")
