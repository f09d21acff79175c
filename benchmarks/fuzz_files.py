"""Broken job, cluster, IDX, Parquet and checkpoint files by the thousand: no traceback, no hang, no endless memory.

    python benchmarks/fuzz_files.py [CASES_OF_EACH_KIND]

`tests/fuzz.py` makes the cases; a case is its kind and number, so that each can be performed again.  They are performed
in a forked process whose memory is limited, and which is ended when one takes too long; a process that dies of a case,
as a library in C could, is a fault like an exception that is none of `rpucluster.errors`.  Writes fuzz_files.json and
fuzz_files.md beside this file.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fuzz import Fuzzer

MEMORY = 1 << 30
"""Bytes of address space that the cases may take beyond what the process has when it starts."""
PATIENCE_S = 120.0
"""For one case, on a machine that may stop for others in between."""


def child(kind: str, start: int, stop: int, folder: Path, pipe: int) -> None:
    """Perform cases and write a line for each."""
    fuzzer = Fuzzer(folder)
    with contextlib.suppress(Exception):
        fuzzer.perform(kind, start)  # imports and compiles what all of them need
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for number in range(start, stop):
        began = time.perf_counter()
        try:
            outcome = fuzzer.perform(kind, number)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"
        line = {"number": number, "outcome": outcome, "wall_s": time.perf_counter() - began}
        os.write(pipe, f"{json.dumps(line)}\n".encode())
    os._exit(0)


def perform(kind: str, cases: int) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    slowest, peak, start = 0.0, 0, 0
    while start < cases:
        with tempfile.TemporaryDirectory() as folder:
            read, write = os.pipe()
            process = os.fork()
            if process == 0:
                os.close(read)
                child(kind, start, cases, Path(folder), write)
            os.close(write)
            text, why = b"", "the process died"
            while True:
                if not select.select([read], [], [], PATIENCE_S + 60 * (not text))[0]:
                    why = f"no answer in {PATIENCE_S:g} s"
                    os.kill(process, signal.SIGKILL)
                    break
                more = os.read(read, 1 << 16)
                if not more:
                    break
                text += more
            os.close(read)
            _, _, used = os.wait4(process, 0)
            peak = max(peak, used.ru_maxrss << 10)
        for line in map(json.loads, text.splitlines()):
            start, slowest = line["number"] + 1, max(slowest, line["wall_s"])
            fine = line["outcome"] in ("accepted", "refused")
            outcomes[line["outcome"] if fine else "fault"] += 1
            if not fine:
                faults.append({"number": line["number"], "what": line["outcome"]})
        if start < cases:
            faults.append({"number": start, "what": why})
            outcomes["fault"] += 1
            start += 1
    found = {"kind": kind, "cases": cases, "outcomes": dict(outcomes), "slowest_wall_s": round(slowest, 3)}
    found |= {"peak_resident_MB": peak >> 20, "faults": faults}
    print(found, flush=True)
    return found


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 2500
    found = [perform(kind, cases) for kind in ("job", "cluster", "IDX", "Parquet", "checkpoint")]
    lines = [
        "# Broken files\n",
        f"Written by `fuzz_files.py`: {sum(row['cases'] for row in found):,} cases. A fault is a traceback, a process "
        f"that dies, a case that takes more than {PATIENCE_S:g} s, or one that wants more than {MEMORY >> 30} GiB.\n",
        "| kind | cases | accepted | refused in one line | faults | slowest_wall_s | peak_resident_MB |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['kind']} | {row['cases']} | {row['outcomes'].get('accepted', 0)} | "
            f"{row['outcomes'].get('refused', 0)} | {row['outcomes'].get('fault', 0)} | {row['slowest_wall_s']} | "
            f"{row['peak_resident_MB']} |"
            for row in found
        ),
    ]
    target = Path(__file__).with_suffix("")
    target.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n")
    sys.exit(any(row["faults"] for row in found))


if __name__ == "__main__":
    main()
