"""The writer, offered on Unix sockets: one for every role.

A role says who may do what: append at all, touch which topics, move which fences, see openings.
Who may connect is decided by the socket's mode and by the user id that the kernel reports.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import msgspec

from envelock_ledger import wire
from envelock_ledger.entry import Outcome
from envelock_ledger.errors import LedgerError, LedgerUnavailableError, LedgerUsageError
from envelock_ledger.sequence import Prepared, prepare
from envelock_ledger.writer import Writer
from envelock_service.sockets import peer_uid

ANY = "*"
CHUNK = 1 << 20  # bytes of a snapshot in one answer
COPY_NAME = "copy.db"
_REQUESTS = msgspec.msgpack.Decoder(wire.Requests)


@dataclass(frozen=True, slots=True)
class Role:
    """What the clients of one socket may do; everybody may read records without openings."""

    name: str
    append: bool = False
    openings: bool = False  # see what opens hidden fields
    topics: tuple[str, ...] = ()  # that its records may carry; "*" for all
    moves: tuple[str, ...] = ()  # beginnings of fence names that its records may move; "*" for all
    uids: frozenset[int] = frozenset()  # who may connect, beside the server's own user

    def admit(self, prepared: Prepared) -> None:
        """Raise `LedgerUsageError` unless this role may append the record."""
        if not self.append:
            raise LedgerUsageError(f"role {self.name} may not append")
        body = prepared.body
        if body.topic is not None and not self._may(self.topics, body.topic.__eq__):
            raise LedgerUsageError(f"role {self.name} may not write to topic {body.topic!r}")
        for name in body.moves:
            if not self._may(self.moves, name.startswith):
                raise LedgerUsageError(f"role {self.name} may not move fence {name!r}")

    @staticmethod
    def _may(allowed: tuple[str, ...], fits: Callable[[str], bool]) -> bool:
        return any(one == ANY or fits(one) for one in allowed)


@dataclass(slots=True)
class Server:
    """Serves one writer on one or more bound sockets.

    Args:
        writer: The open ledger.
        scratch: A folder for snapshots that are being sent; files in it have no name for long.
    """

    writer: Writer
    scratch: Path
    _servers: list[asyncio.Server] = field(default_factory=list)
    _connections: set["Connection"] = field(default_factory=set)

    async def listen(self, bound: socket.socket, role: Role) -> None:
        """Accept connections on *bound* under *role*."""
        loop = asyncio.get_running_loop()
        factory = partial(Connection, self.writer, role, self.scratch, self._connections)
        self._servers.append(await loop.create_unix_server(factory, sock=bound))

    async def aclose(self) -> None:
        """Accept nothing more, answer what is under way, and hang up; the writer stays open."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            await connection.drain()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(
        self, writer: Writer, role: Role, scratch: Path, connections: set["Connection"]
    ) -> None:
        self._writer, self._role, self._scratch = writer, role, scratch
        self._connections = connections
        self._inbox = wire.Inbox()
        self._answers: wire.Answers = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._draining = False
        self._copy: int | None = None  # descriptor of this connection's snapshot
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up at once on users who may not connect."""
        stream = cast("asyncio.Transport", transport)  # uvloop's is not a subclass of it
        peer = stream.get_extra_info("socket")
        if peer_uid(peer) not in {os.geteuid(), *self._role.uids}:
            stream.abort()
            return
        self._transport = stream
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Forget the client and its snapshot."""
        self._connections.discard(self)
        self._transport = None
        for task in self._tasks:
            task.cancel()
        self._drop_copy()

    def data_received(self, data: bytes) -> None:
        """Begin every request that is complete."""
        if self._transport is None or self._draining:
            return
        try:
            for frame in self._inbox.feed(data):
                for number, request in _REQUESTS.decode(frame):
                    self._begin(number, request)
        except (msgspec.MsgspecError, UnicodeDecodeError, LedgerUnavailableError):
            self._transport.abort()  # not one of our clients

    async def drain(self) -> None:
        """Answer what is under way, then hang up."""
        self._draining = True
        if self._under_way:
            await self._idle.wait()
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _begin(self, number: int, request: wire.Request) -> None:
        self._under_way += 1
        if isinstance(request, wire.Append):
            try:
                entries = self._prepared(request)
            except LedgerError as error:
                self._reply(number, _failed(error))
            else:
                self._writer.submit(entries, partial(self._appended, number))
            return
        task = self._loop.create_task(self._answer(number, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _prepared(self, request: wire.Append) -> list[Prepared]:
        entries = [prepare(wire.unpack_entry(entry)) for entry in request.entries]
        for entry in entries:
            self._role.admit(entry)
        return entries

    def _appended(self, number: int, result: list[Outcome] | LedgerError) -> None:
        if isinstance(result, LedgerError):
            self._reply(number, _failed(result))
        else:
            self._reply(number, wire.pack_outcomes(result, openings=self._role.openings))

    async def _answer(self, number: int, request: wire.Request) -> None:
        try:
            answer = await self._ask(request)
        except LedgerError as error:
            answer = _failed(error)
        self._reply(number, answer)

    async def _ask(self, request: wire.Request) -> wire.Answer:
        writer = self._writer
        match request:
            case wire.Fences() | wire.Probe() | wire.Copy():
                return wire.Numbers(await self._numbers(request))
            case wire.Head():
                return wire.Text(await writer.head())
            case wire.Find(record_id):
                found = await writer.find(record_id)
                receipts = [] if found is None else [found]
            case wire.Prove(index, seen):
                receipts = [await writer.prove(index, seen)]
            case wire.Topic(name, since):
                receipts = await writer.topic(name, since)
            case wire.Records(start, stop):
                return wire.Many(await writer.records(start, stop))
            case wire.Chunk(offset):
                return wire.Raw(self._read_copy(offset))
            case _:
                raise LedgerUsageError("no such question")
        note = receipts[0].checkpoint if receipts else ""
        openings = self._role.openings
        return wire.Receipts(note, [wire.pack_receipt(r, openings=openings) for r in receipts])

    async def _numbers(self, request: wire.Fences | wire.Probe | wire.Copy) -> dict[str, int]:
        match request:
            case wire.Fences(names):
                return await self._writer.fences(names)
            case wire.Probe():
                return await self._writer.probe()
            case wire.Copy():
                return {"size": await self._make_copy()}

    async def _make_copy(self) -> int:
        """Make a snapshot that only this connection can read; its size in bytes."""
        self._drop_copy()
        path = self._scratch / f"{id(self)}-{COPY_NAME}"
        await self._writer.snapshot(path)
        self._copy = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        path.unlink()
        return os.fstat(self._copy).st_size

    def _read_copy(self, offset: int) -> bytes:
        if self._copy is None or offset < 0:
            raise LedgerUsageError("no snapshot was made on this connection")
        return os.pread(self._copy, CHUNK, offset)

    def _drop_copy(self) -> None:
        if self._copy is not None:
            os.close(self._copy)
            self._copy = None

    def _reply(self, number: int, answer: wire.Answer) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
        if not self._answers:
            self._loop.call_soon(self._flush)
        self._answers.append((number, answer))

    def _flush(self) -> None:
        """Send whatever was answered since the last turn of the loop, as one frame."""
        answers, self._answers = self._answers, []
        if not answers or self._transport is None:
            return
        try:
            self._transport.write(wire.frame(answers))
        except LedgerUnavailableError as error:
            if len(answers) == 1:
                self._transport.write(wire.frame([(answers[0][0], _failed(error))]))
                return
            for answer in answers:
                self._answers = [answer]
                self._flush()


def _failed(error: LedgerError) -> wire.Failed:
    return wire.Failed(error.code, str(error), error.hint)
