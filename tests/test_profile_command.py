"""`rpucluster profile` as people and scripts meet it."""

import gzip
import html
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rpucluster import cli
from rpucluster.cluster import load_cluster
from rpucluster.config import write_toml
from rpucluster.files import write_json
from rpucluster.job import load_job
from rpucluster.profile.step import profile
from rpucluster.report.facts import quantity
from rpucluster.report.profile_text import print_profile
from rpucluster.runlog import RunDirectory
from tests import run_fixtures
from tests.test_cli import fails

Captured = pytest.CaptureFixture[str]
DIGITS = ["profile", "digits", "--cluster", "laptop"]


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    """A run directory whose specs are those of the main job."""
    run = run_fixtures.make_run(tmp_path / "run")
    run.write_specs(write_toml(load_job("digits")), write_toml(load_cluster("laptop")))
    run.write_summary(run.read_summary())  # which seals the files
    return run


def test_json_alone_goes_to_standard_output(capsys: Captured) -> None:
    assert cli.main([*DIGITS, "--set", "train.microbatch=4", "--json", "--what-if", "train.microbatch=8"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert err == ""
    assert (
        content
        == profile(load_job("digits", ["train.microbatch=4"]), load_cluster("laptop"), ["train.microbatch=8"]).content
    )
    # and the other way round it is the same two steps
    assert cli.main([*DIGITS, "--json", "--what-if", "train.microbatch=4"]) == 0
    other = json.loads(capsys.readouterr().out)["what_if"][0]
    answer = content["what_if"][0]
    assert (other["before_s"], other["after_s"]) == (answer["after_s"], answer["before_s"])


def test_a_run_is_profiled_by_its_own_files(finished: RunDirectory, capsys: Captured) -> None:
    assert cli.main(["profile", str(finished.path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == profile(load_job("digits"), load_cluster("laptop")).content


def test_the_tables_say_what_the_json_says(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main([*DIGITS, "--json", "--out", str(tmp_path / "out")]) == 0
    content = json.loads(capsys.readouterr().out)
    content["layers"] = content["accelerators_by_layer"]
    content["bottlenecks"] += content["no_bottlenecks"]
    names = ("critical_path", "layers", "accelerators", "resources", "links", "exposed_communication", "bottlenecks")
    for name in names:
        table = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert table.to_pylist() == content[name]
        for field in table.schema:
            unit = field.metadata[b"unit"].decode()
            assert unit == {"_s": "s", "_J": "J", "_W": "W", "es": "B"}.get(field.name[-2:], "1") or unit == "1"
            assert (unit == "s") == field.name.endswith("_s")


def test_the_page_and_the_trace_are_of_the_step(tmp_path: Path, capsys: Captured) -> None:
    page, out = tmp_path / "page.html", tmp_path / "out"
    assert cli.main([*DIGITS, "--html", str(page), "--out", str(out), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    text = page.read_text(encoding="utf-8")
    start = text.index('id="timeline-data">') + len('id="timeline-data">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert data["end"] == round(content["modelled_step_s"] * 1e12)
    assert len(data["ops"]["id"]) == content["operations"]
    assert [data["ops"]["id"][data["marks"]["op"][mark]] for mark in data["path"]] == [
        row["op"] for row in content["critical_path"]
    ]
    assert html.escape(content["bottlenecks"][0]["why"]) in text
    for row in content["accelerators"] + content["layers"]:
        assert f'<td class="number">{quantity(row["energy_adc_J"], "energy")}</td>' in text
    for row in content["critical_path"]:
        assert f"<td>{html.escape(row['label'])}</td>" in text
    trace = json.loads(gzip.decompress((out / "trace.json.gz").read_bytes()))
    ends = [event["ts"] + event["dur"] for event in trace["traceEvents"] if event["ph"] == "X"]
    assert max(ends) == pytest.approx(content["modelled_step_s"] * 1e6, abs=1e-6)


def test_what_is_printed_for_people(capsys: Captured) -> None:
    assert cli.main([*DIGITS, "--what-if", "network.axis.board.latency=/2"]) == 0
    out = capsys.readouterr().out
    content = profile(load_job("digits"), load_cluster("laptop"), ["network.axis.board.latency=/2"]).content
    (answer,) = content["what_if"]
    step = f"step {quantity(answer['before_s'], 'time')} -> {quantity(answer['after_s'], 'time')}"
    said = f"{step} (-{100 * answer['gain']:.0f} %)"
    assert f'1. tensor/pipeline axis "board" latency /2: {said}' in out
    assert f"what if network.axis.board.latency=/2: {said}" in out
    for heading in ("Where the step goes", "Critical path", "Exposed communication", "Tile groups", "Links"):
        assert heading in out


def test_that_nothing_helps_is_said() -> None:
    found = profile(load_job("digits"), load_cluster("laptop")).content
    stream = io.StringIO()
    quiet = found | {
        "bottlenecks": [],
        "no_bottlenecks": found["bottlenecks"][:1],
        "not_tried": ["active tiles"],
        "not_possible": [],
    }
    print_profile(quiet, Console(file=stream, width=100))
    lines = stream.getvalue().splitlines()
    at = lines.index("No change that was tried shortens the step by more than 1 %.")
    assert [line.rstrip() for line in lines[at + 1 : at + 5]] == [
        "Replayed, and no more than 1 % gained:",
        '   tensor/pipeline axis "board" latency /2',
        "Not replayed, since too little of the step depends on it:",
        "   active tiles",
    ]


def test_mistakes_end_in_one_line(finished: RunDirectory, tmp_path: Path, capsys: Captured) -> None:
    run = str(finished.path)
    assert fails(capsys, ["profile", "digits"], 2).startswith("rpucluster: error: --cluster is missing; name")
    assert fails(capsys, ["profile", run, "--cluster", "laptop"], 2) == (
        f"rpucluster: error: {run} is a run, which has its own files; change their keys with --what-if"
    )
    assert fails(capsys, ["profile", str(tmp_path)], 2).endswith("is not a run directory: it has no job.toml")
    assert fails(capsys, [*DIGITS, "--what-if", "train.microbatch=/3"], 2) == (
        "rpucluster: error: --what-if train.microbatch=/3: it is 8, which gives 2.66667; it must stay a whole number"
    )
    assert fails(capsys, [*DIGITS, "--what-if", "parallel.tensor=8"], 2).startswith("rpucluster: error: ")
    blocked = tmp_path / "file"
    write_json(blocked, {})
    assert "name another one with --out" in fails(capsys, [*DIGITS, "--out", str(blocked / "out")], 2)
