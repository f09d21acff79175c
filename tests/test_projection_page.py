"""What `project --out` leaves, against the rows that it is made from."""

import base64
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from rpucluster.cli.main import main
from rpucluster.report import projection_plots
from rpucluster.report.swept import short_names

KEY = "network.axis.board.bandwidth"


def test_a_folder_has_the_rows_with_units_drawings_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    arguments = [
        "project",
        "mlp_1b",
        "--cluster",
        "ring8",
        "--sweep",
        "accelerators=8,16,24",
        "--sweep",
        f"{KEY}=10GB/s,1TB/s",
    ]
    more = ["--set", "network.axis.board.kind=switch", "--set", "network.axis.board.latency=1 ns", "--threshold", KEY]
    assert main([*arguments, *more, "--out", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [("error" in row) for row in rows] == [False] * 4 + [True] * 2
    found = pq.read_table(out / "projection.parquet")
    # every row with all columns; what a row lacks is None there
    for kept, row in zip(found.to_pylist(), rows, strict=True):
        assert {name: value for name, value in kept.items() if value is not None} == {
            name: value for name, value in row.items() if value is not None
        }
    units = {field.name: field.metadata[b"unit"].decode() for field in found.schema}
    assert units[KEY] == units["threshold_B_per_s"] == "B/s"
    assert (units["modelled_step_s"], units["samples_per_s"], units["link_bytes"]) == ("s", "1/s", "B")
    assert (units["modelled_energy_J"], units["energy_idle_J"], units["accelerators"]) == ("J", "J", "1")
    names = ["scaling", "breakdown", "threshold"]
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.{kind}" for name in names for kind in ("png", "svg")),
        "projection.parquet",
        "report.html",
    }
    page = (out / "report.html").read_text()
    # nothing is fetched: every image is in the page, bit for bit
    images = re.findall(r'src="([^"]*)"', page)
    assert [base64.b64decode(src.removeprefix("data:image/svg+xml;base64,")) for src in images] == [
        (out / f"{name}.svg").read_bytes() for name in names
    ]
    assert "https://" not in re.sub(r'src="[^"]*"', "", page)
    assert "whole multiples or" in page  # the error of the points that do not fit
    for row in rows[:4]:
        assert f"{row['tensor']} x {row['pipeline']} x {row['data']}" in page


def test_without_a_sweep_there_is_one_row_and_its_breakdown(tmp_path: Path) -> None:
    assert main(["project", "mlp_1b", "--cluster", "ring8", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "breakdown.png",
        "breakdown.svg",
        "projection.parquet",
        "report.html",
    }


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["project", "mlp_1b", "--cluster", "ring8", "--out", str(tmp_path / "file")]) != 0
    assert "cannot be made" in capsys.readouterr().err


def test_the_table_of_two_sweeps_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """80 characters, with short names, values in their units, and what all rows share said once."""
    sweeps = ["--sweep", f"{KEY}=10GB/s,1TB/s", "--sweep", "update.bit_length=10,20"]
    assert main(["project", "mlp_1b", "--cluster", "ring8", *sweeps]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "weights 1.09 G, accelerators 8, TxPxD 4x2x1"
    assert next(line for line in lines if "bit_length" in line).split()[:2] == ["bandwidth", "bit_length"]
    assert [line.split()[:3] for line in lines if "B/s" in line] == [
        [value, unit, bits] for value, unit in (("10", "GB/s"), ("1", "TB/s")) for bits in ("10", "20")
    ]


def test_names_of_swept_keys_are_as_short_as_tells_them_apart() -> None:
    keys = ["network.axis.a.bandwidth", "network.axis.ba.bandwidth", "train.minibatch", "weights", "x.weights"]
    assert list(short_names(keys).values()) == ["a.bandwidth", "ba.bandwidth", "minibatch", "weights", "x.weights"]


def test_words_are_words_where_nothing_is_said(tmp_path: Path) -> None:
    """So that files of several projections can be put together: all rows of this one are exact."""
    assert main(["project", "mlp_1b", "--cluster", "ring8", "--out", str(tmp_path)]) == 0
    assert pq.read_schema(tmp_path / "projection.parquet").field("why_not_exact").type == "string"


def test_names_of_curves_cover_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven curves over the whole height, as energies are: the names stand right of all axes."""
    drawn: list[Figure] = []
    monkeypatch.setattr(projection_plots, "write_drawing", lambda path, figure: drawn.append(figure) or [path])
    rows = [
        {"size": x, "batch": b, "modelled_step_s": b / x, "samples_per_s": x, "modelled_energy_J": b}
        for x in (1, 2, 4)
        for b in (1, 2, 4, 8, 16, 32, 64)
    ]
    projection_plots.draw(tmp_path, rows, {"size": None, "batch": None})
    scaling = drawn[0]
    scaling.draw_without_rendering()
    (names,) = scaling.legends
    assert [text.get_text() for text in names.get_texts()] == [f"batch {b}" for b in (1, 2, 4, 8, 16, 32, 64)]
    assert names.get_window_extent().x0 > max(axis.get_window_extent().x1 for axis in scaling.axes)
