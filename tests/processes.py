"""The processes that a test has started, found by who started whom."""

from pathlib import Path


def descendants(of: int) -> dict[int, str]:
    """The command lines of all living processes that a process has started, directly or not, by process id."""
    parents, lines = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has just ended
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[int(folder.name)], lines[int(folder.name)] = int(parent), line
    found: dict[int, str] = {}
    for number in parents:
        above = number
        while above in parents and above != of:
            above = parents[above]
        if above == of and number != of:
            found[number] = lines[number]
    return found


def accelerators(of: int) -> list[int]:
    """Those of them that are Ray actors with accelerators."""
    return sorted(number for number, line in descendants(of).items() if line.startswith("ray::HostActor"))
