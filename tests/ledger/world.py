"""A ledger in a temporary folder, and what its tests hand to it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from envelock_formats.canonical import Json
from envelock_ledger.entry import Committed, Entry, Once, Repeated
from envelock_ledger.note import Signer
from envelock_ledger.place import Place, found
from envelock_ledger.proof import Receipt, VerifiedRecord
from envelock_ledger.record import encode_body
from envelock_ledger.store.files import make_folder
from envelock_ledger.writer import Writer

START_US = 1_800_000_000_000_000
SECOND = 1_000_000
_ids = count(1)


@dataclass(slots=True)
class Clock:
    """A clock that stands still until it is set."""

    now_us: int = START_US

    def __call__(self) -> int:
        return self.now_us

    @property
    def seconds(self) -> int:
        """Whole seconds since 1970."""
        return self.now_us // SECOND

    def move(self, seconds: float) -> None:
        """Go forward, or back."""
        self.now_us += int(seconds * SECOND)


@dataclass(slots=True)
class World:
    """A place, the key of its ledger, and a clock."""

    place: Place
    clock: Clock = field(default_factory=Clock)

    @property
    def signer(self) -> Signer:
        """The log's signer; founds the ledger when there is none."""
        return found(self.place, os.urandom)

    async def start(self) -> Writer:
        """Open the ledger and begin."""
        return await Writer.start(self.place, self.signer, self.clock)

    def verify(self, receipt: Receipt) -> VerifiedRecord:
        """Verify a receipt under the key of this log."""
        return receipt.verify(self.signer.verifier)


def place_in(folder: Path, kind: Callable[[Path, Path, Path], Place] = Place) -> Place:
    """The usual layout below *folder*."""
    place = kind(folder / "ledger", folder / "anchor" / "a", folder / "secrets" / "ledger.pem")
    make_folder(place.folder)
    return place


def body(**fields: Json) -> bytes:
    """A body with an id of its own and *fields*."""
    defaults: dict[str, Json] = {
        "id": f"r-{next(_ids):06d}",
        "tn": "acme",
        "ts": START_US,
        "typ": "release",
        "v": 1,
    }
    return encode_body({**defaults, **fields}, {}, lambda: os.urandom(16))[0]


def entry(
    *once: Once,
    fences: dict[str, int] | None = None,
    repeat: str | None = None,
    seen: int | None = None,
    **fields: Json,
) -> Entry:
    """An entry without hidden fields."""
    return Entry(body(**fields), (), once, fences or {}, repeat, seen)


def hiding(record_id: str, **personal: Json) -> Entry:
    """An entry that hides *personal* fields."""
    fields: dict[str, Json] = {
        "id": record_id,
        "tn": "acme",
        "ts": START_US,
        "typ": "release",
        "v": 1,
    }
    return Entry(*encode_body(fields, personal, lambda: os.urandom(16)))


def receipt(outcome: object) -> Receipt:
    """The receipt of an outcome that has one."""
    assert isinstance(outcome, Committed | Repeated), outcome
    return outcome.receipt


async def fill(writer: Writer, size: int) -> None:
    """Append until there are *size* records."""
    missing = size - await writer.size()
    await writer.append([entry() for _ in range(missing)])
