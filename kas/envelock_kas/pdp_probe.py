"""Asks the PDP, over its Unix socket, what is in force, and for an answer to a question."""

from collections.abc import Mapping

import msgspec
import orjson

from envelock_formats.canonical import decode
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.pdp_socket import MAX_ANSWER, PdpSocket
from envelock_kas.watching import InForce

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
    """Probes the PDP at a socket; whoever calls bounds the time."""

    def __init__(self, socket: PdpSocket) -> None:
        self._socket = socket

    async def __call__(self) -> InForce:
        """What is in force.

        Raises:
            PdpUnavailableError: It answers something else than it should.
            FormatError, OSError, aiohttp.ClientError: It does not answer at all.
        """
        told = decode(await self._socket.ask("GET", "/healthz"), _Told, max_bytes=MAX_ANSWER)
        body = await self._socket.ask("POST", "/access/v1/evaluations", _QUESTION)
        answer = decode(body, _Answer, max_bytes=MAX_ANSWER)
        if [one.decision for one in answer.evaluations] != [False]:
            raise PdpUnavailableError("the PDP permits what is nobody's")
        return InForce(told.epochs, told.missing)
