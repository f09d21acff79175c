"""A Ray of our own: reached by nobody else, quiet, and in processes of their own, since Ray decides it on import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

LISTEN = """
import os, signal, time
from rpucluster.pool import ray_session
from tests.processes import descendants, listening
with ray_session(None) as ray:
    killed = ray.remote(max_retries=0)(lambda: os.kill(os.getpid(), signal.SIGKILL)).remote()
    ray.wait([killed])
    time.sleep(1)
    ray.get(ray.remote(lambda: os.getpid()).remote())
    family = [os.getpid(), *descendants(os.getpid())]
    print(*sorted({address for address, _ in listening(family)}), len(listening(family)))
"""
IMPORTED_BEFORE = """
from rpucluster.pool import ray_session
from rpucluster.pool.ray_session import import_ray
import_ray()  # as before a cluster is joined, or as the user's own program does
with ray_session(None):
    pass
"""

LOST_AHEAD = """
import gc, os, signal, time
import numpy as np
from rpucluster.accelerator import Steps
from rpucluster.errors import AcceleratorLostError
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import RayPool, ray_session
from tests.processes import accelerators
from tests.specs import make_cluster, make_job

with ray_session(None):
    job, cluster = make_job(parallel={"tensor": 2}, run={"accelerators_per_worker": 1}), make_cluster()
    plan = partition(job, cluster)
    pool = RayPool(job, cluster, plan)
    pool.load("train", lower(plan, job, "train"))
    pool.set_data("train", np.zeros((9, job.model.sizes[0]), np.float32), np.zeros(9, np.int64))
    rows = np.zeros((20_000, job.train.minibatch), np.int64)
    few, many = (Steps(first_sample=0, learning_rate=0.01, indices=some) for some in (rows[:2], rows))
    pool.perform("train", "train", few)
    pool.take_score()
    pool.perform("train", "train", many)
    score = pool.ask_score()
    pool.perform("train", "train", many)
    os.kill(accelerators(os.getpid())[0], signal.SIGKILL)
    time.sleep(1)  # the other one notices, and fails with what was submitted ahead
    try:
        score()
    except AcceleratorLostError as error:
        print(error)
    pool.close()
    del pool, score
    gc.collect()
    time.sleep(1)
"""


def python(code: str) -> "subprocess.CompletedProcess[str]":
    """Run some code in a process of its own, whose Ray is set up by nothing but us."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", code]
    root = Path(__file__).parent.parent
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=own)


def test_a_private_ray_listens_on_loopback_only_and_is_quiet_about_lost_processes() -> None:
    """Whoever reaches a port of Ray can run code, so nobody else may; and what is lost we tell ourselves."""
    done = python(LISTEN)
    assert done.returncode == 0, done.stderr
    *addresses, count = done.stdout.split()
    assert addresses == ["127.0.0.1"]
    assert int(count) > 4


def test_a_process_whose_ray_would_listen_to_the_network_starts_none() -> None:
    """To join a cluster it must not be on loopback, and one process cannot have both."""
    done = python(IMPORTED_BEFORE)
    assert done.stderr.splitlines()[-1] == (
        "rpucluster.errors.AcceleratorError: this process has imported Ray in a way that opens a Ray of its own to the "
        "network; set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Ray is imported, or use another process, an address, "
        "or the executor local"
    )


def test_runs_of_steps_that_are_given_up_say_nothing_beside_our_own_line() -> None:
    """The other accelerator fails with what it was at and with the runs that were submitted ahead."""
    done = python(LOST_AHEAD)
    assert done.stdout.startswith("the process of accelerator ")
    assert done.stderr == ""
