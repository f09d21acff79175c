"""Plain stochastic gradient descent: the pulses of x and d change the weights where they are."""

from dataclasses import dataclass
from typing import ClassVar

from rpucluster.algorithms.base import Memory, Shard, Work


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Gokmen and Vlasov, Front. Neurosci. 10:333 (2016): one device per weight, one pulse cycle per sample."""

    kind: ClassVar[str] = "sgd"

    def trainer(self, shard: Shard) -> None:
        """None: one plane and one update are what a grid of tiles has and does by itself."""

    def work(self, samples: int) -> Work:
        """A pulse cycle per sample."""
        return Work(cycles=samples, planes=1)

    @property
    def memory(self) -> Memory:
        """One device."""
        return Memory(planes=1)
