"""From which batch on replicas do better to exchange dense gradients, or averages, than factors: formula and replay.

    python benchmarks/studies/crossover.py [--draw]

One layer n x n without biases on eight of the paper's chips in a ring (cluster_configs/ring8.toml), one replica a chip.
Of each step the formula counts what differs between the three forms; the crossover of the replay is the first multiple
of eight samples at which the other form is faster, found by bisection over projections.  `--draw` makes the figure from
crossover.json without projecting anew.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from common import BLUE, GREEN, GREY, ORANGE, keep, kept, style, write
from matplotlib.figure import Figure

from rpucluster.projection.rows import Projection, project

Sync = Literal["factors", "gradient", "average"]
REPLICAS, EVERY, TILE, LATENCY_S = 8, 64, 4096, 500e-9
CYCLE_S, PASS_S = 20e-9, 80e-9
FACTOR_B, GRADIENT_B, WEIGHT_B = 2, 4, 4
MOST = 1 << 22
"""Samples of the largest batch that is looked at."""
DRAWN = 4096


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A layer, the links of the ring, and the digital units of a chip."""

    n: int
    bandwidth: float
    """B/s of a link."""
    digital: float
    """Operations a second."""

    def formula_s(self, sync: Sync, batch: int) -> float:
        """Modelled seconds of a step for a global batch, without the parts that all three have.

        Rings: (r-1) rounds of an all-gather, 2 (r-1) of an all-reduce, each of a latency and its bytes.  Factors: every
        replica fires all updates.  Gradients: two digital operations for each cell and sample, and a cycle for each row
        of a tile.  Averages: a replica fires its own; at times each row of a tile is read out and programmed.
        """
        rounds, own, cells = REPLICAS - 1, batch / REPLICAS, self.n**2
        rows = min(self.n, TILE)
        if sync == "factors":
            return batch * CYCLE_S + rounds * (LATENCY_S + own * 2 * self.n * FACTOR_B / self.bandwidth)
        share = 2 * rounds * LATENCY_S
        if sync == "gradient":
            moved = 2 * rounds / REPLICAS * cells * GRADIENT_B / self.bandwidth
            return own * 2 * cells / self.digital + share + moved + rows * CYCLE_S
        moved = 2 * rounds / REPLICAS * cells * WEIGHT_B / self.bandwidth
        return own * CYCLE_S + (share + moved + rows * (PASS_S + CYCLE_S)) / EVERY

    def replay_s(self, sync: Sync, batch: int) -> float:
        """Modelled seconds of a step, with the share of averaging that falls on it."""
        sets = [
            f"model.sizes=[{self.n},{self.n}]", "model.bias=none", "parallel.tensor=1", "parallel.pipeline=1",
            f"parallel.data={REPLICAS}", f"train.minibatch={batch // REPLICAS}",
            f"train.microbatch={batch // REPLICAS}", f"parallel.data_sync={sync}", f"parallel.average_every={EVERY}",
            f"network.axis.board.bandwidth={self.bandwidth / 1e9} GB/s",
            f"accelerator.digital_rate={self.digital / 1e9} Gop/s",
        ]  # fmt: skip
        found = project("mlp_1b", "ring8", Projection(whole=True, samples=EVERY * batch), sets)[0]
        return float(found["modelled_train_s"]) / EVERY


def crossover(seconds: Callable[[Sync, int], float], other: Sync) -> int | None:
    """The first multiple of `REPLICAS` samples at which `other` is faster than factors; None where there is none.

    The difference of both is a line over the batch, so there is one crossover or none.
    """

    def faster(groups: int) -> bool:
        return seconds(other, REPLICAS * groups) < seconds("factors", REPLICAS * groups)

    low, high = 0, MOST // REPLICAS
    if not faster(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if faster(middle) else (middle, high)
    return REPLICAS * high


def table() -> list[dict[str, Any]]:
    """Crossovers by formula and by replay."""
    found = []
    for digital in (2.56e12, 16 * 2.56e12):
        for bandwidth in (50e9, 400e9):
            for n in (1024, 4096, 16384):
                here = Setting(n=n, bandwidth=bandwidth, digital=digital)
                traffic = 2 * n * n * GRADIENT_B / (2 * n * FACTOR_B)
                found.append({
                    "n": n, "bandwidth_B_per_s": bandwidth, "digital_ops_per_s": digital,
                    "equal_traffic": math.ceil(traffic / REPLICAS) * REPLICAS,
                    **{f"{other}_{name}": crossover(by, other)
                       for other in ("gradient", "average")
                       for name, by in (("formula", here.formula_s), ("replay", here.replay_s))},
                })  # fmt: skip
                print(found[-1], file=sys.stderr)
    return found


def curves() -> list[dict[str, Any]]:
    """Steps of the layer that is drawn, on the paper's digital units and sixteen times as many."""
    found = []
    for factor in (1, 16):
        here = Setting(n=DRAWN, bandwidth=50e9, digital=factor * 2.56e12)
        for sync in ("factors", "gradient", "average"):
            batches = [8 << i for i in range(14)]
            found.append({
                "digital": factor, "data_sync": sync, "batch": batches,
                "replay_s": [here.replay_s(sync, batch) for batch in batches],
            })  # fmt: skip
    return found


def draw(found: dict[str, Any]) -> None:
    """Steps by the three forms: replays as points, the formula and what is common as lines."""
    looks = {"factors": (BLUE, "factors"), "gradient": (ORANGE, "dense gradients"),
             "average": (GREEN, f"averages every {EVERY} steps")}  # fmt: skip
    with style():
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for each in found["curves"]:
            axis, (colour, label) = axes[int(each["digital"] > 1)], looks[each["data_sync"]]
            here = Setting(n=DRAWN, bandwidth=50e9, digital=each["digital"] * 2.56e12)
            # of each sample a pass, and five digital operations on each line before and behind the array
            common = [b / REPLICAS * (PASS_S + 5 * DRAWN / here.digital) for b in each["batch"]]
            line = [here.formula_s(each["data_sync"], b) + c for b, c in zip(each["batch"], common, strict=True)]
            axis.plot(each["batch"], line, "-", color=colour, linewidth=1)
            axis.plot(each["batch"], each["replay_s"], "o", color=colour, markersize=4, label=label)
        for axis, title in zip(axes, ("the paper's digital units", "sixteen times as many"), strict=True):
            axis.axvline(2 * DRAWN * DRAWN * GRADIENT_B / (2 * DRAWN * FACTOR_B), color=GREY, linestyle=":")
            axis.text(8192 * 0.9, 0.03, "equal traffic", rotation=90, ha="right", va="bottom", fontsize=8, color=GREY,
                      transform=axis.get_xaxis_transform())  # fmt: skip
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("samples of a step, all replicas")
        axes[0].set_ylabel(f"step of a layer {DRAWN} x {DRAWN} (s)")
        axes[0].legend()
        write(figure, "crossover")


def main() -> None:
    found = kept(__file__) if "--draw" in sys.argv else {"table": table(), "curves": curves()}
    keep(__file__, found)
    draw(found)


if __name__ == "__main__":
    main()
