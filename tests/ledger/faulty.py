"""A ledger whose steps fail, or end its process, on demand."""

import os
import signal
from dataclasses import dataclass, field
from typing import Any

from envelock_ledger.anchor import Anchor
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.place import Place
from envelock_ledger.store import Batch
from envelock_ledger.store.disclosure import Disclosures

TORN = "inside the anchor line"


@dataclass(slots=True)
class Faults:
    """Where the next failure happens."""

    at: str = ""
    fatal: bool = False  # the process is killed, so nothing is closed in order
    seen: list[str] = field(default_factory=list)

    def pass_(self, point: str) -> None:
        """Fail when it is this point's turn."""
        self.seen.append(point)
        if point == self.at:
            self.fail()

    def fail(self) -> None:
        """Fail now."""
        if self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        raise LedgerUnavailableError(f"fault at {self.at}")


class FaultyStore:
    """A store whose commit fails before or after it is durable."""

    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, batch: Batch) -> None:
        """Fail at a commit, or let it through."""
        self._faults.pass_("before the records' commit")
        self._inner.write(batch)
        self._faults.pass_("after the records' commit")


class FaultyDisclosures:
    """Openings whose commit fails before or after it is durable."""

    def __init__(self, inner: Disclosures, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, disclosed: Any) -> None:
        """Fail at a commit, or let it through."""
        self._faults.pass_("before the openings' commit")
        self._inner.write(disclosed)
        self._faults.pass_("after the openings' commit")


class FaultyAnchor:
    """An anchor whose line fails before or after it is durable, or is torn."""

    def __init__(self, inner: Anchor, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, note: str) -> None:
        """Fail at a line, or let it through."""
        self._faults.pass_("before the anchor line")
        if self._faults.at == TORN:
            with self._inner.path.open("ab") as file:
                file.write(b"12 tor")
            self._faults.fail()
        self._inner.append(note)
        self._faults.pass_("after the anchor line")


@dataclass(frozen=True, slots=True)
class FaultyPlace(Place):
    """A place whose files fail on demand."""

    faults: Faults = field(default_factory=Faults)

    def open_store(self, *, create: bool) -> Any:
        """The records, faulty."""
        return FaultyStore(Place.open_store(self, create=create), self.faults)

    def open_disclosures(self, *, create: bool) -> Any:
        """The openings, faulty."""
        return FaultyDisclosures(Place.open_disclosures(self, create=create), self.faults)

    def open_anchor(self) -> Any:
        """The anchor, faulty."""
        return FaultyAnchor(Place.open_anchor(self), self.faults)
