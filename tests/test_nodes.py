"""Two nodes on this machine, by Ray's own test cluster: same weights, nodes that are lost, and nothing left behind."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpucluster.checkpoint import complete
from rpucluster.coordinator import Progress, find, run
from rpucluster.errors import AcceleratorError
from rpucluster.job import Job, load_job
from rpucluster.pool import nodes, ray_session
from rpucluster.pool.placement import Reserved, gpu_share
from rpucluster.pool.ray_session import import_ray
from rpucluster.runlog import RunDirectory
from tests.processes import accelerators
from tests.specs import make_cluster
from tests.test_arrays import fake_cupy

pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A head and another node, two CPUs each; one that is lost is noticed in seconds.

    Ray is told of two GPUs on the second, which are not there.
    """
    import_ray()
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "_system_config": quick}
    )
    cluster.add_node(num_cpus=2, num_gpus=2)
    yield cluster
    cluster.shutdown()


def digits(*sets: str) -> Job:
    """The digits job with two replicas of two accelerators, on part of its samples."""
    small = ("data.nudge=0", "data.train_samples=320", "train.epochs=4", "evaluate.every=4")
    plan = ("parallel.data=2", "parallel.pipeline=1", "parallel.tensor=2")
    return load_job("digits", [*small, *plan, 'run.checkpoint_every="3 steps"', *sets])


CLUSTER = make_cluster(tile=16)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    found: str = run(digits(), CLUSTER, executor="local", out=folder).summary["weights_sha256"]
    return found


def at_epoch(epoch: int, act: Callable[[], None]) -> Callable[[Progress], None]:
    """Does something once, when an epoch is done for the first time."""
    left = [act]

    def look(now: Progress) -> None:
        if now.phase == "epoch" and now.epoch == epoch and left:
            left.pop()()

    return look


@pytest.mark.parametrize(("placement", "on"), [("spread", 2), ("pack", 1)])
def test_a_run_over_nodes_has_the_weights_of_a_run_here_and_leaves_the_cluster_as_it_was(
    two_nodes: Any, undisturbed: str, tmp_path: Path, placement: str, on: int
) -> None:
    """Two replicas of two workers on two nodes of two CPUs: spread, a node each; packed, and each worker
    hosting two accelerators, they share one."""
    used: list[set[str]] = []

    def look() -> None:
        used.append({str(node) for node in workers_by_node()})

    each = "run.accelerators_per_worker=1" if placement == "spread" else "run.accelerators_per_worker=2"
    job = digits(each, f"run.node_placement={placement}")
    found = run(job, CLUSTER, address=two_nodes.address, out=tmp_path / "run", progress=at_epoch(1, look))
    assert found.summary["weights_sha256"] == undisturbed
    assert len(used[0]) == on
    with ray_session(two_nodes.address) as ray:
        assert [node["Alive"] for node in ray.nodes()] == [True, True]
        wait_until(lambda: ray.available_resources().get("CPU") == 4.0)  # all room was given back
    assert accelerators(os.getpid()) == []


def test_room_that_others_keep_is_waited_for_and_then_told(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpucluster.pool.placement._PATIENCE_S", 1.0)
    with ray_session(two_nodes.address) as ray:
        all_but_one = int(ray.cluster_resources()["CPU"]) - 1
        others = ray.util.placement_group([{"CPU": 1}] * all_but_one)
        assert others.wait(20)
        with pytest.raises(
            AcceleratorError, match=r"2 workers need 2 CPUs, .* others kept for 1 s \(1 CPUs, .* free\)"
        ):
            run(digits("parallel.data=1"), CLUSTER, address=two_nodes.address, out=tmp_path / "run")
        ray.util.remove_placement_group(others)
        assert ray.is_initialized()
    assert not (tmp_path / "run").exists()


def test_other_software_on_a_node_is_told_before_training(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every node has the same here, so it is this process that takes itself for another version."""
    compare = nodes.compare
    monkeypatch.setattr(nodes, "compare", lambda here, there: compare(here | {"numpy": "1.26.4"}, there))
    with pytest.raises(AcceleratorError, match=r"node \S+ \(\w{8}\) has numpy \S+ \(here 1\.26\.4\); install the same"):
        run(digits("parallel.data=1"), CLUSTER, address=two_nodes.address, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Holder:
    """Keeps its part of a GPU and says of which."""

    def gpus(self) -> list[int]:
        return list(import_ray().get_gpu_ids())


def test_workers_that_share_gpus_have_a_part_of_one_each(two_nodes: Any) -> None:
    """Up to six workers on two GPUs have a third of one each.  A replica of four takes a whole GPU and a third: four
    times the third, which is rounded down, would leave too little of the second for the last."""
    with ray_session(two_nodes.address) as ray:
        each = {"CPU": 0.1, "GPU": gpu_share(6, 2)}
        reserved = Reserved(ray, (0, 0, 0, 0), each, "pack")
        holder = ray.remote(Holder)
        workers = [holder.options(**reserved.options(worker)).remote() for worker in range(4)]
        found = ray.get([worker.gpus.remote() for worker in workers], timeout=60)
        reserved.release()
    counts = [found.count([gpu]) for gpu in (0, 1)]
    assert sorted(counts) == [1, 3]


def test_a_node_whose_gpu_cannot_be_used_is_told_before_training(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here CuPy, a stand-in, finds one; on the node that has GPUs by what Ray was told it finds none."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    with pytest.raises(
        AcceleratorError, match=r"node \S+ \(\w{8}\) has a GPU by what Ray was told but CuPy finds none"
    ):
        run(digits("parallel.data=1", "run.arrays=cupy"), CLUSTER, address=two_nodes.address, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_node_that_is_lost_sends_the_run_back_to_its_checkpoint_while_there_is_room(
    two_nodes: Any, tmp_path: Path
) -> None:
    """Two replicas of one worker of two threads take a node each.  A third node has room for the replica of the one
    that is lost.  The next loss ends the run with one line, and it goes on elsewhere."""
    two_nodes.add_node(num_cpus=2)
    told: list[str] = []
    longer = ("train.epochs=40", 'run.checkpoint_every="40 steps"')  # than the steps that are on their way at a time
    job = digits("parallel.tensor=1", "run.threads=2", "run.accelerators_per_worker=1", *longer)
    expected = run(job, CLUSTER, executor="local", out=tmp_path / "undisturbed").summary["weights_sha256"]

    def lose() -> None:
        lost = next(node for node in two_nodes.worker_nodes if node.node_id in workers_by_node())
        before = len(accelerators(os.getpid()))
        two_nodes.remove_node(lost, allow_graceful=False)
        # its workers end when they hear of it; the rest of the run might be quicker
        wait_until(lambda: len(accelerators(os.getpid())) < before)

    lost = 0

    def look(now: Progress) -> None:
        nonlocal lost
        if now.phase == "restart":
            told.append(now.message or "")
        elif now.phase == "epoch" and lost == len(told) < 2 and complete(tmp_path / "run/checkpoint"):
            lost += 1
            lose()

    with pytest.raises(AcceleratorError) as caught:
        run(job, CLUSTER, address=two_nodes.address, out=tmp_path / "run", progress=look)
    assert len(told) == 2
    for number, message in enumerate(told, 1):
        assert re.match(rf"the process of .* was lost: .*; going on from step \d+ \({number} of 3 restarts\)$", message)
    assert re.match(
        r"2 workers need 4 CPUs, 0\.3 GiB of memory, but the Ray cluster has room for 1 \(1 on \S+ \(\w{8}\)\); write "
        r"\[run\] accelerators_per_worker at least 2 times as high",
        str(caught.value),
    )
    epochs = [row.epoch for row in RunDirectory(tmp_path / "run").read_epochs()]
    assert epochs == list(range(1, len(epochs) + 1)) != []  # what was finished can be read
    again = run(job, CLUSTER, executor="local", resume=find(tmp_path / "run"))
    assert again.summary["weights_sha256"] == expected
    assert accelerators(os.getpid()) == []


def workers_by_node() -> dict[str, int]:
    """How many bundles of the placement group of this run each node has."""
    ray = import_ray()
    found: dict[str, int] = {}
    for group in ray.util.placement_group_table().values():
        if group["state"] == "CREATED":
            for node in group["bundles_to_node_id"].values():
                found[node] = found.get(node, 0) + 1
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)
