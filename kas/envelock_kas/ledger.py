"""What the KAS needs of a ledger. The socket client and the in-process writer both offer it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from envelock_ledger.entry import Entry, Outcome
from envelock_ledger.proof import Receipt


class Ledger(Protocol):
    """An append-only log with names to spend and numbers that fence.

    Every method raises `envelock_ledger.errors.LedgerUnavailableError` when the ledger does not
    answer; after `append` the outcome is then unknown, and no key may be released on it.
    """

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Append durably; one outcome for each entry."""
        ...

    async def prove(self, index: int, seen: int | None = None) -> Receipt:
        """The receipt of the record *index*."""
        ...

    async def topic(self, name: str, since: int) -> list[Receipt]:
        """Records of a topic from index *since* on, in order, a page at a time."""
        ...

    async def probe(self) -> Mapping[str, int]:
        """Raise unless a record could be appended now; numbers about the ledger."""
        ...
