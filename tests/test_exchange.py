"""Sockets between hosts: every payload arrives as it was, in any order and size, and a lost host is noticed."""

import secrets
import socket
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.errors import AcceleratorError
from rpucluster.exchange import Exchange, PeerLostError, _decode, _encode

TOKEN = secrets.token_bytes(32)


@pytest.fixture(params=[False, True], ids=["asleep", "awake"])
def three(request: pytest.FixtureRequest) -> Any:
    """Three hosts that are connected to each other."""
    hosts = [Exchange(number, TOKEN, awake=request.param) for number in range(3)]
    addresses = {number: host.address for number, host in enumerate(hosts)}
    threads = [threading.Thread(target=host.connect, args=(addresses, 10.0)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield hosts
    for host in hosts:
        host.close()


def arrays() -> st.SearchStrategy[Any]:
    shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)
    return st.tuples(shapes, st.sampled_from(["<f4", "<i8"])).map(
        lambda spec: (np.arange(np.prod(spec[0])) - 3).astype(spec[1]).reshape(spec[0])
    )


@settings(max_examples=200)
@given(st.one_of(arrays(), st.lists(st.one_of(arrays(), st.none(), st.integers(-(2**63), 2**63 - 1))).map(tuple)))
def test_a_payload_survives_the_wire(payload: Any) -> None:
    encoded = b"".join(_encode(payload))
    found = _decode(encoded)
    assert isinstance(found, tuple) == isinstance(payload, tuple)
    for before, after in zip(
        payload if isinstance(payload, tuple) else (payload,),
        found if isinstance(found, tuple) else (found,),
        strict=True,
    ):
        if isinstance(before, np.ndarray):
            assert (after.dtype, after.shape) == (before.dtype, before.shape)
            np.testing.assert_array_equal(after, before)
            assert after.flags.aligned  # sums of arrays that are not take several times as long
        else:
            assert after == before


def test_large_arrays_are_sent_from_where_they_are(three: list[Exchange]) -> None:
    """Without a copy, in one message with small ones, whatever their layout; on both sides of where that begins."""
    random = np.random.default_rng()
    for size in (8191, 8192, 300_000):
        plain, turned = random.integers(-9, 9, size), random.normal(size=(size, 2)).astype("f4").T
        payload = (plain, 7, turned, None, plain[:3])
        sending = threading.Thread(target=three[0].send, args=([1, 2], (size, 0, 0), payload))
        sending.start()
        for taker in (1, 2):
            found = three[taker].receive((size, 0, 0), 30.0)
            assert found[1::2] == (7, None)
            for sent, taken in zip(payload[::2], found[::2], strict=True):
                np.testing.assert_array_equal(sent, taken)
                assert taken.flags.aligned
                assert not taken.flags.writeable
        sending.join()


def test_messages_wait_for_whoever_asks(three: list[Exchange]) -> None:
    """They are taken by tag, whatever the order of arrival and whoever sent them."""
    first, second = np.ones(3, "f4"), np.zeros((2, 2), "i8")
    three[1].send([0], (1, 7, 1), first)
    three[2].send([0], (1, 3, 2), second)
    np.testing.assert_array_equal(three[0].receive((1, 3, 2), 5.0), second)
    np.testing.assert_array_equal(three[0].receive((1, 7, 1), 5.0), first)


def test_large_messages_in_both_directions_do_not_block(three: list[Exchange]) -> None:
    """Each is far larger than a socket's buffer and both are sent before either is read."""
    payload = np.random.default_rng().normal(size=4_000_000).astype("f4")
    found: dict[int, Any] = {}

    def swap(here: int, there: int) -> None:
        three[here].send([there], (1, 0, here), payload)
        found[here] = three[here].receive((1, 0, there), 30.0)

    threads = [threading.Thread(target=swap, args=pair) for pair in ((0, 1), (1, 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for host in (0, 1):
        np.testing.assert_array_equal(found[host], payload)


def test_a_lost_host_is_noticed(three: list[Exchange]) -> None:
    three[1].close()
    with pytest.raises(PeerLostError, match="host 1 closed its connection"):
        three[0].receive((1, 0, 1), 5.0)


def test_silence_is_not_waited_for_forever(three: list[Exchange]) -> None:
    with pytest.raises(AcceleratorError, match="nothing came from accelerator 2"):
        three[0].receive((1, 0, 2), 0.05)


def test_a_stranger_is_not_let_in() -> None:
    """Without the token a connection is closed, and does not count as the host that is waited for."""
    host = Exchange(0, TOKEN)
    stranger = socket.create_connection(host.address)
    stranger.sendall(secrets.token_bytes(32) + b"\x01\x00\x00\x00")
    with pytest.raises(AcceleratorError, match=r"host 0 could not reach hosts \[1\]"):
        host.connect({0: host.address, 1: ("127.0.0.1", 1)}, timeout_s=0.5)
    assert stranger.recv(1) == b""
    stranger.close()
    host.close()


def test_messages_in_pieces_and_in_heaps_arrive_whole(three: list[Exchange]) -> None:
    """Random sizes, of which many share a read and some need several; what was sent is what is counted."""
    random = np.random.default_rng()
    payloads = [random.integers(-9, 9, size).astype("i8") for size in random.integers(0, 40_000, 60)]

    found: dict[int, list[Any]] = {}

    def give() -> None:
        for number, payload in enumerate(payloads):
            three[1].send([0, 2], (number, 0, 1), payload)

    def take(taker: int) -> None:
        order = np.random.default_rng(taker).permutation(len(payloads)).tolist()
        taken = {number: three[taker].receive((number, 0, 1), 30.0) for number in order}
        found[taker] = [taken[number] for number in range(len(payloads))]

    threads = [threading.Thread(target=give), *(threading.Thread(target=take, args=(taker,)) for taker in (0, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for taker in (0, 2):
        for sent, taken in zip(payloads, found[taker], strict=True):
            np.testing.assert_array_equal(sent, taken)
    assert three[1].messages == 2 * len(payloads)
    assert three[1].message_bytes >= 2 * sum(payload.nbytes for payload in payloads)
    assert three[0].waited_s > 0 == three[0].messages
