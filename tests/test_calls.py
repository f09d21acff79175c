"""Cutting programs into calls: nothing is lost, nothing is early, and independent work is one call."""

from rpucluster.calls import Call, cut, givers, takers
from rpucluster.program import Collective, Digital, Op, Program, Send


def program(*ops: Op, accelerators: tuple[int, ...]) -> Program:
    return Program(ops=ops, accelerators=accelerators, samples=1, microbatches=1, minibatch=1)


def work(id: int, accelerator: int) -> Digital:
    return Digital(id=id, accelerator=accelerator, kind="activation", layer=0, microbatch=0, operations=1)


def send(id: int, source: int, destination: int) -> Send:
    return Send(
        id=id,
        source=source,
        destination=destination,
        elements=1,
        word_bits=16,
        payload="activation",
        layer=0,
        microbatch=0,
        span=(0, 1),
    )


def gather(id: int, members: tuple[int, ...], elements: tuple[int, ...]) -> Collective:
    return Collective(
        id=id,
        kind="all_gather",
        members=members,
        elements=elements,
        word_bits=16,
        payload="activation",
        layer=0,
        microbatch=0,
    )


def test_one_accelerator_needs_one_call() -> None:
    assert cut(program(work(0, 0), work(1, 0), accelerators=(0,))) == (
        Call(accelerator=0, ops=(0, 1), emits=(), inbox=()),
    )


def test_a_pipeline_there_and_back() -> None:
    """Stage 0 works and gives, stage 1 absorbs, works and gives, stage 0 absorbs and works: three calls."""
    ops = (work(0, 0), send(1, 0, 1), work(2, 1), send(3, 1, 0), work(4, 0))
    assert cut(program(*ops, accelerators=(0, 1))) == (
        Call(accelerator=0, ops=(0,), emits=(1,), inbox=()),
        Call(accelerator=1, ops=(1, 2), emits=(3,), inbox=((1, 0),)),
        Call(accelerator=0, ops=(3, 4), emits=(), inbox=((3, 1),)),
    )


def test_sends_in_a_row_leave_in_one_call() -> None:
    ops = (work(0, 0), send(1, 0, 1), send(2, 0, 2), work(3, 1), work(4, 2))
    calls = cut(program(*ops, accelerators=(0, 1, 2)))
    assert calls[0] == Call(accelerator=0, ops=(0,), emits=(1, 2), inbox=())
    assert len(calls) == 3


def test_a_collective_ends_the_call_of_each_giver_and_opens_one_of_each_member() -> None:
    ops = (work(0, 0), work(1, 1), gather(2, (0, 1), (1, 1)), work(3, 0), work(4, 1))
    calls = cut(program(*ops, accelerators=(0, 1)))
    assert [c.emits for c in calls] == [(2,), (2,), (), ()]
    assert {(c.accelerator, c.inbox) for c in calls[2:]} == {(0, ((2, 1),)), (1, ((2, 0),))}


def test_a_member_with_an_empty_block_only_takes() -> None:
    op = gather(0, (0, 1, 2), (4, 0, 4))
    assert givers(op) == (0, 2)
    assert takers(op) == (0, 1, 2)
    calls = cut(program(op, accelerators=(0, 1, 2)))
    assert not any(c.accelerator == 1 and c.emits for c in calls)


def test_payloads_are_given_before_they_are_absorbed() -> None:
    """Holds for any program; here a tangle of sends and gathers among four accelerators."""
    ops: list[Op] = []
    for i in range(200):
        a, b = i * 7 % 4, i * 5 % 4
        if i % 3 == 0 or a == b:
            ops.append(work(len(ops), a))
        elif i % 3 == 1:
            ops.append(send(len(ops), a, b))
        else:
            ops.append(gather(len(ops), (0, 1, 2, 3), (1, i % 2, 1, 1)))
    given: set[tuple[int, int]] = set()
    performed: dict[int, list[int]] = {a: [] for a in range(4)}
    for call in cut(program(*ops, accelerators=(0, 1, 2, 3))):
        assert set(call.inbox) <= given
        given |= {(op, call.accelerator) for op in call.emits}
        performed[call.accelerator] += call.ops
    for accelerator, order in performed.items():
        assert order == sorted(order)  # each accelerator keeps its issue order
        expected = [
            op.id
            for op in ops
            if (isinstance(op, Digital) and op.accelerator == accelerator)
            or (isinstance(op, Send | Collective) and accelerator in takers(op))
        ]
        assert order == expected
