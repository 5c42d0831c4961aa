"""Connections that are slow, large or ambiguous, against a KAS that runs; and the client's turn.

Every attack here ends within the time that a request has, takes little memory, and holds up nobody.
"""

import contextlib
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faults.deployment import processes

from envelock import Client
from envelock.exchange import Call
from envelock.testing import Server, server
from envelock.transport import SyncTransport
from envelock_service.server import RECEIVE_SECONDS

REWRAP = "/kas.AccessService/Rewrap"
HEAD = f"POST {REWRAP} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()
QUIET_SECONDS = 0.6
WAIT = RECEIVE_SECONDS + 5
SWELLING = 48 << 20  # of all workers together


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One deployment for all tests of this module."""
    with server() as found:
        yield found


def connected(running: Server) -> socket.socket:
    """A connection to the KAS."""
    parts = urlsplit(running.url)
    made = socket.create_connection((parts.hostname, parts.port))
    made.settimeout(WAIT)
    return made


def resident(running: Server) -> int:
    """Memory of the KAS in bytes."""
    found = 0
    for pid in processes(running.data, "envelock_kas"):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        found += pages * 4096
    return found


def answered(running: Server, sent: bytes) -> bytes:
    """Everything that comes back until the connection ends, or is quiet for a while."""
    received = b""
    with connected(running) as made:
        made.settimeout(QUIET_SECONDS)
        with contextlib.suppress(OSError):
            made.sendall(sent)
        with contextlib.suppress(OSError):
            while part := made.recv(65536):
                received += part
    return received


def statuses(received: bytes) -> list[int]:
    """The status of each answer in a stream."""
    return [int(number) for number in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]


def chunked(*headers: bytes, body: bytes) -> bytes:
    """A request with a body in chunks."""
    return HEAD + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


PLAIN = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TWICE = b"Content-Length: 4\r\nContent-Length: 40\r\n"
AMBIGUOUS = {
    "length and chunks": chunked(
        b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + PLAIN),
    "chunks and length": chunked(
        b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n" + PLAIN),
    "two lengths": HEAD + TWICE + b"\r\n{}{}" + PLAIN,
    "a list of lengths": HEAD + b"Content-Length: 4, 4\r\n\r\n{}{}" + PLAIN,
    "a length with a sign": HEAD + b"Content-Length: +4\r\n\r\n{}{}" + PLAIN,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + PLAIN,
    "a hexadecimal length": HEAD + b"Content-Length: 0x4\r\n\r\n{}{}" + PLAIN,
    "a length of many digits": HEAD + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n" + PLAIN,
    "a blank before the colon": HEAD + b"Content-Length : 4\r\n\r\n{}{}" + PLAIN,
    "a folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "chunks twice": chunked(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n" + PLAIN),
    "chunks that are not last": chunked(
        b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + PLAIN),
    "an unknown coding": chunked(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + PLAIN),
    "a coding with a tab": chunked(b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + PLAIN),
    "a chunk of a negative size": chunked(
        b"Transfer-Encoding: chunked", body=b"-1\r\n\r\n0\r\n\r\n" + PLAIN),
    "a chunk of a huge size": chunked(
        b"Transfer-Encoding: chunked", body=b"f" * 40 + b"\r\n\r\n0\r\n\r\n" + PLAIN),
    "a chunk without its end": chunked(
        b"Transfer-Encoding: chunked", body=b"1\r\nab\r\n0\r\n\r\n" + PLAIN),
    "a bare carriage return": HEAD + b"X: a\rContent-Length: 0\r\n\r\n" + PLAIN,
    "a null in a header": HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "no host": f"GET {REWRAP} HTTP/1.1\r\n\r\n".encode(),
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: x\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "a later version": b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    "an older version": b"GET /healthz\r\n",
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50),
}  # fmt: skip


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_requests_smuggle_nothing(running: Server, sent: bytes):
    """T45: what could be read in two ways is refused, and what follows on it is not served."""
    found = statuses(answered(running, sent))

    assert all(status >= 400 for status in found)
    assert len(found) <= 1


@pytest.mark.parametrize(
    "extra",
    [
        b"X: " + b"x" * 70_000,
        b"\r\n".join(b"X-%d: y" % n for n in range(50_000)),
        b"X" * 70_000 + b": y",
        b"Cookie: " + b"a=b; " * 20_000,
        b"Authorization: Bearer " + b"a" * 70_000,
        b"DPoP: " + b"a." * 40_000,
    ],
    ids=["value", "number", "name", "cookies", "token", "proof"],
)
def test_swollen_headers_are_refused(running: Server, extra: bytes):
    """T43: refused at their limit, in little memory."""
    before = resident(running)
    found = statuses(answered(running, HEAD + extra + b"\r\nContent-Length: 0\r\n\r\n"))

    assert set(found) <= {400, 401, 413, 431}
    assert resident(running) - before < SWELLING


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Encoding: gzip\r\n", gzip.compress(bytes(500 << 20), 1)),
        (b"Content-Encoding: gzip\r\n", gzip.compress(gzip.compress(bytes(100 << 20)))),
        (b"", bytes(64 << 20)),
    ],
    ids=["bomb", "bomb in a bomb", "large"],
)
def test_large_bodies_cost_little(running: Server, headers: bytes, body: bytes):
    """T44: nobody unauthenticated has anything unpacked, and the rest has a cap."""
    before = resident(running)
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    found = statuses(answered(running, HEAD + headers + length + body))

    assert set(found) <= {401, 413}
    assert resident(running) - before < SWELLING


def test_requests_in_a_row_are_answered_in_a_row(running: Server):
    """Pipelining gives as many answers as requests, each its own, and an unfinished one none."""
    received = answered(running, PLAIN * 20 + PLAIN[:-2])

    assert statuses(received) == [200] * 20
    assert received.count(b"X-Request-ID") == 20


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
        (b"GET /healthz HTTP/1.0\r\n\r\n" + PLAIN, [400]),
        (CHUNKS + b"2\r\n{}\r\n0\r\n\r\n", [401]),
        (CHUNKS + b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n", [400]),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", [100, 401]),
    ],
    ids=["old", "old and a second", "chunks", "trailers", "continue"],
)  # fmt: skip
def test_uncommon_requests_have_one_reading(running: Server, sent: bytes, expected: list[int]):
    """Old versions have one request; trailers that would be headers are refused."""
    assert statuses(answered(running, sent)) == expected


def dripping(running: Server, begun: bytes, drop: bytes, ended: list[float]) -> None:
    """Send *drop* again and again until the server has had enough."""
    started = time.monotonic()
    with connected(running) as made:
        made.sendall(begun)
        made.settimeout(0.2)
        while time.monotonic() - started < WAIT:
            try:
                made.sendall(drop)
                if not made.recv(4096):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    ended.append(time.monotonic() - started)


@pytest.mark.slow
def test_dripping_connections_end_and_hold_up_nobody(running: Server):
    """T42: ninety for as long as they are let; a reader is served meanwhile."""
    shapes = [
        (b"", b""),
        (b"", b"G"),
        (HEAD, b"X: y\r\n"),
        (HEAD + b"X: ", b"y"),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"{"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
    ]
    ended: list[float] = []
    threads = [
        threading.Thread(target=dripping, args=(running, *shape, ended))
        for shape in shapes
        for _ in range(15)
    ]
    with Client(profile=running.data / "profiles" / "doctor.toml") as client:
        sealed = client.encrypt(b"x", attrs="clearance=secret")
        for thread in threads:
            thread.start()
        slowest, opened = 0.0, 0
        while any(thread.is_alive() for thread in threads):
            begun = time.monotonic()
            client.decrypt(sealed)
            slowest, opened = max(slowest, time.monotonic() - begun), opened + 1
            time.sleep(0.2)

    assert len(ended) == len(threads)
    assert max(ended) < WAIT
    assert opened > 3
    assert slowest < 3


def drip_of(*parts: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """A server's part: the first at once, then the others one byte at a time, for ever."""

    def drip(peer: socket.socket, stop: threading.Event) -> None:
        peer.recv(65536)
        peer.sendall(parts[0])
        while not stop.is_set():
            for number in range(len(parts[1])):
                peer.sendall(parts[1][number : number + 1])
                if stop.wait(0.03):
                    return

    return drip


@contextlib.contextmanager
def hostile(drip: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that answers one connection as *drip* does."""
    stop = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError), listening.accept()[0] as peer:
            drip(peer, stop)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    "drip",
    [
        drip_of(b"", b"H"),
        drip_of(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        drip_of(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        drip_of(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        drip_of(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"x"),
        drip_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drip_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        drip_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
    ids=["status", "headers", "header", "continue", "body", "chunks", "size", "trailers"],
)
def test_no_server_holds_a_client_beyond_its_deadline(drip):
    """Whatever part of its answer drips, the call ends in time, and is no answer."""
    transport = SyncTransport(read_seconds=0.4)
    with hostile(drip) as url:
        begun = time.monotonic()
        reply = transport.send(Call("GET", url, {}))
        took = time.monotonic() - begun
        transport.close()

    assert reply.status == 0
    assert took < 2


def test_a_connection_that_is_used_again_has_its_whole_time_again(running: Server):
    """The deadline is of one answer, not of a connection."""
    transport = SyncTransport(read_seconds=0.5)
    found = []
    for _ in range(4):
        found.append(transport.send(Call("GET", f"{running.url}/healthz", {})))
        time.sleep(0.2)
    transport.close()

    assert [reply.status for reply in found] == [200] * 4
    assert json.loads(found[-1].body) == {"status": "ok"}
