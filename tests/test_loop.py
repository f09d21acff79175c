"""The training loop sends the next steps before it looks at scores, and nothing that it leaves depends on that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rpucluster
from rpucluster import Callbacks, Progress
from rpucluster.coordinator import training
from rpucluster.coordinator.later import Later
from rpucluster.pool import LocalPool
from tests.specs import make_cluster, make_job
from tests.test_callbacks import results

EPOCHS = 3
TOTAL = 3 * 520
"""Steps of the run: in each epoch two runs of 256 and one of 8."""


def run(folder: Path, every: str = "inf s", **how: Any) -> rpucluster.Run:
    data = {"name": "digits", "train_samples": 1040, "nudge": 0.0}
    job = make_job(
        data=data, train={"epochs": EPOCHS, "minibatch": 2, "microbatch": 2}, run={"checkpoint_every": every}
    )
    return rpucluster.run(job, make_cluster(), executor="local", out=folder, **how)


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Pools take one run of steps ahead; for each score, runs of steps submitted when it was asked for, and when it was
    looked at."""
    found: list[tuple[int, int]] = []

    class AheadPool(LocalPool):
        ahead = 1
        submitted = 0

        def perform(self, *args: Any) -> None:
            self.submitted += 1
            super().perform(*args)

        def ask_score(self) -> Callable[[], Any]:
            asked, then = super().ask_score(), self.submitted

            def score() -> Any:
                found.append((then, self.submitted))
                return asked()

            return score

    monkeypatch.setattr(training, "LocalPool", AheadPool)
    return found


@pytest.mark.parametrize("every", ["inf s", "100 steps"])
def test_the_next_steps_are_submitted_before_a_score_is_looked_at(
    every: str, performed: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch's test included, which is submitted too; only the end of the run and checkpoints wait."""
    ahead = run(tmp_path / "ahead", every)
    scores = list(performed)
    monkeypatch.setattr(training, "LocalPool", LocalPool)
    assert results(ahead.directory) == results(run(tmp_path / "waiting", every).directory)
    assert len(scores) == EPOCHS * 4  # three runs of steps and a test
    if every == "inf s":
        assert all(looked_at > asked for asked, looked_at in scores[:-1])


def test_where_callbacks_may_end_the_run_every_score_is_waited_for(
    performed: list[tuple[int, int]], tmp_path: Path
) -> None:
    """A callback that ends it at step 776 finds the accelerators there, not 256 steps further."""

    def on_step(now: Progress) -> bool:
        return (now.epoch - 1) * now.steps + now.step == 520 + 256

    cut = run(tmp_path / "cut", callbacks=Callbacks(on_step=on_step))
    assert not cut.finished
    assert all(looked_at == asked for asked, looked_at in performed)
    assert sorted(path.name for path in cut.directory.checkpoints.iterdir())[-1] == f"step-{520 + 256:012d}"
    again = rpucluster.run(
        *(rpucluster.load_job(cut.directory.path / "job.toml"), make_cluster()), executor="local",
        resume=cut.directory.path,
    )  # fmt: skip
    assert results(again.directory) == results(run(tmp_path / "whole").directory)


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_things_are_done_in_their_order_and_the_last_few_later(ahead: int) -> None:
    done: list[int] = []
    later = Later(ahead)
    for number in range(6):
        later.do(lambda number=number: done.append(number))  # type: ignore[misc]
        assert done == list(range(number + 1 - ahead))
    later.settle()
    assert done == list(range(6))
