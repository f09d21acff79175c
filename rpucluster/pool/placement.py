"""Which workers of a plan share a node of a Ray cluster, and the placement group that keeps room for them."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from rpucluster.errors import AcceleratorError
from rpucluster.plan import Plan

Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, memory (bytes)."""

_PATIENCE_S: Final = 60.0
"""How long others on the cluster may keep what we need, once it has shown that it is large enough."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a Ray cluster and all that it has, in use or not."""

    name: str
    resources: Resources

    def room(self, each: Resources) -> int:
        """Workers that fit, each with so much; one that takes a part of a GPU takes it of a single one."""
        return min(
            int(self.resources.get(name, 0.0)) * sharing(amount)
            if name == "GPU"
            else int(self.resources.get(name, 0.0) / amount + 1e-6)
            for name, amount in each.items()
        )


def replicas_of(plan: Plan, host_of: Mapping[int, int]) -> tuple[int, ...]:
    """The replica that each worker belongs to; that of its first accelerator, where it hosts several."""
    replica_of = {accelerator: replica for replica, _, _, accelerator in plan.ranks()}
    first: dict[int, int] = {}
    for accelerator in sorted(host_of):
        first.setdefault(host_of[accelerator], replica_of[accelerator])
    return tuple(first[worker] for worker in range(len(first)))


def bundles(replicas: Sequence[int], each: Resources, nodes: Sequence[Node]) -> list[tuple[int, ...]]:
    """Runs of workers that share a node: a whole replica where a node is large enough, else as few runs as can be.

    `replicas` has the replica of each worker, `each` is what a worker needs.  Raises `AcceleratorError`, one line with
    how many would fit, where not all do.
    """
    rooms = sorted((node.room(each) for node in nodes), reverse=True)
    if sum(rooms) < len(replicas):
        raise AcceleratorError(_does_not_fit(len(replicas), each, nodes))
    members: dict[int, list[int]] = {}
    for worker, replica in enumerate(replicas):
        members.setdefault(replica, []).append(worker)
    runs: list[tuple[int, ...]] = []
    for workers in members.values():
        pieces = -(-len(workers) // rooms[0])
        cuts = [len(workers) * piece // pieces for piece in range(pieces + 1)]
        runs += [tuple(workers[a:b]) for a, b in pairwise(cuts)]
    # where whole runs do not go into the nodes, single workers do: they are all of one size
    return runs if _fit(runs, rooms) else [(worker,) for worker in range(len(replicas))]


def gpu_share(workers: int, gpus: float) -> float:
    """The part of a GPU for each of so many workers where each GPU is shared by equally many, as far as possible.

    Ray counts in ten-thousandths, so it is rounded down to those.
    """
    return math.floor(10_000 / math.ceil(workers / max(1, int(gpus)))) / 10_000


def sharing(share: float) -> int:
    """How many workers with such a part share a GPU."""
    return 10_000 // round(share * 10_000)


def bundle(workers: int, each: Resources) -> dict[str, float]:
    """What so many workers that share a node take together.

    Of GPUs it is whole ones and a rest: Ray takes an amount above 1 as whole GPUs first, and what rounding has left of
    them would then lack for the last worker.
    """
    found = {name: workers * amount for name, amount in each.items()}
    if "GPU" in each:
        whole, rest = divmod(workers, sharing(each["GPU"]))
        found["GPU"] = whole + rest * each["GPU"]
    return found


class Reserved:
    """Room for workers on the nodes of a Ray cluster, in the bundles of a placement group; `release` gives it back.

    `how` is ``[run] node_placement``: bundles of whole replicas are spread over nodes, or packed into few.
    Raises `AcceleratorError`, one line, where the cluster is too small, or stays too full for a minute.
    """

    def __init__(self, ray: Any, replicas: Sequence[int], each: Resources, how: str) -> None:
        self._ray, self._each = ray, each
        runs = bundles(replicas, each, _nodes(ray))
        self._bundle_of = {worker: number for number, run in enumerate(runs) for worker in run}
        self._group = ray.util.placement_group([bundle(len(run), each) for run in runs], strategy=how.upper())
        try:
            self._wait(replicas)
        except BaseException:
            self.release()
            raise

    def options(self, worker: int) -> dict[str, Any]:
        """What Ray must be told to start a worker in its bundle."""
        return {
            "num_cpus": self._each["CPU"],
            "num_gpus": self._each.get("GPU", 0),
            "scheduling_strategy": self._strategy(self._bundle_of[worker]),
        }

    def per_node(self) -> dict[str, dict[str, Any]]:
        """What Ray must be told to start a task on each node that has some of the room, by the node's name."""
        where = self._ray.util.placement_group_table(self._group)["bundles_to_node_id"]
        found = {node: number for number, node in where.items()}
        names = {node["NodeID"]: _name(node) for node in self._ray.nodes()}
        gpus = self._each.get("GPU", 0)
        return {
            names.get(node, node): {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": self._strategy(number)}
            for node, number in found.items()
        }

    def release(self) -> None:
        """Give the room back; whoever still runs there is ended."""
        self._ray.util.remove_placement_group(self._group)

    def _strategy(self, number: int) -> Any:
        return self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=number
        )

    def _wait(self, replicas: Sequence[int]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not self._group.wait(1):
            bundles(replicas, self._each, _nodes(self._ray))  # a node may be lost meanwhile
            if time.monotonic() > until:
                free = {name: self._ray.available_resources().get(name, 0.0) for name in self._each}
                raise AcceleratorError(
                    f"{len(replicas)} workers need {_told(self._each, len(replicas))}, which the Ray cluster has but "
                    f"others kept for {_PATIENCE_S:g} s ({_told(free)} free); stop them, or raise [run] "
                    f"accelerators_per_worker"
                )


def _fit(runs: Sequence[tuple[int, ...]], rooms: Sequence[int]) -> bool:
    """Whether runs of workers go into nodes with room for so many, the largest run first, each where most is left."""
    left = list(rooms)
    for run in sorted(runs, key=len, reverse=True):
        most = max(range(len(left)), key=left.__getitem__)
        if left[most] < len(run):
            return False
        left[most] -= len(run)
    return True


def _does_not_fit(workers: int, each: Resources, nodes: Sequence[Node]) -> str:
    rooms = {node.name: node.room(each) for node in nodes}
    fitting = sum(rooms.values())
    listed = ", ".join(f"{fits} on {name}" for name, fits in list(rooms.items())[:8]) + ", ..." * (len(rooms) > 8)
    hint = f"at least {-(-workers // fitting)} times as high" if fitting else "higher"
    return (
        f"{workers} workers need {_told(each, workers)}, but the Ray cluster has room for {fitting} ({listed}); "
        f"write [run] accelerators_per_worker {hint}, lower [run] threads, or add nodes"
    )


def _told(each: Resources, times: int = 1) -> str:
    """Amounts as people read them."""
    words = []
    for name, amount in each.items():
        total = amount * times
        words.append(f"{total / 2**30:.1f} GiB of memory" if name == "memory" else f"{total:g} {name}s")
    return ", ".join(words)


def _nodes(ray: Any) -> list[Node]:
    return [Node(name=_name(node), resources=node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _name(node: Mapping[str, Any]) -> str:
    """A node as people find it: several may share an address."""
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
