"""Erased openings: how records speak of them, and what the start gate makes of that.

A record `subject.erased` holds a mark for each record whose openings go: a digest of its index and
of the salt of the opening that named the subject. The salt is among what is forgotten, so later
nobody can tell which records the marks mean, or that two of them meant one person. But where an
opening comes back, from a backup of the disclosures, its salt finds the mark again: the start gate
repeats every erasure that is on record.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from envelock_formats.framing import digest
from envelock_ledger.commitments import Opening
from envelock_ledger.errors import DamageError
from envelock_ledger.record import parse
from envelock_ledger.store import Store
from envelock_ledger.store.disclosure import Disclosures
from envelock_ledger.verify import Tally

LABEL = "envelock/erased/v1"
TYPE, TOPIC = "subject.erased", "erasure"
FIELD = "sub"  # whose opening names the subject of a record
MARK_SIZE = 16  # bytes
PAGE = 4096  # openings that are looked through at once
_NAMED = 10  # records that a message names
_MEND = "look for them in a backup of disclosure.db"


@dataclass(frozen=True, slots=True)
class Census:
    """The openings of a ledger, held against what its records hide."""

    kept: int
    erased: int  # records whose openings are gone, and marked as erased
    recorded: int  # erasures that are on record
    missing: int  # records whose openings are gone without any mark
    first_missing: tuple[int, ...] = ()

    def check(self) -> None:
        """Raise `DamageError` when openings are gone and no record says that they were erased."""
        if self.missing:
            some = ", ".join(map(str, self.first_missing))
            more = " and others" if self.missing > len(self.first_missing) else ""
            raise DamageError(
                f"openings that nobody erased are missing: records {some}{more}", _MEND
            )
        if self.erased > self.recorded:
            told = f"{self.erased} records are, {self.recorded} were recorded"
            raise DamageError(f"openings were erased without a record: {told}", _MEND)


def mark(index: int, salt: bytes) -> str:
    """The mark of record *index*: 32 hex digits that lead nowhere without *salt*."""
    return digest(LABEL, index.to_bytes(8, "big"), salt)[:MARK_SIZE].hex()


def marked(
    page: Iterable[tuple[int, tuple[Opening, ...]]],
) -> list[tuple[int, str]]:
    """Index and mark of every record of *page* whose subject is opened."""
    return [
        (index, mark(index, one.salt))
        for index, openings in page
        for one in openings
        if one.field == FIELD
    ]


def repeat_erasures(store: Store, tally: Tally, disclosures: Disclosures) -> int:
    """Erase again what is on record as erased and came back; how many openings that were."""
    marks = _recorded(store, tally)
    if len(marks) <= disclosures.erased():
        return 0
    forgotten, start = 0, 0
    while page := disclosures.page(start, PAGE):
        again = [index for index, one in marked(page) if one in marks]
        disclosures.forget(again)
        forgotten, start = forgotten + len(again), page[-1][0] + 1
    return forgotten


def take_census(store: Store, tally: Tally, disclosures: Disclosures) -> Census:
    """Count the openings of the records in *tally*, all of *store*."""
    erased, there = disclosures.erased(), disclosures.size()
    missing: list[int] = []
    if there < tally.hiding:
        known = disclosures.indexes()
        hiding = filter(tally.hides, range(tally.size))
        missing = [index for index in hiding if index not in known]
    return Census(
        kept=there - erased,
        erased=erased,
        recorded=len(_recorded(store, tally)),
        missing=len(missing),
        first_missing=tuple(missing[:_NAMED]),
    )


def _recorded(store: Store, tally: Tally) -> set[str]:
    marks: set[str] = set()
    for topic, index in tally.topics:
        if topic != TOPIC:
            continue
        for row in store.rows(index, index + 1):
            fields = parse(row.body).fields
            told = fields.get("marks")
            if fields.get("typ") == TYPE and isinstance(told, list):
                marks.update(one for one in told if isinstance(one, str))
    return marks
