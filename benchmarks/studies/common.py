"""What the studies share: rows of projections, kept beside the scripts, and drawings for docs/images."""

import json
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from rpucluster.cluster import CLUSTER_TABLES, load_cluster
from rpucluster.config import split_overrides
from rpucluster.errors import InputError
from rpucluster.job import JOB_TABLES, load_job
from rpucluster.projection.rows import Projection, project
from rpucluster.report.drawing import LOOK
from rpucluster.search.search import search
from rpucluster.search.space import Kept

HERE: Final = Path(__file__).parent
IMAGES: Final = HERE.parent.parent / "docs/images"
BLUE, ORANGE, GREEN, PINK, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#8c8c8c"
PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "arrays": ("arrays: forward, backward, update", BLUE),
    "digital_s": ("digital units", GREEN),
    "exposed_communication_s": ("waiting for links", RED),
    "bubble_s": ("waiting in the pipeline", "#d9dde3"),
}
"""Parts of a step as the figures show them; `arrays` is the sum of the three cycles."""
_KEPT: Final = (
    "weights", "accelerators", "tiles", "tensor", "pipeline", "data", "global_batch", "microbatch", "modelled_step_s",
    "samples_per_s", "modelled_energy_J", "communication_fraction", "exact", "why_not_exact", "forward_s", "backward_s",
    "recompute_s", "update_s", "digital_s", "exposed_communication_s", "bubble_s", "energy_digital_J", "energy_links_J",
    "energy_array_J", "energy_adc_J", "link_bytes", "steps", "modelled_train_s", "modelled_train_J", "error",
)  # fmt: skip


@cache
def row(
    job: str, cluster: str, /, *sets: str, whole: bool = True, samples: int | None = None, **told: Any
) -> dict[str, Any]:
    """One projection, with its command and what else is `told` of it; `error` where it does not fit."""
    command = ["rpucluster project", job, "--cluster", cluster, *(f"--set {shlex.quote(each)}" for each in sets)]
    command += ["--whole"] * whole + [f"--samples {samples}"] * (samples is not None)
    try:
        found = project(job, cluster, Projection(whole=whole, samples=samples), sets)[0]
    except InputError as error:
        found = {"error": str(error)}
    print(" ".join(command), found.get("modelled_step_s", found.get("error")), file=sys.stderr, flush=True)
    return {**told, "command": " ".join(command), **{key: found[key] for key in _KEPT if key in found}}


def best_plan(
    job: str, cluster: str, /, *sets: str, keep: Collection[Kept] = (), budget_s: float = 60.0
) -> tuple[str, ...]:
    """The keys, with `sets` among them, of the best plan that a search finds for a job on a cluster."""
    there = split_overrides(sets, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES})
    found = search(load_job(job, there["job"]), load_cluster(cluster, there["cluster"]), keep=keep, budget_s=budget_s)
    plan = found.found[0].candidate
    print(job, cluster, plan, f"gap {found.gap:.1%}", file=sys.stderr, flush=True)
    options = ["tensor", "pipeline", "data", "virtual_stages", "schedule"] + ["data_sync"] * (plan.recompute is None)
    chosen = {f"parallel.{key}": getattr(plan, key) for key in options}
    chosen |= {"train.minibatch": plan.minibatch, "train.microbatch": plan.microbatch}
    chosen["parallel.placement"] = "[" + ",".join(f'"{axis}"' for axis in plan.placement) + "]"
    if plan.recompute is not None:
        chosen["conventional.recompute"] = plan.recompute
        chosen["conventional.sequence_parallel"] = str(plan.sequence_parallel).lower()
    others = [each for each in sets if each.partition("=")[0] not in chosen]
    return (*others, *(f"{key}={value}" for key, value in chosen.items()))


def keep(script: str, found: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Leave what a script found beside it, as JSON."""
    Path(script).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def kept(script: str) -> Any:
    """What a script has left."""
    return json.loads(Path(script).with_suffix(".json").read_text(encoding="utf-8"))


def arrays(found: Mapping[str, Any]) -> float:
    """Seconds of a step in which arrays work."""
    return sum(float(found[key]) for key in ("forward_s", "backward_s", "update_s"))


def parts(found: Mapping[str, Any]) -> dict[str, float]:
    """A step by `PARTS`."""
    return {key: arrays(found) if key == "arrays" else float(found[key]) for key in PARTS}


def write(figure: Figure, name: str) -> None:
    """Write a figure for the docs."""
    figure.savefig(IMAGES / f"study_{name}.png", dpi=110)


def style() -> Any:
    """The look of all figures, as a context."""
    return mpl.rc_context(LOOK | {"legend.fontsize": 8})
