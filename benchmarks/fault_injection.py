"""Every file that a run writes is damaged or cannot be written: nothing may come out wrong without a word.

    python benchmarks/fault_injection.py [SEED]

A small run on digits, finished or stopped half-way, is damaged in one file at a time: cut off, a bit flipped, emptied,
removed.  Then `report`, `profile RUN` and `run --resume` either say what is wrong (exit code 2, one line) or
have to give what they give for the run as it was.  A run that --resume refuses is resumed from the checkpoint that the
message offers.  Next a run is performed while the system refuses to write: on a file system of so many kilobytes
(tmpfs, which needs root), with a limit on the size of files, from the n-th file that is put on the disk, and in
directories that are read-only for its user.  It has to end with exit code 1 or 2 and one line; what it leaves has to
open, and --resume from there has to end as the undisturbed run.  Writes fault_injection.json and .md beside this file.
"""

import contextlib
import errno
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster import cli
from rpucluster.checkpoint import complete, newest_good
from rpucluster.config import write_toml
from rpucluster.coordinator import Progress, run
from rpucluster.errors import RunDirectoryError
from rpucluster.runlog import RunDirectory
from tests.specs import make_cluster, make_job

JOB = make_job(parallel={"tensor": 2}, train={"epochs": 3}, run={"checkpoint_every": "5 steps"})
ROOT = Path(__file__).parent.parent
NOBODY = 65534
Command = tuple[int, str, str]
"""Exit code, standard output, standard error."""


class StopError(Exception):
    """What a run is stopped with."""


def command(*words: str) -> Command:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(words))
    return code, out.getvalue(), err.getvalue()


def result(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """What training led to."""
    directory = RunDirectory.open(folder)
    rows = [asdict(row) | {"wall_s": 0} for row in directory.read_epochs()]
    return directory.read_summary()["weights_sha256"], rows


def resume(folder: Path, source: Path | None = None) -> tuple[Command, Any]:
    done = command("run", "--resume", str(source or folder), "--executor", "local", "--quiet", "--json")
    return done, result(folder) if done[0] == 0 else None


class Case:
    """The run that is damaged, always at the same place, and what commands give for it as it was."""

    def __init__(self, work: Path) -> None:
        self.work, self.folder = work, work / "run"
        run(JOB, make_cluster(), executor="local", out=self.folder)
        command("report", str(self.folder))  # which writes the page
        self.result = result(self.folder)
        self.finished = work / "finished"
        self.folder.rename(self.finished)

        def stop(now: Progress) -> None:
            if now.phase == "epoch" and now.epoch == 2:
                raise StopError

        with contextlib.suppress(StopError):
            run(JOB, make_cluster(), executor="local", out=self.folder, progress=stop)
        self.stopped = work / "stopped"
        self.folder.rename(self.stopped)
        self.fresh(self.finished)
        self.report = command("report", str(self.folder), "--json")
        self.profile = command("profile", str(self.folder), "--json")
        assert (self.report[0], self.profile[0]) == (0, 0)
        assert resume(self.folder)[1] == self.result

    def fresh(self, template: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(template, self.folder)

    def outcomes(self, template: Path, damage: Callable[[Path], None]) -> dict[str, str]:
        """What each command makes of a damaged run."""
        found: dict[str, str] = {}
        if template == self.finished:
            for name, expected in (("report", self.report), ("profile", self.profile)):
                self.fresh(template)
                damage(self.folder)
                found[name] = judged(command(name, str(self.folder), "--json"), lambda d, e=expected: d[1] == e[1])
        self.fresh(template)
        damage(self.folder)
        done, led_to = resume(self.folder)
        found["resume"] = judged(done, lambda _: led_to == self.result)
        offered = re.search(r"the newest good one is (\S+),", done[2])
        if offered:
            found["resume"] += ", offers an older one"
            again, led_to = resume(self.folder, Path(offered[1]))
            ends = judged(again, lambda _: led_to == self.result)
            found["resume"] += ", which ends the same" if ends == "same result" else f", BUT {ends}"
        return found


def judged(done: Command, is_same: Callable[[Command], bool]) -> str:
    code, _, err = done
    if code == 0:
        return "same result" if is_same(done) else "WRONG"
    lines = err.splitlines()
    if len(lines) == 1 and lines[0].startswith("rpucluster: error: "):
        return {1: "stops with one line", 2: "refused with one line"}.get(code, f"WRONG exit code {code}")
    return "WRONG message"


def damages(size: int, chance: random.Random) -> dict[str, list[Callable[[Path], object]]]:
    """Ways to damage a file of so many bytes."""

    def flip(place: int, bit: int) -> Callable[[Path], object]:
        def do(path: Path) -> None:
            content = bytearray(path.read_bytes())
            content[place] ^= 1 << bit
            path.write_bytes(content)

        return do

    def cut(left: int) -> Callable[[Path], object]:
        return lambda path: os.truncate(path, left)

    return {
        "cut off": [cut(chance.randrange(1, size)) for _ in range(3)],
        "bit flipped": [flip(chance.randrange(size), chance.randrange(8)) for _ in range(8)],
        "emptied": [lambda path: os.truncate(path, 0)],
        "removed": [lambda path: path.unlink()],
    }


def damaged_files(case: Case, chance: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for state, template in (("finished", case.finished), ("stopped", case.stopped)):
        kept = complete(template / "checkpoint")
        names = sorted(str(path.relative_to(template)) for path in template.rglob("*") if path.is_file())
        for name in names:
            shown = name
            for age, folder in zip(("newest", "older"), kept, strict=True):
                shown = shown.replace(folder.name, age)
            for fault, ways in damages((template / name).stat().st_size, chance).items():
                counts: dict[str, Counter[str]] = defaultdict(Counter)
                for way in ways:
                    for who, what in case.outcomes(template, lambda folder, n=name, w=way: w(folder / n)).items():
                        counts[who][what] += 1
                outcome = {who: dict(counter) for who, counter in counts.items()}
                rows.append({"run": state, "file": shown, "fault": fault, "cases": len(ways), "outcomes": outcome})
                print(rows[-1], flush=True)
    return rows


# --- what cannot be written ---


def in_child(job: Callable[[], Command], before: Callable[[], None]) -> Command:
    """Perform a command in a forked process that was first changed by `before`."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        before()
        with os.fdopen(write, "w") as stream:
            json.dump(job(), stream)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        content = stream.read()
    os.waitpid(child, 0)
    code, out, err = json.loads(content)
    return code, out, err


def start(case: Case, out: Path) -> Command:
    return command(
        "run", str(case.work / "job.toml"), "--cluster", str(case.work / "cluster.toml"), "--out", str(out),
        "--executor", "local", "--quiet", "--json",
    )  # fmt: skip


def left(case: Case, folder: Path, done: Command) -> str:
    """What a command that could not write has left, and what becomes of it when it can be written again."""
    told = judged(done, lambda _: result(folder) == case.result)
    if done[0] == 0:
        return told
    if not folder.is_dir() or not any(folder.iterdir()):
        return f"{told}; nothing left"
    if list(folder.rglob("*.tmp")):
        return f"{told}; WRONG: a temporary file is left"
    with contextlib.suppress(FileNotFoundError):
        if (folder / "metrics.parquet").exists():
            RunDirectory(folder).read_epochs()
    if newest_good(folder / "checkpoint")[0] is None:
        try:
            result(folder)
        except RunDirectoryError:
            return f"{told}; finished epochs can be read"
    again, led_to = resume(folder)
    ends = judged(again, lambda _: led_to == case.result)
    return f"{told}; --resume ends the same" if ends == "same result" else f"{told}; --resume: {ends} WRONG {again[2]}"


def unwritable(case: Case) -> list[dict[str, Any]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    case.folder.exists() and shutil.rmtree(case.folder)

    def limited(size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    for size in (0, 200, 500, 1000, 2000, 4000, 6000, 8000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000):
        done = in_child(lambda: start(case, case.folder), lambda size=size: limited(size))
        found["no file may be larger than n bytes"][left(case, case.folder, done)] += 1
        shutil.rmtree(case.folder, ignore_errors=True)

    def refuse_after(n: int) -> None:
        fsync, calls = os.fsync, [0]

        def refuse(handle: int) -> None:
            calls[0] += 1
            if calls[0] > n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        os.fsync = refuse

    for n in range(60):
        done = in_child(lambda: start(case, case.folder), lambda n=n: refuse_after(n))
        found["nothing is put on the disk after the n-th file"][left(case, case.folder, done)] += 1
        shutil.rmtree(case.folder, ignore_errors=True)
    for size in (16, 32, 64, 128, 192, 256, 384, 512):
        found["a file system of n KiB"][on_small_disk(case, size)] += 1
    for name, outcome in read_only(case).items():
        found[name][outcome] += 1
    rows = [{"fault": fault, "outcomes": dict(counter)} for fault, counter in found.items()]
    for row in rows:
        print(row, flush=True)
    return rows


def on_small_disk(case: Case, kib: int) -> str:
    """In a mount namespace of its own, from which what is left is copied away."""
    disk, copy = case.work / "disk", case.folder
    disk.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "rpucluster", "run", str(case.work / "job.toml"), "--cluster",
             str(case.work / "cluster.toml"), "--out", str(disk / "run"), "--executor", "local", "--quiet",
             "--json"]  # fmt: skip
    script = (
        f'mount -t tmpfs -o size={kib}k none {disk} || exit 99; "$@"; code=$?; cp -r {disk}/run {copy}; '
        f"ls {disk}/run > /dev/null; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "bash", *words], cwd=ROOT, text=True, capture_output=True
    )
    if done.returncode == 99 or "unshare:" in done.stderr:
        return "not tried: no right to mount"
    err = "".join(f"{line}\n" for line in done.stderr.splitlines() if not line.startswith(("cp:", "ls:")))
    outcome = left(case, copy, (done.returncode, done.stdout, err))
    shutil.rmtree(copy, ignore_errors=True)
    return outcome


def read_only(case: Case) -> dict[str, str]:
    """Directories that the user may not write into; root may everywhere, so it becomes somebody else."""
    if os.getuid() == 0:
        become: Callable[[], None] = lambda: os.setuid(NOBODY)  # noqa: E731
    else:
        become = lambda: None  # noqa: E731
    found: dict[str, str] = {}
    parent = case.work / "read-only"
    parent.mkdir(mode=0o555)
    done = in_child(lambda: start(case, parent / "run"), become)
    found["the parent of --out is read-only"] = left(case, parent / "run", done)
    case.fresh(case.stopped)
    for name, place in (("the run", case.folder), ("its checkpoint/", case.folder / "checkpoint")):
        case.fresh(case.stopped)
        give(case.folder)
        place.chmod(0o555)
        done = in_child(lambda: resume(case.folder)[0], become)
        place.chmod(0o755)
        found[f"{name} is read-only, run --resume"] = left(case, case.folder, done)
    case.fresh(case.finished)
    case.folder.chmod(0o555)
    done = in_child(lambda: command("report", str(case.folder), "--json"), become)
    found["the run is read-only, report"] = judged(done, lambda d: d[1] == case.report[1])
    done = in_child(lambda: command("profile", str(case.folder), "--json"), become)
    found["the run is read-only, profile RUN"] = judged(done, lambda d: d[1] == case.profile[1])
    case.folder.chmod(0o755)
    return found


def give(folder: Path) -> None:
    """Make a folder somebody else's."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def shown(counts: dict[str, int]) -> str:
    return "; ".join(f"{what} ({n})" for what, n in counts.items())


def same_outcomes(rows: list[dict[str, Any]]) -> dict[tuple[str, str, tuple[str, ...]], list[str]]:
    """The faults of a file, with their cases, by what they lead to."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for row in rows:
        cells = tuple(
            "; ".join(row["outcomes"][who]) if who in row["outcomes"] else "-"
            for who in ("report", "profile", "resume")
        )
        found[row["run"], row["file"], cells].append(f"{row['fault']} ({row['cases']})")
    return found


def table(found: dict[str, Any]) -> str:
    cases = sum(row["cases"] * len(row["outcomes"]) for row in found["damaged"])
    cases += sum(sum(row["outcomes"].values()) for row in found["unwritable"])
    wrong = json.dumps(found).count("WRONG")
    lines = [
        "# Faults in every file\n",
        f"Written by `fault_injection.py`, seed {found['seed']}: {cases} cases, {wrong} of them silently wrong or not "
        f"told in one line. In brackets how often.\n",
        "| run | file | fault | `report` | `profile RUN` | `run --resume` |",
        "|---|---|---|---|---|---|",
        *(
            f"| {run_} | {file} | {', '.join(faults)} | {' | '.join(cells)} |"
            for (run_, file, cells), faults in same_outcomes(found["damaged"]).items()
        ),
        "\n`--resume` needs only the newest checkpoint, and mends what else of the run is damaged. A flipped bit that "
        "leaves a result the same has changed white space outside of what is checked, or a file that is not read.\n",
        "| what cannot be written | outcomes |",
        "|---|---|",
        *(f"| {row['fault']} | {shown(row['outcomes'])} |" for row in found["unwritable"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)
        case = Case(work)
        (work / "job.toml").write_text(write_toml(JOB))
        (work / "cluster.toml").write_text(write_toml(make_cluster()))
        found = {
            "seed": seed,
            "unwritable": unwritable(case),
            "damaged": damaged_files(case, random.Random(seed)),
        }
    target = Path(__file__).with_suffix("")
    target.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    target.with_suffix(".md").write_text(table(found))
    print(table(found))
    sys.exit("WRONG" in json.dumps(found))


if __name__ == "__main__":
    main()
