"""A run from Python is the command's, bit for bit; callbacks see what it writes, change nothing and may end it."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import rpucluster
from rpucluster import Callbacks, EpochRow, Progress, Run, cli
from rpucluster.checkpoint import complete
from rpucluster.errors import AcceleratorLostError, ConfigError
from rpucluster.runlog import RunDirectory
from tests.specs import make_cluster, make_job

STEPS_PER_EPOCH, EPOCHS = 8, 3  # 64 samples, 8 a step
JOB = make_job(train={"epochs": EPOCHS}, run={"checkpoint_every": "5 steps"})
CHECKPOINTS = (5, 10, 15, 20, 24)  # and after the last step


class CallbackError(Exception):
    """What a callback of a test raises."""


def run(folder: Path, **how: Any) -> Run:
    return rpucluster.run(JOB, make_cluster(), executor="local", **({"out": folder} | how))


def results(directory: RunDirectory) -> tuple[Any, ...]:
    """What a run leaves, without wall times."""
    timed = ("wall_s", "samples_per_s")
    rows = [{key: value for key, value in asdict(row).items() if key != "wall_s"} for row in directory.read_epochs()]
    summary = {key: value for key, value in directory.read_summary().items() if not key.endswith(timed)}
    return rows, summary, directory.read_specs(), directory.read_events(), directory.read_step()


def place(now: Progress) -> int:
    """Steps since the start."""
    return (now.epoch - 1) * now.steps + now.step


def at(step: int, then: Callable[[], bool]) -> Callable[[Progress], bool]:
    return lambda now: place(now) == step and then()


def fail() -> bool:
    raise CallbackError("of the test")


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_run_from_python_is_that_of_the_command_bit_for_bit(tmp_path: Path, executor: Any) -> None:
    """The README's example, with callbacks that look at everything, beside the command without any."""
    if executor == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    sets = ["train.epochs=2", "data.train_samples=160", 'run.checkpoint_every="4 steps"']
    job, cluster = rpucluster.load_job("digits", sets), rpucluster.load_cluster("laptop")
    seen: list[Any] = []
    watch = Callbacks(on_step=seen.append, on_epoch=seen.append, on_checkpoint=seen.append, every_steps=3)
    found = rpucluster.run(job, cluster, executor=executor, out=tmp_path / "python", callbacks=watch)
    command = ["run", "digits", "--cluster", "laptop", "--executor", executor, "--out", str(tmp_path / "command")]
    assert cli.main([*command, "--quiet", *(word for one in sets for word in ("--set", one))]) == 0
    assert results(found.directory) == results(RunDirectory.open(tmp_path / "command"))
    assert found.finished
    assert len(seen) > 8


@pytest.mark.parametrize("every", [None, 1, 3, 7])
def test_callbacks_are_told_of_every_step_epoch_and_checkpoint_once_it_is_there(
    tmp_path: Path, every: int | None
) -> None:
    """All steps of an epoch are performed together here, so without `every_steps` they are told once."""
    folder, steps, rows, saved = tmp_path / "run", [], [], []

    def on_step(now: Progress) -> None:
        steps.append((place(now), now.train_loss))

    def on_epoch(row: EpochRow) -> None:
        rows.append(row)
        assert RunDirectory(folder).read_epochs() == rows

    def on_checkpoint(checkpoint: Path) -> None:
        assert checkpoint in complete(folder / "checkpoint")
        saved.append(int(checkpoint.name.removeprefix("step-")))

    told = Callbacks(on_step=on_step, on_epoch=on_epoch, on_checkpoint=on_checkpoint, every_steps=every)
    found = run(folder, callbacks=told)
    total = EPOCHS * STEPS_PER_EPOCH
    at_ends = range(STEPS_PER_EPOCH, total + 1, STEPS_PER_EPOCH)
    assert [step for step, _ in steps] == list(range(every, total + 1, every) if every else at_ends)
    assert {step for step, loss in steps if loss is not None} == {step for step, _ in steps} & set(at_ends)
    assert [loss for step, loss in steps if step in at_ends] == [
        row.train_loss for row in rows if row.step in {step for step, _ in steps}
    ]
    assert saved == list(CHECKPOINTS)
    assert results(found.directory) == results(run(tmp_path / "unwatched").directory)


STOPS: dict[str, tuple[Callable[[Callable[[], bool]], Callbacks], int]] = {
    "step": (lambda then: Callbacks(on_step=at(11, then), every_steps=1), 11),
    "end of an epoch": (lambda then: Callbacks(on_step=at(8, then)), 8),
    "epoch": (lambda then: Callbacks(on_epoch=lambda row: row.epoch == 2 and then()), 16),
    "checkpoint": (lambda then: Callbacks(on_checkpoint=lambda path: path.name.endswith("10") and then()), 16),
}
"""Ways to end a run, and the step after which it ends: one that comes with a checkpoint is heard at the next pause."""


@pytest.mark.parametrize("how", STOPS)
def test_a_run_that_a_callback_ends_is_resumed_as_if_nothing_had_happened(tmp_path: Path, how: str) -> None:
    make, step = STOPS[how]
    whole = run(tmp_path / "whole")
    cut = run(tmp_path / "cut", callbacks=make(lambda: True))
    assert (cut.finished, cut.summary) == (False, {})
    assert complete(cut.directory.checkpoints)[0].name == f"step-{step:012d}"
    again = run(tmp_path, out=None, resume=cut.directory.path)
    assert results(again.directory) == results(whole.directory)


@pytest.mark.parametrize("how", STOPS)
def test_an_exception_in_a_callback_ends_the_run_with_a_checkpoint_and_is_raised(tmp_path: Path, how: str) -> None:
    make, step = STOPS[how]
    whole = run(tmp_path / "whole")
    with pytest.raises(CallbackError, match="of the test"):
        run(tmp_path / "cut", callbacks=make(fail))
    assert complete(tmp_path / "cut" / "checkpoint")[0].name == f"step-{step:012d}"
    assert results(run(tmp_path, out=None, resume=tmp_path / "cut").directory) == results(whole.directory)


def test_a_callback_cannot_pass_for_an_accelerator_that_is_lost(tmp_path: Path) -> None:
    """Else the run would go back to its checkpoint and call it again."""
    calls = []

    def lose(row: EpochRow) -> None:
        calls.append(row.epoch)
        raise AcceleratorLostError("not really")

    with pytest.raises(AcceleratorLostError, match="not really"):
        run(tmp_path / "run", callbacks=Callbacks(on_epoch=lose))
    assert calls == [1]


def test_after_the_last_epoch_there_is_nothing_left_to_end_but_an_exception_is_raised(tmp_path: Path) -> None:
    done = run(tmp_path / "done", callbacks=Callbacks(on_epoch=lambda row: row.epoch == EPOCHS))
    assert done.finished
    with pytest.raises(CallbackError):
        run(tmp_path / "failed", callbacks=Callbacks(on_epoch=lambda row: row.epoch == EPOCHS and fail()))
    again = run(tmp_path, out=None, resume=tmp_path / "failed")
    assert results(again.directory) == results(done.directory)


def test_steps_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="every_steps = 0 of the callbacks is below 1; write 1 or more"):
        Callbacks(every_steps=0)


def test_places_may_be_strings_and_an_unknown_executor_is_told(tmp_path: Path) -> None:
    first = rpucluster.run(JOB, make_cluster(), executor="local", out=str(tmp_path / "a"))
    again = rpucluster.run(JOB, make_cluster(), executor="local", resume=str(tmp_path / "a"))
    assert results(again.directory) == results(first.directory)
    with pytest.raises(ConfigError, match=r"^executor = 'lokal': write 'ray' or 'local'$"):
        rpucluster.run(JOB, make_cluster(), executor="lokal", out=tmp_path / "b")  # type: ignore[arg-type]
    assert not (tmp_path / "b").exists()
