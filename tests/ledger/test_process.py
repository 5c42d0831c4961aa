"""The ledger as a process: its start, its end, and what survives `kill -9`."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ledger.world import entry, receipt

from envelock_ledger.entry import Committed
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.note import VerifierKey
from envelock_ledger.remote import LedgerClient

TIMEOUT = 20


@contextmanager
def running(data: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """A ledger process on *data*, and its ready line."""
    with subprocess.Popen(
        [sys.executable, "-m", "envelock_ledger", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def failed(data: Path) -> tuple[int, dict[str, str]]:
    """Exit code and error line of a ledger that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "envelock_ledger", "--data", str(data)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return done.returncode, json.loads(line)


def stop(process: subprocess.Popen[str]) -> int:
    """End a process as an operator does; its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(TIMEOUT)


async def append(data: Path) -> object:
    """Append one record through the writing role."""
    client = LedgerClient(data / "run" / "ledger-kas.sock")
    [outcome] = await client.append([entry()])
    await client.aclose()
    return outcome


def test_it_starts_says_so_and_stops_cleanly(tmp_path):
    """One ready line, sockets for every role, nothing left behind at the end."""
    with running(tmp_path) as (process, ready):
        outcome = asyncio.run(append(tmp_path))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
        code = stop(process)
        noise = process.stderr.read()

    assert ready["ready"] == "ledger"
    assert ready["size"] == 1
    assert str(ready["ledger_key"]).startswith("envelock-")
    receipt(outcome).verify(VerifierKey.parse(str(ready["ledger_key"])))
    assert modes == {f"ledger-{role}.sock": 0o600 for role in ("kas", "operate", "read")}
    assert (code, noise) == (0, "")
    assert list((tmp_path / "run").iterdir()) == []
    assert not list(tmp_path.rglob("*-wal"))


def test_it_starts_again_as_the_same_log(tmp_path):
    """Key and origin are made once."""
    with running(tmp_path) as (process, first):
        asyncio.run(append(tmp_path))
        stop(process)
    with running(tmp_path) as (process, second):
        stop(process)

    assert second == {**first, "size": 2}


def test_a_second_owner_is_refused(tmp_path):
    """Exit code 5, one line that says what is wrong and what to do."""
    with running(tmp_path):
        code, line = failed(tmp_path)

    assert code == 5
    assert "another process owns the ledger" in line["error"]
    assert line["next"]


def test_a_damaged_ledger_is_refused(tmp_path):
    """Exit code 6, and the reason."""
    with running(tmp_path) as (process, _):
        stop(process)
    (tmp_path / "anchor" / "ledger.anchor").unlink()

    code, line = failed(tmp_path)

    assert code == 6
    assert "is missing" in line["error"]


@pytest.mark.parametrize(
    "text", ["[ledger]\nunknown = 1\n", "[lodger]\n", "[ledger]\ndir = 3\n", "nonsense"]
)
def test_a_wrong_setting_is_refused(tmp_path, text):
    """Exit code 2, before anything is created."""
    (tmp_path / "envelock.toml").write_text(text)

    code, line = failed(tmp_path)

    assert code == 2
    assert "envelock.toml" in line["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["envelock.toml"]


def test_settings_place_the_files_and_the_roles(tmp_path):
    """Paths are relative to the data directory; further roles get sockets of their own."""
    (tmp_path / "envelock.toml").write_text(
        '[ledger]\ndir = "l"\nanchor = "far/a"\nkey_file = "s/k"\n'
        '[ledger.roles.pdp]\nappend = true\ntopics = ["policy"]\n'
    )

    with running(tmp_path) as (process, _):
        names = sorted(path.name for path in (tmp_path / "run").iterdir())
        stop(process)

    assert (tmp_path / "l" / "ledger.db").exists()
    assert (tmp_path / "far" / "a").exists()
    assert (tmp_path / "s" / "k").stat().st_mode & 0o777 == 0o600
    assert names == [f"ledger-{role}.sock" for role in ("kas", "operate", "pdp", "read")]


async def press(
    data: Path, acknowledged: list[tuple[str, int]], process_id: int, after: int
) -> None:
    """Append from 16 callers, and kill the ledger when *after* were acknowledged."""
    client = LedgerClient(data / "run" / "ledger-kas.sock", timeout_seconds=5)
    until = len(acknowledged) + after

    async def caller() -> None:
        """Append until the ledger is gone."""
        while True:
            one = entry()
            [outcome] = await client.append([one])
            assert isinstance(outcome, Committed)
            record_id = json.loads(one.body)["id"]
            acknowledged.append((record_id, outcome.receipt.index))
            if len(acknowledged) == until:
                os.kill(process_id, signal.SIGKILL)

    callers = [asyncio.ensure_future(caller()) for _ in range(16)]
    results = await asyncio.gather(*callers, return_exceptions=True)
    await client.aclose()
    assert {type(result) for result in results} == {LedgerUnavailableError}


async def look_up(data: Path, names: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of *names* that the ledger does not have at their index."""
    client = LedgerClient(data / "run" / "ledger-kas.sock")
    receipts = await asyncio.gather(*(client.find(name) for name, _ in names))
    await client.aclose()
    pairs = zip(names, receipts, strict=True)
    return [name for name, found in pairs if found is None or found.index != name[1]]


def test_kill_nine_loses_nothing_that_was_acknowledged(tmp_path):
    """Five times under load: every acknowledged record is there, at the index it was given."""
    acknowledged: list[tuple[str, int]] = []
    for after in (1, 40, 150, 90, 200):
        with running(tmp_path) as (process, ready):
            assert int(str(ready["size"])) > len(acknowledged)
            with suppress(LedgerUnavailableError):
                asyncio.run(press(tmp_path, acknowledged, process.pid, after))
            process.wait(TIMEOUT)
    with running(tmp_path) as (process, ready):
        lost = asyncio.run(look_up(tmp_path, acknowledged))
        stop(process)

    assert len(acknowledged) >= 481
    assert lost == []
    assert int(str(ready["size"])) >= len(acknowledged) + 1


def test_terminate_under_load_answers_what_was_accepted(tmp_path):
    """SIGTERM drains: whoever was answered has a record, whoever was not does not know."""
    acknowledged: list[str] = []

    async def load(process_id: int) -> None:
        """Send a burst and end the process in the middle of it."""
        client = LedgerClient(tmp_path / "run" / "ledger-kas.sock")
        names = [entry() for _ in range(500)]
        calls = [asyncio.ensure_future(client.append([one])) for one in names]
        await asyncio.sleep(0.01)
        os.kill(process_id, signal.SIGTERM)
        for one, result in zip(
            names, await asyncio.gather(*calls, return_exceptions=True), strict=True
        ):
            if not isinstance(result, LedgerUnavailableError):
                acknowledged.append(json.loads(one.body)["id"])
        await client.aclose()

    with running(tmp_path) as (process, _):
        asyncio.run(load(process.pid))
        code = process.wait(TIMEOUT)
    with running(tmp_path) as (process, _):
        lost = asyncio.run(
            look_up(tmp_path, [(name, index) for index, name in enumerate(acknowledged, 1)])
        )
        stop(process)

    assert code == 0
    assert lost == []
