"""How many records a second become durable here: `python -m envelock_ledger.bench --folder DIR`.

A ledger of its own is made in DIR and served by a process of its own, as in production. Each round
is one line of JSON on stdout: `{"round", "in_flight", "per_second", "milliseconds"}`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from envelock_formats.canonical import Json
from envelock_ledger.entry import Committed, Entry, Once
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.record import encode_body
from envelock_ledger.remote import LedgerClient
from envelock_ledger.settings import WRITING_ROLE, socket_path

IN_FLIGHT = (1, 64)
LIFETIME_SECONDS = 600


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="envelock_ledger.bench", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    with _served(asked.folder):
        asyncio.run(_rounds(asked.folder, asked.rounds, asked.seconds))
    return 0


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "envelock_ledger", "--data", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 our own command
        if process.stdout is None or not process.stdout.readline():
            raise LedgerUnavailableError(f"no ledger started in {folder}")
        try:
            yield
        finally:
            process.terminate()


async def _rounds(folder: Path, rounds: int, seconds: float) -> None:
    client = LedgerClient(socket_path(folder, WRITING_ROLE))
    await _measured(client, IN_FLIGHT[-1], seconds / 2)  # the first batches are slower
    for number in range(rounds):
        for in_flight in IN_FLIGHT:
            latencies = await _measured(client, in_flight, seconds)
            told: dict[str, Json] = {
                "round": number,
                "in_flight": in_flight,
                "per_second": round(len(latencies) / seconds),
                "milliseconds": round(statistics.median(latencies) * 1000, 2),
            }
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
    await client.aclose()


async def _measured(client: LedgerClient, in_flight: int, seconds: float) -> list[float]:
    """Latencies in seconds of what *in_flight* callers append."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < until:
            [outcome] = await client.append([_entry()])
            if not isinstance(outcome, Committed):
                raise LedgerUnavailableError(f"not committed: {outcome}")
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return latencies


def _entry() -> Entry:
    """As long as the record of a release, with as many names to spend."""
    name, now = os.urandom(12).hex(), time.time()
    digest = "ab" * 32
    row: dict[str, Json] = {"id": "cd" * 16, "kid": "bench:records:v1", "pol": "ef" * 32}
    fields: dict[str, Json] = {
        "id": name,
        "objs": [row],
        "req": name,
        "rh": digest,
        "tn": "bench",
        "ts": int(now * 1_000_000),
        "typ": "release",
        "v": 1,
    }
    personal: dict[str, Json] = {"sub": "user-4711", "addr": "192.0.2.7"}
    body, openings = encode_body(fields, personal, lambda: os.urandom(16))
    expires = int(now) + LIFETIME_SECONDS
    once = tuple(Once(f"{kind}:{name}", digest, expires) for kind in ("dec", "srt", "dpop"))
    return Entry(body, openings, once, {"key:bench": 0, "policy:bench": 0})


if __name__ == "__main__":
    sys.exit(main())
