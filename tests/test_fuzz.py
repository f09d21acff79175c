"""Broken files of all kinds are accepted, or refused in one line; `benchmarks/fuzz_files.py` has more."""

from collections import Counter
from pathlib import Path

import pytest

from rpucluster.config import read_toml
from rpucluster.errors import ConfigError
from tests.fuzz import Fuzzer


@pytest.mark.parametrize("kind", ["job", "cluster", "IDX", "Parquet", "checkpoint"])
def test_broken_files_are_accepted_or_refused(kind: str, tmp_path: Path) -> None:
    """Each sort of outcome is reached, so that the cases are neither all hopeless nor all harmless."""
    fuzzer = Fuzzer(tmp_path)
    outcomes = Counter(fuzzer.perform(kind, number) for number in range(100))
    assert set(outcomes) == {"accepted", "refused"}


def test_toml_that_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("a = " + "[" * 20_000)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(caught.value) == f"{path}: arrays or tables are nested too deeply"
