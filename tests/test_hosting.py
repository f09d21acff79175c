"""Which worker hosts which accelerators, and where workers say their time went."""

import numpy as np
import pytest
from pydantic import ValidationError

from rpucluster.accelerator import Steps
from rpucluster.data import load_data
from rpucluster.hosting import hosts
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool
from tests.specs import make_cluster, make_job


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("threads", [1, 2])
def test_auto_makes_no_more_workers_than_can_compute_at_a_time(cores: int, threads: int) -> None:
    """Every accelerator has one, none is empty, and their sizes differ by less than the size of one."""
    own = {"threads": threads, "arrays": "numpy", "accelerators_per_worker": "auto"}
    job = make_job(parallel={"tensor": 2, "pipeline": 2}, run=own)
    found = hosts(job, partition(job, make_cluster()), cores)
    workers = sorted(set(found.values()))
    assert sorted(found) == [0, 1, 2, 3]
    assert workers == list(range(len(workers)))
    assert len(workers) <= max(1, cores // threads)
    assert len(workers) == {1: 1, 2: 2, 3: 2}.get(max(1, cores // threads), 4)


@pytest.mark.parametrize(("each", "expected"), [(1, [0, 1, 2, 3]), (3, [0, 0, 0, 1]), (9, [0, 0, 0, 0])])
def test_a_number_is_taken_as_it_is(each: int, expected: list[int]) -> None:
    job = make_job(parallel={"tensor": 2, "pipeline": 2}, run={"accelerators_per_worker": each})
    assert list(hosts(job, partition(job, make_cluster()), 2).values()) == expected


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_workers_take_whole_replicas_then_whole_tensor_ranks(workers: int) -> None:
    """Eight accelerators, 2 of each kind: whoever shares a worker is alike in what is exchanged least or at a time."""
    job = make_job(parallel={"tensor": 2, "pipeline": 2, "data": 2}, run={"accelerators_per_worker": 8 // workers})
    plan = partition(job, make_cluster(8))
    found = hosts(job, plan, 1)
    of_kind = {2: lambda replica, stage, rank: replica, 4: lambda replica, stage, rank: (replica, rank)}
    kind = of_kind.get(workers, lambda *place: place)
    worker_of: dict[int, set[object]] = {}
    for replica, stage, rank, number in plan.ranks():
        worker_of.setdefault(found[number], set()).add(kind(replica, stage, rank))
    assert sorted(worker_of) == list(range(workers))
    assert all(len(kinds) == 1 for kinds in worker_of.values())
    assert list(found) == list(plan.accelerators)


@pytest.mark.parametrize("each", [1, 2, "auto"])
def test_ranks_that_hold_nothing_leave_no_worker_empty(each: object) -> None:
    """The last layer of 10 outputs has two tiles, so of four ranks two are idle in its stage."""
    job = make_job(parallel={"tensor": 4, "pipeline": 2}, run={"accelerators_per_worker": each, "arrays": "numpy"})
    plan = partition(job, make_cluster(8))
    assert len(plan.accelerators) < 8
    found = hosts(job, plan, 2)
    workers = {1: len(plan.accelerators), 2: -(-len(plan.accelerators) // 2), "auto": 2}[each]
    assert list(found) == list(plan.accelerators)
    assert set(found.values()) == set(range(workers))


@pytest.mark.parametrize("value", [0, -1, 1.5, "all", True])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match=r'is no number of accelerators; write 1 or more, or "auto"'):
        make_job(run={"accelerators_per_worker": value})


def test_time_spent_adds_up_and_counts_the_steps() -> None:
    """Without other workers nothing waits and nothing is sent, and computing is part of performing."""
    job, cluster = make_job(parallel={"tensor": 2}), make_cluster()
    plan = partition(job, cluster)
    pool = LocalPool(job, cluster, plan)
    data = load_data(job.data)
    pool.load("train", lower(plan, job, "train"))
    pool.set_data("train", data.train_x, data.train_y)
    indices = np.arange(24).reshape(3, 8)
    pool.perform("train", "train", Steps(first_sample=0, learning_rate=0.1, indices=indices))
    (spent,) = pool.spent()
    pool.close()
    assert spent.steps == 3
    assert 0 < spent.math_wall_s < spent.performing_wall_s
    assert spent.waiting_wall_s == spent.messages == spent.message_bytes == 0
