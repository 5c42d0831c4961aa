"""Epochs: the number that a tenant's bundle is in force under, counted in the ledger.

The decision point announces a bundle's digest and decides with it only once it has its epoch; the
epoch goes into every decision, and a release under another one is fenced off. So a KAS cannot act
on an older policy than the newest announced one.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
import orjson

from envelock_formats.canonical import decode
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url
from envelock_pdp import EpochsUnavailableError, RollbackError
from envelock_pdp.evaluate import Bundle
from envelock_service.sockets import Address, SocketError

TIMEOUT_SECONDS = 10.0
MAX_ANSWER = 64 * 1024
_URL = "http://kas/internal/v1/policies"


@dataclass(frozen=True, slots=True)
class Epoch:
    """The epoch of a bundle, and the ledger record that put it in force."""

    number: int
    record: int


class Epochs(Protocol):
    """Whoever counts epochs."""

    async def announce(self, bundle: Bundle, *, confirm: bool) -> Epoch:
        """Announce *bundle*; announcing the one in force again returns its epoch again.

        Args:
            bundle: What is to be in force.
            confirm: An operator has confirmed that an older bundle may come back.

        Raises:
            RollbackError: The bundle was in force before, and that is not confirmed.
            EpochsUnavailableError: There is no answer, or none that can be understood.
        """
        ...


class _Answer(msgspec.Struct, frozen=True):
    epoch: int
    record: int


class _Problem(msgspec.Struct, frozen=True):
    code: str


class KasEpochs:
    """Announces to the KAS over its internal Unix socket at *path*."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def arrived(self, seconds: float) -> None:
        """Wait until the KAS has made its socket, for *seconds* at most: both start together."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._path.exists():  # noqa: ASYNC110 another process makes it
                    await asyncio.sleep(0.02)

    async def announce(self, bundle: Bundle, *, confirm: bool) -> Epoch:
        body = {
            "tenant": bundle.tenant,
            "bundle": b64url(bundle.digest),
            "namespaces": list(bundle.namespaces),
            "sharing": sorted(bundle.sharing),
            "confirm": confirm,
        }
        try:
            status, text = await self._post(orjson.dumps(body))
            if status == HTTPStatus.CONFLICT:
                if decode(text, _Problem).code == "policy_rollback":
                    raise RollbackError(b64url(bundle.digest))
            elif status == HTTPStatus.OK:
                answer = decode(text, _Answer)
                return Epoch(answer.epoch, answer.record)
        except (aiohttp.ClientError, OSError, TimeoutError, SocketError, FormatError) as error:
            raise EpochsUnavailableError(f"{self._path}: {type(error).__name__}") from error
        raise EpochsUnavailableError(f"{self._path}: answered {status}")

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        address = Address(self._path)
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(path=address.text), trust_env=False
                ) as session,
                session.post(
                    _URL,
                    data=body,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                return response.status, await response.content.read(MAX_ANSWER)
        finally:
            address.close()
