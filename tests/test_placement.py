"""Which workers share a node: whole replicas where there is room, all wherever they fit, else one clear line."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.arrays import Gpu
from rpucluster.coordinator import run
from rpucluster.errors import AcceleratorError, CapacityError
from rpucluster.host_memory import check_gpus, worker_bytes
from rpucluster.partitioner import partition
from rpucluster.pool.nodes import compare
from rpucluster.pool.placement import Node, bundle, bundles, gpu_share, replicas_of, sharing
from rpucluster.pool.ray_session import start_ray
from rpucluster.pool.rooms import Rooms
from tests.specs import make_cluster, make_job
from tests.test_arrays import fake_cupy


def nodes(*cpus: int) -> list[Node]:
    return [Node(name=f"n{i}", resources={"CPU": float(count)}) for i, count in enumerate(cpus)]


def goes_in(runs: list[tuple[int, ...]], rooms: tuple[int, ...]) -> bool:
    """Whether some assignment of runs to nodes exists, by trying all."""
    if not runs:
        return True
    rest = runs[1:]
    size = len(runs[0])
    return any(
        goes_in(rest, (*rooms[:i], room - size, *rooms[i + 1 :])) for i, room in enumerate(rooms) if room >= size
    )


@given(
    replicas=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    rooms=st.lists(st.integers(0, 6), min_size=1, max_size=4),
)
def test_workers_get_bundles_exactly_where_they_fit(replicas: list[int], rooms: list[int]) -> None:
    """Workers are all of one size, so they fit if and only if the nodes' rooms add up; no bundle mixes replicas."""
    workers = [replica for replica, size in enumerate(replicas) for _ in range(size)]
    if sum(rooms) < len(workers):
        with pytest.raises(AcceleratorError, match=rf"has room for {sum(rooms)} \("):
            bundles(workers, {"CPU": 1.0}, nodes(*rooms))
        return
    runs = bundles(workers, {"CPU": 1.0}, nodes(*rooms))
    assert sorted(worker for run in runs for worker in run) == list(range(len(workers)))
    assert goes_in(runs, tuple(rooms))
    assert all(len({workers[worker] for worker in run}) == 1 for run in runs)
    if min(rooms) >= max(replicas) and len(rooms) >= len(replicas):  # a node for each
        assert len(runs) == len(replicas)


def test_a_replica_larger_than_any_node_is_cut_into_as_few_runs_as_can_be() -> None:
    """Seven workers where three fit on a node are three runs, of neighbours in the pipeline."""
    assert bundles([0] * 7, {"CPU": 2.0}, nodes(7, 7, 7)) == [(0, 1), (2, 3), (4, 5, 6)]


def test_what_does_not_fit_is_told_with_how_many_would() -> None:
    each = {"CPU": 2.0, "memory": 2.0**30}
    some = [
        Node(name="10.0.0.1 (ab)", resources={"CPU": 8.0, "memory": 3.5 * 2**30}),
        Node(name="10.0.0.2 (cd)", resources={"CPU": 3.0, "memory": 64.0 * 2**30}),
    ]
    with pytest.raises(AcceleratorError) as caught:
        bundles([0] * 6, each, some)
    assert str(caught.value) == (
        "6 workers need 12 CPUs, 6.0 GiB of memory, but the Ray cluster has room for 4 (3 on 10.0.0.1 (ab), 1 "
        "on 10.0.0.2 (cd)); write [run] accelerators_per_worker at least 2 times as high, lower [run] threads, "
        "or add nodes"
    )


def test_replicas_of_workers_follow_the_mesh_not_the_numbers() -> None:
    """With data innermost, neighbouring numbers are different replicas."""
    job = make_job(parallel={"data": 2, "tensor": 2, "placement": ["data", "tensor", "pipeline"]})
    plan = partition(job, make_cluster())
    assert replicas_of(plan, {0: 0, 1: 1, 2: 2, 3: 3}) == (0, 1, 0, 1)
    assert replicas_of(plan, {0: 0, 1: 0, 2: 1, 3: 1}) == (0, 0)


@given(workers=st.integers(1, 64), gpus=st.integers(1, 8))
def test_shares_of_gpus_leave_no_worker_over(workers: int, gpus: int) -> None:
    """What Ray counts, ten-thousandths of each single GPU, has a place for each; one worker less a GPU would not do."""
    share = gpu_share(workers, gpus)
    on_each = round(10_000 * 1.0) // round(share * 10_000)
    assert on_each * gpus >= workers
    assert (on_each - 1) * gpus < workers


@given(workers=st.integers(1, 64), gpus=st.integers(1, 8), size=st.integers(1, 64))
def test_a_bundle_has_room_for_its_workers_however_ray_takes_it(workers: int, gpus: int, size: int) -> None:
    """Ray takes whole GPUs first and what is left of one more, and gives each worker its part of a single one."""
    share = gpu_share(workers, gpus)
    found = bundle(size, {"CPU": 2.0, "GPU": share})
    assert found["CPU"] == 2.0 * size
    whole, rest = divmod(round(10_000 * found["GPU"]), 10_000)
    parts = round(share * 10_000)
    assert whole * (10_000 // parts) + rest // parts >= size
    assert whole * 10_000 + rest <= -(-size // sharing(share)) * 10_000  # no more GPUs than that takes
    assert Node(name="n", resources={"CPU": 1e6, "GPU": float(gpus)}).room({"CPU": 1.0, "GPU": share}) >= workers


def test_arrays_for_gpus_on_a_cluster_without_any_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on CPUs and on GPUs are never mixed: this process decides for all."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    context = SimpleNamespace(namespace="of somebody")
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0}, get_runtime_context=lambda: context)
    job = make_job(parallel={"tensor": 2})
    with pytest.raises(AcceleratorError, match=r'no node of the Ray cluster has one; write \[run\] arrays = "numpy"'):
        Rooms(ray, job, partition(job, make_cluster()), {0: 0, 1: 1}, None)


def test_a_run_that_does_not_fit_the_gpus_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 4 GiB, a stand-in, and a plan of 5: four workers share it on Ray, all are in one process without."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    job = make_job(model={"sizes": [64, 10_000, 40_000, 10]}, parallel={"tensor": 4}, run={"arrays": "cupy"})
    cluster = make_cluster(tile=4096, tiles=1000)
    need = sum(worker_bytes(job, partition(job, cluster), dict.fromkeys(range(4), 0))) / 2**30
    assert need > 4
    executors: tuple[Literal["ray", "local"], ...] = ("ray", "local")
    for executor, workers in zip(executors, ("4 workers that share a GPU", "a worker"), strict=True):
        told = rf"{workers} need {need:.1f} GiB but gpu 0 has 4\.0 GiB"
        with pytest.raises(CapacityError, match=told):
            run(job, cluster, executor=executor, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_arrays_that_no_gpu_holds_are_refused_before_they_are_made() -> None:
    """Three workers on two GPUs: two share one, and the two largest may meet on the smaller."""
    gpus = [Gpu(index=i, name="small" if i else "large", memory_bytes=(4 - i) << 30, free_bytes=0) for i in range(2)]
    check_gpus(gpus, [2 << 30, 1 << 30, 1 << 30])
    with pytest.raises(CapacityError, match=r"2 workers that share a GPU need 3\.5 GiB but small has 3\.0 GiB"):
        check_gpus(gpus, [2 << 30, 3 << 29, 1 << 30])
    check_gpus(gpus, [2 << 30, 3 << 29, 1 << 30], 1)  # where there are more of them than these


def test_bytes_of_workers_add_up_to_those_of_all_weights() -> None:
    job = make_job(parallel={"tensor": 2, "pipeline": 2})
    plan = partition(job, make_cluster())
    found = worker_bytes(job, plan, {number: number // 2 for number in plan.accelerators})
    rows = [(24, 65), (20, 25), (10, 21)]
    assert sum(found) == sum(r * c * job.bytes_per_weight(layer) for layer, (r, c) in enumerate(rows))
    assert len(found) == 2
    assert np.all(np.array(found) > 0)


# --- what nodes have ---

HERE = {"Python": "3.11.7", "rpucluster": "0.1.0", "numpy": "2.4.6", "ray": "2.60.0", "source files": "ab12"}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"numpy": "2.3.1"}, "node n has numpy 2.3.1 (here 2.4.6); install the same"),
        ({"rpucluster": "0.2.0", "source files": "cd34"}, "node n has rpucluster 0.2.0 (here 0.1.0); install"),
        ({"source files": "cd34"}, "node n has source files cd34 (here ab12); install"),
        ({"Python": "3.12.1", "ray": ""}, "node n has ray not installed (here 2.60.0), Python 3.12.1 (here 3.11.7); "),
    ],
)
def test_other_software_on_a_node_is_refused_with_both_versions(other: dict[str, str], told: str) -> None:
    with pytest.raises(AcceleratorError) as caught:
        compare(HERE, {"same": HERE, "n": HERE | other})
    assert str(caught.value).startswith(told)


def test_a_node_that_does_not_see_the_run_directory_is_refused() -> None:
    with pytest.raises(AcceleratorError, match=r"node n does not see /data/runs/a-1, where its accelerators write"):
        compare(HERE | {"folder": "/data/runs/a-1"}, {"n": HERE})


def test_a_kernel_cache_that_cannot_be_written_is_only_told() -> None:
    assert compare(HERE, {"n": HERE, "m": HERE | {"kernel cache": "/opt/x cannot be written"}}) == [
        "node m: /opt/x cannot be written, so each of its processes compiles kernels anew"
    ]


def test_a_process_that_is_connected_does_not_run_on_another_cluster_unasked() -> None:
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context, util=util)
    for same in ("10.0.0.1:6379", "auto", None, "localhost:6379", "127.0.0.1:6379"):
        assert not start_ray(ray, same)
    for other in ("10.0.0.2:6379", "10.0.0.1:6380", "localhost:6380"):
        with pytest.raises(AcceleratorError, match=r"connected to the Ray cluster at 10\.0\.0\.1:6379 already"):
            start_ray(ray, other)
    util.get_node_ip_address = lambda: "10.0.0.3"  # on another node, loopback is another place
    with pytest.raises(AcceleratorError, match="already"):
        start_ray(ray, "localhost:6379")
