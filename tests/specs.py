"""Small jobs and clusters for tests, written as the tables of their files."""

from typing import Any

from rpucluster.cluster import Cluster
from rpucluster.job import Job


def make_job(*sets: str, **tables: dict[str, Any]) -> Job:
    """A small job on digits with every imperfection on; `tables` replace keys, table by table."""
    job: dict[str, dict[str, Any]] = {
        "model": {"preset": "mlp", "sizes": [64, 24, 20, 10], "activation": "tanh"},
        "data": {"name": "digits", "train_samples": 64, "test_samples": 40},
        "train": {"epochs": 1, "minibatch": 8, "microbatch": 4, "learning_rate": 0.02, "seed": 7},
        "update": {"bit_length": 7, "update_management": True},
        "forward": {"noise_management": "abs_max", "bound_management": "iterative"},
        "backward": {"noise_management": "abs_max"},
        "evaluate": {"batch": 20},
        "run": {"accelerators_per_worker": 1},
    }
    merged = {name: job.get(name, {}) | tables.get(name, {}) for name in job | tables}
    return Job.model_validate({"name": "small", **merged})


def make_cluster(
    accelerators: int = 4,
    *,
    kind: str = "fully_connected",
    bandwidth: str = "50 GB/s",
    latency: str = "500 ns",
    tile: int = 8,
    contention: str = "fifo",
    **accelerator: Any,
) -> Cluster:
    """Accelerators with small tiles on one axis."""
    axis = {"name": "board", "kind": kind, "size": accelerators, "bandwidth": bandwidth, "latency": latency}
    axis["contention"] = contention
    chip = {"tile_rows": tile, "tile_cols": tile, "tiles": 100, **accelerator}
    return Cluster.model_validate({"name": "small", "accelerator": chip, "network": {"axis": [axis]}})
