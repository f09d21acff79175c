"""The processes that a test has started, found by who started whom."""

import ipaddress
import sys
from collections.abc import Iterable
from contextlib import suppress
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


def listening(of: Iterable[int]) -> dict[tuple[str, int], int]:
    """The TCP addresses and ports at which some processes listen, with the process of each."""
    holders: dict[str, int] = {}
    for number in of:
        for handle in Path(f"/proc/{number}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                link = str(handle.readlink())
                if link.startswith("socket:["):
                    holders[link[8:-1]] = number
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in holders:
                place, port = words[1].split(":")
                found[_address(place), int(port, 16)] = holders[words[9]]
    return found


def _address(text: str) -> str:
    """An address as the kernel writes it: words of four bytes, each in the order of the machine."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
