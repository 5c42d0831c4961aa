"""Exports: a copy for auditors as lines of text, which need no SQLite and none of our code.

The first line holds the signed checkpoint; every other is one record, its bytes as they were
hashed, with its index and its leaf hash in front. Records are verified on their way out and on
their way in, so that a line that does not fit is named with its index.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from envelock_formats import canonical
from envelock_formats.canonical import CanonicalError
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.copying import Copy, Rows
from envelock_ledger.errors import DamageError, LedgerUnavailableError, RecordError
from envelock_ledger.note import Note
from envelock_ledger.record import MAX_RECORD, read_canonical
from envelock_ledger.store import Head, Row
from envelock_ledger.store.files import FILE_MODE, refuse_existing, settle
from envelock_ledger.verify import Tally

FORMAT = "envelock-export/1"
MAGIC = b'{"checkpoint":'  # how a file begins that is one
MAX_FIRST = 1 << 20  # bytes of the first line
MAX_LINE = MAX_RECORD + 128  # bytes: a record, and what stands around it
_LINE = re.compile(
    rb'\{"index":(0|[1-9][0-9]{0,15}),"leaf":"([0-9a-f]{64})","record":(\{.*\})\}\n\Z', re.DOTALL
)


def write_export(source: Rows, note: str, path: Path) -> int:
    """Write the records that *note*, a signed checkpoint, covers to *path*; how many there are.

    The signature is not checked.

    Raises:
        LedgerUsageError: Something is at *path* already.
        LedgerUnavailableError: The file cannot be written.
        DamageError: A record does not verify, or the root is not the one that was signed.
    """
    refuse_existing(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, FILE_MODE), "wb") as file:
            for line in _lines(source, note):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        settle(partial, path)
    except OSError as error:
        raise LedgerUnavailableError(f"{path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return _head(note).size


def is_export(path: Path) -> bool:
    """Whether the file at *path* begins as an export; False when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def import_export(path: Path, into: Path) -> None:
    """Make a snapshot at *into* of the export at *path*, so that all commands read it.

    The signature is not checked.

    Raises:
        DamageError: A record does not verify, or the root is not the one that was signed.
        ProofError: There is no checkpoint in it.
        LedgerUnavailableError: A file cannot be read or written.
    """
    try:
        with path.open("rb") as file:
            note = _note(path, file.readline(MAX_FIRST))
            copy = Copy(
                _Lines(_rows(iter(lambda: file.readline(MAX_LINE), b""))), _head(note), note, into
            )
            try:
                while not copy.step():
                    pass
            except BaseException:
                copy.abandon()
                raise
            if file.read(1):
                raise DamageError(f"{path}: more follows than its checkpoint covers")
    except OSError as error:
        raise LedgerUnavailableError(f"{path}: {error.strerror}") from error


class _Lines:
    """Rows of an export, which are asked for in order."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """The next `stop - start` records."""
        for _, row in zip(range(start, stop), self._rows, strict=False):
            yield row


def _lines(source: Rows, note: str) -> Iterator[bytes]:
    tally, head = Tally(), _head(note)
    yield _first(note)
    for row in source.rows(0, head.size):
        tally.add(row)
        leaf = row.leaf.hex().encode()
        yield b'{"index":%d,"leaf":"%b","record":%b}\n' % (row.number, leaf, row.body)
    if (tally.size, tally.root) != (head.size, head.root):
        raise DamageError("records are not those that were signed", "run: envelock ledger verify")


def _first(note: str) -> bytes:
    return canonical.encode({"checkpoint": note, "format": FORMAT}) + b"\n"


def _rows(lines: Iterator[bytes]) -> Iterator[Row]:
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            raise DamageError(f"record {number}: malformed line", index=number, column="body")
        body = found[3]
        yield Row(int(found[1]), bytes.fromhex(found[2].decode()), _record_id(body), body)


def _record_id(body: bytes) -> str:
    try:
        return read_canonical(body).id
    except RecordError:
        return ""  # what is wrong is said when the record is verified


def _note(path: Path, line: bytes) -> str:
    try:
        told = canonical.parse(line, max_bytes=MAX_FIRST)
    except CanonicalError as error:
        raise DamageError(f"{path}: malformed first line") from error
    match told:
        case {"checkpoint": str() as note} if line == _first(note):
            return note
    raise DamageError(f"{path}: not an export of a version that is known here")


def _head(note: str) -> Head:
    checkpoint = Checkpoint.parse(Note.parse(note).text)
    return Head(checkpoint.size, 0, checkpoint.root)
