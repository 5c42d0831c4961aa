"""What an operator asks of the ledger itself: to erase a subject, and to count the openings.

While the ledger runs, it is asked on a socket of its own, `run/ledger-operate.sock`, that admits
the ledger's user alone: one connection, one line of JSON, one line in answer. A ledger that is
stopped is opened for the occasion, through the same start gate.

An erasure is recorded first and done then. A crash in between leaves an act that the next start
repeats, never openings that vanished without one.
"""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from envelock_formats import canonical
from envelock_formats.canonical import CanonicalError, Json
from envelock_ledger.commitments import Opening
from envelock_ledger.entry import Committed, Entry
from envelock_ledger.erasing import FIELD, PAGE, TOPIC, TYPE, Census, marked
from envelock_ledger.errors import (
    DamageError,
    LedgerError,
    LedgerUnavailableError,
    LedgerUsageError,
)
from envelock_ledger.log import Log
from envelock_ledger.place import found
from envelock_ledger.record import NO_TENANT, VERSION, encode_body
from envelock_ledger.settings import OPERATING_ROLE, load, socket_path
from envelock_ledger.store.files import Lock
from envelock_ledger.writer import Writer
from envelock_service.sockets import Address, SocketError, peer_uid

MAX_MARKS = 1000  # of one record
MAX_REASON = 200  # characters
MAX_LINE = 64 << 10  # bytes of a request or an answer
ASKING_SECONDS = 600.0
HEARING_SECONDS = 10.0


class Erase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="erase"):
    """Forget what opens the records of a subject."""

    subject: Any  # as records hide it: [issuer, subject]
    reason: str = ""


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="count"):
    """Count the openings."""


class Erased(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="erased"):
    """How many records lost their openings, and which records say so."""

    openings: int
    records: list[int] = []


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="counted"):
    """The openings."""

    census: Census


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """The request failed: the `code` of the error, its message and its hint."""

    code: str
    message: str
    hint: str | None


Request = Erase | Count
Answer = Erased | Counted | Failed
_ERRORS = {error.code: error for error in (DamageError, LedgerUnavailableError, LedgerUsageError)}


async def erase_subject(writer: Writer, subject: Json, reason: str) -> Erased:
    """Forget every opening of records whose `sub` opens to *subject*; it is recorded first.

    Records that are appended meanwhile may keep theirs. Copies that left the ledger are not
    reached: receipts, backups, what was disclosed.

    Args:
        writer: The open ledger.
        subject: As records hide it: `[issuer, subject]`.
        reason: Why, readable for ever: at most 200 printable characters; empty for none.

    Raises:
        LedgerUsageError: The reason cannot be recorded.
        LedgerError: The ledger failed; what is on record is repeated at its next start.
    """
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise LedgerUsageError("the reason is at most 200 printable characters")
    wanted = await _find(writer, subject)
    records: list[int] = []
    for start in range(0, len(wanted), MAX_MARKS):
        part = dict(wanted[start : start + MAX_MARKS])
        [outcome] = await writer.append([Entry(_body(sorted(part.values()), reason))])
        if not isinstance(outcome, Committed):
            raise LedgerError(f"the erasure was not recorded: {outcome}")
        records.append(outcome.receipt.index)
        await writer.ask(partial(_forget, indexes=list(part)))
    return Erased(len(wanted), records)


async def listen(bound: socket.socket, writer: Writer) -> asyncio.Server:
    """Answer operators on *bound* until the server that is returned is closed."""
    return await asyncio.start_unix_server(partial(_hear, writer), sock=bound, limit=MAX_LINE)


async def ask(path: Path, request: Request) -> Answer:
    """Ask the ledger whose socket is at *path*.

    Raises:
        LedgerUnavailableError: It does not answer.
        LedgerError: It refused, or failed.
    """
    try:
        address = Address(path)
        try:
            async with asyncio.timeout(ASKING_SECONDS):
                reader, sender = await asyncio.open_unix_connection(address.text, limit=MAX_LINE)
                sender.write(msgspec.json.encode(request) + b"\n")
                line = await reader.readline()
                sender.close()
        finally:
            address.close()
        answer: Answer = msgspec.json.decode(line, type=Answer)
    except (OSError, ValueError, SocketError) as error:
        raise LedgerUnavailableError(f"no answer at {path}: {error}") from error
    if isinstance(answer, Failed):
        raise _ERRORS.get(answer.code, LedgerError)(answer.message, answer.hint)
    return answer


def erase(data: Path, subject: Json, reason: str) -> Erased:
    """Erase a subject in the ledger of the data directory *data*, running or stopped.

    Raises:
        LedgerUsageError: There is no ledger.
        LedgerError: It failed; what is on record is repeated at the next start.
    """
    place = load(data).place(data)
    if not place.database.exists():
        raise LedgerUsageError(f"no ledger in {data}", "name the data directory with --data")
    path = socket_path(data, OPERATING_ROLE)
    try:
        lock = Lock(place.lock)
    except LedgerUnavailableError:
        if not path.exists():
            raise
        answer = asyncio.run(ask(path, Erase(subject, reason)))
    else:
        try:
            answer = asyncio.run(_alone(data, Erase(subject, reason)))
        finally:
            lock.release()
    if not isinstance(answer, Erased):
        raise LedgerUnavailableError("the ledger answered something else")
    return answer


async def _alone(data: Path, request: Erase) -> Erased:
    place = load(data).place(data)
    writer = await Writer.start(place, found(place, os.urandom), _now_us)
    try:
        return await erase_subject(writer, request.subject, request.reason)
    finally:
        await writer.aclose()


async def _hear(writer: Writer, reader: asyncio.StreamReader, sender: asyncio.StreamWriter) -> None:
    try:
        # SECURITY: the mode of the socket says so already; the kernel's word also covers a socket
        # that somebody made accessible.
        if peer_uid(sender.get_extra_info("socket")) != os.geteuid():
            return
        async with asyncio.timeout(HEARING_SECONDS):
            line = await reader.readline()
        sender.write(msgspec.json.encode(await _answer(writer, line)) + b"\n")
        await sender.drain()
    except (OSError, ValueError):
        return  # it hung up, or said too much; there is nobody to tell
    finally:
        sender.close()


async def _answer(writer: Writer, line: bytes) -> Answer:
    try:
        match msgspec.json.decode(line, type=Request):
            case Erase(subject, reason):
                return await erase_subject(writer, subject, reason)
            case _:
                return Counted(await writer.ask(lambda log: log.census()))
    except LedgerError as error:
        return Failed(error.code, str(error), error.hint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Failed("usage", str(error), None)


async def _find(writer: Writer, subject: Json) -> list[tuple[int, str]]:
    """Index and mark of every record that hides *subject*."""
    try:
        canonical.encode(subject)
    except CanonicalError as error:
        raise LedgerUsageError(f"no record can hide such a subject: {error}") from error
    wanted: list[tuple[int, str]] = []
    start = 0
    while page := await writer.ask(partial(_page, start=start)):
        wanted += marked([one for one in page if _names(one[1], subject)])
        start = page[-1][0] + 1
    return wanted


def _page(log: Log, start: int) -> list[tuple[int, tuple[Opening, ...]]]:
    return log.disclosures.page(start, PAGE)


def _forget(log: Log, indexes: Sequence[int]) -> None:
    log.disclosures.forget(indexes)


def _names(openings: Sequence[Opening], subject: Json) -> bool:
    return any(one.field == FIELD and one.value == subject for one in openings)


def _body(marks: list[str], reason: str) -> bytes:
    fields: dict[str, Json] = {
        "id": f"erased-{os.urandom(16).hex()}",
        "marks": list(marks),
        "tn": NO_TENANT,
        "topic": TOPIC,
        "ts": _now_us(),
        "typ": TYPE,
        "v": VERSION,
    }
    if reason:
        fields["rsn"] = reason
    return encode_body(fields, {}, bytes)[0]


def _now_us() -> int:
    return time.time_ns() // 1000
