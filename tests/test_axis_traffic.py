"""Which axis carries which parallelism: closed forms, and sums that agree with those over links."""

from itertools import chain

import pytest

from rpucluster.cluster import Cluster
from rpucluster.lowering import lower
from rpucluster.modelled import model
from rpucluster.program import Collective
from rpucluster.projection import planned, step
from rpucluster.projection.costs import traffic
from rpucluster.projection.folding import foldings_of
from rpucluster.projection.planned import plan_report
from rpucluster.projection.score import score_of
from rpucluster.projection.symmetry import symmetry_of
from rpucluster.projection.timing import prices_on
from rpucluster.timeline.order import COUNTS
from rpucluster.timeline.prices import price_of
from tests.projected import cases, random_decoder, random_pipeline
from tests.specs import make_job

WIDTH, SAMPLES, MICROBATCHES = 32, 2, 3


def test_each_parallelism_lies_on_its_axis() -> None:
    """Two ranks on a switch, two stages on a line, two replicas on another: what crosses each is counted by hand."""
    axes = [
        {"name": name, "kind": kind, "size": 2, "bandwidth": "1 GB/s", "latency": "0 ns"}
        for name, kind in (
            ("chip", "switch"),
            ("board", "fully_connected"),
            ("rack", "fully_connected"),
            ("hall", "ring"),
        )
    ]
    chip = {"tile_rows": 8, "tile_cols": 8, "tiles": 100}
    cluster = Cluster.model_validate({"name": "axes", "accelerator": chip, "network": {"axis": axes}})
    job = make_job(
        model={"sizes": [WIDTH] * 3, "bias": "none"},
        train={"minibatch": SAMPLES * MICROBATCHES, "microbatch": SAMPLES},
        words={"factor_bits": 16, "sum_bits": 32},
        parallel={"tensor": 2, "pipeline": 2, "data": 2, "tensor_split": "output"},
    )
    chips, boards, racks, halls = plan_report(job, cluster)["axes"]
    samples, replicas = SAMPLES * MICROBATCHES, 2
    # between stages each rank sends its half of the activations forward, and all ranks have all errors to send back
    gathered = samples * WIDTH * 2  # bytes of the activations of a replica
    assert boards["bytes_per_step"] == {"pipeline": replicas * 3 * gathered}
    # of a layer each rank has all inputs and half of the errors of the outputs, and gets those of the other replica
    factors = samples * (WIDTH + WIDTH / 2) * 2
    assert racks["bytes_per_step"] == {"data": 2 * 2 * 2 * factors}
    # the errors of the inputs of the second layer are added up; activations and errors are gathered: a message to the
    # other rank takes a link up to the switch and one down
    assert set(chips["bytes_per_step"]) == {"tensor"}
    assert halls["bytes_per_step"] == {}
    assert halls["busiest_link_utilisation"] == 0
    assert (chips["kind"], chips["size"]) == ("switch", 2)
    assert racks["busiest_link_bytes"] == 2 * factors / 2


def test_axes_add_up_to_the_links() -> None:
    for seed, job, cluster, _ in cases(range(15)):
        found = model(job, cluster).metrics
        for use in found.axes:
            own = [link for link in found.links if link.axis == use.axis]
            assert sum(use.bytes.values()) == pytest.approx(sum(link.bytes for link in own)), seed
            assert use.busiest_bytes == pytest.approx(max((link.bytes for link in own), default=0.0)), seed
            assert use.utilisation == pytest.approx(max((link.utilisation for link in own), default=0.0)), seed


def test_representatives_say_what_all_accelerators_send() -> None:
    compared = folded = 0
    few = cases(range(6), random_pipeline)  # which are long
    for seed, job, cluster, plan in chain(cases(range(12)), cases(range(12), random_decoder), few):
        symmetry = symmetry_of(plan, job, cluster)
        if not symmetry.exact:
            continue
        metrics = model(job, cluster).metrics
        folding = next(foldings_of(plan, job, cluster, job.train.microbatches), None)
        parts = [(plan, dict.fromkeys(range(plan.pipeline), 1))]
        parts += [(folding.folded(0), folding.stands_for())] if folding else []
        for part, stands_for in parts:
            price = prices_on(cluster)
            score = score_of(part, job, symmetry.written, passed=1)
            found = traffic(score, part, symmetry, stands_for, price, cluster.network, metrics.modelled_step_s)
            for use, whole in zip(found, metrics.axes, strict=True):
                assert use.bytes == pytest.approx(whole.bytes), (seed, job.name)
                assert use.busiest_bytes == pytest.approx(whole.busiest_bytes), (seed, job.name)
        compared += 1
        folded += folding is not None
    assert compared >= 12
    assert folded >= 3


def test_a_plan_of_a_long_step_says_what_that_of_a_short_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    for seed, job, cluster, _ in cases(range(20), random_decoder):
        short = plan_report(job, cluster)
        with monkeypatch.context() as patch:
            patch.setattr(planned, "LISTED_OPERATIONS", 0)
            patch.setattr(step, "FULL_OPERATIONS", 0)
            long = plan_report(job, cluster)
        assert long["links"] == []
        assert short["why_not_exact"] is None
        if long["why_not_exact"] is None:
            for axis in (*short["axes"], *long["axes"]):
                axis["bytes_per_step"] = sum(axis["bytes_per_step"].values())
            for key in ("axes", "buffers"):
                for one, other in zip(short.pop(key), long.pop(key), strict=True):
                    assert other == pytest.approx(one), (seed, key)
            for key in ("modelled_step_s", "modelled_energy_per_step_J"):
                assert long.pop(key) == pytest.approx(short.pop(key)), (seed, key)
            assert {**long, "links": short["links"]} == short, seed
            compared += 1
    assert compared >= 5


def test_prices_that_are_found_once_are_those_of_each_operation() -> None:
    """Also where the algorithm of a collective is taken from another that lies in the same way."""
    collectives = 0
    for seed, job, cluster, plan in chain(cases(range(40)), cases(range(40), random_decoder)):
        program = lower(plan, job)
        price = prices_on(cluster)
        for op in {COUNTS[type(op)](op): op for op in program if isinstance(op, Collective)}.values():
            found, alone = price(op), price_of(op, cluster)
            assert found.seconds == pytest.approx(alone.seconds, rel=1e-12), (seed, op.label)
            assert found.energy == pytest.approx(alone.energy, rel=1e-12), (seed, op.label)
            assert found.sending is not None
            assert alone.sending is not None
            assert found.sending.link_bytes == pytest.approx(alone.sending.link_bytes), (seed, op.label)
            collectives += 1
    assert collectives >= 130
