"""`kill -9` under load: what a client saw is in the ledger exactly once, and all comes back."""

import json
import os
import random
import signal
import sqlite3
import time

import pytest
from faults.deployment import (
    PLAIN,
    Load,
    await_restart,
    checked,
    kill,
    processes,
    run,
)

from envelock import DeniedError
from envelock.testing import Server, server

KILLS = 14  # of each kind of process: 42 in all
MANY_KILLS = 200
MEDIAN_RECOVERY = 5.0  # seconds until readers are served again
LONGEST_END = 25.0  # seconds from SIGTERM until nothing runs: KAS, then PDP drain for up to 10
MODULES = ("envelock_kas", "envelock_ledger", "envelock_pdp")


def sealed_on(running: Server) -> bytes:
    """A file that the doctor may open."""
    return running.client("doctor").encrypt(PLAIN, attrs="clearance=secret")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("module", MODULES)
def test_kills_under_load_lose_no_record(module: str):
    """Many kills of each kind of process: nothing that a client saw is missing, and it recovers."""
    with server(workers=2) as running:
        load = Load(running, sealed_on(running))
        count = len(processes(running.data, module))
        with load.running():
            for number in range(KILLS):
                load.await_progress()
                gone = kill(running.data, module, position=number % count)
                await_restart(running.data, module, count, gone)
            load.await_progress()
        assert checked(running, load) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_no_record():
    """Worker, ledger and PDP in turn, at any moment; after each, readers are served again."""
    chance, recoveries = random.Random(0), []  # noqa: S311 moments of a kill
    with server(workers=2) as running:
        load = Load(running, sealed_on(running))
        counts = {module: len(processes(running.data, module)) for module in MODULES}
        with load.running():
            for number in range(MANY_KILLS):
                module = MODULES[number % len(MODULES)]
                load.await_progress(1)
                time.sleep(chance.uniform(0, 0.25))
                killed = time.monotonic()
                gone = kill(running.data, module, position=number % counts[module])
                await_restart(running.data, module, counts[module], gone)
                load.await_progress(1)
                recoveries.append(time.monotonic() - killed)
        wrong = checked(running, load)

    assert wrong == []
    assert len(load.receipts) >= MANY_KILLS
    assert sorted(recoveries)[len(recoveries) // 2] < MEDIAN_RECOVERY


@pytest.mark.timeout(120)
def test_revocation_holds_on_two_workers_with_warm_caches():
    """Suspended under load: after the record no worker releases anything."""
    with server(workers=2) as running:
        load = Load(running, sealed_on(running))
        with load.running():
            load.await_progress(20)
            done = run(
                running,
                "keys",
                "suspend",
                "clinic:records",
                "--below",
                "--as",
                "operator",
                "--json",
            )
            assert done.returncode == 0, done.stderr
            index = json.loads(done.stdout)["record"]
            time.sleep(1.0)
        assert checked(running, load) == []
        copy = running.data.parent / "after.ledger"
        run(running, "ledger", "snapshot", str(copy))
        with sqlite3.connect(copy) as database:
            rows = database.execute("select idx, body from entry where idx > ?", (index,))
            later = [json.loads(body)["typ"] for _, body in rows]

        assert "denied" in later
        assert "release" not in later
        with pytest.raises(DeniedError):
            running.client("doctor").decrypt(load.sealed)


def test_a_second_up_names_the_first():
    """One deployment on one data directory; the second exits 2 with the pid of the first."""
    with server() as running:
        second = run(running, "up", "--listen", "127.0.0.1:0")
        pid = (running.data / "run" / "up.lock").read_text()

        assert second.returncode == 2
        assert pid in second.stderr


@pytest.mark.timeout(60)
def test_nothing_is_left_running_when_up_is_killed():
    """Killed without warning, `up` takes its children along."""
    with server() as running:
        pid = int((running.data / "run" / "up.lock").read_text())
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 15
        modules = ("envelock_kas", "envelock_pdp", "envelock_ledger")
        while any(processes(running.data, module) for module in modules):
            assert time.monotonic() < deadline, "children were left running"
            time.sleep(0.1)


@pytest.mark.timeout(60)
def test_a_deployment_that_is_asked_to_end_finishes_what_it_began():
    """SIGTERM at load: soon nothing runs, who was answered is on record, all others are told."""
    with server(workers=2) as running:
        load = Load(running, sealed_on(running))
        with load.running():
            load.await_progress(20)
            asked = time.monotonic()
            os.kill(int((running.data / "run" / "up.lock").read_text()), signal.SIGTERM)
            while any(processes(running.data, module) for module in MODULES):
                assert time.monotonic() < asked + LONGEST_END, "it does not end"
                time.sleep(0.02)
            time.sleep(0.3)

        assert set(load.errors) == {"UnavailableError unavailable"}
        assert checked(running, load) == []


def test_files_of_a_deployment_are_private():
    """Secrets, sockets, keys and profiles are the owner's alone."""
    with server() as running:
        running.client("doctor").encrypt(b"x", attrs="clearance=secret")
        private = [
            path
            for folder in ("secrets", "run", "profiles", "keys")
            for path in (running.data / folder).iterdir()
            if path.name != "up.lock"
        ]
        modes = {path.name: path.lstat().st_mode & 0o077 for path in private}

        assert {name: mode for name, mode in modes.items() if mode} == {}
