"""HTTP for the clients: urllib3 for the blocking one, aiohttp for the other, loaded on first use.

No redirect is followed, no proxy or `.netrc` of the environment is used, an answer is read to a
cap, and one that does not come, or not in time, is a `Reply` with status 0.

SECURITY: plain HTTP is for loopback, and a name such as `localhost` is what a resolver makes of it.
So a plain connection whose other end is not on this machine is closed before a byte is sent. With
TLS the certificate says whose the other end is.
"""

import asyncio
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from envelock.addresses import is_loopback
from envelock.exchange import Call, Reply

if TYPE_CHECKING:
    import aiohttp
    import urllib3
    from aiohttp.abc import ResolveResult
    from urllib3.connection import HTTPConnection

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
MAX_ANSWER = 16 * 1024 * 1024
CHUNK_SIZE = 64 * 1024
POOL_SIZE = 32
USER_AGENT = "envelock"
LOCALHOST = "localhost"  # the one name that plain HTTP may go to


class SyncTransport:
    """A pool of connections for threads; made anew in a forked child.

    Args:
        read_seconds: How long to wait for headers, and how long a whole call may take before the
            rest of its answer is given up; looked at whenever bytes arrive, so that a call ends
            after twice this time at most. Headers that drip are not bounded.
    """

    def __init__(self, read_seconds: float = READ_SECONDS) -> None:
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._pid = os.getpid()

    def send(self, call: Call) -> Reply:
        """Make one call."""
        import urllib3  # noqa: PLC0415 loaded on the first call

        ends = time.monotonic() + self._read_seconds
        try:
            response = self._opened().request(
                call.method,
                call.url,
                headers={"User-Agent": USER_AGENT, **call.headers},
                body=call.body or None,
                redirect=False,
                preload_content=False,
            )
            try:
                body = _read_blocking(response, ends)
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            return Reply(0, {}, type(error).__name__.encode())
        except _AnswerError as error:
            return Reply(0, {}, str(error).encode())
        return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, body)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            if self._pool is not None:
                self._pool.clear()
            self._pool = None

    def _opened(self) -> "urllib3.PoolManager":
        import urllib3  # noqa: PLC0415 loaded on the first call

        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=self._read_seconds)
                self._pool = urllib3.PoolManager(maxsize=POOL_SIZE, retries=False, timeout=timeout)
                pools = dict(self._pool.pool_classes_by_scheme)
                self._pool.pool_classes_by_scheme = pools | {"http": _loopback_pool()}
                self._pid = os.getpid()
            return self._pool


class AsyncTransport:
    """A pool of connections of one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(self, call: Call) -> Reply:
        """Make one call."""
        import aiohttp  # noqa: PLC0415 loaded on the first call

        if self._session is None:
            timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, total=READ_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=_connector(), timeout=timeout, trust_env=False
            )
        try:
            async with self._session.request(
                call.method,
                call.url,
                headers={"User-Agent": USER_AGENT, **call.headers},
                data=call.body or None,
                allow_redirects=False,
            ) as response:
                body = await _read(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, headers, body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return Reply(0, {}, type(error).__name__.encode())

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0)


def _loopback_pool() -> "type[urllib3.HTTPConnectionPool]":
    """Pools of plain connections that end on this machine."""
    from urllib3 import HTTPConnectionPool  # noqa: PLC0415 loaded on the first call
    from urllib3.connection import HTTPConnection  # noqa: PLC0415 as above
    from urllib3.exceptions import NewConnectionError  # noqa: PLC0415 as above

    class LoopbackConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            if not is_loopback(str(made.getpeername()[0])):
                made.close()
                raise NewConnectionError(self, "plain HTTP leaves this machine")
            return made

    class LoopbackPool(HTTPConnectionPool):
        ConnectionCls: "type[HTTPConnection]" = LoopbackConnection

    return LoopbackPool


def _connector() -> "aiohttp.TCPConnector":
    """A connector for which `localhost` is this machine, whatever a resolver says."""
    from aiohttp import TCPConnector, ThreadedResolver  # noqa: PLC0415 loaded on the first call

    class LoopbackResolver(ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> "list[ResolveResult]":
            found = await super().resolve(host, port, family)
            if host.lower() == LOCALHOST:
                found = [one for one in found if is_loopback(one["host"])]
            if not found:
                raise OSError(None, "plain HTTP leaves this machine")
            return found

    return TCPConnector(resolver=LoopbackResolver())


class _AnswerError(Exception):
    """An answer that is not read to its end."""


def _read_blocking(response: "urllib3.BaseHTTPResponse", ends: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(CHUNK_SIZE, decode_content=True):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise _AnswerError("answer too large")
        if time.monotonic() > ends:
            raise _AnswerError("answer too slow")
    return bytes(body)


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError("answer too large")
    return bytes(body)
