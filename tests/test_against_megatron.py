"""Modelled steps on A100s against measured runs of Megatron-LM."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FILE = ROOT / "../shared/reference/megatron.csv"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import against_megatron
    finally:
        sys.path.pop(0)
    return against_megatron


@pytest.mark.skipif(not FILE.is_file(), reason="needs the measured runs in ../shared/reference/megatron.csv")
def test_runs_that_were_not_fitted(benchmark: ModuleType) -> None:
    """Median 1.9 %, worst 12.6 % today; the bounds are the issue's.  Constants are fitted on table 1 alone."""
    table = benchmark.compare(benchmark.read(FILE))
    found = benchmark.summary(table)
    assert (found["scored"]["rows"], found["fitted"]["rows"]) == (17, 10)
    assert found["scored"]["median_pct"] <= 5
    assert found["scored"]["worst_pct"] <= 15
    assert found["fitted"]["worst_pct"] <= 5
    # where both are known, ours is the closer one
    for error in ("median_pct", "worst_pct"):
        assert found["scored_and_known_of_calculon"][error] < found["calculon_on_these"][error]


@pytest.mark.skipif(not FILE.is_file(), reason="needs the measured runs in ../shared/reference/megatron.csv")
def test_published_rates_are_those_of_the_counted_operations(benchmark: ModuleType) -> None:
    """Operations that we count over the published time make the published TFLOP/s, which were rounded to whole ones.

    So the counts of recomputation are theirs.  (Korthikanti's rates leave recomputation out: 3/4 and less.)
    """
    for row in benchmark.read(FILE):
        if row["scheme"] == "PTD-P":
            flops = benchmark.predict(row).flops / int(row["gpus"])
            assert flops / benchmark.measured_s(row) / 1e12 == pytest.approx(float(row["tflops_per_gpu"]), abs=1.0)


GIB = {
    ("22.0", "full recompute"): 48.2,
    ("22.0", "seq-par + selective recompute"): 52.1,
    ("174.6", "full recompute"): 48.1,
    ("174.6", "seq-par + selective recompute"): 54.1,
    ("529.6", "full recompute"): 42.3,
    ("529.6", "seq-par + selective recompute"): 53.5,
    ("1008.0", "full recompute"): 46.3,
    ("1008.0", "seq-par + selective recompute"): 59.2,
}
"""What Calculon counts for Korthikanti's runs, all of which fitted into 80 GiB."""


@pytest.mark.skipif(not FILE.is_file(), reason="needs the measured runs in ../shared/reference/megatron.csv")
def test_memory_is_that_of_calculon(benchmark: ModuleType) -> None:
    for row in benchmark.read(FILE):
        if row["table"] == "Korthikanti2022 Table 5":
            held = benchmark.predict(row).memory.total / 2**30
            assert held == pytest.approx(GIB[row["params_B"], row["scheme"]], rel=0.03)
