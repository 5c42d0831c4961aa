"""What the writer needs of a database, and the rows that it keeps there.

One process owns a store and one thread uses it. Records are never changed; every other table can
be told from the records, except the names that were spent, which no record holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from envelock_ledger.merkle import EMPTY_ROOT, ZERO_HASH


class Row(NamedTuple):
    """One stored record, in the order of its columns."""

    number: int  # of the record
    leaf: bytes  # 32 bytes
    record_id: str
    body: bytes  # the whole record, serial fields included


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends.

    *prior* is the size before the last batch: a database may be ahead of its anchor by that one
    batch and no more.
    """

    size: int = 0
    prior: int = 0
    root: bytes = EMPTY_ROOT
    sequenced_us: int = 0  # of the last record


class TenantHead(NamedTuple):
    """The end of one tenant's chain; *position* counts its records."""

    leaf: bytes = ZERO_HASH
    position: int = 0


class SpentRow(NamedTuple):
    """The names that one entry used, kept and forgotten together, in the order of the columns."""

    row: int  # of the table, ascending
    expires: int | None  # Unix seconds: the latest of its names; None: kept for ever
    names: bytes  # CRC-32, then JSON: [[name, digest or null, index of the record], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one transaction writes."""

    rows: Sequence[Row]
    head: Head
    strata: Sequence[tuple[int, int, bytes]] = ()  # (tree level, number, hash)
    tenants: Mapping[str, TenantHead] = field(default_factory=dict)
    fences: Mapping[str, int] = field(default_factory=dict)
    topics: Sequence[tuple[str, int]] = ()  # (topic, index)
    spent: Sequence[SpentRow] = ()
    forgotten: Sequence[int] = ()  # rows of the spent names


class Store(Protocol):
    """The records and the tables beside them."""

    def head(self) -> Head | None:
        """Where the log ends; None before genesis."""

    def write(self, batch: Batch) -> None:
        """Write *batch* in one transaction; it is durable when this returns.

        After any error the outcome is unknown and the store must be closed.
        """

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Records with `start <= index < stop`, in order."""

    def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Stored nodes `start <= number < stop` of tree level 0, 8, 16, ... in order."""

    def find(self, record_ids: Sequence[str]) -> dict[str, int]:
        """Indexes of those of *record_ids* that are stored."""

    def topic(self, name: str, since: int, limit: int) -> list[int]:
        """Indexes of records of a topic from *since* on, in order, at most *limit*."""

    def tenants(self) -> dict[str, TenantHead]:
        """The end of every tenant's chain."""

    def fences(self) -> dict[str, int]:
        """Every fence that was ever moved."""

    def topics(self) -> Iterator[tuple[str, int]]:
        """Every topic with the index of each of its records, by index."""

    def strata(self) -> Iterator[tuple[int, int, bytes]]:
        """Every stored node above the leaves, by level and number."""

    def spent(self) -> Iterator[SpentRow]:
        """Every name that is kept as used."""

    def check(self) -> None:
        """Raise `DamageError` when the file contradicts itself, so that answers could differ."""

    def checkpoint(self) -> str | None:
        """The signed checkpoint inside a copy; None in the live database."""

    def tidy(self, *, idle: bool) -> None:
        """Do the housekeeping that is due, or the little that idleness allows."""

    def close(self) -> None:
        """Give the file back."""
