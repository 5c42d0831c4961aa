"""Names that were used, and when they may be forgotten.

A name is kept until 120 s of sequencing time after it expires, or longer when a name that was used
beside it lasts longer. Between its expiry and that moment it is refused as expired, so forgetting
it never makes it usable again, however the clock jumps.

No record holds these names, so nothing else could tell that a stored one was altered: each row has
a checksum. It finds accidents. Whoever writes to the database can compute it anew.
"""

import heapq
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from envelock_ledger.entry import Once
from envelock_ledger.errors import DamageError
from envelock_ledger.store import SpentRow

KEPT_SECONDS = 120
FORGET_AT_ONCE = 1000  # rows per batch, so that no batch waits for a purge
_CHECK = 4  # bytes in front of the names
_SPAN = 16  # seconds of expiry that share a bucket
_MICROSECONDS = 1_000_000


# On which digest, if any, and by which record. A plain tuple: there may be a million of them, and
# the collector does not visit plain tuples of strings and numbers.
Spending = tuple[str | None, int]
_Names = list[tuple[str, str | None, int]]


def is_expired(expires: int | None, now_us: int) -> bool:
    """Whether a name that expires at *expires* (Unix seconds) may no longer be spent."""
    return expires is not None and expires * _MICROSECONDS < now_us


@dataclass(slots=True)
class SpentNames:
    """Every name that is kept; owned by the writer's thread."""

    rows: int = 0  # rows that the store ever had
    _names: dict[str, Spending] = field(default_factory=dict)
    _buckets: dict[int, list[tuple[int, list[str]]]] = field(default_factory=dict)  # by expiry
    _order: list[int] = field(default_factory=list)  # heap of the buckets' keys

    @classmethod
    def of(cls, stored: Iterable[SpentRow]) -> "SpentNames":
        """Take over what a store kept; `DamageError` when a row cannot be read."""
        spent = cls()
        for row, expires, names in stored:
            try:
                if names[:_CHECK] != _checksum(row, expires, names[_CHECK:]):
                    raise DamageError(f"table spent, row {row}: does not match its checksum")
                spent.keep(row, expires, msgspec.json.decode(names[_CHECK:], type=_Names))
            except (msgspec.DecodeError, TypeError, struct.error) as error:
                # A damaged file may hold any type, and any number.
                raise DamageError(f"table spent, row {row}: {error}") from error
        return spent

    def get(self, name: str) -> Spending | None:
        """How *name* was spent; None when it was not, or was forgotten."""
        return self._names.get(name)

    def spend(self, names: Sequence[Once], first: int, number: int) -> SpentRow | None:
        """Spend those of *names* that are unused; what to store of it, if anything.

        Args:
            names: All names of an entry.
            first: The record that names with a digest answer with: the first under that digest.
            number: The record that names without a digest were used by.
        """
        unused = [once for once in names if once.name not in self._names]
        if not unused:
            return None
        expires: int | None = 0
        for once in unused:
            lasting = expires is None or once.expires is None
            expires = None if lasting else max(expires or 0, once.expires or 0)
        spent = [(o.name, o.digest, number if o.digest is None else first) for o in unused]
        row = self.rows
        self.keep(row, expires, spent)
        encoded = msgspec.json.encode(spent)
        return SpentRow(row, expires, _checksum(row, expires, encoded) + encoded)

    def keep(self, row: int, expires: int | None, names: _Names) -> None:
        """Keep the names of one row."""
        for name, digest, number in names:
            self._names[name] = (digest, number)
        self.rows = max(self.rows, row + 1)
        if expires is None:
            return
        bucket = expires // _SPAN
        if bucket not in self._buckets:
            self._buckets[bucket] = []
            heapq.heappush(self._order, bucket)
        self._buckets[bucket].append((row, [name for name, _, _ in names]))

    def forget(self, now_us: int) -> list[int]:
        """Forget what is over, at most `FORGET_AT_ONCE` rows; they are to be deleted."""
        forgotten: list[int] = []
        while self._order and len(forgotten) < FORGET_AT_ONCE and self._over(now_us):
            bucket = self._buckets[self._order[0]]
            while bucket and len(forgotten) < FORGET_AT_ONCE:
                row, names = bucket.pop()
                for name in names:
                    del self._names[name]
                forgotten.append(row)
            if not bucket:
                del self._buckets[heapq.heappop(self._order)]
        return forgotten

    def _over(self, now_us: int) -> bool:
        last_expiry = (self._order[0] + 1) * _SPAN - 1
        return (last_expiry + KEPT_SECONDS) * _MICROSECONDS < now_us

    def __len__(self) -> int:
        return len(self._names)


def _checksum(row: int, expires: int | None, names: bytes) -> bytes:
    """CRC-32 over the row's number, when it expires (-1: never), and its names."""
    numbers = struct.pack(">qq", row, -1 if expires is None else expires)
    return zlib.crc32(names, zlib.crc32(numbers)).to_bytes(_CHECK, "big")
