"""What bounds every request, over real sockets."""

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from envelock_service.problem import STATUS, Problem
from envelock_service.server import REQUEST_ID, identify, read_body, runner

JSON = frozenset({"application/json"})
RECEIVE_SECONDS = 0.5
SMUGGLED = (
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    """A server whose handlers echo, fail and refuse."""

    async def echo(request: web.Request) -> web.Response:
        body = await read_body(
            request, media_types=JSON, max_bytes=1000, receive_seconds=RECEIVE_SECONDS
        )
        return web.Response(body=body)

    async def refuse(_request: web.Request) -> web.Response:
        raise Problem("access_denied")

    async def fail(_request: web.Request) -> web.Response:
        raise RuntimeError("the password is hunter2")

    ids = (f"r-{n}" for n in range(1000))
    app = web.Application(middlewares=[identify(lambda: next(ids))])
    app.router.add_post("/echo", echo)
    app.router.add_get("/refuse", refuse)
    app.router.add_get("/fail", fail)
    served = runner(app, receive_seconds=RECEIVE_SECONDS)
    await served.setup()
    site = web.TCPSite(served, "127.0.0.1", 0)
    await site.start()
    try:
        yield served.addresses[0][:2]
    finally:
        await served.cleanup()


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """Host and port of the server."""
    async with serving() as found:
        yield found


async def post(address: tuple[str, int], body: bytes, **headers: str) -> tuple[int, bytes]:
    """POST to /echo."""
    url = "http://{}:{}/echo".format(*address)
    given = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with ClientSession() as session, session.post(url, data=body, headers=given) as answer:
        return answer.status, await answer.read()


class TestBodies:
    """How much is read."""

    async def test_reads_plain_and_packed_bodies(self, address):
        """A gzip body is unpacked to the same cap."""
        assert await post(address, b'{"a":1}') == (200, b'{"a":1}')
        packed = gzip.compress(b"x" * 900)
        assert await post(address, packed, Content_Encoding="gzip") == (200, b"x" * 900)

    @pytest.mark.parametrize(
        ("body", "headers", "status"),
        [
            (b"x" * 1001, {}, 413),
            (gzip.compress(b"x" * 1001), {"Content_Encoding": "gzip"}, 413),
            (gzip.compress(b"x" * 50_000_000), {"Content_Encoding": "gzip"}, 413),
            (gzip.compress(b"x") * 2, {"Content_Encoding": "gzip"}, 400),
            (gzip.compress(b"x")[:-1], {"Content_Encoding": "gzip"}, 400),
            (b"not gzip", {"Content_Encoding": "gzip"}, 400),
            (zlib.compress(b"x"), {"Content_Encoding": "deflate"}, 415),
            (b"x", {"Content_Encoding": "br"}, 415),
            (b"x", {"Content_Type": "text/plain"}, 415),
            (b"x", {"Content_Type": "application/json-seq"}, 415),
        ],
    )
    async def test_refuses_what_is_too_much_or_of_another_kind(
        self, address, body, headers, status
    ):
        """Large, packed too well, cut off, or of another type: refused with its status."""
        found, _ = await post(address, body, **headers)

        assert found == status

    async def test_a_chunked_body_without_end_is_cut_off(self, address):
        """The cap counts what arrives, not what is announced."""

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield os.urandom(500)
                await asyncio.sleep(0)

        url = "http://{}:{}/echo".format(*address)
        given = {"Content-Type": "application/json"}
        async with (
            ClientSession() as session,
            session.post(url, data=endless(), headers=given) as answer,
        ):
            assert answer.status == 413


class TestSlowness:
    """How long is waited."""

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"GET /refuse HT",
            b"GET /refuse HTTP/1.1\r\nHost: a\r\nX: ",
        ],
    )
    async def test_headers_that_do_not_arrive_close_the_connection(self, address, sent):
        """Idle and dripping connections end, however often they send a byte."""
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)

        async def drip() -> None:
            while True:
                writer.write(b"a" if sent else b"")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        try:
            async with asyncio.timeout(5 * RECEIVE_SECONDS):
                while await reader.read(1000):
                    pass
        except ConnectionResetError:
            pass
        finally:
            dripping.cancel()
            writer.close()

    async def test_a_body_that_does_not_arrive_is_refused(self, address):
        """A body has its own deadline."""
        reader, writer = await asyncio.open_connection(*address)
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 100\r\n\r\nabc")
        async with asyncio.timeout(5 * RECEIVE_SECONDS):
            line = await reader.readline()
        writer.close()

        assert b" 400 " in line

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            SMUGGLED,
        ],
        ids=["header", "path", "many", "two lengths", "length and chunks"],
    )
    async def test_oversized_and_ambiguous_headers_are_refused(self, address, request_bytes):
        """Nothing beyond the limits is kept, and no two readings are possible."""
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request_bytes)
        async with asyncio.timeout(5):
            try:
                line = await reader.readline()
            except ConnectionResetError:
                line = b""
        writer.close()

        assert not line or line.split()[1] in {b"400", b"431", b"413"}


class TestErrors:
    """What is told."""

    async def test_an_unexpected_error_tells_nothing(self, address):
        """500 has a code and a request id, and no word of what happened."""
        async with (
            ClientSession("http://{}:{}".format(*address)) as session,
            session.get("/fail") as answer,
        ):
            text = await answer.text()

        assert answer.status == 500
        assert "hunter2" not in text
        assert "Traceback" not in text

    async def test_every_answer_carries_an_id_made_here(self, address):
        """A client's own request id is never believed."""
        async with (
            ClientSession("http://{}:{}".format(*address)) as session,
            session.get("/refuse", headers={"X-Request-ID": "mine"}) as answer,
        ):
            problem = await answer.json()

        assert answer.status == 403
        assert answer.headers["X-Request-ID"] == problem["request_id"] != "mine"
        assert answer.content_type == "application/problem+json"

    @pytest.mark.parametrize("path", ["/none", "/echo", "/refuse/"])
    async def test_other_paths_and_methods_are_problems_too(self, address, path):
        """Unknown paths are 404, other methods 405, in the same form."""
        async with (
            ClientSession("http://{}:{}".format(*address)) as session,
            session.get(path) as answer,
        ):
            problem = await answer.json(content_type=None)

        assert problem["code"] in {"not_found", "method_not_allowed"}

    def test_every_code_has_a_status(self):
        """A problem cannot be raised without one."""
        assert all(400 <= status < 600 for status in STATUS.values())
        with pytest.raises(KeyError):
            _ = Problem("no such code").status


def test_a_request_id_is_kept_by_key():
    """Handlers find the id under one typed key."""
    assert "request_id" in str(REQUEST_ID)
