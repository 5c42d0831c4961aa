"""What a caller hands to the ledger, and what it gets back.

One call carries many entries; each has its own outcome, and a refused entry appends nothing and
fails none of its neighbours. Names are opaque: the ledger knows what spending and fencing mean,
never what the names stand for.

The rules, in the order in which they are applied:

1. Every fence of the entry has the expected number, or the entry is `Fenced`. A name that the
   record moves is fenced at its new number minus one.
2. No name of the entry expires before the sequencing time it would get, or it is `Expired`.
3. The record id is new, and no name was spent on anything else, or the entry is `Spent`.
4. A name that was spent on the same digest makes the entry `Repeated`: its unused names are spent,
   its record is appended under the type *repeat*, and the answer is the receipt of the first.
5. Otherwise the record is `Committed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from envelock_ledger.commitments import Opening
from envelock_ledger.proof import Receipt

__all__ = [
    "Committed",
    "Entry",
    "Expired",
    "Fenced",
    "Once",
    "Opening",
    "Outcome",
    "Repeated",
    "Spent",
]


class Once(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A name to spend.

    Without a digest the name works once. With one it is spent on that digest: the same digest again
    is a repeat, another digest is refused.
    """

    name: str
    digest: str | None
    expires: int | None  # Unix seconds; None: never


@dataclass(frozen=True, slots=True)
class Entry:
    """One record to append, and the conditions under which it may be.

    Args:
        body: Canonical JSON without serial fields, as `record.encode_body` writes it.
        openings: One for every commitment in *body*.
        once: Names that the record spends.
        fences: Names and the numbers they must have; a name that was never moved has 0.
        repeat: Type that the record gets instead of its own when this entry turns out to be a
            repeat; the writer adds `_of`. Such a record moves nothing. None: a repeat is answered
            and leaves no record.
        seen: Tree size that the caller's client saw last; the receipt then proves that the log
            only grew since.
    """

    body: bytes
    openings: tuple[Opening, ...] = ()
    once: tuple[Once, ...] = ()
    fences: Mapping[str, int] = field(default_factory=dict)
    repeat: str | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The record is durable, and this is its receipt."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same request was recorded before: the receipt of that first record."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Spent:
    """A name, or the record id, was used before: by the record at *index*."""

    index: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """The fence *name* has another number than the entry expects."""

    name: str


@dataclass(frozen=True, slots=True)
class Expired:
    """The once-name *name* expired before the record would have been sequenced."""

    name: str


Outcome: TypeAlias = Committed | Repeated | Spent | Fenced | Expired
