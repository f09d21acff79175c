"""The paper's claims of one chip, from training steps of whole networks.

    python benchmarks/studies/paper_claims.py [--draw]

Trains on one of the paper's chips, and on the processor and the GPU that it compares with, by `rpucluster project`:
jobs/mlp_1b.toml, whose billion weights fill 72 of the chip's 100 tiles, and networks that share weights.  `--draw`
makes the figure from paper_claims.json without projecting anew.
"""

import sys
from typing import Any

from common import BLUE, GREEN, ORANGE, RED, keep, kept, row, style, write
from matplotlib.figure import Figure

ONE = ("parallel.tensor=1", "parallel.pipeline=1", "parallel.schedule=gpipe")
STREAM = "accelerator.layer_streaming=true"
BATCH, SAMPLES = 1024, 10**9
NETWORKS = ("lenet5", "alexnet", "vgg16", "resnet50", "gpt3-125m")
CLAIMS = {"over a CPU": 30_000, "GigaOps/s/W": 84_000}


def rows() -> list[dict[str, Any]]:
    """Each network on the chip, on it with streaming layers, and on the CPU; the billion weights also on a GPU."""
    found = []
    batch = f"train.minibatch={BATCH}"
    for machine, cluster, micro, *more in (
        ("chip", "paper_chip", 8),
        ("chip, layers streaming", "paper_chip", 8, STREAM),
        ("CPU", "paper_cpu", BATCH),
        ("GPU", "paper_gpu", BATCH, "accelerator.memory=64 GB"),
    ):
        sets = (*ONE, batch, f"train.microbatch={micro}", *more)
        found.append(row("mlp_1b", cluster, *sets, samples=SAMPLES, network="MLP, 1.09 billion", machine=machine))
    for network in NETWORKS:
        for machine, cluster, *more in (
            ("chip", "paper_chip"),
            ("chip, layers streaming", "paper_chip", STREAM),
            ("CPU", "paper_cpu"),
        ):
            micro = 1 if cluster == "paper_chip" else 4 if "gpt" in network else 64
            sets = (*ONE, f"model.preset={network}", "train.minibatch=64", f"train.microbatch={micro}", *more)
            found.append(row("resnet50", cluster, *sets, samples=SAMPLES, network=network, machine=machine))
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By network: how much faster and how much thriftier the chip is, and what it makes of its energy."""
    table = []
    for network in dict.fromkeys(each["network"] for each in found):
        on = {each["machine"]: each for each in found if each["network"] == network}
        chip, stream, cpu = on["chip"], on["chip, layers streaming"], on["CPU"]
        table.append({
            "network": network,
            "weights": chip["weights"],
            "chip_sample_s": chip["modelled_step_s"] / chip["global_batch"],
            "stream_sample_s": stream["modelled_step_s"] / stream["global_batch"],
            "cpu_sample_s": cpu["modelled_step_s"] / cpu["global_batch"],
            "over_cpu": cpu["modelled_step_s"] / chip["modelled_step_s"],
            "streaming_over_cpu": cpu["modelled_step_s"] / stream["modelled_step_s"],
            "energy_below_cpu": cpu["modelled_energy_J"] / chip["modelled_energy_J"],
            # two operations per weight forward, two backward, two of the update: only where no weight is shared
            "training_GigaOps_per_s_W": 6 * chip["weights"] * chip["global_batch"] / chip["modelled_energy_J"] / 1e9
            if network.startswith("MLP")
            else None,
        })  # fmt: skip
    return table


def draw(table: list[dict[str, Any]]) -> None:
    """How much faster than the CPU one chip trains each network."""
    with style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        axis = figure.subplots()
        places = range(len(table))
        for at, key, colour, label in (
            (0.2, "over_cpu", BLUE, "layers of a chip one after the other"),
            (-0.2, "streaming_over_cpu", GREEN, "layers streaming into each other"),
        ):
            values = [each[key] for each in table]
            bars = axis.barh([place + at for place in places], [v - 0.03 for v in values], 0.38, left=0.03,
                             color=colour, label=label)  # fmt: skip
            axis.bar_label(
                bars,
                [f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in values],
                padding=3,
                fontsize=8,
                zorder=5,
                bbox={"color": "white", "pad": 0.5, "alpha": 0.8},
            )
        axis.axvline(30_000, color=RED, linewidth=1)
        axis.text(27_000, 1.5, "the paper: 30,000", color=RED, ha="right", fontsize=8)
        axis.axvline(1, color=ORANGE, linewidth=1)
        axis.set_xscale("log")
        axis.set_xlim(0.03, 4e5)
        axis.set_yticks(list(places), [each["network"] for each in table])
        axis.invert_yaxis()
        axis.set_xlabel("times as fast as the paper's processor, training")
        axis.legend(loc="lower right")
        axis.grid(axis="y", visible=False)
        write(figure, "paper_claims")


def main() -> None:
    if "--draw" in sys.argv:
        found = kept(__file__)["rows"]
    else:
        found = rows()
        keep(__file__, {"rows": found, "summary": summary(found), "claims": CLAIMS})
    draw(summary(found))
    for each in summary(found):
        print(each)


if __name__ == "__main__":
    main()
