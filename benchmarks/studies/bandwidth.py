"""How much link bandwidth a cluster of RPUs with a trillion weights needs.

    python benchmarks/studies/bandwidth.py [--draw]

All links of cluster_configs/rpu_pod_4096.toml get one bandwidth; replicas average every 64 steps, which leaves the
links to tensor ranks and stages.  `threshold` is the bandwidth from which on an accelerator waits for links in less
than a tenth of the step, by bisection to a twentieth; None where no bandwidth is enough.  jobs/mlp_1t.toml has 128
microbatches of 8 or 512 samples.  Of jobs/gpt_1t.toml there are 16 of its 128 blocks on 16 stages of one replica, and
64 sequences, so that a point takes seconds: what a stage does is the same, how long it waits for the pipeline is not.
`--draw` makes the figure from bandwidth.json without projecting anew.
"""

import math
import sys
from typing import Any

from common import BLUE, GREEN, ORANGE, PINK, RED, keep, kept, row, style, write
from matplotlib.figure import Figure

SHARE, PRECISION, ENDLESS = 0.1, 1.05, 1e18
BANDWIDTHS = (25e9, 100e9, 400e9, 1.6e12, 6.4e12, 25.6e12)
NO_DELAY = ("network.endpoint_delay=0 s",)
MICROBATCHES = 128
PACKED = ("parallel.schedule=gpipe", "parallel.data_sync=average")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "MLP, 8 frames a microbatch": ("mlp_1t", ("train.minibatch=1024", "train.microbatch=8")),
    "MLP, 512 frames": ("mlp_1t", ("train.minibatch=65536", "train.microbatch=512")),
    "MLP, 8 frames, no delay": ("mlp_1t", ("train.minibatch=1024", "train.microbatch=8", *NO_DELAY)),
    "MLP, 512 frames, no delay": ("mlp_1t", ("train.minibatch=65536", "train.microbatch=512", *NO_DELAY)),
    "GPT-1T, a sequence": (
        "gpt_1t",
        ("model.layers=16", "parallel.pipeline=16", "parallel.data=1", "train.minibatch=64", "train.microbatch=1"),
    ),
}


def at(case: str, bandwidth: float) -> dict[str, Any]:
    """A case with all links so fast."""
    job, sets = CASES[case]
    links = [f"network.axis.{axis}.bandwidth={bandwidth / 1e9!r} GB/s" for axis in ("node", "rail")]
    links += [f"network.axis.{axis}.efficiency=1.0" for axis in ("node", "rail")]
    return row(job, "rpu_pod_4096", *PACKED, *sets, *links, case=case, bandwidth_B_per_s=bandwidth)


def threshold(case: str) -> float | None:
    """The bandwidth that is enough."""

    def enough(bandwidth: float) -> bool:
        return bool(at(case, bandwidth)["communication_fraction"] < SHARE)

    fits = [bandwidth for bandwidth in BANDWIDTHS if enough(bandwidth)]
    if not fits and not enough(ENDLESS):
        return None
    high = min(fits, default=BANDWIDTHS[-1])
    while not enough(high):
        high *= 4
    low = high / 4
    while high > low * PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def balance(frames_s: float = 80e-9, width: int = 131072, ranks: int = 16, sum_bytes: int = 4) -> float:
    """Bytes a second that a rank sends when its sums of one frame travel in the time of one pass, in closed form.

    An all-reduce sends 2 (t-1)/t of the buffer from each of t ranks.
    """
    return 2 * (ranks - 1) / ranks * width * sum_bytes / frames_s


def draw(found: dict[str, Any]) -> None:
    """The share of waiting over the bandwidth of all links."""
    looks = (("o-", BLUE), ("o-", GREEN), ("s--", BLUE), ("s--", GREEN), ("^-", PINK))
    with style():
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axis = figure.subplots()
        for case, (look, colour) in zip(CASES, looks, strict=True):
            those = [each for each in found["rows"] if each["case"] == case and each["bandwidth_B_per_s"] in BANDWIDTHS]
            axis.plot([each["bandwidth_B_per_s"] / 1e9 for each in those],
                      [100 * each["communication_fraction"] for each in those],
                      look, color=colour, label=case, markersize=4)  # fmt: skip
        axis.axhline(100 * SHARE, color=RED, linewidth=1)
        axis.axvline(found["balance_B_per_s"] / 1e9, color=ORANGE, linestyle=":")
        axis.text(found["balance_B_per_s"] / 1e9 * 0.93, 78, "an all-reduce\nas quick as a pass", ha="right", va="top",
                  fontsize=8, color=ORANGE)  # fmt: skip
        axis.set_xscale("log")
        axis.set_ylim(0, 80)
        axis.set_xlabel("bandwidth of every link, each direction (GB/s)")
        axis.set_ylabel("waiting for links (% of the step)")
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
        write(figure, "bandwidth")


def main() -> None:
    if "--draw" in sys.argv:
        found = kept(__file__)
    else:
        rows = [at(case, bandwidth) for case in CASES for bandwidth in (*BANDWIDTHS, ENDLESS)]
        found = {"threshold_B_per_s": {case: threshold(case) for case in CASES}, "balance_B_per_s": balance(),
                 "rows": rows}  # fmt: skip
        keep(__file__, found)
    draw(found)
    print(found["threshold_B_per_s"], found["balance_B_per_s"])


if __name__ == "__main__":
    main()
