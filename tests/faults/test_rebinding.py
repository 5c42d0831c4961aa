"""`kill -9` between the record of a rebinding and its file: the content is never lost."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from faults.deployment import PLAIN, await_restart, kill, processes

from envelock import ConfigError, UnavailableError
from envelock.testing import Server, server
from envelock_formats.canonical import Json
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

ROUNDS = 6
MANY_ROUNDS = 120
SECONDS = 0.15  # that a rebinding takes, roughly
SECRET, INTERNAL = "clearance=secret", "clearance=internal"
SERVERS = ("envelock_kas", "envelock_ledger")
T = TypeVar("T")
# Loads everything, then waits for a line, so that the kill falls into the rebinding itself.
PROGRAM = """\
import sys
from pathlib import Path
import envelock
from envelock import Client
client = Client(profile=Path(sys.argv[1]))
while True:
    try:
        client.run(client.session.configuration())
        break
    except envelock.UnavailableError:
        pass
print("ready", flush=True)
sys.stdin.readline()
client.rebind(Path(sys.argv[2]), attrs="clearance=internal")
"""


def started(running: Server, file: Path) -> subprocess.Popen[bytes]:
    """A process that is about to rebind *file*."""
    profile = running.data / "profiles" / "archivist.toml"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(profile), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    if process.stdout is not None:
        process.stdout.readline()
    return process


def patiently(work: Callable[[], T]) -> T:
    """Do *work*, again while servers that were killed are not back."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return work()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def completed(running: Server, file: Path) -> dict[str, Json] | None:
    """Rebind *file* until it is done; the record, or None when nothing was left to do."""
    try:
        done = patiently(lambda: running.client("archivist").rebind(file, attrs=INTERNAL))
    except ConfigError as error:
        if error.code != "same_policy":
            raise
        return None
    key = VerifierKey.parse(running.ledger_key)
    return dict(Receipt.parse(done.receipt or "").verify(key).fields)


def cut(running: Server, file: Path, number: int, chance: random.Random) -> None:
    """Kill the client, a worker or the ledger at some moment of a rebinding of *file*."""
    client = started(running, file)
    module = (*SERVERS, None)[number % 3]
    count = 0 if module is None else len(processes(running.data, module))
    with client:
        if client.stdin is not None:
            client.stdin.write(b"go\n")
            client.stdin.flush()
        time.sleep(chance.uniform(0, SECONDS))
        if module is None:
            client.kill()
        else:
            await_restart(running.data, module, count, kill(running.data, module))


def rebound(folder: Path, rounds: int) -> tuple[list[str], int]:
    """What does not open after *rounds* rebindings that were cut, and how many were cut between.

    Between: the record was made, and the file still the former one.
    """
    chance, wrong, between = random.Random(1), [], 0  # noqa: S311 moments of a kill
    with server(workers=2) as running:
        doctor, nurse = running.client("doctor"), running.client("nurse")
        for number in range(rounds):
            file = folder / f"{number}.tdf"
            online = number % 4 != 3
            sealed = partial(doctor.encrypt, PLAIN, attrs=SECRET, online=online)
            file.write_bytes(patiently(sealed))
            cut(running, file, number, chance)
            record = completed(running, file)
            between += online and record is not None and "moves" not in record
            if patiently(partial(nurse.decrypt, file)) != PLAIN:
                wrong.append(file.name)
    return wrong, between


@pytest.mark.timeout(180)
def test_a_kill_at_any_moment_leaves_a_file_that_opens(tmp_path: Path):
    """Client, worker and ledger in turn: the same command again completes what was begun."""
    wrong, _ = rebound(tmp_path, ROUNDS)

    assert wrong == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_kills_leave_files_that_open(tmp_path: Path):
    """The same, until a kill fell between the record and the file."""
    wrong, between = rebound(tmp_path, MANY_ROUNDS)

    assert wrong == []
    assert between > 0
