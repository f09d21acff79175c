"""One run from its specs, or from a checkpoint, to its summary, over whatever happens to its accelerators."""

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rpucluster import __version__
from rpucluster.checkpoint import Checkpoint, newest_good
from rpucluster.cluster import Cluster
from rpucluster.config import write_toml
from rpucluster.coordinator.callbacks import Callbacks, Caller, StoppedByCallbackError
from rpucluster.coordinator.events import Progress, Report
from rpucluster.coordinator.experiment import experiment, plan_digest
from rpucluster.coordinator.loop import Loop
from rpucluster.coordinator.position import Position
from rpucluster.coordinator.resume import Source, counters_for, find, position_in, require_same
from rpucluster.coordinator.setting import Setting
from rpucluster.coordinator.status import StatusFile
from rpucluster.coordinator.tensorboard import Scalars, require_tensorboardx
from rpucluster.data import Dataset, check_against, load_data
from rpucluster.errors import AcceleratorLostError, ConfigError, DataError, PlanError
from rpucluster.host_memory import check_memory, out_of_memory
from rpucluster.job import Job
from rpucluster.kernels import warm_up
from rpucluster.modelled import Modelled, model
from rpucluster.partitioner import partition
from rpucluster.plan_report import describe
from rpucluster.pool import LocalPool, Pool, RayPool, ray_session
from rpucluster.run_summary import summary
from rpucluster.runlog import RunDirectory
from rpucluster.weights import weight_bands, weights_sha256

Executor = Literal["ray", "local"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is done, or that a callback has ended."""

    directory: RunDirectory
    summary: dict[str, Any]
    """Empty where it is not finished: a summary is of all epochs."""
    finished: bool = True


def run(
    job: Job,
    cluster: Cluster,
    *,
    executor: Executor = "ray",
    address: str | None = None,
    out: str | Path | None = None,
    progress: Report | None = None,
    callbacks: Callbacks | None = None,
    tensorboard: bool = False,
    resume: Source | str | Path | None = None,
    as_new: bool = False,
) -> Run:
    """Train the job on the cluster and leave a run directory.

    `executor` is where the accelerators live: in Ray actors (of the cluster at `address`, or of one started
    here) or in this process, with the same results.  Everything that the user may have written wrongly is
    checked before the run directory is made.

    `progress` is called with what a bar shows, `callbacks` as they say; those may end the run.  `tensorboard` writes
    scalars for TensorBoard into the run directory.

    With `resume`, a run directory or one of its checkpoints, that run goes on in its own directory, on whatever plan;
    it has to be the same experiment.  `as_new` starts a new run in `out` instead, whose weights are those of the
    checkpoint and whose steps count from 0.  Raises the classes of `rpucluster.errors`, and `RunInterrupted` after
    Ctrl-C.
    """
    began = time.perf_counter()
    if executor not in get_args(Executor):
        raise ConfigError(f"executor = {executor!r}: write {' or '.join(map(repr, get_args(Executor)))}")
    if isinstance(resume, str | Path):
        resume = find(Path(resume))
    if tensorboard:
        require_tensorboardx()
    _require_arrays(job)
    plan = partition(job, cluster)
    if address is None:  # a cluster is asked once it is known
        check_memory(job, plan, executor)  # before steps of arrays that no machine holds are written down one by one
    modelled = model(job, cluster, plan)
    data = load_data(job.data)
    check_against(job.network, data)
    _require_a_step(job, modelled, data)
    identity = experiment(job, cluster, plan, data)
    start = Position()
    if resume is not None and not as_new:
        require_same(resume.checkpoint, identity, job)
        before = resume.specs()
        start = resume.position.under(modelled, model(*before) if before != (job, cluster) else None)
        directory = RunDirectory.continued(resume.directory.path)
    else:
        directory = RunDirectory.create(None if out is None else Path(out), job.name)
    show: Report = progress if progress is not None else lambda _: None
    setting = Setting(
        job=job,
        modelled=modelled,
        data=data,
        directory=directory,
        report=StatusFile(directory.path, show),
        caller=Caller([] if callbacks is None else [callbacks]),
        told={
            "rpucluster": __version__,
            "job": write_toml(job),
            "cluster": write_toml(cluster),
            "experiment": identity,
            "plan": plan_digest(plan),
        },
        began=began,
        earlier_wall_s=start.wall_s,
    )
    with directory.held(), ExitStack() as at_end:
        try:
            if tensorboard:
                scalars = Scalars(directory.path / "tensorboard", start.steps, show)
                at_end.callback(scalars.close)
                setting.caller.also(scalars.callbacks())
            _write_what_is_known(setting, job, cluster)
            return _attempts(setting, cluster, executor, address, start, resume, as_new)
        except StoppedByCallbackError:
            if setting.caller.error is not None:
                raise setting.caller.error from None
            return Run(directory=directory, summary={}, finished=False)
        except BaseException:
            if resume is None and not directory.has_results():
                directory.discard()  # without an epoch or a checkpoint there is nothing that anybody could want
            raise


def _attempts(
    setting: Setting,
    cluster: Cluster,
    executor: Executor,
    address: str | None,
    start: Position,
    resume: Source | None,
    as_new: bool,
) -> Run:
    """Train until it is done, going back to the last checkpoint where accelerators are lost on the way."""
    job, source = setting.job, resume.checkpoint if resume is not None else None
    # compiled once here, so that the actors find the kernels on disk
    warm_up(job.devices(), job.update.noise_per == "batch")
    lost = 0
    with ray_session(address) if executor == "ray" else nullcontext():
        while True:
            try:
                return _attempt(setting, cluster, executor, address, start, source, as_new)
            except MemoryError as error:  # of this process; that of another is told by its pool
                raise out_of_memory(error) from None
            except AcceleratorLostError as error:
                lost += 1
                if lost > job.run.restarts:
                    raise AcceleratorLostError(f"{error}; [run] restarts = {job.run.restarts} are used up") from None
                found, _ = newest_good(setting.directory.checkpoints)
                if found is not None:
                    if source is None or found.folder != source.folder:
                        start = position_in(found)
                    source, as_new = found, False
                setting.report(
                    Progress(
                        phase="restart",
                        epoch=start.epoch + 1,
                        epochs=job.train.epochs,
                        step=start.step,
                        steps=setting.steps_per_epoch,
                        message=f"{error}; going on from step {start.steps} ({lost} of {job.run.restarts} restarts)",
                    )
                )


def _attempt(
    setting: Setting,
    cluster: Cluster,
    executor: Executor,
    address: str | None,
    start: Position,
    source: Checkpoint | None,
    as_new: bool,
) -> Run:
    """Train from a position to the end on accelerators of its own."""
    job, modelled = setting.job, setting.modelled
    pool: Pool | None = None
    loop: Loop | None = None
    try:
        warmed = time.perf_counter()
        pool = (
            LocalPool(job, cluster, modelled.plan)
            if executor == "local"
            else RayPool(job, cluster, modelled.plan, address=address, folder=setting.directory.path)
        )
        ready = time.perf_counter()
        for notice in pool.notices:
            _tell_start(setting, notice)
        loop = Loop(setting, pool, start)
        if source is not None and as_new:
            replicas = 1 + max(place.replica for file in source.files.values() for place in file.pieces)
            pool.take_weights(source.files, replicas)
        elif source is not None:
            pool.restore(source.files, counters_for(modelled.plan, source))
        loop.times.executor_start_wall_s = ready - warmed
        loop.times.start_wall_s = time.perf_counter() - setting.began
        loop.train()
        told = summary(
            job,
            cluster,
            executor,
            modelled,
            last=loop.rows[-1],
            averages=loop.averages,
            digest=weights_sha256(weight_bands(pool, modelled.plan)),
            counts=pool.counts(),
            times=loop.times,
            wall_s=loop.position.wall_s,
        )
    finally:
        if pool is not None:
            pool.close()
        if loop is not None:
            loop.close()
    setting.directory.write_epochs(loop.rows)
    setting.directory.write_summary(told)
    epochs = job.train.epochs
    steps = setting.steps_per_epoch
    last = {name: told[name] for name in ("train_loss", "test_accuracy", "samples_per_s", "modelled_step_s")}
    setting.report(
        Progress(phase="done", epoch=epochs, epochs=epochs, step=steps, steps=steps, left_wall_s=0.0, **last)
    )
    return Run(directory=setting.directory, summary=told)


def _write_what_is_known(setting: Setting, job: Job, cluster: Cluster) -> None:
    """The files that need no training."""
    directory, modelled = setting.directory, setting.modelled
    directory.unfinish()
    directory.write_specs(setting.told["job"], setting.told["cluster"])
    directory.write_plan(describe(job, cluster, modelled.plan, modelled.metrics, modelled.buffers))
    directory.write_timeline(modelled.timeline, modelled.metrics)
    directory.write_trace(modelled.timeline)
    _tell_start(setting)


def _tell_start(setting: Setting, message: str | None = None) -> None:
    epochs = setting.job.train.epochs
    setting.report(
        Progress(phase="start", epoch=0, epochs=epochs, step=0, steps=setting.steps_per_epoch, message=message)
    )


def _require_arrays(job: Job) -> None:
    counted = next((layer for layer in job.network.layers if layer.kind != "dense"), None)
    if counted is not None:
        raise PlanError(
            f"layer {counted.name} of {job.name} is counted, not trained ({counted.kind}); only dense layers have "
            f"arrays: use plan, profile, project or search"
        )


def _require_a_step(job: Job, modelled: Modelled, data: Dataset) -> None:
    if len(data.train_y) < modelled.train.samples:
        raise DataError(
            f"[train] minibatch {job.train.minibatch} x [parallel] data {job.parallel.data} takes "
            f"{modelled.train.samples} samples a step but {data.name} has {len(data.train_y)} to train on; lower it"
        )
