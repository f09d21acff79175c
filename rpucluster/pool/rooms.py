"""Where the workers of a pool go: on this machine as they are, on a cluster that others use into room kept for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.arrays import array_module, gpu_report
from rpucluster.errors import AcceleratorError
from rpucluster.host_memory import BYTES_PER_WORKER, check_gpus, worker_bytes
from rpucluster.job import Job
from rpucluster.kernels import warm_up
from rpucluster.plan import Plan
from rpucluster.pool.nodes import check_nodes
from rpucluster.pool.placement import Reserved, gpu_share, replicas_of, sharing
from rpucluster.pool.ray_session import is_shared


class Rooms:
    """What Ray must be told about each worker of a pool; `host_of` has the worker of each accelerator.

    A Ray that was started for this process alone takes all workers, however many cores there are.  On any other, a
    worker takes as many CPUs as `[run] threads`, its share of a GPU, and memory; nodes must have the same software,
    see `folder`, and have compiled their kernels when this returns.  Raises `AcceleratorError` where that is not so.
    """

    def __init__(self, ray: Any, job: Job, plan: Plan, host_of: Mapping[int, int], folder: Path | None) -> None:
        self.notices: tuple[str, ...] = ()
        # decided here for all, so that no worker finds something else on its node
        arrays = array_module(job.run.arrays)
        self.job = job.model_copy(update={"run": job.run.model_copy(update={"arrays": arrays.__name__})})
        self._reserved: Reserved | None = None
        on_gpu = arrays is not np
        held = worker_bytes(job, plan, host_of)
        gpus = ray.cluster_resources().get("GPU", 0.0) if is_shared(ray) else len(gpu_report())
        self._gpus = gpu_share(len(held), gpus) if on_gpu else 0.0
        if not is_shared(ray):
            return
        each = {"CPU": float(job.run.threads), "memory": float(BYTES_PER_WORKER + max(held))}
        if on_gpu:
            if not gpus:
                raise AcceleratorError(
                    "arrays would live on GPUs, as [run] arrays and the GPU of this machine say, but no node of the "
                    'Ray cluster has one; write [run] arrays = "numpy"'
                )
            each["GPU"] = self._gpus
        self._reserved = Reserved(ray, replicas_of(plan, host_of), each, job.run.node_placement)
        try:
            self.notices = tuple(self._prepare(ray, held, folder))
        except BaseException:
            self._reserved.release()
            raise

    def options(self, worker: int) -> dict[str, Any]:
        """What Ray must be told to start a worker."""
        if self._reserved is None:
            return {"num_cpus": 0, "num_gpus": self._gpus}
        return self._reserved.options(worker)

    def release(self) -> None:
        """Give what was kept back."""
        if self._reserved is not None:
            self._reserved.release()

    def _prepare(self, ray: Any, held: list[int], folder: Path | None) -> list[str]:
        assert self._reserved is not None
        nodes = self._reserved.per_node()
        notices = check_nodes(ray, nodes, on_gpu=self._gpus > 0, folder=folder)
        if self._gpus:
            found = dict(zip(nodes, _on_each(ray, nodes, gpu_report), strict=True))
            blind = next((node for node, gpus in found.items() if not gpus), None)
            if blind is not None:
                raise AcceleratorError(
                    f"node {blind} has a GPU by what Ray was told but CuPy finds none there; mend its driver, start "
                    f'its Ray with --num-gpus=0, or write [run] arrays = "numpy"'
                )
            # a task sees the GPU that it has a part of, so there is one of each node here
            check_gpus([gpu for gpus in found.values() for gpu in gpus], held, sharing(self._gpus))
        else:
            # once a node, rather than by all of its workers at a time
            _on_each(ray, nodes, warm_up, self.job.devices(), self.job.update.noise_per == "batch")
        return notices


def _on_each(ray: Any, nodes: Mapping[str, Mapping[str, Any]], function: Any, *args: Any) -> list[Any]:
    task = ray.remote(function)
    running = [task.options(**how).remote(*args) for how in nodes.values()]
    try:
        return list(ray.get(running))
    except ray.exceptions.RayError as error:
        raise AcceleratorError(f"a node could not be prepared: {' '.join(str(error).split())[:300]}") from None
