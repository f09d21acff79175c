"""A run that is cut off and continued ends as if nothing had happened, bit for bit, under whatever plan."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rpucluster.checkpoint import complete
from rpucluster.coordinator import Progress, Run, find, run
from rpucluster.errors import RunDirectoryError
from rpucluster.job import Job
from tests.specs import make_cluster, make_job

AVERAGED = {"noise_management": "average_abs_max"}
TRANSFER = {"transfer_every": 3, "transfer_columns": 2}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "digital bias": {"model": {"bias": "digital"}},
    "no bias": {"model": {"bias": "none"}},
    "floating point": {"device": {"preset": "floating-point"}},
    "running averages": {"forward": AVERAGED, "backward": AVERAGED},
    "batch noise": {"update": {"noise_per": "batch"}},
    "written with noise": {"device": {"preset": "reram-es"}},
    "fading devices": {"device": {"lifetime": 200.0, "diffusion": 0.001}},
    "cyclic devices": {"device": {"devices_per_weight": 3, "device_choice": "cyclic"}},
    "one-sided pairs": {"device": {"one_sided": True, "refresh_every": 3, "refresh_upper": 0.2, "refresh_lower": 0.0}},
    "tiki_taka": {"algorithm": {"kind": "tiki_taka", "gamma": 0.3, **TRANSFER}},
    "tiki_taka_v2": {"algorithm": {"kind": "tiki_taka_v2", "fast_learning_rate": 0.5, "auto_scale": True, **TRANSFER}},
    "chopped": {"algorithm": {"kind": "chopped_tiki_taka_v2", "chop_every": 2, **TRANSFER}},
    "agad": {"algorithm": {"kind": "agad", "chop_every": 2, **TRANSFER}},
    "mixed precision": {"algorithm": {"kind": "mixed_precision", "flush_every": 3}},
    "dense gradients": {"parallel": {"data": 2, "data_sync": "gradient"}},
    "averaged replicas": {"parallel": {"data": 2, "data_sync": "average", "average_every": 3}},
    "factors": {"parallel": {"data": 2}},
}
ONE, MANY = {}, {"tensor": 2, "pipeline": 2, "schedule": "1f1b"}
STEPS_PER_EPOCH = 8


class CrashError(Exception):
    """What a test stops a run with."""


def job_of(kind: str, plan: dict[str, Any], **tables: dict[str, Any]) -> Job:
    merged = dict(KINDS[kind])
    merged["train"] = {"epochs": 3} | tables.pop("train", {})
    merged["run"] = {"checkpoint_every": "5 steps"} | tables.pop("run", {})
    if merged.get("parallel", {}).get("data") == 2:  # as many steps as alone
        merged["data"] = {"train_samples": 128}
    merged["parallel"] = merged.get("parallel", {}) | plan
    return make_job(**(merged | tables))


def cut_off(job: Job, folder: Path, after: int) -> None:
    """Start a run and end it with an exception once that many steps are done and its epoch has been told of them."""

    def crash(now: Progress) -> None:
        if now.phase in ("train", "epoch") and (now.epoch - 1) * now.steps + now.step >= after:
            raise CrashError

    with pytest.raises(CrashError):
        run(job, make_cluster(8), executor="local", out=folder, progress=crash)


def finish(job: Job, folder: Path, **how: Any) -> Run:
    return run(job, make_cluster(8), executor="local", **({"out": folder} | how))


def facts(result: Run) -> tuple[Any, ...]:
    """Everything that a run tells but wall times."""
    rows = [asdict(row) | {"wall_s": 0} for row in result.directory.read_epochs()]
    told = {key: value for key, value in result.summary.items() if "wall_s" not in key and key != "samples_per_s"}
    return rows, told, {key: array.tobytes() for key, array in result.directory.read_checkpoint()[0].items()}


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_same_plan_nothing_tells_the_runs_apart(kind: str, tmp_path: Path) -> None:
    """Weights of all replicas, metrics of each epoch and the summary are equal, floats included."""
    job = job_of(kind, MANY)
    expected = facts(finish(job, tmp_path / "whole"))
    cut_off(job, tmp_path / "cut", after=2 * STEPS_PER_EPOCH)
    source = find(tmp_path / "cut")
    assert source.position.step > 0  # in the middle of an epoch, and of the steps that are scored together
    assert facts(finish(job, tmp_path, resume=source, out=None)) == expected
    assert [path.name[-2:] for path in complete(tmp_path / "cut" / "checkpoint")] == ["24", "20"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("before", "after"),
    [(ONE, MANY), ({"tensor": 3, "tensor_split": "input"}, {"tensor": 2, "tensor_split": "output"}), (MANY, ONE)],
    ids=["more", "recut", "fewer"],
)
def test_on_another_plan_the_experiment_goes_on(
    kind: str, before: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    """Shards are cut anew from the layers' arrays; all that depends on the experiment alone stays the same."""
    expected = facts(finish(job_of(kind, after), tmp_path / "whole"))
    cut_off(job_of(kind, before), tmp_path / "cut", after=2 * STEPS_PER_EPOCH)
    found = facts(finish(job_of(kind, after), tmp_path, resume=find(tmp_path / "cut"), out=None))
    assert found[2] == expected[2]
    for row, other in zip(found[0], expected[0], strict=True):
        assert {k: v for k, v in row.items() if "modelled" not in k} == {
            k: v for k, v in other.items() if "modelled" not in k
        }
    assert found[1]["counts"] == expected[1]["counts"] | {
        "expected_coincidences": pytest.approx(expected[1]["counts"]["expected_coincidences"])
    }


def test_modelled_time_is_that_of_the_plans_that_made_the_steps(tmp_path: Path) -> None:
    cut_off(job_of("plain", MANY), tmp_path / "cut", after=2 * STEPS_PER_EPOCH)
    source = find(tmp_path / "cut")
    result = finish(job_of("plain", ONE), tmp_path, resume=source, out=None)
    many = finish(job_of("plain", MANY), tmp_path / "many").summary["modelled_step_s"]
    assert result.summary["modelled_s"] == pytest.approx(
        source.position.steps * many + (24 - source.position.steps) * result.summary["modelled_step_s"], rel=1e-12
    )


def test_a_finished_run_goes_on_for_more_epochs(tmp_path: Path) -> None:
    """As the longer run would have been from the start."""
    expected = facts(finish(job_of("plain", ONE, train={"epochs": 4}), tmp_path / "whole"))
    finish(job_of("plain", ONE), tmp_path / "short")
    longer = job_of("plain", ONE, train={"epochs": 4})
    assert facts(finish(longer, tmp_path, resume=find(tmp_path / "short"), out=None)) == expected


def test_a_last_epoch_that_was_tested_only_for_being_the_last_is_no_part_of_a_longer_run(tmp_path: Path) -> None:
    job = job_of("plain", ONE, evaluate={"every": 2})
    finish(job, tmp_path / "short")
    longer = job_of("plain", ONE, evaluate={"every": 2}, train={"epochs": 4})
    with pytest.raises(RunDirectoryError, match=r"\[train\] epochs was 3 and is 4, but the run treated its last epoch"):
        finish(longer, tmp_path, resume=find(tmp_path / "short"), out=None)
    shorter = job_of("plain", ONE, evaluate={"every": 2}, train={"epochs": 2})
    with pytest.raises(RunDirectoryError, match=r"\[train\] epochs was 3 and is 2, but the run has come further"):
        finish(shorter, tmp_path, resume=find(tmp_path / "short"), out=None)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train": {"seed": 8}}, r"\[train\] seed was 7 and is 8"),
        ({"train": {"learning_rate": 0.1}}, r"\[train\] learning_rate was 0.02 and is 0.1"),
        ({"device": {"preset": "ideal"}}, r'\[device\] preset was "rpu-baseline" and is "ideal"'),
        ({"parallel": {"data": 2}}, r"\[parallel\] data was 1 and is 2"),
        ({"parallel": {"schedule": "async"}}, r"\[parallel\] schedule was"),
        ({"model": {"sizes": [64, 24, 10]}}, r"\[model\] sizes was"),
        ({"data": {"train_samples": 72}}, r"\[data\] train_samples was 64 and is 72"),
        ({"forward": {"bound_management": "none"}}, r"\[forward\] bound_management was"),
    ],
    ids=str,
)
def test_another_experiment_is_refused_by_its_key(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    cut_off(job_of("plain", ONE), tmp_path / "cut", after=2 * STEPS_PER_EPOCH)
    before = sorted(path.name for path in (tmp_path / "cut").rglob("*"))
    with pytest.raises(RunDirectoryError, match=key) as caught:
        finish(job_of("plain", ONE, **changes), tmp_path, resume=find(tmp_path / "cut"), out=None)
    assert "another experiment" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "cut").rglob("*")) == before
    result = finish(
        job_of("plain", ONE, **({"train": {"epochs": 1}} | changes)), tmp_path, resume=find(tmp_path / "cut"),
        as_new=True, out=tmp_path / "new",
    ) if "sizes" not in changes.get("model", {}) else None  # fmt: skip
    assert result is None or result.summary["steps"] > 0


def test_other_tiles_are_another_experiment(tmp_path: Path) -> None:
    cut_off(job_of("plain", ONE), tmp_path / "cut", after=2 * STEPS_PER_EPOCH)
    with pytest.raises(RunDirectoryError, match=r"\[accelerator\] tile_rows was 8 and is 16"):
        run(job_of("plain", ONE), make_cluster(8, tile=16), executor="local", resume=find(tmp_path / "cut"))


def test_stages_of_an_asynchronous_pipeline_stay(tmp_path: Path) -> None:
    """They are part of the experiment; tensor parallelism is not."""
    job = job_of("plain", {"pipeline": 2, "schedule": "async"})
    expected = facts(finish(job, tmp_path / "whole"))
    cut_off(job, tmp_path / "cut", after=2 * STEPS_PER_EPOCH)
    with pytest.raises(RunDirectoryError, match=r"\[parallel\] pipeline was \[0, 0, 1\] and is \[0, 1, 2\]"):
        finish(job_of("plain", {"pipeline": 3, "schedule": "async"}), tmp_path, resume=find(tmp_path / "cut"), out=None)
    wider = job_of("plain", {"pipeline": 2, "tensor": 2, "schedule": "async"})
    assert facts(finish(wider, tmp_path, resume=find(tmp_path / "cut"), out=None))[2] == expected[2]


def test_as_new_starts_from_the_weights_with_more_replicas(tmp_path: Path) -> None:
    """A learning rate of almost nothing leaves them where they were: ideal devices hold what they are given."""
    ideal = {"device": {"preset": "floating-point"}}
    finish(job_of("plain", MANY, **ideal), tmp_path / "old")
    old = find(tmp_path / "old")
    still = job_of("plain", {"data": 2}, train={"epochs": 1, "learning_rate": 1e-30}, **ideal)
    new = finish(still, tmp_path / "new", resume=old, as_new=True)
    weights, _ = old.directory.read_checkpoint()
    found, position = new.directory.read_checkpoint()
    assert position["steps"] == 4
    for (replica, layer), array in found.items():
        assert array.tobytes() == weights[0, layer].tobytes(), replica
    assert {replica for replica, _ in found} == {0, 1}


def test_a_checkpoint_that_is_gone_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    """The last two are kept, of 24 steps those after 20 and 24."""
    run(job_of("plain", ONE), make_cluster(), executor="local", out=tmp_path / "run")
    with pytest.raises(RunDirectoryError) as caught:
        find(tmp_path / "run" / "checkpoint" / "step-000000000005")
    assert str(caught.value) == (
        f"{tmp_path / 'run'} has no checkpoint step-000000000005; it has step-000000000024 and step-000000000020"
    )
