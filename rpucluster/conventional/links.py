"""What the collectives and sends of conventional training cost on the network of the cluster."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rpucluster.collective import CollectiveCost, CollectiveKind, cost, send_cost
from rpucluster.conventional.setting import Setting
from rpucluster.topology import Network

Groups = list[tuple[tuple[int, ...], float]]
"""Members, in order, of groups that lie differently on the network, and the share of all groups that lie so."""


@dataclass(frozen=True)
class Spent:
    """Seconds of the slowest group, and joules of the links of one on average."""

    modelled_s: float = 0.0
    energy_J: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.modelled_s + other.modelled_s, self.energy_J + other.energy_J)

    def hidden(self, seconds: float) -> "Spent":
        """What is left to wait for when so many seconds of it run beside something else."""
        return Spent(max(0.0, self.modelled_s - seconds), self.energy_J)


class Links:
    """Prices on one network, each found once.

    Of groups that lie alike one is priced; training moves at the pace of the slowest.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._found: dict[tuple[object, ...], Spent] = {}
        self._lying: dict[tuple[object, ...], Groups] = {}

    def tensor_groups(self, setting: Setting) -> Groups:
        """How tensor ranks lie on the network; where they lie alike, `tensor` finds the same."""
        return self._groups("tensor", setting, lambda mesh: mesh.reshape(-1, mesh.shape[2]))

    def tensor(self, kind: CollectiveKind, setting: Setting, nbytes: float) -> Spent:
        """A collective of the tensor ranks of a stage over a value of so many bytes."""
        return self._collective(kind, self.tensor_groups(setting), nbytes)

    def data(self, setting: Setting, nbytes: float) -> Spent:
        """The all-reduce of so many bytes of gradients among the replicas."""
        groups = self._groups("data", setting, lambda mesh: mesh.reshape(mesh.shape[0], -1).T)
        return self._collective("all_reduce", groups, nbytes)

    def ends(self, setting: Setting, nbytes: float) -> Spent:
        """The all-reduce of so many bytes between first and last stage, which share an embedding."""
        if setting.parallel.pipeline == 1:
            return Spent()
        groups = self._groups("ends", setting, lambda mesh: _pairs(mesh[:, 0], mesh[:, -1]))
        return self._collective("all_reduce", groups, nbytes)

    def stages(self, setting: Setting, nbytes: float) -> Spent:
        """A send of so many bytes to the next stage, and from the last to the first where runs go round."""

        def following(mesh: NDArray[np.int64]) -> NDArray[np.int64]:
            after = np.roll(mesh, -1, axis=1)
            last = None if setting.parallel.virtual_stages > 1 else -1
            return _pairs(mesh[:, :last], after[:, :last])

        groups = self._groups(("stages", setting.parallel.virtual_stages > 1), setting, following)
        return self._slowest(groups, ("send", nbytes), lambda pair: send_cost(pair[0], pair[1], nbytes, self.network))

    def _collective(self, kind: CollectiveKind, groups: Groups, nbytes: float) -> Spent:
        n = len(groups[0][0])
        if n == 1 or nbytes == 0:
            return Spent()
        blocks = [nbytes / n if kind == "all_gather" else nbytes] * n
        network = self.network

        def price(members: tuple[int, ...]) -> CollectiveCost:
            return cost(kind, members, blocks, network, chunks=network.chunks, active_chunks=network.active_chunks)

        return self._slowest(groups, (kind, nbytes), price)

    def _slowest(
        self, groups: Groups, what: tuple[object, ...], price: Callable[[tuple[int, ...]], CollectiveCost]
    ) -> Spent:
        seconds = joules = 0.0
        for members, share in groups:
            key = (*what, members)
            if key not in self._found:
                found = price(members)
                self._found[key] = Spent(found.modelled_s, found.energy_J)
            seconds = max(seconds, self._found[key].modelled_s)
            joules += share * self._found[key].energy_J
        return Spent(seconds, joules)

    def _groups(self, name: object, setting: Setting, of: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Groups:
        parallel = setting.parallel
        key = (name, parallel.tensor, parallel.pipeline, parallel.data, parallel.placement)
        if key not in self._lying:
            self._lying[key] = self._distinct(of(setting.mesh))
        return self._lying[key]

    def _distinct(self, groups: NDArray[np.int64]) -> Groups:
        """One of each kind of groups (groups, members) that lie alike: equal steps on a product of axes."""
        product = self.network.product
        if product is None:  # each way is its own
            return [(tuple(members), 1 / len(groups)) for members in groups.tolist()]
        sizes = np.array([axis.size for axis in self.network.axis], np.int64)
        places = groups[:, :, None] // np.array(product.strides, np.int64) % sizes
        steps = (places - places[:, :1]).reshape(len(groups), -1)
        if (steps == steps[0]).all():
            return [(tuple(groups[0].tolist()), 1.0)]
        _, firsts, counts = np.unique(steps, axis=0, return_index=True, return_counts=True)
        return [
            (tuple(groups[first].tolist()), count / len(groups))
            for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
        ]


def _pairs(here: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack((here.ravel(), there.ravel()), axis=1)
