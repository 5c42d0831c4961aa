"""The openings of commitments, in a file of their own that can forget.

A row opens one record: a scheme byte and what follows. Scheme 0 is what `record.seal_openings`
encodes, readable by whoever reads the file; 255 stands alone, for openings that were erased. Rows
are committed before the records that they open, so a crash leaves rows without a record, never the
reverse; `collect` removes them at start.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envelock_ledger.commitments import Opening
from envelock_ledger.errors import DamageError, LedgerUnavailableError, RecordError
from envelock_ledger.record import unseal_openings
from envelock_ledger.store.files import Pinned, create_or_refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = 0  # scheme byte
ERASED = b"\xff"
Disclosed = tuple[int, bytes]  # index of the record, and its encoded openings


class Disclosures:
    """What opens the hidden fields of records, until it is erased. Used by one thread."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open the file at *path*.

        Raises:
            LedgerUnavailableError: It cannot be opened.
            DamageError: It is missing and not to be created, or is not such a file.
        """
        self._path = path
        with self._errors():
            create_or_refuse(path, create=create)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._begin()
            except BaseException:
                self._connection.close()
                raise
        self._pin = Pinned(path)

    def _begin(self) -> None:
        run = self._connection.execute
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            run(f"PRAGMA {pragma}").fetchall()
        run("PRAGMA secure_delete=ON").fetchall()
        run(
            "CREATE TABLE IF NOT EXISTS disclosure"
            " (idx INTEGER PRIMARY KEY, openings BLOB NOT NULL) STRICT"
        )

    def write(self, disclosed: Sequence[Disclosed]) -> None:
        """Add openings in one transaction; they are durable when this returns."""
        if not disclosed:
            return
        self._pin.check()
        rows = [(index, bytes([PLAIN]) + openings) for index, openings in disclosed]
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO disclosure VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")

    def read(self, index: int) -> tuple[Opening, ...]:
        """What still opens record *index*; nothing when it was erased."""
        with self._errors():
            found = self._connection.execute(
                "SELECT openings FROM disclosure WHERE idx = ?", (index,)
            ).fetchone()
        if found is None or found[0] == ERASED:
            return ()
        return _unsealed(index, found[0])

    def page(self, start: int, limit: int) -> list[tuple[int, tuple[Opening, ...]]]:
        """Openings of the first *limit* records from index *start* on that still have some."""
        sql = "SELECT idx, openings FROM disclosure WHERE idx >= ? AND openings != ? LIMIT ?"
        found = self._all(sql, start, ERASED, limit)
        return [(index, _unsealed(index, openings)) for index, openings in found]

    def indexes(self) -> set[int]:
        """Records that have openings, or had."""
        return {index for (index,) in self._all("SELECT idx FROM disclosure")}

    def size(self) -> int:
        """How many records have openings, or had."""
        [(size,)] = self._all("SELECT count(*) FROM disclosure")
        return int(size)

    def erased(self) -> int:
        """How many records had openings."""
        [(size,)] = self._all("SELECT count(*) FROM disclosure WHERE openings = ?", ERASED)
        return int(size)

    def check(self, hiding: Callable[[int], bool]) -> None:
        """Look for rows that were lost, or that claim to open another record.

        Not checked here: whether openings match; whoever verifies a receipt does. Rows that are
        missing are counted by `erasing`.

        Args:
            hiding: Whether the record at an index has commitments.

        Raises:
            DamageError: The table is damaged, or a row opens nothing.
        """
        with self._errors():
            run = self._connection.execute
            for (complaint,) in run("PRAGMA integrity_check(disclosure)").fetchall():
                if complaint != "ok":
                    raise DamageError(f"{self._path}: {complaint}")
            for (index,) in run("SELECT idx FROM disclosure"):
                if not hiding(index):
                    raise DamageError(f"{self._path}: row {index} opens nothing of its record")

    def collect(self, size: int) -> int:
        """Remove what opens records at *size* and beyond, which were never committed."""
        return self._delete("DELETE FROM disclosure WHERE idx >= ?", size)

    def forget(self, indexes: Iterable[int]) -> None:
        """Forget what opens the records at *indexes*, in the file and in its write-ahead log.

        That they had openings is kept. Copies that were disclosed or backed up are not reached.
        """
        self._pin.check()
        rows = [(ERASED, index) for index in indexes]
        with self._errors():
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            self._connection.executemany("UPDATE disclosure SET openings = ? WHERE idx = ?", rows)
            run("COMMIT")
            run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._errors():
            return self._connection.execute(sql, values).fetchall()

    def _delete(self, sql: str, value: int) -> int:
        with self._errors():
            removed = self._connection.execute(sql, (value,)).rowcount
            if removed:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return removed

    @contextmanager
    def _errors(self) -> "Iterator[None]":
        try:
            yield
        except OSError as error:
            raise LedgerUnavailableError(f"{self._path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DamageError(f"{self._path}: a text is not UTF-8") from error
        except sqlite3.OperationalError as error:
            raise LedgerUnavailableError(f"{self._path}: {error}") from error
        except sqlite3.Error as error:
            raise DamageError(f"{self._path}: {error}") from error


def _unsealed(index: int, stored: object) -> tuple[Opening, ...]:
    if not isinstance(stored, bytes) or stored[:1] != bytes([PLAIN]):
        raise DamageError(f"openings of record {index}: unknown scheme")
    try:
        return unseal_openings(stored[1:])
    except RecordError as error:
        raise DamageError(f"openings of record {index}: {error}") from error
