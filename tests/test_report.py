"""Reports show the run's own numbers, hold any text that a file may hold, and say what they leave out."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rpucluster.report import charts, tilemap, timeline
from rpucluster.report.colours import KIND_GROUPS, accelerator_colour, ink_on
from rpucluster.report.html import MOST_LINKS, render, write_report
from rpucluster.report.page import page as page_of
from rpucluster.report.text import MOST_ROWS, print_plan, print_summary
from rpucluster.runlog import RunDirectory
from rpucluster.trace import TRACKS
from tests import run_fixtures

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart: every element closed in order, its texts, its scripts and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open and data.strip():
            self.words.append(data.strip())

    @property
    def figures(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_fixtures.make_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def page(run: RunDirectory) -> Page:
    return Page(render(run))


# --- the page ---


def test_the_page_is_one_file_that_loads_nothing(run: RunDirectory, page: Page) -> None:
    path = write_report(run)
    assert path == run.path / "report.html"
    assert path.read_text(encoding="utf-8") == render(run)
    assert page.loads == []
    assert not {"link", "iframe", "img", "object"} & set(page.tags)
    assert len(page.scripts) == 5  # figures, Plotly, what draws them with it; the timeline's data and what draws it


@pytest.mark.parametrize(
    "shown",
    [
        "fixture on square",
        "89.33 %",
        "4.56 µs",
        "1.37 ms",
        "2.37 µJ",
        "7.89 nJ a step",
        "4 of 4",
        "6.25 s",
        "3,000",
        "dense1: the bias column opens a new tile column of its own",
        "10 of 40 tiles, 81 % full",
        "64 × 65 array, 4 × 5 tiles, output split, stage 0",
        "[accelerator]\ntiles = 40",
    ],
)
def test_the_page_shows_the_run(page: Page, shown: str) -> None:
    assert any(shown in words for words in page.words)


def test_every_chart_has_its_place_and_its_axes_have_units(page: Page, run: RunDirectory) -> None:
    text = render(run)
    assert set(page.figures) == {"loss", "accuracy", "shares", "energy"}
    assert '<div id="timeline">' in text
    for name, figure in page.figures.items():
        assert f'<div class="chart" id="{name}"></div>' in text
        assert figure["layout"]["xaxis"]["title"]["text"]


def test_curves_leave_out_what_was_not_evaluated(page: Page) -> None:
    train, test = page.figures["accuracy"]["data"]
    assert (train["name"], train["x"], train["y"]) == (
        "train",
        [1, 2, 3],
        [r.train_accuracy for r in run_fixtures.epochs()],
    )
    assert (test["name"], test["x"]) == ("test", [1, 3])


def test_each_accelerator_is_fully_accounted_for(page: Page) -> None:
    bars = page.figures["shares"]["data"]
    assert [bar["name"] for bar in bars] == ["compute", "exposed communication", "idle"]
    for parts in zip(*(bar["x"] for bar in bars), strict=True):
        assert sum(parts) == pytest.approx(1)


def test_energy_parts_add_up(page: Page) -> None:
    assert sum(page.figures["energy"]["data"][0]["x"]) == pytest.approx(1)


def test_the_page_holds_any_text(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    run = run_fixtures.make_run(
        tmp_path / "run",
        layer=hostile,
        job_toml=f"</pre>{hostile}",
        job=f"{hostile}&amp;",
        executor='"><img src=x onerror=alert(1)>',
        weights_sha256="</code><script>alert(1)</script>",
    )
    plan = run.read_plan()
    plan["warnings"] = [hostile]
    run.write_plan(plan)
    text = render(run)
    page = Page(text)
    assert len(page.scripts) == 5
    assert text.count("</script>") == 5
    assert "img" not in page.tags
    assert all("alert" not in page.scripts[n] for n in (0, 2, 3, 4))
    assert f"{hostile}&amp; on square" in page.words  # as text, so nothing is lost either


def test_a_script_cannot_begin_inside_the_data(run: RunDirectory) -> None:
    events = [event | {"label": "</script><b>x"} for event in run.read_events()]
    text = page_of("x", (), {}, timeline.timeline(events, []))
    for name in ("figures", "timeline-data"):
        block = text[text.index(f'id="{name}">') + len(f'id="{name}">') :]
        assert "<" not in block[: block.index("</script>")]
    assert json.loads(Page(text).scripts[3])["names"] == ["</script><b>x"]


def test_a_value_that_was_not_a_number_is_a_dash(tmp_path: Path) -> None:
    run = run_fixtures.make_run(tmp_path / "run", test_loss=float("nan"), test_accuracy=None, train_loss=float("inf"))
    assert Page(render(run)).words.count("–") >= 3


def test_an_empty_step_still_makes_a_page() -> None:
    empty = timeline.timeline([], [])
    assert (empty["end"], empty["rows"], empty["path"]) == (0, [], [])
    step = {
        "modelled_step_s": 0.0,
        "accelerators": [
            {"accelerator": 0, "compute_s": 0.0} | dict.fromkeys(("exposed_communication_s", "idle_s"), 0.0)
        ],
    }
    assert charts.step_shares(step)[0].data[0].x == (0.0,)
    assert charts.energy({"array": 0.0}).data[0].x == ()


def test_links_are_listed_busiest_first_and_the_rest_is_said(tmp_path: Path) -> None:
    run = run_fixtures.make_run(tmp_path / "run")
    metrics = run_fixtures.summarise(run_fixtures.timeline())
    uses = tuple(replace(metrics.links[0], name=f"link {n}", bytes=float(n)) for n in range(MOST_LINKS + 5))
    run.write_timeline(run_fixtures.timeline(), replace(metrics, links=uses))
    words = Page(render(run)).words
    assert [w for w in words if re.fullmatch(r"link \d+", w)] == [f"link {n}" for n in range(204, 4, -1)]
    assert "Showing the 200 busiest of 205." in words
    run.write_timeline(run_fixtures.timeline(), replace(metrics, links=()))
    assert "Nothing travels between accelerators in this step." in Page(render(run)).words


# --- the tile map ---


def blocks(svg: str) -> list[tuple[float, float, str]]:
    found = re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)" height="([\d.]+)" fill="(#\w+)">', svg)
    return [(float(width), float(height), fill) for width, height, fill in found]


def test_areas_on_the_tile_map_are_in_proportion_to_the_tiles() -> None:
    drawn = blocks(tilemap.tile_map(run_fixtures.plan()))
    shards = run_fixtures.plan()["shards"]
    side = drawn[0][0] / 5
    for (width, height, fill), shard in zip(drawn, shards, strict=True):
        assert width * height / side**2 == pytest.approx(shard["tiles"])
        assert fill == accelerator_colour(shard["accelerator"])


@pytest.mark.parametrize(("rows", "cols"), [(1, 5000), (5000, 1), (300, 400), (1, 1)])
def test_a_layer_of_any_size_stays_readable(rows: int, cols: int) -> None:
    plan = run_fixtures.plan()
    plan["layers"] = [plan["layers"][0] | {"tile_grid": [rows, cols]}]
    shard = plan["shards"][0] | {"tile_rows": [0, rows], "tile_cols": [0, cols], "tiles": rows * cols}
    plan["shards"] = [shard]
    svg = tilemap.tile_map(plan)
    ((width, height, _),) = blocks(svg)
    assert 14 <= width <= 331
    assert 14 <= height <= 221
    assert len(svg) < 5000  # a rectangle per shard, not per tile


def test_the_tile_map_says_what_it_leaves_out() -> None:
    plan = run_fixtures.plan()
    plan["layers"] = [plan["layers"][0]] * (tilemap.MOST_LAYERS + 1)
    plan["data"] = tilemap.MOST_REPLICAS + 2
    html = tilemap.tile_map(plan)
    assert "showing the first 40 of 41 layers; showing the first 4 of 6 replicas" in html


def test_each_kind_of_operation_has_one_colour() -> None:
    kinds = [kind for _, group in KIND_GROUPS.values() for kind in group]
    assert sorted(kinds) == sorted(TRACKS)
    assert len({colour for colour, _ in KIND_GROUPS.values()}) == len(KIND_GROUPS)


def test_labels_stand_out_from_the_colours_below_them() -> None:
    """Contrast of at least 3 : 1 (WCAG for large text), for all 24 colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for n in range(24):
        dark, light = sorted((luminance(accelerator_colour(n)), luminance(ink_on(accelerator_colour(n)))))
        assert (light + 0.05) / (dark + 0.05) >= 3, n


# --- the terminal ---


def printed(show: Any, *values: Any, width: int = 80) -> str:
    stream = io.StringIO()
    show(*values, Console(file=stream, width=width))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


SUMMARY = """\
fixture on square
executor local, arrays numpy, seed 7, rpucluster 0.1.0, Python 3.11.7, NumPy
2.4.6

 Result                                 Modelled machine
 ──────────────────────────────────────────────────────────────────────
 test accuracy                89.33 %   modelled step           4.56 µs
 test loss                     0.7333   modelled training       1.37 ms
 train accuracy, last epoch   90.00 %   energy per step         7.89 nJ
 train loss, last epoch        0.6667   energy of training      2.37 µJ
 epochs                             3   compute                  50.0 %
 steps                            300   exposed communication    30.0 %
 samples                        2,400   idle                     20.0 %
 weights                        6,240   accelerators             4 of 4
                                        tiles                        30


 Physics                               This host
 ──────────────────────────────────────────────────────────────────────
 vector passes                  48 k   wall                      6.25 s
 repeats by bound management       0   of it starting            1.25 s
 update cycles                  36 k   of it training             4.5 s
 pulse slots                    15 k   of it evaluating          500 ms
 coincidences                  3,000   samples per wall second      533
 coincidences expected         3,010

Where the step goes

 accelerator   compute   exposed communication     idle
 ──────────────────────────────────────────────────────
           0    25.0 %                  50.0 %   25.0 %
           3     0.0 %                  10.0 %   90.0 %
"""


def test_the_summary_as_printed() -> None:
    step = {
        "modelled_step_s": 4e-6,
        "accelerators": [
            {"accelerator": 0, "compute_s": 1e-6, "exposed_communication_s": 2e-6, "idle_s": 1e-6},
            {"accelerator": 3, "compute_s": 0.0, "exposed_communication_s": 4e-7, "idle_s": 3.6e-6},
        ],
    }
    assert printed(print_summary, run_fixtures.summary(), step) == SUMMARY


PLAN = """\
fixture on square
tensor 2 x pipeline 2 x data 1, gpipe; 4 of 4 accelerators, 30 of 160 tiles of 16 x 16, 81.2 % full;
6,240 weights
modelled step 4.56 µs, 7.89 nJ

 layer      array   weights   split    stage   tile grid   tiles   ranks
 ───────────────────────────────────────────────────────────────────────
 dense1   64 x 65     4,160   output       0       4 x 5      20       2
 dense2   32 x 65     2,080   output       1       2 x 5      10       2


 accelerator   rep./stage/rank   holds                   tiles   full   weights
 ──────────────────────────────────────────────────────────────────────────────
           0   0/0/0             dense1[0:32,0:65]    10 of 40   81 %     2,080
           1   0/0/1             dense1[32:64,0:65]   10 of 40   81 %     2,080
           2   0/1/0             dense2[0:16,0:65]     5 of 40   81 %     1,040
           3   0/1/1             dense2[16:32,0:65]    5 of 40   81 %     1,040


 accelerator   in flight   activations   errors   at most   buffer
 ─────────────────────────────────────────────────────────────────
           0           2           768      256   2.05 kB   4.1 kB
           1           2           768      256   2.05 kB        –
           2           2           768      256   2.05 kB        –
           3           2           768      256   2.05 kB        –


 axis    size   carries    bytes per step   busiest link   in use
 ────────────────────────────────────────────────────────────────
 board      4   tensor              128 B          512 B   12.5 %
                pipeline            512 B
 rack       1   nothing               0 B            0 B    0.0 %


 link         axis    bytes per step   in use
 ────────────────────────────────────────────
 board:0->2   board            512 B   12.5 %

note: dense1: the bias column opens a new tile column of its own"""


def test_the_plan_as_printed() -> None:
    assert printed(print_plan, run_fixtures.plan(), width=100) == PLAN


def test_long_tables_say_how_much_they_leave_out() -> None:
    plan = run_fixtures.plan()
    plan["links"] *= MOST_ROWS + 3
    assert "and 3 more, in the files and with --json" in printed(print_plan, plan)
    plan["links"], plan["axes"] = [], []
    assert "bytes per step" not in printed(print_plan, plan)
    plan["why_not_exact"] = "short steps"
    assert "~ not known to be exact: short steps" in printed(print_plan, plan)


def test_a_layer_of_several_arrays_says_how_many() -> None:
    plan = run_fixtures.plan()
    plan["layers"][0]["arrays"], plan["shards"][0]["arrays"] = 8, 2
    rows, cols = plan["layers"][0]["rows"], plan["layers"][0]["cols"]
    shown = printed(print_plan, plan, width=140)
    assert f"8 of {rows} x {cols}" in shown  # of the layer
    assert shown.count("2 of dense1[") == 1  # of the one accelerator


def test_names_are_not_taken_for_markup() -> None:
    assert "[red]dense[/red]" in printed(print_plan, run_fixtures.plan("[red]dense[/red]"), width=140)
