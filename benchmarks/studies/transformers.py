"""GPT-175B and GPT-1T on 256 to 16,384 of the paper's chips, beside A100s as modelled and as measured.

    python benchmarks/studies/transformers.py [MEGATRON_CSV] [--draw]

GPT-175B has 192 chips a replica (tensor 4 x pipeline 48), GPT-1T 1,024 (8 x 128), under GPipe; replicas share what
they learn by factors, or by averages every 64 steps.  A cluster uses as many replicas as fit and divide the batch.
Steps are replayed whole, but for those of GPT-1T with more than 384 microbatches, which are extended from shorter ones
where these agree; one replica of it, 3,072 microbatches, is left out.  For 4,096 of
either there is a row with the best plan that `rpucluster search` finds besides, of RPUs with averages: with factors a
minute's search finds none as good as the one plan.  MEGATRON_CSV has
measured runs (columns as in benchmarks/against_megatron.py); without it those of an earlier run are kept.  `--draw`
makes the figure from transformers.json without projecting anew.
"""

import csv
import sys
from pathlib import Path
from typing import Any

from common import BLUE, GREY, ORANGE, PARTS, RED, arrays, best_plan, keep, kept, parts, row, style, write
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
RAILS = 16384 // 8
NETWORKS: dict[str, dict[str, Any]] = {
    "gpt_175b": {
        "tensor": 4,
        "pipeline": 48,
        "batch": 1536,
        "most": 1536,
        "fewest": 256,
        "gpu": (8, 12),
        "params": "174.6",
    },
    "gpt_1t": {
        "tensor": 8,
        "pipeline": 128,
        "batch": 3072,
        "most": 384,
        "fewest": 2048,
        "gpu": (8, 64),
        "params": "1008.0",
    },
}
SEARCH_S = 60.0
"""Host seconds for the best plan on RPUs."""
DIGITAL: dict[str, tuple[int, ...]] = {"gpt_175b": (4, 16, 64), "gpt_1t": (16,)}
"""How many times the paper's digital units a chip has, in the study of what holds a step up."""


def rpu(job: str, chips: int, sync: str, *more: str, **told: Any) -> dict[str, Any]:
    """A job on a cluster of so many chips."""
    net = NETWORKS[job]
    replica = net["tensor"] * net["pipeline"]
    data = max((d for d in _divisors(net["batch"]) if d * replica <= chips), default=0)
    if not data:
        return {"job": job, "chips": chips, "machine": "RPU", "data_sync": sync, "error": "does not fit"}
    if data == 1:
        sync = "factors"  # replicas that are not there share nothing, and the step is the same
    sets = (
        f"network.axis.rail.size={RAILS}", f"parallel.tensor={net['tensor']}", f"parallel.pipeline={net['pipeline']}",
        "parallel.schedule=gpipe", f"parallel.data={data}", f"train.minibatch={net['batch'] // data}",
        f"parallel.data_sync={sync}", *more,
    )  # fmt: skip
    whole = net["batch"] // data <= net["most"]
    return row(job, "rpu_pod_4096", *sets, whole=whole, job=job, chips=chips, machine="RPU", data_sync=sync,
               **told)  # fmt: skip


def best(job: str, cluster: str, sync: str | None = None) -> dict[str, Any]:
    """A job on 4,096 accelerators with the best plan that a search of a minute finds, under GPipe on RPUs."""
    machine = "A100" if sync is None else "RPU"
    net = NETWORKS[job]
    sets = ["network.axis.rail.size=512", "parallel.data=1", f"train.minibatch={net['batch']}"]
    if sync is not None:
        sets += [f"parallel.data_sync={sync}", "parallel.schedule=gpipe"]
    plan = best_plan(job, cluster, *sets, keep=["data_sync", "schedule"] if sync else [], budget_s=SEARCH_S)
    return row(job, cluster, *plan, whole=False, job=job, chips=4096, machine=machine, data_sync=sync, best=True)


def gpu(job: str, gpus: int) -> dict[str, Any]:
    """A job on so many A100s."""
    net = NETWORKS[job]
    tensor, pipeline = net["gpu"]
    data = max((d for d in _divisors(net["batch"]) if d * tensor * pipeline <= gpus), default=0)
    if not data:
        return {"job": job, "chips": gpus, "machine": "A100", "error": "does not fit"}
    sets = (
        f"network.axis.rail.size={RAILS}", f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}",
        "parallel.schedule=1f1b", f"parallel.data={data}", f"train.minibatch={net['batch'] // data}",
    )  # fmt: skip
    return row(job, "a100_3072", *sets, whole=False, job=job, chips=gpus, machine="A100")


def measured(file: Path) -> list[dict[str, Any]]:
    """Runs of Megatron-LM with pipelines (Narayanan et al. 2021, tables 1 and 2) on the batches of the jobs."""
    found = []
    with file.open(encoding="utf-8") as lines:
        for run in csv.DictReader(lines):
            for job, net in NETWORKS.items():
                same = run["params_B"] == net["params"] and int(run["batch"]) == net["batch"]
                if same and run["table"].startswith("Narayanan") and run["scheme"] == "PTD-P":
                    step = float(run["iter_time_s"] or run["iter_time_derived_s"])
                    found.append({"job": job, "chips": int(run["gpus"]), "modelled_step_s": None, "measured_s": step,
                                  "machine": "A100, measured", "source": run["table"]})  # fmt: skip
    return found


def rows(before: list[dict[str, Any]], file: Path | None) -> list[dict[str, Any]]:
    """All of them; measured runs from a file, or from `before`."""
    found = [each for each in before if each["machine"] == "A100, measured"] if file is None else measured(file)
    for job in NETWORKS:
        found += [gpu(job, chips) for chips in SIZES]
        for sync in ("average", "factors"):
            found += [rpu(job, chips, sync) for chips in reversed(SIZES) if chips >= NETWORKS[job]["fewest"]]
        for factor in DIGITAL[job]:
            digital = f"accelerator.digital_rate={2560 * factor} Gop/s"
            network = f"accelerator.on_chip_bandwidth={4480 * factor} GB/s"
            found.append(rpu(job, 4096, "average", digital, network, digital=factor))
        found += [best(job, "a100_3072"), best(job, "rpu_pod_4096", "average")]
    return found


def draw(found: list[dict[str, Any]]) -> None:
    """Step over chips, and what holds it up, for both networks."""
    with style():
        figure = Figure(figsize=(9.6, 6.0), layout="constrained")
        axes = figure.subplots(2, 2, width_ratios=(1.25, 1))
        for (left, right), (job, name) in zip(axes, (("gpt_175b", "GPT-175B"), ("gpt_1t", "GPT-1T")), strict=True):
            mine = [each for each in found if each["job"] == job and "error" not in each]
            plain = [each for each in mine if not {"digital", "best"} & each.keys()]
            for label, machine, sync, look, colour in (
                ("RPU, factors", "RPU", "factors", "o-", BLUE),
                ("RPU, averages every 64 steps", "RPU", "average", "s--", BLUE),
                ("A100, modelled", "A100", None, "o-", ORANGE),
                ("A100, measured 2021", "A100, measured", None, "x", RED),
            ):
                those = [each for each in plain if each["machine"] == machine and each.get("data_sync") == sync]
                here = {each.get("accelerators", each["chips"]): each.get("modelled_step_s") or each["measured_s"]
                        for each in those}  # fmt: skip
                left.plot(
                    sorted(here), [here[chips] for chips in sorted(here)], look, color=colour, label=label, markersize=5
                )
            left.set_xscale("log", base=2)
            left.set_yscale("log")
            left.set_xticks([256, 1024, 4096, 16384], ["256", "1,024", "4,096", "16,384"])
            left.set_xlim(120, 20000)
            left.set_yticks(
                [5, 10, 20, 50, 100, 200, 400], minor=False, labels=["5", "10", "20", "50", "100", "200", "400"]
            )
            left.yaxis.set_minor_formatter(NullFormatter())
            left.set_ylim(3, 500)
            left.set_ylabel(f"{name}: step (s)")
            bars = {1: next(each for each in plain if each.get("data_sync") == "average" and each["chips"] == 4096)}
            bars |= {each["digital"]: each for each in mine if "digital" in each}
            for at, each in enumerate(bars.values()):
                bottom = 0.0
                for key, seconds in parts(each).items():
                    label, colour = PARTS[key]
                    right.bar(at, seconds, 0.7, bottom, color=colour, label=None if at else label)
                    bottom += seconds
                if arrays(each) > 0.02 * bottom:
                    right.text(at, bottom, f"arrays {arrays(each):.2g} s", ha="center", va="bottom", fontsize=7)
            right.set_xticks(range(len(bars)), [f"{factor} x" for factor in bars])
            right.grid(axis="x", visible=False)
            right.set_ylabel("step (s), cluster of 4,096, averages")
        axes[0, 0].legend()
        axes[0, 1].legend()
        axes[1, 0].set_xlabel("accelerators in use")
        axes[1, 1].set_xlabel("digital units and network of each chip, times the paper's")
        axes[1, 1].axhline(0, color=GREY)
        write(figure, "transformers")


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def main() -> None:
    files = [Path(text) for text in sys.argv[1:] if text != "--draw"]
    before = kept(__file__) if Path(__file__).with_suffix(".json").exists() else []
    found = before
    if "--draw" not in sys.argv:
        found = rows(before, files[0] if files else None)
        keep(__file__, found)
    draw(found)


if __name__ == "__main__":
    main()
