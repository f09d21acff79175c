"""What the collectives and sends of conventional training cost on the network of the cluster."""

from dataclasses import dataclass

from rpucluster.collective import CollectiveCost, CollectiveKind, cost, send_cost
from rpucluster.conventional.setting import Setting
from rpucluster.topology import Network


@dataclass(frozen=True)
class Spent:
    """Seconds, and joules of the links of one group."""

    modelled_s: float = 0.0
    energy_J: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.modelled_s + other.modelled_s, self.energy_J + other.energy_J)

    def hidden(self, seconds: float) -> "Spent":
        """What is left to wait for when so many seconds of it run beside something else."""
        return Spent(max(0.0, self.modelled_s - seconds), self.energy_J)


class Links:
    """Prices on one network, each found once.

    Groups of a kind are priced by their first, since they lie alike on a product of axes.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._found: dict[tuple[object, ...], Spent] = {}

    def tensor(self, kind: CollectiveKind, setting: Setting, nbytes: float) -> Spent:
        """A collective of the tensor ranks of one stage over a value of so many bytes."""
        members = tuple(setting.place(0, 0, rank) for rank in range(setting.parallel.tensor))
        return self._collective(kind, members, nbytes)

    def data(self, setting: Setting, nbytes: float) -> Spent:
        """The all-reduce of so many bytes of gradients among the replicas."""
        members = tuple(setting.place(replica, 0, 0) for replica in range(setting.parallel.data))
        return self._collective("all_reduce", members, nbytes)

    def ends(self, setting: Setting, nbytes: float) -> Spent:
        """The all-reduce of so many bytes between first and last stage, which share an embedding."""
        members = (setting.place(0, 0, 0), setting.place(0, setting.parallel.pipeline - 1, 0))
        return self._collective("all_reduce", members, nbytes) if members[0] != members[1] else Spent()

    def stages(self, setting: Setting, nbytes: float) -> Spent:
        """A send of so many bytes to the next stage, the slowest of all, as pipelines move in step."""
        parallel = setting.parallel
        wraps = parallel.virtual_stages > 1
        pairs: dict[tuple[int, ...], tuple[int, int]] = {}
        for stage in range(parallel.pipeline if wraps else parallel.pipeline - 1):
            here, there = setting.place(0, stage, 0), setting.place(0, (stage + 1) % parallel.pipeline, 0)
            steps = zip(self.network.coordinates(here), self.network.coordinates(there), strict=True)
            pairs.setdefault(tuple(b - a for a, b in steps) or (here, there), (here, there))
        slowest = Spent()
        for pair in pairs.values():
            found = self._send(*pair, nbytes)
            slowest = max(slowest, found, key=lambda spent: spent.modelled_s)
        return slowest

    def _collective(self, kind: CollectiveKind, members: tuple[int, ...], nbytes: float) -> Spent:
        n = len(members)
        if n == 1 or nbytes == 0:
            return Spent()
        key = (kind, members, nbytes)
        if key not in self._found:
            block = nbytes / n if kind == "all_gather" else nbytes
            network = self.network
            self._found[key] = _spent(
                cost(kind, members, [block] * n, network, chunks=network.chunks, active_chunks=network.active_chunks)
            )
        return self._found[key]

    def _send(self, source: int, destination: int, nbytes: float) -> Spent:
        key = ("send", source, destination, nbytes)
        if key not in self._found:
            self._found[key] = _spent(send_cost(source, destination, nbytes, self.network))
        return self._found[key]


def _spent(price: CollectiveCost) -> Spent:
    return Spent(price.modelled_s, price.energy_J)
