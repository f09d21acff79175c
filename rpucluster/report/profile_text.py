"""The profile of a step for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from rpucluster.report.facts import percent, quantity, title
from rpucluster.report.text import add_rows, new_table

MOST_PATH_ROWS = 24
"""Operations of the critical path that are printed; `--json` and critical_path.parquet have all of them."""
_WORK = ("forward", "backward", "digital", "update", "communication")

Row = Mapping[str, Any]


def print_profile(profile: Row, console: Console) -> None:
    """Print what `profile.step.profile` found, from its plain values."""
    step = profile["modelled_step_s"]
    console.print(Text(title(profile), style="bold"))
    console.print(
        Text(
            f"modelled step {_time(step)} for {profile['samples']} samples in {profile['operations']:,} operations, "
            f"{quantity(profile['energy_J'], 'energy')}; compute {percent(profile['compute_fraction'])}, exposed "
            f"communication {percent(profile['exposed_communication_fraction'])}, bubble {percent(profile['bubble'])}"
        )
    )
    if profile.get("counted") is not None:
        console.print(Text(_counted(profile["counted"])))
    console.print()
    for head, why in bottleneck_lines(profile):
        console.print(Text(head, style="bold"))
        if why:
            console.print(Padding(Text(why), (0, 0, 0, 3)))
    for answer in profile["what_if"]:
        console.print(Text(f"what if {' '.join(answer['changes'])}: {change_of(answer)}", style="bold"))
    console.print()
    _print_where(profile, console)
    _print_path(profile, console)
    _print_resources(profile, console)


def bottleneck_lines(profile: Row) -> list[tuple[str, str]]:
    """The bottlenecks in words, each as a headline and why; the one whose relief gains most first."""
    found = [
        (f"{number}. {each['name']}: {change_of(each)}", each["why"])
        for number, each in enumerate(profile["bottlenecks"], 1)
    ]
    if not found:
        found = [("No change that was tried shortens the step by more than 1 %.", "")]
    tried = [each["name"] for each in profile["no_bottlenecks"]]
    if tried:
        found.append(("Replayed, and no more than 1 % gained:", "; ".join(tried)))
    if profile["not_tried"]:
        found.append(("Not replayed, since too little of the step depends on it:", "; ".join(profile["not_tried"])))
    if profile["not_possible"]:
        refused = "; ".join(each["name"] for each in profile["not_possible"])
        found.append(("Not possible with this job and cluster:", refused))
    return found


def change_of(outcome: Row) -> str:
    """What some changes do to the step, as ``step 41.2 µs -> 30.7 µs (-25 %)``."""
    per_sample = ""
    if outcome["samples_before"] != outcome["samples_after"]:
        per_sample = f" of {outcome['samples_after']} samples instead of {outcome['samples_before']}, per sample"
    gain = outcome["gain"]
    digits = 0 if abs(gain) >= 0.1 else 1
    sign = "-" if gain >= 0 else "+"
    return (
        f"step {_time(outcome['before_s'])} -> {_time(outcome['after_s'])}"
        f"{per_sample} ({sign}{percent(abs(gain), digits)})"
    )


def _counted(counted: Row) -> str:
    told = [
        f"{counted[f'repeats_per_{way}_pass']:.3g} repeats of a {way} pass"
        for way in ("forward", "backward")
        if counted[f"repeats_per_{way}_pass"]
    ]
    if counted["slots_per_cycle"] is not None:
        told.append(f"{counted['slots_per_cycle']:.3g} slots of an update cycle")
    return f"with what the run counted: {', '.join(told)}; without them {_time(counted['step_without_s'])}"


def _print_where(profile: Row, console: Console) -> None:
    step = profile["modelled_step_s"]
    table = new_table(
        ">accelerator", ">compute", ">exposed", ">idle", ">energy", ">power", ">peak", heading="Where the step goes"
    )
    add_rows(
        table,
        (
            (
                str(row["accelerator"]),
                *(_share(row[key], step) for key in ("compute_s", "exposed_communication_s", "idle_s")),
                quantity(row["energy_J"], "energy"),
                quantity(row["mean_power_W"], "power"),
                quantity(row["peak_power_W"], "power"),
            )
            for row in profile["accelerators"]
        ),
    )
    console.print(table)
    for heading, name, rows in (
        ("Seconds of each layer, added over its accelerators", "layer", profile["layers"]),
        ("Seconds of each accelerator, added over its operations", "accelerator", profile["accelerators"]),
    ):
        table = new_table(
            name, *(f">{work.replace('communication', 'transfers')}" for work in _WORK), ">path", heading=heading
        )
        add_rows(
            table,
            (
                (
                    str(row.get("name", row.get("accelerator"))),
                    *(_time(row[f"{work}_s"]) for work in _WORK),
                    _share(row["critical_s"], step),
                )
                for row in rows
            ),
        )
        console.print(table)
    parts = profile["energy_by_component_J"]
    words = (f"{name.replace('_', '-')} {quantity(joules, 'energy')}" for name, joules in parts.items() if joules)
    console.print(Text(f"energy: {', '.join(words)}\n"))


def _print_path(profile: Row, console: Console) -> None:
    rows = profile["critical_path"]
    table = new_table(">op", ">start", ">takes", "operation", "on", "began after", heading="Critical path")
    add_rows(
        table,
        (
            (
                str(row["op"]),
                _time(row["start_s"]),
                _time(row["duration_s"]),
                row["label"],
                members(row["accelerators"]),
                waited_for(row),
            )
            for row in rows[:MOST_PATH_ROWS]
        ),
    )
    if len(rows) > MOST_PATH_ROWS:
        table.caption = f"and {len(rows) - MOST_PATH_ROWS:,} more, with --json and --out"
        table.caption_justify = "left"
    console.print(table)
    shares = (f"{kind.replace('_', '-')} {_time(s)}" for kind, s in profile["critical_path_s"].items())
    console.print(Text(f"the whole path: {', '.join(shares)}\n"))


def waited_for(row: Row) -> str:
    """What an operation began after, as ``op 4`` or, where something else held it up, ``op 7: digital units, 1 µs``."""
    if row["waited_for_op"] is None:
        return ""
    held = "" if row["waited_for"] == "its input" else f": {row['waited_for']}, {_time(row['waited_s'])}"
    return f"op {row['waited_for_op']}{held}"


def _print_resources(profile: Row, console: Console) -> None:
    if profile["exposed_communication"]:
        table = new_table(
            "transfer", "payload", "axes", ">number", ">waited", ">exposed", ">of step",
            heading="Exposed communication, mean over the accelerators",
        )  # fmt: skip
        add_rows(
            table,
            (
                (
                    row["kind"].replace("_", "-"),
                    row["payload"].replace("_", " "),
                    row["axes"],
                    str(row["operations"]),
                    _time(row["waited_s"]),
                    _time(row["exposed_s"]),
                    percent(row["exposed_fraction"]),
                )
                for row in profile["exposed_communication"]
            ),
        )
        console.print(table)
    names = {row["layer"]: row["name"] for row in profile["layers"]}
    busiest = sorted(profile["resources"], key=lambda row: -row["utilisation"])
    table = new_table(">accelerator", "resource", ">tiles", ">busy", ">in use", heading="Tile groups and digital units")
    _add_busiest(
        table,
        (
            (
                str(row["accelerator"]),
                "digital units" if row["layer"] is None else f"tiles of {names[row['layer']]}",
                "" if row["tiles"] is None else f"{row['tiles']:,}",
                _time(row["busy_s"]),
                percent(row["utilisation"]),
            )
            for row in busiest
        ),
    )
    console.print(table)
    if profile["links"]:
        table = new_table("link", "axis", ">bytes", ">busy", ">in use", heading="Links, the busiest first")
        busiest = sorted(profile["links"], key=lambda row: -row["busy_s"])
        _add_busiest(
            table,
            (
                (
                    row["link"],
                    row["axis"],
                    quantity(row["link_bytes"], "size"),
                    _time(row["busy_s"]),
                    percent(row["utilisation"]),
                )
                for row in busiest
            ),
        )
        console.print(table)


def _add_busiest(table: Any, rows: Iterable[Sequence[str]]) -> None:
    every = list(rows)
    add_rows(table, every[:16])
    if len(every) > 16:
        table.caption = f"and {len(every) - 16:,} more, with --json and --out"
        table.caption_justify = "left"


def members(accelerators: Sequence[int]) -> str:
    """The accelerators of an operation, the first two and the last where there are more than four."""
    if len(accelerators) > 4:
        return f"{accelerators[0]}, {accelerators[1]}, ... {accelerators[-1]} ({len(accelerators)})"
    return ", ".join(map(str, accelerators))


def _time(seconds: float) -> str:
    return quantity(seconds, "time")


def _share(seconds: float, step: float) -> str:
    return percent(seconds / step if step else 0.0)
