"""A ledger in a process of its own, for faults that only a process can have.

Run as `python -m faults.target`. Every line it prints is JSON: `receipts` of what was acknowledged,
or `unknown` with the ids whose outcome the ledger did not know. Thresholds are lowered, so that a
few dozen records pass through check-points of both databases and a new anchor file.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from ledger.world import hiding, place_in

from envelock_ledger import anchor
from envelock_ledger.entry import Entry, Once
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.place import Place, found
from envelock_ledger.store import sqlite
from envelock_ledger.store.disclosure import Disclosures
from envelock_ledger.writer import Writer

BATCHES = (1, 3, 1, 9, 2, 1, 1, 4, 1, 1, 2, 1)
DIGEST = "5a" * 32
WEAKNESSES = ("records", "openings", "anchor")
RECOVERIES = 400


@dataclass(frozen=True, slots=True)
class TargetPlace(Place):
    """A place with low thresholds, and one file that is not synced as it should be."""

    weak: str = ""

    def open_store(self, *, create: bool) -> Any:
        """The records; `synchronous=NORMAL` when they are the weak part."""
        store: Any = Place.open_store(self, create=create)
        if self.weak == "records":
            store._connection.execute("PRAGMA synchronous=NORMAL").fetchall()  # noqa: SLF001 the defect
        return store

    def open_disclosures(self, *, create: bool) -> Disclosures:
        """The openings; `synchronous=NORMAL` when they are the weak part."""
        opened = Place.open_disclosures(self, create=create)
        run = opened._connection.execute  # noqa: SLF001 the threshold, and the defect
        run("PRAGMA wal_autocheckpoint=8").fetchall()
        if self.weak == "openings":
            run("PRAGMA synchronous=NORMAL").fetchall()
        return opened


def name_of(record_id: str, digest: str = DIGEST) -> Once:
    """What the record *record_id* spends."""
    return Once(f"dec:{record_id}", digest, None)


def batch(first: int, size: int) -> list[Entry]:
    """Entries that hide a subject and spend a name each."""
    ids = [f"r-{first + number:05d}" for number in range(size)]
    return [replace(hiding(one, sub=f"subject of {one}"), once=(name_of(one),)) for one in ids]


def reusing(record_id: str, other: str) -> Entry:
    """An entry that spends what the record *other* spent, on something else."""
    return replace(hiding(record_id), once=(name_of(other, "a5" * 32),))


def say(**line: object) -> None:
    """Tell whoever watches; one system call, so that a trace shows when it was told."""
    os.write(sys.stdout.fileno(), orjson.dumps(line) + b"\n")


async def opened(folder: Path, weak: str) -> Writer:
    """The ledger, as soon as the start gate lets it pass."""
    for _ in range(RECOVERIES):
        try:
            usual = place_in(folder)
            place = TargetPlace(usual.folder, usual.anchor, usual.key_file, weak)
            return await Writer.start(place, found(place, os.urandom), clock_us)
        except (LedgerUnavailableError, OSError) as error:
            say(refused=str(error))
            await asyncio.sleep(0.005)
    raise SystemExit("the ledger never opened")


async def append(writer: Writer, entries: list[Entry]) -> None:
    """Append, and tell what came of it; afterwards the ledger is open again."""
    try:
        outcomes = await writer.append(entries)
        say(receipts=[outcome.receipt.text() for outcome in outcomes])  # type: ignore[union-attr]
    except LedgerUnavailableError as error:
        say(unknown=str(error))
        await recovered(writer)


async def recovered(writer: Writer) -> None:
    """Wait until the ledger has come back by itself."""
    for _ in range(RECOVERIES):
        try:
            await writer.size()
        except LedgerUnavailableError:
            await asyncio.sleep(0.005)
        else:
            return
    raise SystemExit("the ledger never came back")


def clock_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


async def main() -> None:
    """Append the batches, then close the ledger or die."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--batches", type=int, default=len(BATCHES))
    parser.add_argument("--weak", choices=WEAKNESSES, default="")
    parser.add_argument("--die", action="store_true")
    options = parser.parse_args()
    sqlite.IDLE_BYTES, anchor.MAX_BYTES = 60_000, 1500
    if options.weak == "anchor":
        os.fdatasync = lambda descriptor: None  # noqa: ARG005 the defect
    writer = await opened(options.folder, options.weak)
    say(ready=True)
    first = options.first
    for size in BATCHES[: options.batches]:
        await append(writer, batch(first, size))
        first += size
    if options.die:
        os.kill(os.getpid(), signal.SIGKILL)
    await writer.aclose()


if __name__ == "__main__":
    asyncio.run(main())
