"""Machine code of the event loop: kept from process to process, and made again where a file is not what was written."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from rpucluster.lowering import lower
from rpucluster.timeline import machine_code, replay
from rpucluster.timeline.compiled import known
from rpucluster.timeline.machine_code import compiled_play, kept
from rpucluster.timeline.order import arrange
from tests.projected import cases

KEY = "0123456789abcdef"


def test_machine_code_is_made_once_and_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new"))
    assert kept(KEY, lambda: b"code") == b"code"
    assert "compiling the event loop" in caplog.text
    caplog.clear()
    assert kept(KEY, lambda: b"other code") == b"code"
    assert kept(KEY[::-1], lambda: b"another key") == b"another key"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]  # of the other key


def test_damaged_machine_code_is_never_performed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kept(KEY, lambda: b"code of some length")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    spoilt = [whole[:-1], b"", whole[:20], whole[:-1] + b"?", bytes([whole[0] ^ 1]) + whole[1:]]
    for content in spoilt:
        path.write_bytes(content)
        assert kept(KEY, lambda: b"made again") == b"made again"
        assert kept(KEY, lambda: b"") == b"made again"


def test_where_nothing_can_be_kept_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "folder"))
    for made in (b"code", b"code of the next start"):
        caplog.clear()
        assert kept(KEY, lambda made=made: made) == made  # type: ignore[misc]
        assert f"{tmp_path / 'file' / 'folder'} cannot be written; set NUMBA_CACHE_DIR" in caplog.text


def test_kept_machine_code_is_performed_without_numba() -> None:
    """Which takes longer to load than a projection does."""
    (_, job, cluster, plan), *_ = cases(range(20))
    program = lower(plan, job)
    expected = replay(program, cluster, compiled=True).finish_s  # from here on it is kept
    assert expected == replay(program, cluster, compiled=False).finish_s
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from tests.test_machine_code import *\n"
        "(_, job, cluster, plan), *_ = cases(range(20))\n"
        "print(sum(replay(lower(plan, job), cluster, compiled=True).finish_s))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == sum(expected)


def test_columns_with_gaps_are_refused() -> None:
    """Compiled code takes each number of a column to lie behind the one before."""
    (_, job, _, plan), *_ = cases(range(20))
    order = arrange(lower(plan, job)).order
    gaps = order._replace(tiles=order.tiles[::2])
    with pytest.raises(ValueError, match="without gaps"):
        compiled_play(gaps, (), (), ())  # type: ignore[arg-type]


def test_a_version_of_numba_that_passes_arrays_in_another_way_is_left_to_call_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (_, job, cluster, plan), *_ = cases(range(20))
    program = lower(plan, job)
    expected = replay(program, cluster, compiled=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(machine_code, "compiled", lambda *_: b"")
    machine_code._loaded.cache_clear()
    try:
        found = replay(program, cluster, compiled=True)
    finally:
        machine_code._loaded.cache_clear()
    assert (found.start_s, found.finish_s, found.causes) == (expected.start_s, expected.finish_s, expected.causes)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("define i32 @f(ptr, ptr, ptr, ptr, i64, i64, ptr, i64, i64) { ret i32 0 }", True),
        ("define i32 @f(ptr, ptr, ptr, ptr, i64, ptr, i64, i64) { ret i32 0 }", False),
        ("define i64 @f(ptr, ptr, ptr, ptr, i64, i64, ptr, i64, i64) { ret i64 0 }", False),
        (
            "declare i32 @outside()\ndefine i32 @f(ptr, ptr, ptr, ptr, i64, i64, ptr, i64, i64) "
            "{ %a = call i32 @outside()\n ret i32 %a }",
            False,
        ),
        ("", False),
    ],
)
def test_functions_are_only_called_as_they_are_known(text: str, takes: bool) -> None:
    """A function that is called with other arguments than it takes writes anywhere."""
    import llvmlite.binding as llvm

    assert (known(llvm.parse_assembly(text), 1) is not None) == takes
