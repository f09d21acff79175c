"""What an error proposes is accepted: every value that it says to write gives a plan."""

import random
import re
from typing import Any

import pytest
from pydantic import ValidationError

from rpucluster.cli import main
from rpucluster.errors import PlanError
from rpucluster.partitioner import partition
from tests.specs import make_cluster, make_job

PROPOSED = re.compile(r"(\w+(?:\.\w+)+) = (\d+)")
EXPERTS: dict[str, Any] = {
    "preset": "gpt", "sizes": None, "layers": 2, "hidden": 16, "heads": 2, "sequence": 8, "vocabulary": 24,
    "experts": 4, "routed": 1,
}  # fmt: skip


def drawn(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables of a job and what `make_cluster` takes, of which more than half do not go together."""
    parallel = {key: rng.choice((1, 1, 2, 3, 4, 6)) for key in ("tensor", "pipeline", "data")}
    parallel |= {"schedule": rng.choice(("gpipe", "1f1b", "async"))}
    job: dict[str, Any] = {"train": {"minibatch": rng.choice((4, 12)), "microbatch": rng.choice((1, 2, 4))}}
    if rng.random() < 0.3:
        parallel |= {"schedule": "interleaved", "virtual_stages": rng.choice((2, 3))}
    if rng.random() < 0.3:
        job["model"] = EXPERTS
        parallel["expert"] = rng.choice((1, 2, 3))
    else:
        job["model"] = {"sizes": [rng.randrange(4, 90) for _ in range(rng.randrange(3, 8))]}
    tiles = rng.choice((10, 30, 100, 400))
    cluster = {"accelerators": rng.choice((2, 4, 12)), "tile": rng.choice((8, 8, 64)), "tiles": tiles}
    if rng.random() < 0.5:
        cluster["active_tiles"] = 10
    return {**job, "parallel": parallel}, cluster


def changed(
    key: str, value: int, job: dict[str, Any], cluster: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables once a value is written."""
    table, _, name = key.partition(".")
    if table in ("parallel", "train"):
        return job | {table: job[table] | {name: value}}, cluster
    names = {"accelerator.tiles": "tiles", "network.axis.board.size": "accelerators"}
    return job, cluster | {names[key]: value}


def test_what_is_proposed_is_accepted() -> None:
    rng = random.Random(8)
    counted: dict[str, int] = {}
    refused = silent = pairs = 0
    for _ in range(700):
        tables, cluster = drawn(rng)
        try:
            job = make_job(**tables)
        except ValidationError:
            continue
        try:
            partition(job, make_cluster(**cluster))
        except PlanError as error:
            refused += 1
            said = str(error)
            proposed = PROPOSED.findall(said)
            silent += not proposed
            # two keys are proposed where none is enough
            alone = [[each] for each in proposed] if " and " not in said.partition("; write ")[2] else [proposed]
            for together in alone:
                written = tables, cluster
                for key, value in together:
                    written = changed(key, int(value), *written)
                    counted[key] = counted.get(key, 0) + 1
                partition(make_job(**written[0]), make_cluster(**written[1]))
            pairs += len(alone[0]) == 2 if alone else 0
    assert refused > 200
    assert pairs > 20
    assert silent < refused / 5  # where three are wrong
    assert counted.keys() == {
        "parallel.tensor", "parallel.pipeline", "parallel.data", "parallel.expert", "parallel.virtual_stages",
        "train.microbatch", "train.minibatch", "accelerator.tiles", "network.axis.board.size",
    }  # fmt: skip


def test_tiles_that_are_proposed_are_the_fewest() -> None:
    """Of all stages: that of the fullest one, not of the first that has too few."""
    sizes = [8, 40, 40, 90, 10]
    tables = {"model": {"sizes": sizes, "bias": "none"}, "parallel": {"pipeline": 2}}
    for tiles in (20, 30, 40):
        with pytest.raises(PlanError) as caught:
            partition(make_job(**tables), make_cluster(2, tiles=tiles, active_tiles=tiles))
        found = dict(PROPOSED.findall(str(caught.value)))
        enough = int(found["accelerator.tiles"])
        partition(make_job(**tables), make_cluster(2, tiles=enough, active_tiles=tiles))
        with pytest.raises(PlanError):
            partition(make_job(**tables), make_cluster(2, tiles=enough - 1, active_tiles=tiles))


def test_commands_take_what_they_propose(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["plan", "digits", "--cluster", "laptop", "--json", "--set", "parallel.data=3"]
    assert main(wrong) == 2
    said = capsys.readouterr().err
    assert "takes 12 accelerators but laptop has 4; write " in said
    proposed = PROPOSED.findall(said)
    assert {key for key, _ in proposed} >= {"parallel.data", "network.axis.board.size"}
    for key, value in proposed:
        assert main([*wrong, "--set", f"{key}={value}"]) == 0
    capsys.readouterr()
