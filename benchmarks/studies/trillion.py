"""The main figure: what it takes to train a trillion weights, on RPUs and on A100s.

    python benchmarks/studies/trillion.py [--draw]

jobs/mlp_1t.toml, a billion frames in steps of 4,096, on 960 to 15,360 of the paper's chips (tensor 16 x pipeline 60,
the best of three microbatches) and on 480 to 7,680 A100s (the best plan that `rpucluster search` finds);
jobs/gpt_1t.toml, 450 billion tokens, from transformers.json, which transformers.py leaves.  Seconds and joules are
those of whole trainings.  `--draw` makes the figure from trillion.json without projecting anew.
"""

import sys
from pathlib import Path
from typing import Any

from common import BLUE, GREEN, ORANGE, PARTS, best_plan, keep, kept, parts, row, style, write
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

BATCH, FRAMES, REPLICAS = 4096, 10**9, (1, 2, 4, 8, 16)
MICROBATCHES = (8, 32, 128)
RAIL = "network.axis.rail.size=2048"
DAY_S, MWH_J = 86400.0, 3.6e9


def best(data: int, sync: str) -> dict[str, Any]:
    """The MLP on RPUs with the microbatch that makes the shortest step."""
    plan = ("parallel.tensor=16", f"parallel.data={data}", RAIL, f"train.minibatch={BATCH // data}",
            "parallel.schedule=gpipe", f"parallel.data_sync={sync}")  # fmt: skip
    tried = [
        row(
            "mlp_1t",
            "rpu_pod_4096",
            *plan,
            f"train.microbatch={size}",
            samples=FRAMES,
            machine=f"RPU, {sync}",
            job="mlp_1t",
        )
        for size in MICROBATCHES
        if size <= BATCH // data
    ]
    return min((each for each in tried if "error" not in each), key=lambda each: float(each["modelled_step_s"]))


def best_of_all(gpus: int) -> dict[str, Any]:
    """The MLP on so many A100s with the plan that makes the shortest step."""
    rail = f"network.axis.rail.size={gpus // 8}"
    plan = best_plan("mlp_1t", "a100_3072", rail)
    return row("mlp_1t", "a100_3072", *plan, samples=FRAMES, machine="A100", job="mlp_1t")


def rows() -> list[dict[str, Any]]:
    """The MLP on machines of all sizes."""
    found = []
    for data in REPLICAS:
        found.append(best_of_all(480 * data))
        found += [best(data, sync) for sync in ("factors", "average")]
    return found


def draw(mlp: list[dict[str, Any]], gpt: list[dict[str, Any]]) -> None:
    """Time and energy of both trainings, and where the steps of RPUs go."""
    gpt = [
        each | {"machine": "A100" if each["machine"] == "A100" else f"RPU, {each['data_sync']}"}
        for each in gpt
        if each["job"] == "gpt_1t"
        and "modelled_train_s" in each
        and each.get("digital") in (None, 16)
        and "best" not in each
    ]
    looks = {"A100": ("o-", ORANGE, "A100"), "RPU, factors": ("s-", BLUE, "RPU, factors"),
             "RPU, average": ("^-", GREEN, "RPU, averages")}  # fmt: skip
    with style():
        figure = Figure(figsize=(10.4, 3.7), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.05))
        for axis, those, title in (
            (left, mlp, "MLP, $10^{12}$ weights, $10^9$ frames"),
            (middle, gpt, r"GPT, $10^{12}$ weights, $4.5\cdot10^{11}$ tokens"),
        ):
            for machine, (look, colour, label) in looks.items():
                line = sorted((each for each in those if each["machine"] == machine and "digital" not in each),
                              key=lambda each: int(each["accelerators"]))  # fmt: skip
                days = [each["modelled_train_s"] / DAY_S for each in line]
                energy = [each["modelled_train_J"] / MWH_J for each in line]
                axis.plot(days, energy, look, color=colour, label=label, markersize=5)
                for place in (0, -1):
                    axis.annotate(f"{line[place]['accelerators']:,}", (days[place], energy[place]), fontsize=7,
                                  xytext=(0, -11 if machine == "RPU, average" else 5), textcoords="offset points",
                                  ha="center", color=colour)  # fmt: skip
            for each in those:
                if each.get("digital") == 16:
                    point = each["modelled_train_s"] / DAY_S, each["modelled_train_J"] / MWH_J
                    axis.plot(*point, "*", color=GREEN, markersize=11, label="16 x the digital units")
                    axis.annotate(f"{each['accelerators']:,}", point, fontsize=7, xytext=(0, 7), ha="center",
                                  textcoords="offset points", color=GREEN)  # fmt: skip
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.margins(0.12)
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("training (days)")
        left.set_ylabel("training (MWh)")
        left.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        left.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        middle.set_xticks([20, 50, 100, 300], ["20", "50", "100", "300"])
        middle.set_yticks([300, 500, 1000, 2000], ["300", "500", "1,000", "2,000"])
        middle.set_ylim(300, 2400)
        middle.legend(loc="center left", bbox_to_anchor=(0.35, 0.62))
        steps = {
            "MLP, factors": _of(mlp, "RPU, factors"),
            "MLP, averages": _of(mlp, "RPU, average"),
            "GPT, factors": _of(gpt, "RPU, factors"),
            "GPT, averages": _of(gpt, "RPU, average"),
            "GPT, 16 x digital": next(each for each in gpt if each.get("digital") == 16),
        }
        for at, each in enumerate(steps.values()):
            start, whole = 0.0, float(each["modelled_step_s"])
            for key, seconds in parts(each).items():
                label, colour = PARTS[key]
                right.barh(at, 100 * seconds / whole, 0.65, start, color=colour, label=None if at else label)
                start += 100 * seconds / whole
        right.set_yticks(range(len(steps)), list(steps))
        right.invert_yaxis()
        right.set_xlabel("of a step on about 4,000 RPUs (%)")
        right.grid(axis="y", visible=False)
        right.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=2, fontsize=7)
        write(figure, "trillion")


def _of(found: list[dict[str, Any]], machine: str) -> dict[str, Any]:
    """The row of a machine with four replicas."""
    return next(each for each in found if each["machine"] == machine and each["data"] == 4 and "digital" not in each)


def main() -> None:
    mlp = kept(__file__) if "--draw" in sys.argv else rows()
    keep(__file__, mlp)
    draw(mlp, kept(str(Path(__file__).with_name("transformers.py"))))


if __name__ == "__main__":
    main()
