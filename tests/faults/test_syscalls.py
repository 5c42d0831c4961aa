"""Each system call of the write path fails once, or is the last one: nothing acknowledged is lost.

strace makes the n-th call of a kind on one file of the ledger fail. Callers then hear that the
outcome is unknown, the ledger passes its start gate again by itself, and goes on.
"""

import asyncio
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from faults import target
from faults.checker import Left, complaints
from faults.trace import TESTS, command, require_strace
from ledger.world import World, place_in

from envelock_ledger.errors import LedgerError
from envelock_ledger.proof import Receipt

BATCHES = 5
PARTS: dict[str, tuple[str, ...]] = {
    "records": ("ledger/ledger.db", "ledger/ledger.db-wal"),
    "openings": ("ledger/disclosure.db", "ledger/disclosure.db-wal"),
    "anchor": ("anchor/a",),
    "founding": ("secrets/.ledger.pem.partial", "anchor/.a.partial", "", "secrets", "anchor"),
}
CALLS = {
    "records": ("pwrite64", "fdatasync", "ftruncate"),
    "openings": ("pwrite64", "fdatasync", "ftruncate"),
    "anchor": ("write", "fdatasync", "ftruncate"),
    "founding": ("write", "fsync"),
}
FAULTS = {
    "EIO": "error=EIO",
    "ENOSPC": "error=ENOSPC",
    "EROFS": "error=EROFS",
    "killed": "signal=SIGKILL",
}
SLOW = "delay_exit=200000"  # microseconds
OF_A_SYNC = ("EIO", "killed")
EVERY = [
    (part, call, fault)
    for part, calls in CALLS.items()
    for call in calls
    for fault in (OF_A_SYNC if "sync" in call else FAULTS)
]
QUICK = [
    ("records", "fdatasync", "EIO"),
    ("anchor", "write", "ENOSPC"),
    ("openings", "pwrite64", "killed"),
    ("founding", "fsync", "EIO"),
]


@dataclass
class Run:
    """What a ledger said whose system call failed."""

    code: int
    struck: bool  # the call was made
    told: list[Receipt] = field(default_factory=list)
    unknown: int = 0
    finished: bool = False


def struck(folder: Path, part: str, call: str, fault: str, when: str) -> Run:
    """Run the target with a system call failing; *when* says which, as strace has it."""
    top, log = folder / "data", folder / "log"
    paths = [option for path in PARTS[part] for option in ("-P", str(top / path))]
    inject = f"inject={call}:{fault}:when={when}"
    options = [*paths, "-e", f"trace={call}", "-e", inject, "-o", str(log)]
    done = subprocess.run(
        command(options, "faults.target", top, "--batches", str(BATCHES)),
        cwd=TESTS,
        check=False,
        capture_output=True,
        timeout=100,
    )
    calls = [line for line in log.read_text().splitlines() if f" {call}(" in line]
    run = Run(done.returncode, len(calls) >= int(when.rstrip("+")))
    for line in map(orjson.loads, done.stdout.splitlines()):
        run.told += [Receipt.parse(text) for text in line.get("receipts", [])]
        run.unknown += "unknown" in line
    return run


async def left_in(top: Path) -> tuple[World, Left]:
    """The ledger of a process that ended, started again."""
    world = World(place_in(top))
    world.clock.now_us = target.clock_us()
    writer = await world.start()
    try:
        left = Left(world.signer.verifier, await writer.records(0, 200), await writer.head())
        await writer.append(target.batch(90_000, 1))
    finally:
        await writer.aclose()
    return world, left


def wrong_after(folder: Path, part: str, call: str, fault: str, number: int) -> list[str] | None:
    """What is wrong after the *number*th call failed; None when there is no such call."""
    folder.mkdir()
    run = struck(folder, part, call, FAULTS[fault], str(number))
    if not run.struck:
        return None
    try:
        _, left = asyncio.run(left_in(folder / "data"))
    except LedgerError as error:
        return [f"{number}: does not start: {error}"]
    found = complaints(run.told, left)
    acknowledged, wanted = len(run.told), sum(target.BATCHES[:BATCHES])
    if fault != "killed":
        if run.code != 0:
            found.append(f"the process ended with {run.code}")
        if acknowledged + run.unknown * max(target.BATCHES[:BATCHES]) < wanted:
            found.append(f"{acknowledged} acknowledged, {run.unknown} batches unknown")
    return [f"{number}: {one}" for one in found]


def every(folder: Path, part: str, call: str, fault: str, numbers: Iterator[int]) -> list[str]:
    """What is wrong after each of the calls failed, until there are no more of them."""
    found: list[str] = []
    for number in numbers:
        wrong = wrong_after(folder / str(number), part, call, fault, number)
        if wrong is None:
            break
        found += wrong
    return found


@pytest.mark.parametrize(("part", "call", "fault"), QUICK)
def test_a_call_that_fails_loses_nothing(tmp_path, part, call, fault):
    """One call of each file, in the middle of things."""
    require_strace()

    assert every(tmp_path, part, call, fault, iter([4])) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("part", "call", "fault"), EVERY)
def test_every_call_that_fails_loses_nothing(tmp_path, part, call, fault):
    """All of them, one after the other, from the founding to the end."""
    require_strace()

    assert every(tmp_path, part, call, fault, itertools.count(1)) == []


@pytest.mark.slow
def test_a_slow_disk_only_takes_longer(tmp_path):
    """Each sync takes a fifth of a second more: everything is acknowledged all the same."""
    require_strace()
    found = struck(tmp_path, "records", "fdatasync", SLOW, "1+")

    assert found.struck
    assert (found.code, found.unknown) == (0, 0)
    assert len(found.told) == sum(target.BATCHES[:BATCHES])
