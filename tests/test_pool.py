"""Pools: failures are told by their cause, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rpucluster import coordinator
from rpucluster.errors import AcceleratorError, CapacityError, DataError, MissingPackageError, NumericalError
from rpucluster.partitioner import partition
from rpucluster.pool import RayPool
from tests.specs import make_cluster, make_job

ray = pytest.importorskip("ray", reason="Ray is not installed")


def test_a_sum_out_of_range_is_told_by_its_layer_not_by_the_lost_connections(tmp_path: Path) -> None:
    """One actor raises and closes its sockets, so the others fail too; what is told is the cause."""
    job = make_job(
        device={"preset": "floating-point"},
        train={"learning_rate": 1e30},
        model={"activation": "relu"},
        parallel={"tensor": 2, "pipeline": 2},
    )
    with pytest.raises(NumericalError, match="layer"):
        coordinator.run(job, make_cluster(), executor="ray", out=tmp_path / "run")
    assert not ray.is_initialized()


def test_what_an_actor_could_not_allocate_is_told_and_a_killed_one_as_lost() -> None:
    job, cluster = make_job(parallel={"pipeline": 2}), make_cluster()
    pool = RayPool(job, cluster, partition(job, cluster))
    try:
        with pytest.raises(AcceleratorError, match=r"ran out of memory: Unable to allocate 512\. PiB .*; give"):
            pool._results([pool._hosts[0].__ray_call__.remote(lambda _: np.empty(1 << 56))])
        pids = ray.get([host.__ray_call__.remote(lambda _: os.getpid()) for host in pool._hosts])
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(AcceleratorError, match="the process of accelerator 1 was lost"):
            pool.take_score()
    finally:
        pool.close()
    assert not ray.is_initialized()


def test_without_ray_the_message_names_the_other_executor(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from rpucluster.cli import main\n"
        f"sys.exit(main(['run', 'digits', '--cluster', 'laptop', '--out', {str(tmp_path / 'run')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == MissingPackageError.exit_code
    assert not (tmp_path / "run").exists()
    assert done.stderr.splitlines()[-1] == (
        "rpucluster: error: Ray is not installed: pip install ray, or run with --executor local, which gives the same "
        "results"
    )


def test_an_address_without_ray_is_told() -> None:
    job, cluster = make_job(), make_cluster()
    with pytest.raises(AcceleratorError, match=r"could not connect to the Ray cluster at 127\.0\.0\.1:1"):
        RayPool(job, cluster, partition(job, cluster), address="127.0.0.1:1")


def test_what_cannot_be_run_leaves_no_directory(tmp_path: Path) -> None:
    """Everything that may be written wrongly is checked first."""
    out = tmp_path / "run"
    with pytest.raises(DataError, match=r"takes 128 samples a step but digits has 64 to train on"):
        coordinator.run(make_job(train={"minibatch": 128, "microbatch": 4}), make_cluster(), out=out)
    assert not out.exists()


def test_arrays_that_fit_nowhere_are_refused_before_a_step_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of a trillion weights have millions of operations, which take minutes."""
    monkeypatch.setattr("rpucluster.coordinator.training.model", lambda *_: pytest.fail("a step was written down"))
    huge = make_job(model={"sizes": [64, 400_000, 400_000, 10]})
    with pytest.raises(CapacityError, match=r"need .* GiB of memory but this machine has"):
        coordinator.run(huge, make_cluster(tile=8192, tiles=10_000), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
