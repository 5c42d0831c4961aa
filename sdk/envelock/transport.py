"""HTTP for the clients: urllib3 for the blocking one, aiohttp for the other, loaded on first use.

No redirect is followed, no proxy or `.netrc` of the environment is used, an answer is read to a
cap, and one that does not come, or not in time, is a `Reply` with status 0.

SECURITY: plain HTTP is for loopback, and a name such as `localhost` is what a resolver makes of it.
So a plain connection whose other end is not on this machine is closed before a byte is sent. With
TLS the certificate says whose the other end is.
"""

import asyncio
import http.client
import io
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
    from _typeshed import WriteableBuffer
    from aiohttp.abc import ResolveResult
    from urllib3.connection import HTTPConnection, HTTPSConnection

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
        read_seconds: How long a whole answer may take, from its first header to its last byte,
            however its bytes arrive.
    """

    def __init__(self, read_seconds: float = READ_SECONDS) -> None:
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._pid = os.getpid()

    def send(self, call: Call) -> Reply:
        """Make one call."""
        import urllib3  # noqa: PLC0415 loaded on the first call

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
                body = _read_blocking(response)
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
                self._pool.pool_classes_by_scheme = _pools(self._read_seconds)
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


def _pools(read_seconds: float) -> "dict[str, type[urllib3.HTTPConnectionPool]]":
    """Pools whose answers have a deadline; those of plain connections end on this machine."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415 on the first call
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 as above
    from urllib3.exceptions import NewConnectionError  # noqa: PLC0415 as above

    class TimelyResponse(http.client.HTTPResponse):
        def __init__(
            self, sock: socket.socket, debuglevel: int = 0, method: str | None = None
        ) -> None:
            super().__init__(sock, debuglevel, method)
            self.fp = io.BufferedReader(_Timely(self.fp, sock, read_seconds))

    class LoopbackConnection(HTTPConnection):
        response_class = TimelyResponse

        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            if not is_loopback(str(made.getpeername()[0])):
                made.close()
                raise NewConnectionError(self, "plain HTTP leaves this machine")
            return made

    class SecureConnection(HTTPSConnection):
        response_class = TimelyResponse

    class LoopbackPool(HTTPConnectionPool):
        ConnectionCls: "type[HTTPConnection]" = LoopbackConnection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls: "type[HTTPSConnection]" = SecureConnection

    return {"http": LoopbackPool, "https": SecurePool}


class _Timely(io.RawIOBase):
    """The bytes of one answer, until its time is over.

    A socket's own timeout starts anew with every byte, so a server that drips could hold a client
    for ever. Here each wait is for what is left.
    """

    def __init__(self, answer: io.BufferedIOBase, sock: socket.socket, seconds: float) -> None:
        super().__init__()
        self._answer = answer
        self._socket = sock
        self._seconds = seconds
        self._ends = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._socket.settimeout(left)
        try:
            return self._answer.readinto1(buffer)
        finally:
            self._socket.settimeout(self._seconds)  # for the next request on this connection

    def close(self) -> None:
        self._answer.close()
        super().close()


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


def _read_blocking(response: "urllib3.BaseHTTPResponse") -> bytes:
    body = bytearray()
    while chunk := response.read1(CHUNK_SIZE, decode_content=True):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise _AnswerError("answer too large")
    return bytes(body)


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError("answer too large")
    return bytes(body)
