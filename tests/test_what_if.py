"""A what-if changes the keys that it names and nothing else, and says in one line what it cannot do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.errors import ConfigError
from rpucluster.profile.what_if import changed
from tests.specs import make_cluster, make_job

JOB, CLUSTER = make_job(), make_cluster()


def test_only_the_named_key_changes() -> None:
    job, cluster = changed(JOB, CLUSTER, ["accelerator.forward_time=40 ns"])
    assert job is JOB
    assert cluster.accelerator.forward_time == 40e-9
    # it was derived from the forward time when the file was read, and is all else
    assert cluster.accelerator.digital_rate == CLUSTER.accelerator.digital_rate
    assert cluster.model_copy(update={"chip": CLUSTER.chip}) == CLUSTER
    job, cluster = changed(JOB, CLUSTER, ["train.microbatch=2"])
    assert cluster is CLUSTER
    assert job.train.microbatch == 2
    assert job.model_copy(update={"train": JOB.train}) == JOB


@pytest.mark.parametrize(
    ("change", "value"),
    [("x2", 100e9), ("/4", 12.5e9), ("x 1.5", 75e9), ("x1e3", 50e12), ("1 GB/s", 1e9), ("inf GB/s", math.inf)],
)
def test_values_are_absolute_or_relative(change: str, value: float) -> None:
    _, cluster = changed(JOB, CLUSTER, [f"network.axis.board.bandwidth={change}"])
    assert cluster.network.axis[0].bandwidth == pytest.approx(value, rel=1e-15)


def test_changes_are_made_one_after_the_other() -> None:
    job, cluster = changed(JOB, CLUSTER, ["train.minibatch=x2", "train.microbatch=/2", "train.minibatch=x3"])
    assert (job.train.minibatch, job.train.microbatch) == (8 * 6, 2)
    assert cluster is CLUSTER


@given(st.floats(1e-3, 1e3))
def test_dividing_undoes_multiplying(factor: float) -> None:
    path = "accelerator.digital_rate"
    _, cluster = changed(JOB, CLUSTER, [f"{path}=x{factor!r}", f"{path}=/{factor!r}"])
    assert cluster.accelerator.digital_rate == pytest.approx(CLUSTER.accelerator.digital_rate, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "train.microbatch=/3",
            "--what-if train.microbatch=/3: it is 4, which gives 1.33333; it must stay a whole number",
        ),
        ("train.shuffle=x2", "--what-if train.shuffle=x2: it is True, which cannot be multiplied; write a value"),
        ("data.path=x2", "--what-if data.path=x2: data.path has no value there; write one instead of x2"),
        ("train.seed=x0", "--what-if train.seed=x0: write a factor above 0"),
        ("microbatch=2", "--what-if microbatch=2: write section.key=value, such as train.epochs=5"),
        ("trian.seed=2", '--what-if trian.seed=2: unknown section trian; did you mean "train"?'),
        (
            "network.axis.rack.size=/2",
            "--what-if network.axis.rack.size=/2: network.axis.rack.size has no value there; write one instead of /2",
        ),
        (
            "network.axis.bord.latency=1 s",
            "--what-if network.axis.bord.latency=1 s: nothing is named bord there; there is board",
        ),
        (
            "train.microbatch=3",
            "--what-if train.microbatch=3: [train]: microbatch = 3 does not divide minibatch = 8; write 2",
        ),
        ("accelerator.tile=3", '--what-if accelerator.tile=3: [accelerator] tile: unknown key; did you mean "tiles"?'),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        changed(JOB, CLUSTER, [change])
    assert str(raised.value) == message
