"""Snapshots: a copy for auditors, made while the writer goes on.

Records never change, so the first N of them are the same whenever they are read: a few hundred are
copied between two batches, and nobody waits for the rest. Every record is verified on its way, and
the root must be the one of the checkpoint that goes into the copy. Openings are not copied, nor
names that were spent.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from envelock_ledger.errors import DamageError, LedgerUnavailableError
from envelock_ledger.store import Batch, Head, Row
from envelock_ledger.store.files import refuse_existing, settle
from envelock_ledger.store.sqlite import SqliteStore
from envelock_ledger.verify import Tally

STEP = 256  # records between two batches


class Rows(Protocol):
    """Where records come from."""

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Records with `start <= index < stop`, in order."""


class Copy:
    """One snapshot in the making; owned by the thread that owns *source*."""

    def __init__(self, source: Rows, head: Head, note: str, path: Path) -> None:
        """Begin a copy of the records that *note*, a signed checkpoint of *head*, covers.

        Raises:
            LedgerUsageError: Something is at *path* already.
            LedgerUnavailableError: The copy cannot be created.
        """
        refuse_existing(path)
        self._source, self._head, self._note, self._path = source, head, note, path
        self._partial = path.with_name(f".{path.name}.partial")
        self._partial.unlink(missing_ok=True)
        self._target = SqliteStore.copy_at(self._partial)
        self._tally = Tally()

    def step(self) -> bool:
        """Copy some records; True when the snapshot is complete and in its place.

        Raises:
            DamageError: A record does not verify.
            LedgerUnavailableError: The copy cannot be written.
        """
        start = self._tally.size
        stop = min(start + STEP, self._head.size)
        rows = list(self._source.rows(start, stop))
        topics = len(self._tally.topics)
        for row in rows:
            self._tally.add(row)
        done = self._tally.size == self._head.size
        head = Head(stop, start, self._tally.root, self._tally.sequenced_us)
        self._target.write(
            Batch(
                rows=rows,
                head=head,
                strata=tuple(self._tally.spine.strata),
                topics=self._tally.topics[topics:],
                tenants=self._tally.tenants if done else {},
                fences=self._tally.fences if done else {},
            )
        )
        self._tally.spine.strata.clear()
        if done:
            self._finish()
        elif not rows:
            raise DamageError(f"record {start} is missing", index=start, column="idx")
        return done

    def _finish(self) -> None:
        if self._tally.root != self._head.root:
            raise DamageError("records do not have the root that was signed")
        self._target.finish(self._note)
        try:
            settle(self._partial, self._path)
        except OSError as error:
            raise LedgerUnavailableError(f"{self._path}: {error.strerror}") from error

    def abandon(self) -> None:
        """Remove what was copied so far."""
        self._target.close()
        self._partial.unlink(missing_ok=True)
