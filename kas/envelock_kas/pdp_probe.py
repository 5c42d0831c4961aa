"""Asks the PDP, over its Unix socket, what is in force, and for an answer to a question."""

from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
import msgspec
import orjson

from envelock_formats.canonical import decode
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.watching import InForce

MAX_ANSWER = 1024 * 1024
# Nobody's token and nothing's policy: whoever answers has read it, and decided that it is neither.
_QUESTION = orjson.dumps(
    {
        "subject": {"type": "user", "id": "health"},
        "action": {"name": "open"},
        "context": {"subject_token": "health"},
        "evaluations": [{"resource": {"type": "tdf", "id": "health"}}],
    }
)


class _Told(msgspec.Struct, frozen=True):
    epochs: Mapping[str, int]
    missing: tuple[str, ...]


class _Evaluation(msgspec.Struct, frozen=True):
    decision: bool


class _Answer(msgspec.Struct, frozen=True):
    evaluations: tuple[_Evaluation, ...]


class PdpProbe:
    """Probes a PDP. One instance belongs to one event loop; whoever calls bounds the time.

    Args:
        socket: The PDP's Unix socket, as `envelock_service.sockets.Address` makes it reachable.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self) -> InForce:
        """What is in force.

        Raises:
            PdpUnavailableError: It answers something else than it should.
            FormatError, OSError, aiohttp.ClientError: It does not answer at all.
        """
        told = decode(await self._ask("GET", "/healthz", None), _Told, max_bytes=MAX_ANSWER)
        body = await self._ask("POST", "/access/v1/evaluations", _QUESTION)
        answer = decode(body, _Answer, max_bytes=MAX_ANSWER)
        if [one.decision for one in answer.evaluations] != [False]:
            raise PdpUnavailableError("the PDP permits what is nobody's")
        return InForce(told.epochs, told.missing)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        if self._session is None:
            connector = aiohttp.UnixConnector(path=self._socket, limit=2)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        async with self._session.request(
            method,
            f"http://pdp{path}",
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            text = await response.content.read(MAX_ANSWER)
            while not response.content.at_eof() and len(text) < MAX_ANSWER:
                text += await response.content.read(MAX_ANSWER - len(text))
            if response.status != HTTPStatus.OK:
                raise PdpUnavailableError(f"{path} answered {response.status}")
        return text
