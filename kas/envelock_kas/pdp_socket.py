"""Calls to the PDP's Unix socket that are neither decisions nor many."""

from http import HTTPStatus

import aiohttp

from envelock_kas.errors import PdpUnavailableError

MAX_ANSWER = 4 * 1024 * 1024


class PdpRefusedError(PdpUnavailableError):
    """The question itself is refused; asking again will not help."""


class PdpSocket:
    """One instance belongs to one event loop; whoever calls bounds the time.

    Args:
        path: The PDP's Unix socket, as `envelock_service.sockets.Address` makes it reachable.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of an answer with status 200.

        Raises:
            PdpRefusedError: The PDP does not understand the question.
            PdpUnavailableError: The answer has another status, or is too long.
            OSError, aiohttp.ClientError: There is no answer.
        """
        if self._session is None:
            connector = aiohttp.UnixConnector(path=self._path, limit=2)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        async with self._session.request(
            method,
            f"http://pdp{path}",
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            text = bytearray()
            async for part in response.content.iter_any():
                text += part
                if len(text) > MAX_ANSWER:
                    raise PdpUnavailableError(f"{path} answered too much")
            if HTTPStatus.BAD_REQUEST <= response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise PdpRefusedError(f"{path} answered {response.status}")
            if response.status != HTTPStatus.OK:
                raise PdpUnavailableError(f"{path} answered {response.status}")
        return bytes(text)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
