"""The timeline as somebody uses it: pages in a real browser, without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpucluster.profile.step import Profile, profile
from rpucluster.program import kind_of
from rpucluster.report.colours import KIND_GROUPS
from rpucluster.report.html import write_report
from rpucluster.report.profile_html import render_profile
from rpucluster.timeline import Timeline
from rpucluster.waits import WORDS
from tests import run_fixtures
from tests.browser import CHROMIUM, Browser
from tests.specs import make_cluster, make_job

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
BLUE = [0x00, 0x72, 0xB2]
"""Of forward passes."""
HOSTILE = "</script><img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def profiled() -> Profile:
    return profile(make_job(parallel={"tensor": 2, "pipeline": 2}), make_cluster(4))


@pytest.fixture
def timed(profiled: Profile) -> Timeline:
    return profiled.timeline


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser"), 1200, 1000) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, profiled: Profile, tmp_path: Path) -> "Page":
    path = tmp_path / "profile.html"
    path.write_text(render_profile(profiled.content, profiled.events, profiled.link_spans), encoding="utf-8")
    return Page(browser, path)


class Page:
    """A page with a timeline in a browser."""

    def __init__(self, browser: Browser, path: Path) -> None:
        self.browser, self.path = browser, path
        browser.requests.clear()
        browser.open(path)
        # Plotly draws after the page has loaded, and what lies below its charts moves then
        browser.run(
            "new Promise((done) => { const look = () => [...document.querySelectorAll('.chart')].every((chart) => "
            "chart.querySelector('.main-svg')) ? requestAnimationFrame(() => requestAnimationFrame(done)) "
            ": requestAnimationFrame(look); look(); })"
        )
        browser.run("document.getElementById('timeline').scrollIntoView()")

    def view(self, key: str) -> Any:
        return self.browser.run(f"document.getElementById('timeline').timeline.{key}")

    def text(self, selector: str) -> str:
        return str(self.browser.run(f"document.querySelector('#timeline {selector}').innerText"))

    def place(self, mark: int) -> tuple[float, float]:
        """Where the middle of a mark is in the window."""
        left, top = self.browser.run(
            "(() => { const box = document.querySelector('#timeline canvas').getBoundingClientRect(); "
            "return [box.left, box.top]; })()"
        )
        x, y = self.view(f"at({mark})")
        return left + x, top + y

    def press(self, words: str) -> None:
        self.browser.run(
            f"[...document.querySelectorAll('#timeline button')].find(b => b.textContent.includes({words!r})).click()"
        )

    def colour(self, mark: int) -> list[int]:
        """Red, green and blue near the upper edge of a mark, above its label."""
        x, y = self.view(f"at({mark}, 0.04)")
        ratio = self.browser.run("window.devicePixelRatio")
        found: list[int] = self.browser.run(
            f"[...document.querySelector('#timeline canvas').getContext('2d')"
            f".getImageData({round(x * ratio)}, {round((y - 6) * ratio)}, 1, 1).data].slice(0, 3)"
        )
        return found


def test_the_report_of_a_run_asks_for_nothing_but_itself(browser: Browser, tmp_path: Path) -> None:
    page = Page(browser, write_report(run_fixtures.make_run(tmp_path / "run")))
    assert browser.requests == [page.path.resolve().as_uri()]
    assert page.view("path.length") == len(run_fixtures.timeline().critical_path())
    page.press("next")
    assert page.text(".detail").startswith("forward L0 m0 · accelerator 0, arrays: operation 0, forward")


def test_bars_have_the_colours_of_their_kinds(page: Page, timed: Timeline) -> None:
    colours = {kind: colour for colour, kinds in KIND_GROUPS.values() for kind in kinds}
    seen = set()
    for mark, op in zip(page.view("path"), timed.critical_path(), strict=True):
        kind = kind_of(timed.program.ops[op])
        if (timed.finish_s[op] - timed.start_s[op]) > 0.02 * timed.makespan_s:
            assert "#" + "".join(f"{part:02x}" for part in page.colour(mark)) == colours[kind]
            seen.add(kind)
    assert {"forward", "backward", "send"} <= seen


def test_pointing_at_an_operation_says_what_it_is_and_what_it_waited_for(page: Page, timed: Timeline) -> None:
    path = page.view("path")
    for n, op in enumerate(timed.critical_path()):
        page.browser.mouse("mouseMoved", *page.place(path[n]))
        lines = page.text(".tip").splitlines()
        assert lines[0] == timed.program.ops[op].label
        assert f"operation {op}," in lines[1]
        assert lines[-1] == f"on the critical path, {n + 1} of {len(path)}"
        if n:
            cause = timed.causes[op]
            assert lines[-2].startswith(f"waited for {WORDS[timed.reasons[op]]}")
            assert lines[-2].endswith(f"{timed.program.ops[cause].label} (operation {cause})")
    page.browser.mouse("mouseMoved", 5, 5)
    assert page.browser.run("document.querySelector('#timeline .tip').hidden") is True


def test_the_wheel_zooms_around_the_pointer_and_dragging_moves(page: Page) -> None:
    mark = page.view("path")[3]
    x, y = map(round, page.place(mark))  # pointers are at whole pixels

    def time_at_pointer() -> float:
        left = page.place(mark)[0] - page.view(f"at({mark})")[0]
        return float(page.view("view.left") + (x - left - 190) * page.view("view.scale"))

    before, time = page.view("view.scale"), time_at_pointer()
    for _ in range(6):
        page.browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100, modifiers=2)  # with Ctrl
    assert page.view("view.scale") < 0.2 * before
    assert time_at_pointer() == pytest.approx(time)  # what was under the pointer still is
    left = page.view("view.left")
    page.browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.browser.mouse("mouseMoved", x - 50, y, button="left", buttons=1)
    page.browser.mouse("mouseReleased", x - 50, y, button="left", clickCount=1)
    assert page.view("view.left") == pytest.approx(left + 50 * page.view("view.scale"))
    page.press("whole step")
    assert (page.view("view.left"), page.view("view.scale")) == (0, before)


def test_zooming_never_leaves_the_step(page: Page, timed: Timeline) -> None:
    end = round(timed.makespan_s * 1e12)
    for words in ("+", "+", "−", "−", "−", "+"):
        page.press(words)
        assert 0 <= page.view("view.left") <= end
        assert page.view("view.scale") * (page.view("view.width") - 198) <= end * (1 + 1e-9)


def test_the_critical_path_is_walked_from_the_first_to_the_last_operation(page: Page, timed: Timeline) -> None:
    labels = [timed.program.ops[op].label for op in timed.critical_path()]
    width = page.view("view.width")
    for n, label in enumerate(labels):
        page.press("next")
        assert page.text(".detail").startswith(f"{label} · ")
        assert page.text(".detail").endswith(f"on the critical path, {n + 1} of {len(labels)}")
        assert 190 <= page.view(f"at({page.view('path')[n]})")[0] <= width  # it is in sight
    page.press("previous")
    assert page.text(".detail").startswith(f"{labels[-2]} · ")
    page.browser.run("document.querySelector('#timeline canvas').focus()")
    page.browser.key("n")
    assert page.text(".detail").startswith(f"{labels[-1]} · ")


def test_a_click_selects_and_the_path_alone_can_stand_out(page: Page, timed: Timeline) -> None:
    x, y = page.place(1)
    for kind in ("mousePressed", "mouseReleased"):
        page.browser.mouse(kind, x, y, button="left", clickCount=1)
    assert page.text(".detail") != ""
    aside = next(m for m in range(page.view("marks")) if m not in page.view("path") and page.colour(m) == BLUE)
    page.browser.run("document.querySelector('#timeline input').click()")
    assert min(page.colour(aside)) > 200
    assert page.colour(page.view("path")[0]) == BLUE


def test_no_name_becomes_markup(browser: Browser, profiled: Profile, tmp_path: Path) -> None:
    layers = [row | {"name": HOSTILE} for row in profiled.content["layers"]]
    events = [event | {"label": HOSTILE} for event in profiled.events]
    spans = [span | {"link": HOSTILE} for span in profiled.link_spans]
    path = tmp_path / "profile.html"
    content = profiled.content | {"job": HOSTILE, "layers": layers}
    path.write_text(render_profile(content, events, spans), encoding="utf-8")
    page = Page(browser, path)
    assert browser.requests == [path.resolve().as_uri()]
    page.press("next")
    assert page.text(".detail").startswith(f"{HOSTILE} · ")
    browser.mouse("mouseMoved", *page.place(page.view("path")[0]))
    assert page.text(".tip").startswith(HOSTILE)
    assert browser.run("document.images.length") == 0
    assert browser.run("document.title").startswith(HOSTILE)
    assert browser.run("document.querySelector('h1').textContent").startswith(HOSTILE)
