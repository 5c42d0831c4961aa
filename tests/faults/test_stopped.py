"""A process that is stopped, not dead: whoever waits for it hears in time that there is no key."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.checker import Left, complaints
from faults.deployment import PLAIN, Load, checked, processes
from ledger.world import entry, receipt

from envelock import UnavailableError
from envelock.testing import server
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.note import VerifierKey
from envelock_ledger.remote import LedgerClient

PATIENCE = 0.5  # seconds, in place of the real client's
BOUNDS = {  # seconds within which a client of a deployment hears, its three attempts included
    "envelock_pdp": 45.0,
    "envelock_ledger": 45.0,
    "envelock_kas": 120.0,
}


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """The processes do nothing until the end of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def ledger(data: Path) -> Iterator[tuple[int, VerifierKey]]:
    """A ledger process, and the key of its log."""
    with subprocess.Popen(
        [sys.executable, "-m", "envelock_ledger", "--data", str(data)], stdout=subprocess.PIPE
    ) as process:
        try:
            ready = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            yield process.pid, VerifierKey.parse(ready["ledger_key"])
        finally:
            process.kill()


def test_a_stopped_ledger_answers_nothing_and_loses_nothing(tmp_path):
    """Appends fail in time with an unknown outcome; when it goes on, each is there once or not."""
    with ledger(tmp_path) as (pid, key):
        told, unknown, took, left = asyncio.run(append_around(tmp_path, pid, key))
    ids = [json.loads(record)["id"] for record in left.records]

    assert complaints([receipt(outcome) for outcome in told], left) == []
    assert len(told) == 3
    assert took < PATIENCE * 2
    assert [ids.count(one) for one in unknown] == [1] * len(unknown)  # they lay in the socket


async def append_around(data: Path, pid: int, key: VerifierKey) -> tuple:
    """Append before, during and after the ledger's process is stopped."""
    client = LedgerClient(data / "run" / "ledger-kas.sock", PATIENCE)
    told = await client.append([entry()])
    asked, unknown = time.monotonic(), [f"during-{number}" for number in range(20)]
    with stopped(pid):
        calls = [client.append([entry(id=one)]) for one in unknown]
        results = await asyncio.gather(*calls, return_exceptions=True)
        took = time.monotonic() - asked
    assert {type(result) for result in results} == {LedgerUnavailableError}
    told += await client.append([entry()])
    told += await client.append([entry()])
    left = Left(key, await client.records(0, 200), await client.head())
    await client.aclose()
    return told, unknown, took, left


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", BOUNDS)
def test_a_deployment_fails_closed_in_time_and_recovers(module):
    """No key while a part of it is stopped; afterwards everything opens, and nothing is lost."""
    with server(workers=2) as running:
        client = running.client("doctor")
        sealed = client.encrypt(PLAIN, attrs="clearance=secret")
        load = Load(running, sealed)
        with load.running(2):
            load.await_progress()
            with stopped(*processes(running.data, module)):
                time.sleep(1.0)
                before, asked = len(load.receipts), time.monotonic()
                with pytest.raises(UnavailableError):
                    client.decrypt(sealed)
                took, released = time.monotonic() - asked, len(load.receipts) - before
            load.await_progress()
        opened = client.decrypt(sealed)
        wrong = checked(running, load)

    assert took < BOUNDS[module]
    assert released == 0
    assert opened == PLAIN
    assert wrong == []
