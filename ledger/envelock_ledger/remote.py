"""A client of the ledger's process, over its Unix socket.

Whatever waits at one turn of the event loop travels as one frame, so that many callers share a
batch. A lost connection is made again for the next request; requests that were under way fail with
`LedgerUnavailableError`, because what became of them is unknown.
"""

import asyncio
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from envelock_ledger import wire
from envelock_ledger.entry import Entry, Outcome
from envelock_ledger.errors import (
    DamageError,
    LedgerError,
    LedgerUnavailableError,
    LedgerUsageError,
    ProofError,
    RecordError,
)
from envelock_ledger.proof import Receipt
from envelock_ledger.store.files import FILE_MODE, refuse_existing, settle
from envelock_service.sockets import Address, SocketError

TIMEOUT_SECONDS = 10.0
COPY_SECONDS = 600.0
_ERRORS = {
    error.code: error
    for error in (DamageError, LedgerUnavailableError, LedgerUsageError, ProofError, RecordError)
}
_ANSWERS = msgspec.msgpack.Decoder(wire.Answers)
A = TypeVar("A", bound=wire.Answer)


class LedgerClient:
    """The ledger, from another process; belongs to the event loop it is made in.

    Args:
        path: The socket of a role.
        timeout_seconds: How long an answer may take before its outcome counts as unknown.
    """

    def __init__(self, path: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path, self._timeout = path, timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._unsent: wire.Requests = []
        self._waiting: dict[int, asyncio.Future[wire.Answer]] = {}
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Append *entries*; one outcome each, in order.

        Raises:
            RecordError: An entry is malformed; then none of this call was appended.
            LedgerUsageError: The role may not append one of them; then none was.
            LedgerUnavailableError: The outcome is unknown.
        """
        request = wire.Append([wire.pack_entry(entry) for entry in entries])
        return wire.unpack_outcomes(await self._ask(request, wire.Outcomes), entries)

    async def fences(self, names: Sequence[str]) -> dict[str, int]:
        """Numbers of fences; one that was never moved has 0."""
        return (await self._ask(wire.Fences(list(names)), wire.Numbers)).numbers

    async def find(self, record_id: str) -> Receipt | None:
        """Receipt of the record with this id; None when there is none."""
        found = await self._receipts(wire.Find(record_id))
        return found[0] if found else None

    async def prove(self, index: int, seen: int | None = None) -> Receipt:
        """Receipt of the record at *index*; `LedgerUsageError` when there is none."""
        return (await self._receipts(wire.Prove(index, seen)))[0]

    async def topic(self, name: str, since: int) -> list[Receipt]:
        """Receipts of a topic's records from index *since* on, in order, at most 1,000."""
        return await self._receipts(wire.Topic(name, since))

    async def head(self) -> str:
        """The latest signed checkpoint."""
        return (await self._ask(wire.Head(), wire.Text)).text

    async def records(self, start: int, stop: int) -> list[bytes]:
        """Bytes of records `start <= index < stop`, at most 200; fewer where the log ends."""
        return (await self._ask(wire.Records(start, stop), wire.Many)).items

    async def probe(self) -> dict[str, int]:
        """As `Writer.probe`."""
        return (await self._ask(wire.Probe(), wire.Numbers)).numbers

    async def snapshot(self, path: Path) -> None:
        """Fetch a copy without openings to *path*, which must not exist.

        Raises:
            LedgerUsageError: *path* exists.
            LedgerUnavailableError: The copy could not be made or written.
        """
        refuse_existing(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            await self._fetch(partial)
            settle(partial, path)
        except OSError as error:
            raise LedgerUnavailableError(f"{path}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    async def aclose(self) -> None:
        """Hang up; whoever still waits learns that the outcome is unknown."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.transport.abort()
        self._fail("the client was closed")

    async def _fetch(self, partial: Path) -> None:
        size = (await self._ask(wire.Copy(), wire.Numbers, COPY_SECONDS)).numbers["size"]
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, FILE_MODE), "wb") as file:
            while file.tell() < size:
                raw = (await self._ask(wire.Chunk(file.tell()), wire.Raw)).raw
                if not raw:
                    raise LedgerUnavailableError("the snapshot ended early")
                file.write(raw)
            file.flush()
            os.fsync(file.fileno())

    async def _receipts(self, request: wire.Request) -> list[Receipt]:
        answer = await self._ask(request, wire.Receipts)
        return [wire.unpack_receipt(receipt, answer.note) for receipt in answer.receipts]

    async def _ask(self, request: wire.Request, shape: type[A], seconds: float = 0) -> A:
        if self._closed:
            raise LedgerUnavailableError("the client was closed")
        number = next(self._numbers)
        future: asyncio.Future[wire.Answer] = self._loop.create_future()
        self._waiting[number] = future
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append((number, request))
        late = self._loop.call_later(seconds or self._timeout, self._expire, number)
        try:
            answer = await future
        finally:
            late.cancel()
            self._waiting.pop(number, None)
        if isinstance(answer, wire.Failed):
            raise _ERRORS.get(answer.code, LedgerError)(answer.message, answer.hint)
        if not isinstance(answer, shape):
            raise LedgerUnavailableError("the ledger answered something else")
        return answer

    def _send(self) -> None:
        """Send what was asked since the last turn of the loop, as one frame."""
        if self._closed or not self._unsent:
            return
        if self._link is None:
            if self._connecting is None:
                self._connecting = self._loop.create_task(self._connect())
            return
        unsent, self._unsent = self._unsent, []
        self._write(unsent)

    def _write(self, requests: wire.Requests) -> None:
        if self._link is None:
            return
        try:
            self._link.transport.write(wire.frame(requests))
        except LedgerUnavailableError as error:
            if len(requests) == 1:
                self._settle(requests[0][0], RecordError(f"entries too long: {error}"))
                return
            middle = len(requests) // 2
            self._write(requests[:middle])
            self._write(requests[middle:])

    async def _connect(self) -> None:
        try:
            address = Address(self._path)
            try:
                async with asyncio.timeout(self._timeout):
                    _, self._link = await self._loop.create_unix_connection(
                        lambda: _Link(self), address.text
                    )
            finally:
                address.close()
        except (OSError, SocketError) as error:
            self._unsent.clear()
            self._fail(f"no ledger at {self._path}: {error}", "start it: envelock up")
        finally:
            self._connecting = None
        self._send()

    def received(self, number: int, answer: wire.Answer) -> None:
        """Hand an answer to whoever waits for it."""
        self._settle(number, answer)

    def lost(self) -> None:
        """The connection ended."""
        self._link = None
        unsent = {number for number, _ in self._unsent}
        for number in list(self._waiting.keys() - unsent):
            self._settle(number, LedgerUnavailableError("connection lost, the outcome is unknown"))

    def _expire(self, number: int) -> None:
        self._settle(number, LedgerUnavailableError("no answer in time, the outcome is unknown"))

    def _fail(self, message: str, hint: str | None = None) -> None:
        for number in list(self._waiting):
            self._settle(number, LedgerUnavailableError(message, hint))

    def _settle(self, number: int, result: wire.Answer | LedgerError) -> None:
        future = self._waiting.get(number)
        if future is None or future.done():
            return
        if isinstance(result, LedgerError):
            future.set_exception(result)
        else:
            future.set_result(result)


class _Link(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, client: LedgerClient) -> None:
        self._client, self._inbox = client, wire.Inbox()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._inbox.feed(data):
                for number, answer in _ANSWERS.decode(frame):
                    self._client.received(number, answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, LedgerUnavailableError):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._client.lost()
