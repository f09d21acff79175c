"""Messages between the processes that host accelerators: plain arrays over sockets, without a thread.

A Ray call costs about a millisecond, which a step of a small network cannot afford dozens of times.  So the
hosts of a plan connect to each other once and then talk directly.  A host that waits for a message keeps
reading all of its connections, and so does one whose message finds a full socket; no order of large messages
can therefore block two hosts on each other.  Nothing is pickled, and a connection that does not start with
the token of this pool is closed.
"""

import hmac
import math
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rpucluster.errors import AcceleratorLostError

Tag = tuple[int, int, int]
"""Performance of a program, operation, giving accelerator."""
Address = tuple[str, int]

_HELLO = struct.Struct("<32sI")  # token, number of the host
_HEAD = struct.Struct("<QQQQ")  # tag, bytes that follow
_DTYPES = (np.dtype("<f4"), np.dtype("<i8"))
_CHUNK = 1 << 20
_LARGE = 1 << 16
"""Bytes of an array from which on it is sent without being copied."""
_AWAKE_S = 200e-6
"""How long a host that may stay awake looks for a message before it sleeps: several times what waking up costs."""


class PeerLostError(AcceleratorLostError):
    """The host at the other end closed its connection; why, only that host knows."""


class _Large:
    """A message that has arrived in part; the rest is read into `missing`."""

    def __init__(self, tag: Tag, size: int, arrived: memoryview) -> None:
        self.tag = tag
        uninitialised: Any = np.empty(size, np.uint8)
        place = memoryview(uninitialised)
        place[: len(arrived)] = arrived
        self.body, self.missing = place.toreadonly(), place[len(arrived) :]


@dataclass(kw_only=True)
class _Peer:
    """One connection and what has arrived on it but is not yet whole: less than a head, or more than one."""

    host: int
    socket: socket.socket
    head: bytes = b""
    large: _Large | None = None


class Exchange:
    """The connections of one host to the others; `connect` them before the first message.

    `token` is a secret of 32 bytes that all hosts of a pool share.  Messages of a small step come every few hundred
    microseconds, and a core that has slept in between is slow for about as long; so a host that has a core for itself
    stays `awake` for a moment while it waits.
    """

    def __init__(self, host: int, token: bytes, interface: str = "127.0.0.1", *, awake: bool = False) -> None:
        self._host, self._token = host, token
        self._listener = socket.create_server((interface, 0))
        self.address: Address = self._listener.getsockname()[:2]
        self.waited_s = 0.0
        """Time of the host in which it waited for messages."""
        self.messages = self.message_bytes = 0
        """Sent so far."""
        self._awake_s = _AWAKE_S if awake and hasattr(os, "sched_yield") else 0.0
        self._buffer = memoryview(bytearray(_CHUNK))
        self.closed = False
        self._peers: dict[int, _Peer] = {}
        self._inbox: dict[Tag, Any] = {}
        self._selector = selectors.DefaultSelector()

    def connect(self, addresses: Mapping[int, Address], timeout_s: float = 60.0) -> None:
        """Join the hosts at `addresses`: call those of smaller number, answer those of larger number.

        Raises `PeerLostError` where one does not answer in time.
        """
        others = {host: address for host, address in addresses.items() if host != self._host}
        try:
            for host in sorted(others):
                if host < self._host:
                    link = socket.create_connection(others[host], timeout=timeout_s)
                    link.sendall(_HELLO.pack(self._token, self._host))
                    self._add(host, link)
            deadline = time.monotonic() + timeout_s
            while len(self._peers) < len(others):
                self._listener.settimeout(max(0.001, deadline - time.monotonic()))
                self._answer(timeout_s)
        except OSError as error:
            missing = sorted(set(others) - set(self._peers))
            raise PeerLostError(f"host {self._host} could not reach hosts {missing}: {error}") from None
        finally:
            self._listener.close()

    def send(self, hosts: Iterable[int], tag: Tag, payload: Any) -> None:
        """Give a payload to other hosts.  Raises `PeerLostError` where one is gone."""
        first, *others = _encode(payload)
        size = len(first) + sum(map(len, others))
        head = _HEAD.pack(*tag, size)
        for host in hosts:
            self.messages += 1
            self.message_bytes += len(head) + size
            for piece in (head + first, *others):
                self._send(self._peers[host], memoryview(piece))

    def _send(self, peer: _Peer, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[peer.socket.send(rest) :]
            except BlockingIOError:
                self._selector.modify(peer.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
                self._read_ready(None)
                self._selector.modify(peer.socket, selectors.EVENT_READ, peer)
            except OSError:
                raise _lost(peer) from None

    def receive(self, tag: Tag, timeout_s: float) -> Any:
        """Wait for a payload.  Raises `PeerLostError` where a host is gone, or after `timeout_s`."""
        if tag not in self._inbox:
            deadline = time.monotonic() + timeout_s
            while tag not in self._inbox:
                if not self._read_ready(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise PeerLostError(
                        f"nothing came from accelerator {tag[2]} for {timeout_s:g} s; its process hangs or is starved"
                    )
        return self._inbox.pop(tag)

    def close(self) -> None:
        """Close every connection; the others learn of it at their next message."""
        self.closed = True
        self._listener.close()
        for peer in self._peers.values():
            peer.socket.close()
        self._peers.clear()
        self._selector.close()

    def _answer(self, timeout_s: float) -> None:
        link, _ = self._listener.accept()
        link.settimeout(timeout_s)
        hello = b""
        while len(hello) < _HELLO.size:
            more = link.recv(_HELLO.size - len(hello))
            if not more:
                break
            hello += more
        if len(hello) == _HELLO.size:
            token, host = _HELLO.unpack(hello)
            if hmac.compare_digest(token, self._token):
                self._add(host, link)
                return
        link.close()

    def _add(self, host: int, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        peer = _Peer(host=host, socket=link)
        self._peers[host] = peer
        self._selector.register(link, selectors.EVENT_READ, peer)

    def _read_ready(self, timeout_s: float | None) -> bool:
        """Take in what has arrived on any connection; waits for the first of it."""
        began = time.perf_counter()
        ready = self._selector.select(0) if self._awake_s else []
        while not ready and time.perf_counter() - began < self._awake_s:
            os.sched_yield()  # whoever else wants this core goes first
            ready = self._selector.select(0)
        ready = ready or self._selector.select(timeout_s)
        self.waited_s += time.perf_counter() - began
        for key, events in ready:
            if events & selectors.EVENT_READ:
                self._read(key.data)
        return bool(ready)

    def _read(self, peer: _Peer) -> None:
        # a buffer of its own for each read would take longer than reading
        into = self._buffer if peer.large is None else peer.large.missing
        try:
            size = peer.socket.recv_into(into)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            raise _lost(peer)
        if peer.large is not None:
            peer.large.missing = peer.large.missing[size:]
            if not peer.large.missing:
                self._inbox[peer.large.tag] = _decode(peer.large.body)
                peer.large = None
            return
        arrived = self._buffer[:size]
        if peer.head:
            arrived = memoryview(peer.head + arrived)
        peer.head = bytes(arrived[self._take_in(peer, arrived) :])

    def _take_in(self, peer: _Peer, arrived: memoryview) -> int:
        """Put the messages among some bytes into the inbox; returns how many bytes they are.

        The rest of one that is not whole will be read into a place of its own, so less than a head is left.
        """
        at = 0
        while len(arrived) - at >= _HEAD.size:
            performance, op, giver, size = _HEAD.unpack_from(arrived, at)
            body = arrived[at + _HEAD.size :][:size]
            if len(body) < size:
                peer.large = _Large((performance, op, giver), size, body)
                return len(arrived)
            self._inbox[(performance, op, giver)] = _decode(bytes(body))
            at += _HEAD.size + size
        return at


def _lost(peer: _Peer) -> PeerLostError:
    return PeerLostError(f"the process of host {peer.host} closed its connection")


def _encode(payload: Any) -> list[bytes | memoryview]:
    """A payload in pieces: an array, or a tuple of arrays, integers and None.  Elements begin at multiples of 8."""
    parts = payload if isinstance(payload, tuple) else (payload,)
    pieces: list[bytes | memoryview] = []
    small = struct.pack("<?B", isinstance(payload, tuple), len(parts))
    before = 0
    for part in parts:
        if part is None:
            small += b"n"
        elif isinstance(part, int):
            small += struct.pack("<cq", b"i", part)
        else:
            kind = _DTYPES.index(part.dtype)
            small += struct.pack(f"<cBB{part.ndim}Q", b"a", kind, part.ndim, *part.shape)
            small += bytes(-(before + len(small)) % 8)
            if part.nbytes < _LARGE:
                small += part.tobytes()
            else:  # as it is: a copy takes as long as sending
                whole: Any = np.ascontiguousarray(part)
                pieces += small, memoryview(whole).cast("B")
                before, small = before + len(small) + part.nbytes, b""
    return [*pieces, small] if small else pieces


def _decode(body: bytes | memoryview) -> Any:
    several, count = struct.unpack_from("<?B", body)
    at = 2
    parts: list[Any] = []
    for _ in range(count):
        code, at = body[at : at + 1], at + 1
        if code == b"n":
            parts.append(None)
        elif code == b"i":
            parts.append(struct.unpack_from("<q", body, at)[0])
            at += 8
        else:
            kind, ndim = struct.unpack_from("<BB", body, at)
            shape = struct.unpack_from(f"<{ndim}Q", body, at + 2)
            at += 2 + 8 * ndim
            at += -at % 8
            array = np.frombuffer(body, _DTYPES[kind], count=math.prod(shape), offset=at).reshape(shape)
            parts.append(array)
            at += array.nbytes
    return tuple(parts) if several else parts[0]
