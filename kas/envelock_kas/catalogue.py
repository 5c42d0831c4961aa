"""What the KAS tells stock clients of policies: read from the PDP, which alone decides.

Definitions are told again while the tenant's policy epoch stays the one that they were read under.
Verdicts here are unsigned and release nothing; they answer enforcement points that ask about other
things than keys.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import orjson

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.pdp_socket import MAX_ANSWER, PdpSocket

TIMEOUT_SECONDS = 5.0
T = TypeVar("T")


class KeyScope(msgspec.Struct, frozen=True):
    """Fields of the key template."""

    dataset: str
    domain: str = ""


class DefinedAttribute(msgspec.Struct, frozen=True):
    """One definition; *keys* by value, *key* for all others."""

    namespace: str
    name: str
    rule: str
    values: tuple[str, ...]
    keys: dict[str, KeyScope] = {}
    key: KeyScope | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a question is about: the bearer of a token, or somebody as the asker states them."""

    token: str | None = field(default=None, repr=False)
    name: str = ""
    home: str = ""  # tenant
    claims: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """May somebody do *act* with something of the tenant *owner* that has *policy* (base64)?"""

    act: str
    owner: str
    policy: str


@dataclass(frozen=True, slots=True)
class Said:
    """The unsigned answer."""

    permit: bool
    obligations: tuple[str, ...] = ()


class Catalogue(Protocol):
    """Whoever knows the policies in force.

    Each raises `PdpUnavailableError`; its kind `PdpRefusedError` says that asking again will not
    help.
    """

    async def definitions(self, tenant: str, epoch: int) -> Sequence[DefinedAttribute]:
        """The definitions of *tenant* in its policy *epoch*."""
        ...

    async def holdings(self, tenant: str, subject: Subject) -> Sequence[str]:
        """The FQNs of the values of *tenant* that *subject* holds."""
        ...

    async def verdicts(self, subject: Subject, asked: Sequence[Asked]) -> Sequence[Said]:
        """What policy says of *subject*, one answer for each question."""
        ...


class _Definitions(msgspec.Struct, frozen=True):
    epoch: int
    attributes: tuple[DefinedAttribute, ...]


class _Holdings(msgspec.Struct, frozen=True):
    fqns: tuple[str, ...]


class _Context(msgspec.Struct, frozen=True):
    obligations: tuple[str, ...] = ()


class _Evaluation(msgspec.Struct, frozen=True):
    decision: bool
    context: _Context = _Context()


class _Evaluations(msgspec.Struct, frozen=True):
    evaluations: tuple[_Evaluation, ...]


class PdpCatalogue:
    """The catalogue of the PDP at a socket. One instance belongs to one event loop."""

    def __init__(self, socket: PdpSocket) -> None:
        self._socket = socket
        self._known: dict[str, _Definitions] = {}

    async def definitions(self, tenant: str, epoch: int) -> Sequence[DefinedAttribute]:
        known = self._known.get(tenant)
        if known is None or known.epoch != epoch:
            path = f"/internal/v1/attributes?tenant={quote(tenant, safe='')}"
            known = self._known[tenant] = await self._ask("GET", path, None, _Definitions)
        return known.attributes

    async def holdings(self, tenant: str, subject: Subject) -> Sequence[str]:
        asked: dict[str, Json] = {"tenant": tenant}
        if subject.token is not None:
            asked["subject_token"] = subject.token
        else:
            asked |= {"subject": subject.name, "home": subject.home, "claims": subject.claims}
        found = await self._ask("POST", "/internal/v1/entitlements", orjson.dumps(asked), _Holdings)
        return found.fqns

    async def verdicts(self, subject: Subject, asked: Sequence[Asked]) -> Sequence[Said]:
        body = orjson.dumps(_evaluations(subject, asked))
        found = await self._ask("POST", "/access/v1/evaluations", body, _Evaluations)
        if len(found.evaluations) != len(asked):
            raise PdpUnavailableError("another number of evaluations")
        return [Said(one.decision, one.context.obligations) for one in found.evaluations]

    async def _ask(self, method: str, path: str, body: bytes | None, shape: type[T]) -> T:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._socket.ask(method, path, body)
            return decode(answer, shape, max_bytes=MAX_ANSWER)
        except (aiohttp.ClientError, OSError, TimeoutError, FormatError) as error:
            raise PdpUnavailableError(type(error).__name__) from error


def _evaluations(subject: Subject, asked: Sequence[Asked]) -> dict[str, Json]:
    """Questions without a KAS or a client key: their answers are never signed.

    The subject stands once, for all of them.
    """
    about: dict[str, Json] = {"type": "user", "id": subject.name or "token"}
    context: dict[str, Json] = {}
    if subject.token is not None:
        context["subject_token"] = subject.token
    else:
        about["properties"] = {**subject.claims, "tenant": subject.home}
    evaluations: list[Json] = []
    for one in asked:
        properties: dict[str, Json] = {"policy": one.policy, "tenant": one.owner}
        resource: dict[str, Json] = {"type": "tdf", "id": "question", "properties": properties}
        evaluations.append({"action": {"name": one.act}, "resource": resource})
    return {"subject": about, "context": context, "evaluations": evaluations}
