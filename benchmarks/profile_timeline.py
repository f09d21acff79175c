"""How a page whose timeline has 100,000 events behaves: its size, and how long a browser takes to load and to draw it.

    python benchmarks/profile_timeline.py

Needs Chromium; it writes profile_timeline.json and profile_timeline.png beside it.  Wall times are those of the machine
that it runs on, without a graphics card.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.profile.step import profile
from rpucluster.report.profile_html import render_profile
from rpucluster.trace import write_trace
from tests.browser import Browser

HERE = Path(__file__).parent
JOB = Job.model_validate(
    {
        "name": "wide",
        "model": {"preset": "mlp", "sizes": [512] * 9},
        "data": {"name": "digits"},
        "train": {"epochs": 1, "minibatch": 400, "microbatch": 1, "learning_rate": 0.01},
        "parallel": {"tensor": 4, "pipeline": 4, "tensor_split": "input"},
    }
)
AXES = [
    {"name": name, "kind": "ring", "size": 4, "bandwidth": "50 GB/s", "latency": "500 ns"} for name in ("board", "rack")
]
CLUSTER = Cluster.model_validate(
    {"name": "torus", "accelerator": {"tile_rows": 128, "tile_cols": 128}, "network": {"axis": AXES}}
)
TIMELINE = "document.getElementById('timeline').timeline"


def drawn_ms(browser: Browser, action: str, times: int = 10) -> float:
    """Median milliseconds that one action takes, drawing included."""
    script = f"(() => {{ const t = performance.now(); {action}; return performance.now() - t; }})()"
    return statistics.median(browser.run(script) for _ in range(times))


def main() -> None:
    began = time.perf_counter()
    found = profile(JOB, CLUSTER)
    profile_wall_s = time.perf_counter() - began
    began = time.perf_counter()
    page = render_profile(found.content, found.events, found.link_spans)
    render_wall_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.html"
        path.write_text(page, encoding="utf-8")
        write_trace(Path(folder) / "trace.json.gz", found.timeline)
        trace_bytes = (Path(folder) / "trace.json.gz").stat().st_size
        with Browser(Path(folder) / "browser", 1400, 1100) as browser:
            loads = []
            for _ in range(5):
                began = time.perf_counter()
                browser.open(path)
                browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                loads.append(time.perf_counter() - began)
            marks = browser.run(f"{TIMELINE}.marks")
            buttons = "document.querySelectorAll('#timeline button')"
            canvas = "document.querySelector('#timeline canvas')"
            fit_ms = drawn_ms(browser, f"{buttons}[2].click()")
            zoom_ms = drawn_ms(browser, f"{buttons}[0].click()")
            browser.run(f"{buttons}[2].click()")
            hover = (
                f"const box = {canvas}.getBoundingClientRect(); {canvas}.dispatchEvent(new PointerEvent('pointermove', "
                "{clientX: box.left + 200 + 900 * Math.random(), clientY: box.top + 30 + 400 * Math.random()}))"
            )
            hover_ms = drawn_ms(browser, hover, 50)
            walk_ms = drawn_ms(browser, f"{buttons}[4].click()", 50)
            browser.run(f"{buttons}[2].click()")
            browser.run("document.getElementById('timeline').scrollIntoView()")
            browser.screenshot(HERE / "profile_timeline.png")
    result = {
        "operations": len(found.timeline.program),
        "bars": marks,
        "of_them_on_links": len(found.link_spans),
        "critical_path_operations": len(found.content["critical_path"]),
        "page_bytes": len(page.encode()),
        "trace_bytes_gzipped": trace_bytes,
        "profile_wall_s": round(profile_wall_s, 2),
        "what_ifs_replayed": len(found.content["bottlenecks"]) + len(found.content["no_bottlenecks"]),
        "render_wall_s": round(render_wall_s, 2),
        "load_wall_s": round(statistics.median(loads), 3),
        "load_wall_s_all": [round(load, 3) for load in loads],
        "draw_whole_step_ms": round(fit_ms, 1),
        "zoom_ms": round(zoom_ms, 1),
        "hover_ms": round(hover_ms, 1),
        "next_on_critical_path_ms": round(walk_ms, 1),
    }
    (HERE / "profile_timeline.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
