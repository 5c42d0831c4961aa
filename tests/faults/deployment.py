"""A real deployment under load, and the checker that every fault table uses."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from faults.checker import Left, complaints

from envelock import Client, EnvelockError
from envelock.testing import Server
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

PLAIN = b"the plaintext"
RECOVERY_SECONDS = 20.0


def processes(data: Path, module: str) -> list[int]:
    """Process ids of a module's processes on one data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if module.encode() in arguments and str(data).encode() in arguments:
                found.append(int(entry.name))
    return sorted(found)


def kill(data: Path, module: str, *, position: int = 0) -> int:
    """`kill -9` one process of a module; returns its process id."""
    victim = processes(data, module)[position]
    os.kill(victim, signal.SIGKILL)
    return victim


def await_restart(data: Path, module: str, count: int, gone: int) -> None:
    """Wait until *count* processes of *module* run and *gone* is none of them."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        running = processes(data, module)
        if gone not in running and len(running) == count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{module} was not started again")


@dataclass
class Load:
    """Readers that open one file over and over, and remember what they were given."""

    server: Server
    sealed: bytes
    receipts: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, readers: int = 4) -> Iterator["Load"]:
        """Load until the end of the block."""
        threads = [threading.Thread(target=self._read) for _ in range(readers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def await_progress(self, more: int = 5) -> None:
        """Wait until some more releases came through."""
        target, deadline = len(self.receipts) + more, time.monotonic() + RECOVERY_SECONDS
        while len(self.receipts) < target:
            if time.monotonic() > deadline:
                raise AssertionError(f"no progress: {self.errors}")
            time.sleep(0.02)

    def _read(self) -> None:
        with Client(profile=self.server.data / "profiles" / "doctor.toml") as client:
            while not self._stop.is_set():
                try:
                    with client.open(self.sealed) as reader:
                        plain, receipt = reader.read(), reader.receipt or ""
                except EnvelockError as error:
                    with self._lock:
                        self.errors[f"{type(error).__name__} {error.code}"] += 1
                    time.sleep(0.02)
                    continue
                if plain != PLAIN:
                    raise AssertionError("other bytes than were sealed")
                with self._lock:
                    self.receipts.append(receipt)


def checked(server: Server, load: Load) -> list[str]:
    """Everything that is wrong with a deployment's ledger, given what readers were told."""
    copy = server.data.parent / f"checked-{len(load.receipts)}.ledger"
    run(server, "ledger", "snapshot", str(copy))
    verified = run(server, "ledger", "verify", str(copy), "--ledger-key", server.ledger_key)
    with sqlite3.connect(copy) as database:
        records = [body for (body,) in database.execute("select body from entry order by idx")]
        [(note,)] = database.execute("select note from checkpoint")
    copy.unlink()
    told = [Receipt.parse(text) for text in load.receipts]
    left = Left(VerifierKey.parse(server.ledger_key), records, note)
    unverified = [] if verified.returncode == 0 else [verified.stdout + verified.stderr]
    return [*unverified, *not_releases(told), *complaints(told, left)]


def not_releases(told: list[Receipt]) -> list[str]:
    """Receipts that readers took for a release of theirs and that are none, or somebody else's."""
    types = [orjson.loads(receipt.record)["typ"] for receipt in told]
    wrong = [f"a receipt of a record of type {one}" for one in types if one != "release"]
    indexes = Counter(receipt.index for receipt in told)
    return wrong + [
        f"record {n} served {times} readers" for n, times in indexes.items() if times > 1
    ]


def run(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line on a deployment."""
    command = [sys.executable, "-m", "envelock", *arguments, "--data", str(server.data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
