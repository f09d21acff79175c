"""What a run leaves: made once, read back as it was written, refused when it is not a finished run."""

import gzip
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rpucluster.errors import RunDirectoryError
from rpucluster.metrics import summarise
from rpucluster.program import Collective, Send
from rpucluster.runlog import REQUIRED, RunDirectory
from rpucluster.waits import WORDS, wait_of
from tests import run_fixtures


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_fixtures.make_run(tmp_path_factory.mktemp("runs") / "one")


# --- making and opening ---


def test_unnamed_runs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RunDirectory.create(None, "digits").path for _ in range(3)]
    assert made == [Path("runs") / f"digits-{n}" for n in (1, 2, 3)]
    made[1].rmdir()
    assert RunDirectory.create(None, "digits").path == made[1]


def test_an_empty_directory_may_be_named_and_its_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunDirectory.create(tmp_path / "empty", "x").path.is_dir()
    assert RunDirectory.create(tmp_path / "a" / "b", "x").path.is_dir()


def test_what_is_there_already_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create(tmp_path, "x")
    assert str(caught.value) == f"{tmp_path} is not empty; name another directory with --out"
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create(tmp_path / "note.txt", "x")
    assert str(caught.value) == (
        f"{tmp_path / 'note.txt'}: cannot be made a run directory: File exists; name another one with --out"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_only_a_finished_run_opens(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.open(missing)
    assert str(caught.value) == f"there is no run directory {missing}"
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.open(tmp_path)
    assert str(caught.value) == f"{tmp_path} is not a run directory: it has no job.toml"
    run = run_fixtures.make_run(tmp_path / "run")
    assert RunDirectory.open(run.path).path == run.path
    for name in REQUIRED[1:]:
        content = (run.path / name).read_bytes()
        (run.path / name).unlink()
        with pytest.raises(RunDirectoryError) as caught:
            RunDirectory.open(run.path)
        assert str(caught.value) == (
            f"the run in {run.path} is not finished: it has no {name}; rpucluster run --resume {run.path} goes on"
        )
        (run.path / name).write_bytes(content)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_file_that_is_not_the_one_that_was_written_is_refused(name: str, tmp_path: Path) -> None:
    """Any bit and any lost end: a change that could be read as another value must not go unnoticed."""
    run = run_fixtures.make_run(tmp_path / "run")
    path, random = run.path / name, np.random.default_rng(0)
    whole = path.read_bytes()
    places = random.integers(0, len(whole), 30).tolist()
    for damaged in (
        *(whole[:place] + bytes([whole[place] ^ 1 << random.integers(0, 8)]) + whole[place + 1 :] for place in places),
        *(whole[:place] for place in places),
        whole + b" ",
        b"",
    ):
        path.write_bytes(damaged)
        if name == "checksums.json" and damaged.rstrip() == whole.rstrip():
            continue  # white space means nothing there
        with pytest.raises(RunDirectoryError) as caught:
            RunDirectory.open(run.path)
        assert str(path) in str(caught.value)
    path.write_bytes(whole)
    RunDirectory.open(run.path)


def test_only_the_named_files_are_left(run: RunDirectory) -> None:
    assert {p.name for p in run.path.iterdir()} == {*REQUIRED, "checkpoint"}


# --- what is written comes back ---


def test_specs_plan_and_summary_come_back(run: RunDirectory) -> None:
    assert run.read_specs() == ("[model]\nsizes = [64, 64, 32]\n", "[accelerator]\ntiles = 40\n")
    assert run.read_plan() == run_fixtures.plan()
    assert run.read_summary() == run_fixtures.summary()
    assert list(run.read_summary()) == list(run_fixtures.summary())


def test_epochs_come_back_with_what_was_not_evaluated(tmp_path: Path) -> None:
    run, rows = RunDirectory.create(tmp_path / "run", "x"), run_fixtures.epochs()
    for n in range(1, len(rows) + 1):
        run.write_epochs(rows[:n])  # anew after each epoch
        assert run.read_epochs() == rows[:n]
    assert rows[1].test_accuracy is None


@pytest.mark.parametrize("name", ["metrics", "events", "links", "link_spans"])
def test_every_column_has_the_unit_that_its_name_says(run: RunDirectory, name: str) -> None:
    for field in pq.read_schema(run.path / f"{name}.parquet"):
        expected = "s" if field.name.endswith("_s") else "J" if field.name.endswith("_J") else "1"
        expected = "B" if field.name == "bytes" else expected
        assert field.metadata[b"unit"].decode() == expected, field.name


def test_events_hold_the_timeline_once_per_accelerator(run: RunDirectory) -> None:
    timed, events = run_fixtures.timeline(), run.read_events()
    assert [(e["op"], e["accelerator"]) for e in events] == [(o.id, a) for o in timed.program for a in o.accelerators]
    for event in events:
        op = timed.program.ops[event["op"]]
        assert (event["start_modelled_s"], event["end_modelled_s"]) == (
            timed.start_s[op.id],
            timed.finish_s[op.id],
        )
        assert (event["label"], event["layer"]) == (op.label, op.layer)


def test_event_energies_add_up_to_what_the_operations_consume(run: RunDirectory) -> None:
    timed = run_fixtures.timeline()
    by_component = summarise(timed).energy_by_component_J
    operations = math.fsum(joules for name, joules in by_component.items() if name != "idle")
    assert math.fsum(event["energy_J"] for event in run.read_events()) == pytest.approx(operations, rel=1e-12)


def test_event_bytes_are_what_each_accelerator_puts_in(run: RunDirectory) -> None:
    ops = run_fixtures.program().ops
    for event in run.read_events():
        op = ops[event["op"]]
        if isinstance(op, Send):
            assert event["bytes"] == 128 * 2  # 128 words of 16 bits
        elif isinstance(op, Collective):
            assert event["bytes"] == 128 * 4  # 128 words of 32 bits
        else:
            assert event["bytes"] == 0


def test_microbatches_are_missing_where_an_operation_has_none(run: RunDirectory) -> None:
    assert {e["kind"] for e in run.read_events() if e["microbatch"] is None} == {"update"}


def test_the_critical_events_reach_the_end_of_the_step(run: RunDirectory) -> None:
    critical = [e for e in run.read_events() if e["critical"]]
    assert min(e["start_modelled_s"] for e in critical) == 0
    assert max(e["end_modelled_s"] for e in critical) == run.read_step()["modelled_step_s"]
    assert {e["op"] for e in critical} == set(run_fixtures.timeline().critical_path())


def test_links_and_step_are_the_metrics(run: RunDirectory) -> None:
    metrics = summarise(run_fixtures.timeline())
    assert run.read_step() == metrics.to_dict()
    assert [(r["link"], r["axis"], r["bytes"], r["busy_modelled_s"], r["utilisation"]) for r in run.read_links()] == [
        (use.name, use.axis, use.bytes, use.busy_s, use.utilisation) for use in metrics.links
    ]
    assert run.read_links()


def test_link_spans_are_the_uses_of_each_link_in_turn(run: RunDirectory) -> None:
    """Transfers hold a link one after the other, for no shorter than they send on it."""
    timed, rows = run_fixtures.timeline(), run.read_link_spans()
    assert len(rows) == len(timed.link_spans())
    held: dict[str, float] = {}
    for before, after in pairwise(rows):
        assert before["link"] != after["link"] or before["end_modelled_s"] <= after["start_modelled_s"] + 1e-18
    for row in rows:
        held[row["link"]] = held.get(row["link"], 0.0) + row["end_modelled_s"] - row["start_modelled_s"]
    busy = {row["link"]: row["busy_modelled_s"] for row in run.read_links()}
    assert set(held) == set(busy)
    assert all(held[link] >= busy[link] * (1 - 1e-12) for link in busy)


def test_events_say_what_they_waited_for(run: RunDirectory) -> None:
    timed = run_fixtures.timeline()
    for event in run.read_events():
        wait = wait_of(timed, event["op"])
        assert event["waited_for"] == WORDS[wait.reason]
        assert event["waited_for_op"] == (None if wait.op < 0 else wait.op)
        assert event["waited_modelled_s"] == wait.seconds


def test_equal_timelines_give_equal_traces_byte_for_byte(run: RunDirectory) -> None:
    before = (run.path / "trace.json.gz").read_bytes()
    run.write_trace(run_fixtures.timeline())
    assert (run.path / "trace.json.gz").read_bytes() == before
    assert run.read_trace()["otherData"] == {"clock": "modelled"}


def test_a_damaged_trace_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "x")
    for content in (b"no gzip", gzip.compress(b"no JSON"), gzip.compress(b"{}")[:-9]):
        (run.path / "trace.json.gz").write_bytes(content)
        with pytest.raises(RunDirectoryError, match=r"trace\.json\.gz: cannot be read") as caught:
            run.read_trace()
        assert "\n" not in str(caught.value)


def test_the_checkpoint_is_reached_through_the_run(run: RunDirectory) -> None:
    weights, state = run.read_checkpoint()
    assert state == {"steps": 300}
    assert [array.shape for array in weights.values()] == [(3, 4), (2, 4)]
