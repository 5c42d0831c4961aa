"""The ledger in one SQLite file.

The write-ahead log with `synchronous=FULL` makes a commit one append and one fsync. Locking is
exclusive, so no second connection of any process can open the file while the writer lives; some
SQLite versions can lose commits when two connections write and check-point (fixed in 3.51.3).

Strata: of the nodes above the leaves only tree levels 8, 16, 24, ... are stored. That is one row
for 256 records, a fraction of a percent of the writes, and a proof for an old record reads one
range of at most 256 hashes for every eight levels.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envelock_ledger.errors import DamageError, LedgerUnavailableError, LedgerUsageError
from envelock_ledger.store import Batch, Head, Row, SpentRow, TenantHead
from envelock_ledger.store.files import FILE_MODE, Pinned, create_or_refuse

if TYPE_CHECKING:
    from sqlite_utils import Database

SCHEMA = 1
BUSY_SECONDS = 1.0  # to wait for another program that has the file open
IDLE_BYTES = 1 << 20  # of records since the last check-point: do one when nobody waits
BUSY_BYTES = 16 << 20  # do one although somebody waits
BATCH_BYTES = 16 << 10  # pages that a batch rewrites whatever its size
_MAX_VARIABLES = 30_000
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")
_UNCHANGING = """
CREATE TRIGGER entry_unchanged BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'records are never changed'); END;
CREATE TRIGGER entry_kept BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'records are never removed'); END;
"""


class SqliteStore:
    """A `Store` in one file, used by one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, pin: Pinned | None) -> None:
        self.path, self._connection, self._pin = path, connection, pin
        self._written = 0  # bytes since the last check-point, about

    @classmethod
    def open(cls, path: Path, *, create: bool) -> "SqliteStore":
        """Open the live database at *path*; the caller holds the folder's lock.

        A missing file is created on request only: an empty one beside the write-ahead log of the
        lost one would make SQLite discard that log.

        Raises:
            LedgerUnavailableError: The file cannot be opened, or somebody else has it open.
            DamageError: It is missing, or not a ledger of this version.
        """
        with _errors(path):
            create_or_refuse(path, create=create)
            connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            with _closed_on_failure(connection):
                for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                    connection.execute(f"PRAGMA {pragma}").fetchall()
                connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
                connection.execute("BEGIN IMMEDIATE").connection.execute("COMMIT")
                _prepare(connection)
        return cls(path, connection, Pinned(path))

    @classmethod
    def read(cls, path: Path) -> "SqliteStore":
        """Open a copy, or a database whose writer is stopped, without changing a byte of it.

        Raises:
            LedgerUsageError: There is no such file.
            DamageError: It is not a ledger of this version.
        """
        if not path.is_file():
            raise LedgerUsageError(f"no ledger at {path}", "name a snapshot, or a data directory")
        # `immutable` would ignore a write-ahead log, and with it the last records.
        lasting = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
        with _errors(path):
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro{lasting}", uri=True, isolation_level=None
            )
            _check_version(connection)
        return cls(path, connection, None)

    @classmethod
    def copy_at(cls, path: Path) -> "SqliteStore":
        """Create a database that `finish` makes durable as a whole; it must not exist."""
        with _errors(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            _prepare(connection)
        return cls(path, connection, None)

    def finish(self, checkpoint: str) -> None:
        """Put the signed *checkpoint* into a copy, and make the whole durable."""
        with _errors(self.path):
            self._connection.execute("INSERT INTO checkpoint VALUES (0, ?)", (checkpoint,))
            self._connection.close()
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def head(self) -> Head | None:
        """Where the log ends; None before genesis."""
        found = self._one("SELECT size, prior, root, sequenced_us FROM state")
        if found is None:
            return None
        if [type(value) for value in found] != [int, int, bytes, int]:
            raise DamageError(f"{self.path}: table state is malformed")
        return Head(*found)

    def write(self, batch: Batch) -> None:
        """Write *batch* in one durable transaction."""
        if self._pin is not None:
            self._pin.check()
        with _errors(self.path):
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            self._insert(batch)
            head = batch.head
            run(
                "INSERT OR REPLACE INTO state VALUES (0, ?, ?, ?, ?)",
                (head.size, head.prior, head.root, head.sequenced_us),
            )
            run("COMMIT")
        if self._pin is not None:
            self._pin.check()
        self._written += BATCH_BYTES + 2 * sum(len(row.body) for row in batch.rows)

    def _insert(self, batch: Batch) -> None:
        many = self._connection.executemany
        many("INSERT INTO entry VALUES (?, ?, ?, ?)", batch.rows)
        many(
            "INSERT OR REPLACE INTO tenant VALUES (?, ?, ?)",
            [(name, head.leaf, head.position) for name, head in batch.tenants.items()],
        )
        if batch.strata:
            many("INSERT INTO stratum VALUES (?, ?, ?)", batch.strata)
        if batch.fences:
            many("INSERT OR REPLACE INTO fence VALUES (?, ?)", list(batch.fences.items()))
        if batch.topics:
            many("INSERT INTO topic VALUES (?, ?)", batch.topics)
        if batch.spent:
            many("INSERT INTO spent VALUES (?, ?, ?)", batch.spent)
        if batch.forgotten:
            many("DELETE FROM spent WHERE id = ?", [(row,) for row in batch.forgotten])

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Records with `start <= index < stop`, in order."""
        with _errors(self.path):
            for found in self._connection.execute(
                "SELECT idx, leaf, rid, body FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx",
                (start, stop),
            ):
                yield Row(*found)

    def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Stored nodes of a tree level, in order."""
        if level == 0:
            sql = "SELECT leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx"
            return [leaf for (leaf,) in self._all(sql, (start, stop))]
        sql = "SELECT hash FROM stratum WHERE level = ? AND n >= ? AND n < ? ORDER BY n"
        return [node for (node,) in self._all(sql, (level, start, stop))]

    def find(self, record_ids: Sequence[str]) -> dict[str, int]:
        """Indexes of those of *record_ids* that are stored."""
        found: dict[str, int] = {}
        for start in range(0, len(record_ids), _MAX_VARIABLES):
            some = record_ids[start : start + _MAX_VARIABLES]
            marks = ",".join("?" * len(some))
            sql = f"SELECT rid, idx FROM entry WHERE rid IN ({marks})"  # noqa: S608 - marks only
            found.update(self._all(sql, some))
        return found

    def topic(self, name: str, since: int, limit: int) -> list[int]:
        """Indexes of records of a topic, in order."""
        sql = "SELECT idx FROM topic WHERE topic = ? AND idx >= ? ORDER BY idx LIMIT ?"
        return [index for (index,) in self._all(sql, (name, since, limit))]

    def tenants(self) -> dict[str, TenantHead]:
        """The end of every tenant's chain."""
        found = self._all("SELECT tenant, leaf, position FROM tenant")
        return {name: TenantHead(leaf, position) for name, leaf, position in found}

    def fences(self) -> dict[str, int]:
        """Every fence that was ever moved."""
        return dict(self._all("SELECT name, number FROM fence"))

    def topics(self) -> Iterator[tuple[str, int]]:
        """Every topic with the index of each of its records."""
        yield from self._each("SELECT topic, idx FROM topic ORDER BY idx")

    def strata(self) -> Iterator[tuple[int, int, bytes]]:
        """Every stored node above the leaves."""
        yield from self._each("SELECT level, n, hash FROM stratum ORDER BY level, n")

    def spent(self) -> Iterator[SpentRow]:
        """Every name that is kept as used."""
        for found in self._each("SELECT id, expires, names FROM spent ORDER BY id"):
            yield SpentRow(*found)

    def check(self) -> None:
        """Compare every index with its table, and look for rows that were lost."""
        for (complaint,) in self._all("PRAGMA integrity_check(1)"):
            if complaint != "ok":
                raise DamageError(f"{self.path}: {complaint}", _RESTORE)

    def checkpoint(self) -> str | None:
        """The signed checkpoint inside a copy."""
        found = self._one("SELECT note FROM checkpoint")
        return None if found is None else str(found[0])

    def tidy(self, *, idle: bool) -> None:
        """Move the write-ahead log into the database: often when idle, seldom under load."""
        if self._written < (IDLE_BYTES if idle else BUSY_BYTES):
            return
        with _errors(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._written = 0

    def close(self) -> None:
        """Give the file back."""
        # Closing moves the write-ahead log into the database; on a full disk that fails, and the
        # log stays where the next start finds it.
        self._connection.close()

    def _each(self, sql: str) -> Iterator[Any]:
        with _errors(self.path):
            # Through `iter`, as `yield from` a cursor closes it, perhaps after its connection.
            yield from iter(self._connection.execute(sql).fetchone, None)

    def _all(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with _errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str) -> "tuple[Any, ...] | None":
        found = self._all(sql)
        return found[0] if found else None


@contextmanager
def _closed_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    """Give the file back when it cannot be used, for whoever tries again."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection) -> None:
    """Create the tables in a file that has none; otherwise check whose they are."""
    if connection.execute("PRAGMA user_version").fetchone() == (0,):
        _create(connection)
    _check_version(connection)


def _check_version(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA:
        raise DamageError(f"not a ledger of schema {SCHEMA}: its version is {version}")


def _create(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database  # noqa: PLC0415 - readers of a ledger need not install it

    connection.execute("BEGIN IMMEDIATE")
    _tables(Database(connection))
    for statement in _UNCHANGING.strip().split("END;\n"):
        connection.execute(statement if statement.endswith(";") else f"{statement}END;")
    connection.execute(f"PRAGMA user_version={SCHEMA}")
    connection.execute("COMMIT")


def _tables(database: "Database") -> None:
    create: Callable[..., object] = database.create_table
    required = {"leaf", "rid", "body"}
    columns = {"idx": int, "leaf": bytes, "rid": str, "body": bytes}
    create("entry", columns, pk="idx", not_null=required, strict=True)
    database.table("entry").create_index(["rid"], unique=True)
    columns = {"level": int, "n": int, "hash": bytes}
    create("stratum", columns, pk=("level", "n"), not_null=set(columns), strict=True)
    columns = {"one": int, "size": int, "prior": int, "root": bytes, "sequenced_us": int}
    create("state", columns, pk="one", not_null=set(columns), strict=True)
    columns = {"tenant": str, "leaf": bytes, "position": int}
    create("tenant", columns, pk="tenant", not_null=set(columns), strict=True)
    create("fence", {"name": str, "number": int}, pk="name", not_null={"number"}, strict=True)
    create("topic", {"topic": str, "idx": int}, pk=("topic", "idx"), strict=True)
    columns = {"id": int, "expires": int, "names": bytes}
    create("spent", columns, pk="id", not_null={"names"}, strict=True)
    create("checkpoint", {"one": int, "note": str}, pk="one", not_null={"note"}, strict=True)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Tell a database that cannot be used now from one that is not what it should be."""
    try:
        yield
    except OSError as error:
        raise LedgerUnavailableError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DamageError(f"{path}: a text is not UTF-8") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_PASSING):
            raise LedgerUnavailableError(f"{path}: {error}", _HINTS.get(name)) from error
        raise DamageError(f"{path}: {error}", _RESTORE) from error


_RESTORE = "compare it with a copy, then restore"
_HINTS = {
    "SQLITE_FULL": "free space on the disk; the ledger goes on by itself",
    "SQLITE_BUSY": "close the other program that has it open",
}
