"""Speed against IBM's aihwkit on the CPU: one process a side, taking turns, same inputs, same device.

    python benchmarks/against_aihwkit.py OPPONENT_PYTHON OPPONENT_SCRIPT [--only update,reads] [--sizes 512] [--quick]

OPPONENT_PYTHON is the interpreter of an environment with aihwkit 1.2.0 and OPPONENT_SCRIPT bench_aihwkit.py, whose
inputs are rebuilt here from its seed.  aihwkit is built from PyPI's source distribution, 2 to 15 minutes:

    python3.11 -m venv ENV && . ENV/bin/activate && apt-get install libopenblas-dev
    pip install torch==2.13.0 numpy scipy scikit-build cmake ninja pybind11 mypy wheel
    pip install --no-deps 'setuptools>=77,<82'        # older ones refuse the licence field of its pyproject.toml
    pip install --no-deps --no-build-isolation --no-binary aihwkit aihwkit==1.2.0     # needs mypy's stubgen on PATH
    pip install transformers tqdm protobuf requests torch==2.13.0                 # torchvision would replace torch

Every number is the median time of a call, over the repeats of one request; a pair is one request to each side, one
after the other on the same core, with equally many calls; a ratio is their time over ours, so above 1 we are faster.
Wall and CPU time of one thread agree on a quiet machine: rows where they do not, by more than a tenth in any request,
were disturbed, are counted at the end, and have to be measured again.  `cpu_ratio` is the ratio of CPU times.
Writes against_aihwkit.json and .md beside this file, or prints only, with --quick or --sizes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PARTS = ("update", "reads", "train", "threads")
SEED, RATE = 1, 0.01
LONGEST_S = 1.5
"""After which the opponent adds no more repeats; we make as many as it did."""
BYTES_OF_AIHWKIT = 36
"""Per weight of a tile of aihwkit 1.2.0 with any simple pulsed device, measured: its weight and eight arrays."""
VARIANTS = tuple(product(("sample", "batch"), ("stored", "recomputed")))


Answer = dict[str, Any]
TIMES = ("median_s", "cpu_median_s")
"""Of a call, in every answer: wall time, and the time that the process had a core."""
DISTURBED = 1.1
"""Wall time over CPU time of one thread beyond which something else ran on its core."""


class Side:
    """A process that answers requests with the numbers it measured."""

    def __init__(self, command: list[str], threads: int) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        paths = [str(HERE.parent), str(HERE)] if command[0] == sys.executable else []
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        here = os.sched_getaffinity(0)
        os.sched_setaffinity(0, set(sorted(here)[-threads:]))  # inherited, so that one thread stays on one core
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        os.sched_setaffinity(0, here)

    def ask(self, request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._process.args)} ended at {request}")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@dataclass
class Contest:
    """Both sides, and how often to ask."""

    opponent: list[str]
    quick: bool
    pairs: int
    reps: int
    sizes: tuple[int, ...]
    """Square tiles to look at."""
    _sides: dict[tuple[str, int], Side] = field(default_factory=dict)

    def among(self, *sizes: int) -> tuple[int, ...]:
        """Those of the sizes that are to be looked at."""
        return tuple(size for size in sizes if size in self.sizes)

    def _side(self, name: str, threads: int) -> Side:
        key = (name, threads)
        if key not in self._sides:
            mine = [sys.executable, str(HERE / "aihwkit_sides" / "ours.py")]
            theirs = [self.opponent[0], str(HERE / "aihwkit_sides" / "theirs.py"), self.opponent[1]]
            self._sides[key] = Side(mine if name == "ours" else theirs, threads)
        return self._sides[key]

    def theirs(self, op: str, *, threads: int = 1, **case: Any) -> dict[str, Any]:
        """One request to the opponent."""
        size = f"{case['out']}x{case['in']}" if "out" in case else "1x1"
        arguments = {
            "op": op, "size": size, "batch": case["batch"], "preset": case["preset"], "inputs": case["inputs"],
            "lr": RATE, "threads": threads, "reps": self.reps, "seed": SEED, "samples": case.get("samples", 1),
        }  # fmt: skip
        options = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
        # three repeats of a tile are made all the same
        options += ["--max-time", str(LONGEST_S)] if op != "train" else []
        options += ["--bl", "10"] if case["preset"] == "gv-nomgmt" else []
        return self._side("theirs", threads).ask([*options, *(["--counts"] if op == "update" else [])])

    def ours(self, op: str, *, threads: int = 1, **case: Any) -> dict[str, Any]:
        """One request to us."""
        request = {"op": op, "lr": RATE, "threads": threads, "reps": self.reps, "seed": SEED, **case}
        return self._side("ours", threads).ask({"noise_per": "sample", "tolerances": "stored", **request})

    def ask_both(self, question: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same question to both."""
        return self._side("theirs", 1).ask(question), self._side("ours", 1).ask(question)

    def floors(self) -> dict[str, Any]:
        """The floors of this machine."""
        cores = len(os.sched_getaffinity(0))
        return self._side("ours", cores).ask("floors")

    def close(self) -> None:
        """End all processes."""
        for side in self._sides.values():
            side.close()


def update(contest: Contest) -> Iterator[dict[str, Any]]:
    """(a) The pulsed update."""
    for size, batch, preset, inputs in product(
        contest.among(512, 1024, 4096), (1, 32) if contest.quick else (1, 32, 128),
        ("gv-nomgmt", "gv"), ("gauss", "mnist"),
    ):  # fmt: skip
        case = {"out": size, "in": size, "batch": batch, "preset": preset, "inputs": inputs}
        theirs: list[Answer] = []
        ours: dict[tuple[str, str], list[Answer]] = {variant: [] for variant in VARIANTS}
        for _ in range(contest.pairs):
            theirs.append(contest.theirs("update", **case))
            as_often = {key: theirs[-1][key] for key in ("inner", "reps")}
            for noise_per, tolerances in VARIANTS:
                asked = {**case, **as_often, "noise_per": noise_per, "tolerances": tolerances}
                ours[noise_per, tolerances].append(contest.ours("update", **asked))
        for (noise_per, tolerances), answers in ours.items():
            yield {
                **case, "noise_per": noise_per, "tolerances": tolerances, **compared(theirs, answers, batch),
                "bytes_per_weight": answers[0]["bytes_per_weight"],
                "expected_coincidences": theirs[0]["expected_coincidences_per_item"],
                "coincidences": answers[0]["coincidences_per_item"],
            }  # fmt: skip


def reads(contest: Contest) -> Iterator[dict[str, Any]]:
    """(b) Forward plus backward, with noise and converters."""
    batches = (1, 32) if contest.quick else (1, 32, 128)
    for size, batch in product(contest.among(512, 1024, 4096), batches):
        case = {"out": size, "in": size, "batch": batch, "preset": "gv", "inputs": "gauss"}
        answers: dict[tuple[str, str], list[Answer]] = {}
        for _ in range(contest.pairs):
            for op in ("forward", "backward"):
                theirs = contest.theirs(op, **case)
                ours = contest.ours(op, **case, inner=theirs["inner"], reps=theirs["reps"])
                answers.setdefault(("theirs", op), []).append(theirs)
                answers.setdefault(("ours", op), []).append(ours)
        for side in ("theirs", "ours"):
            answers[side, "both"] = [
                {key: there[key] + back[key] for key in TIMES}
                for there, back in zip(answers[side, "forward"], answers[side, "backward"], strict=True)
            ]
        for op in ("forward", "backward", "both"):
            yield {"op": op, **case, **compared(answers["theirs", op], answers["ours", op], batch)}


def train(contest: Contest) -> Iterator[dict[str, Any]]:
    """(c) Training of the MNIST network."""
    for batch in (1, 10):
        case = {"batch": batch, "preset": "gv", "inputs": "mnist", "samples": 500 if contest.quick else 2000}
        theirs: list[Answer] = []
        ours: dict[str, list[Answer]] = {}
        for _ in range(contest.pairs):
            theirs.append(contest.theirs("train", **case))
            for noise_per in ("sample", "batch"):
                ours.setdefault(noise_per, []).append(contest.ours("train", **case, noise_per=noise_per))
        for noise_per, answers in ours.items():
            row = compared(theirs, answers, case["samples"])
            rates = {f"{side}_samples_per_s": 1e6 / row[f"{side}_us"] for side in ("theirs", "ours")}
            yield {**case, "noise_per": noise_per, **row, **rates}


def threads(contest: Contest) -> Iterator[dict[str, Any]]:
    """(d) Two threads against one, for us and, in two cases, for the opponent."""
    batches = (32,) if contest.quick else (1, 32, 128)
    ops = ("update gv-nomgmt", "update gv", "forward gv", "backward gv")
    for size, batch, name in product(contest.among(2048, 4096), batches, ops):
        op, preset = name.split()
        case = {"out": size, "in": size, "batch": batch, "preset": preset, "inputs": "gauss"}
        sides = [("ours", contest.ours)]
        if size == 2048 and batch == 32 and op != "backward":
            sides.append(("theirs", contest.theirs))
        for side, ask in sides:
            one, two = [], []
            for _ in range(contest.pairs):
                one.append(ask(op, **case))
                as_often = {key: one[-1][key] for key in ("inner", "reps")} if side == "ours" else {}
                two.append(ask(op, **case, **as_often, threads=2))
            row = compared(one, two, batch)
            yield {
                "side": side, "op": op, **case, "one_us": row["theirs_us"], "two_us": row["ours_us"],
                **{key: row[key] for key in ("ratio", "ratio_low", "ratio_high", "ratios")},
                "wall_over_cpu": max(answer["median_s"] / answer["cpu_median_s"] for answer in one),
            }  # fmt: skip


def compared(theirs: list[Answer], ours: list[Answer], items: int) -> dict[str, Any]:
    """Microseconds per sample of both sides, the ratio of each pair, and how much something else got in the way."""
    wall, cpu = ([a[key] / b[key] for a, b in zip(theirs, ours, strict=True)] for key in TIMES)
    return {
        **{
            f"{side}_us": statistics.median(answer["median_s"] for answer in answers) / items * 1e6
            for side, answers in (("theirs", theirs), ("ours", ours))
        },
        "ratio": statistics.median(wall),
        "ratio_low": min(wall),
        "ratio_high": max(wall),
        "ratios": wall,
        "cpu_ratio": statistics.median(cpu),
        "wall_over_cpu": max(answer["median_s"] / answer["cpu_median_s"] for answer in (*theirs, *ours)),
    }


def same_settings(contest: Contest) -> dict[str, Any]:
    """The settings of the opponent's preset; ends the program where ours are others."""
    theirs, ours = contest.ask_both("preset")
    if theirs != ours:
        raise SystemExit(f"the opponent's preset is\n{theirs}\nand ours\n{ours}")
    return ours


COLUMNS = {
    "update": "out batch preset inputs noise_per tolerances bytes_per_weight expected_coincidences coincidences",
    "reads": "op out batch",
    "train": "batch noise_per theirs_samples_per_s ours_samples_per_s",
    "threads": "side op out batch preset one_us two_us",
}


def table(part: str, rows: list[dict[str, Any]]) -> str:
    """The rows of a part in Markdown."""
    names = COLUMNS[part].split()
    names += ([] if part == "threads" else ["theirs_us", "ours_us"]) + ["ratio", "ratio_low", "ratio_high"]
    names += ["wall_over_cpu"] if part == "threads" else ["cpu_ratio", "wall_over_cpu"]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def in_markdown(found: dict[str, Any]) -> str:
    """All tables, after one line on how quiet the machine was."""
    parts = [part for part in PARTS if part in found]
    rows = [row for part in parts for row in found[part]["rows"]]
    count = sum(row["wall_over_cpu"] > DISTURBED for row in rows)
    head = (
        f"# Against aihwkit\n\nMicroseconds per sample; a ratio is their time over ours (threads: one over two). "
        f"{count} of {len(rows)} rows were disturbed: wall time over CPU time above {DISTURBED}.\n"
    )
    return "\n".join([head, *(f"## {part}\n\n{table(part, found[part]['rows'])}\n" for part in parts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="interpreter of an environment with aihwkit")
    parser.add_argument("script", help="bench_aihwkit.py")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas: " + ", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="512 square only, two pairs; nothing is written")
    parser.add_argument("--sizes", help="tiles, separated by commas (all; with --quick 512,2048); nothing is written")
    parser.add_argument("--pairs", type=int, help="requests to each side per case (3; with --quick 2)")
    arguments = parser.parse_args()
    quick = arguments.quick
    pairs, reps, sizes = (2, 3, "512,2048") if quick else (3, 5, "512,1024,2048,4096")
    contest = Contest(
        [arguments.python, arguments.script], quick, arguments.pairs or pairs, reps,
        tuple(int(size) for size in (arguments.sizes or sizes).split(",")),
    )  # fmt: skip
    kept = not (quick or arguments.sizes)
    target = HERE / "against_aihwkit.json"
    found: dict[str, Any] = {}
    if target.is_file() and kept:
        found = json.loads(target.read_text(encoding="utf-8"))
    began = time.perf_counter()
    try:
        settings = same_settings(contest)
        smallest = contest.theirs("forward", **{"out": 8, "in": 8}, batch=1, preset="gv", inputs="gauss")
        opponent = {"aihwkit": smallest["version"], "torch": smallest["torch"], "bytes_per_weight": BYTES_OF_AIHWKIT}
        found |= {
            "settings": settings,
            "machine": {
                "processor": processor(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE"),
            },
            "floors": contest.floors(),
        }
        print(json.dumps(found["floors"]), file=sys.stderr)
        for part in arguments.only.split(","):
            load, rows = os.getloadavg()[0], []
            for row in globals()[part](contest):
                rows.append(row)
                print(part, json.dumps(row), file=sys.stderr, flush=True)
            found[part] = {"opponent": opponent, "load_before": load, "pairs": contest.pairs, "rows": rows}
            text = in_markdown(found)
            if kept:  # after each part, so that a failure later loses nothing
                target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                target.with_suffix(".md").write_text(text, encoding="utf-8")
    finally:
        contest.close()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(text)


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
