"""Durable appends per second through the ledger's socket, at several numbers in flight.

    python benchmarks/append.py [--rounds 5] [--seconds 2] [--full]

One process runs the ledger as in production (SQLite with synchronous=FULL, one signed checkpoint
and one anchor line for every batch, each made durable before anybody is answered); another appends.
Every answer is a receipt. The cost of one fdatasync on the same disk is printed beside the result.
`--full` gives every record what a key release has: two hidden fields, three names, two fences.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import uvloop

from envelock_ledger.entry import Committed, Entry, Once
from envelock_ledger.record import encode_body
from envelock_ledger.remote import LedgerClient

IN_FLIGHT = (1, 8, 64, 256)
PREPARED = 30_000  # entries encoded for a second, more than are appended
OBJECT = {"id": "cd" * 16, "kid": "acme:patients:2026-11:v1", "pol": "ef" * 32}


def entries(run: str, *, full: bool) -> Iterator[Entry]:
    """Entries of about 450 bytes each, or those of a key release."""
    expires = int(time.time()) + 60
    for number in count():
        name = f"{run}-{number:09d}"
        fields = {
            "id": name,
            "objs": [OBJECT],
            "req": name,
            "rh": "ab" * 32,
            "tn": "acme",
            "ts": time.time_ns() // 1000,
            "typ": "release",
            "v": 1,
        }
        if not full:
            yield Entry(encode_body(fields, {}, lambda: os.urandom(16))[0])
            continue
        personal = {"sub": "user-4711", "ip": "192.0.2.7"}
        body, openings = encode_body(fields, personal, lambda: os.urandom(16))
        digest = "ab" * 32
        once = (
            Once(f"dec:{name}", digest, expires),
            Once(f"srt:{name}", digest, expires),
            Once(f"dpop:{name}", None, expires),
        )
        yield Entry(body, openings, once, {"key:acme:v1": 0, "policy:acme": 0})


async def measure(
    client: LedgerClient, in_flight: int, seconds: float, *, full: bool
) -> list[float]:
    """Latencies in seconds of the appends that *in_flight* callers make."""
    some = list(islice(entries(os.urandom(4).hex(), full=full), int(PREPARED * seconds)))
    source = iter(some)  # encoded before the clock starts
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        """Append one entry after the other."""
        while (begun := time.perf_counter()) < until:
            [outcome] = await client.append([next(source)])
            if not isinstance(outcome, Committed):
                raise SystemExit(f"not committed: {outcome}")
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return sorted(latencies)


def fsync_ms(folder: Path) -> str:
    """Cost of one 8 KiB write and fdatasync: median and 99th percentile."""
    costs = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(200):
            begun = time.perf_counter()
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            costs.append((time.perf_counter() - begun) * 1e3)
    costs.sort()
    return f"{costs[100]:.2f} / {costs[197]:.2f} ms"


async def run(data: Path, rounds: int, seconds: float, *, full: bool) -> None:
    """Measure every number in flight, the rounds interleaved."""
    client = LedgerClient(data / "run" / "ledger-kas.sock")
    rates: dict[int, list[float]] = {number: [] for number in IN_FLIGHT}
    latencies: dict[int, list[float]] = {number: [] for number in IN_FLIGHT}
    await measure(client, 64, 1, full=full)  # warm up
    for _ in range(rounds):
        print(f"fdatasync p50 / p99: {fsync_ms(data)}")
        for number in IN_FLIGHT:
            found = await measure(client, number, seconds, full=full)
            rates[number].append(len(found) / seconds)
            latencies[number].extend(found)
    await client.aclose()
    for number in IN_FLIGHT:
        all_of = sorted(latencies[number])
        middle, late = all_of[len(all_of) // 2], all_of[len(all_of) * 99 // 100]
        low, high = min(rates[number]), max(rates[number])
        print(
            f"{number:4d} in flight: {statistics.median(rates[number]):7.0f}/s"
            f" ({low:.0f}-{high:.0f})   p50 {middle * 1e3:6.2f} ms   p99 {late * 1e3:6.2f} ms"
        )


def main() -> None:
    """Start a ledger on a temporary folder, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--full", action="store_true")
    wanted = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="append-"))
    command = [sys.executable, "-m", "envelock_ledger", "--data", str(data)]
    with subprocess.Popen(  # noqa: S603 - this interpreter
        command, stdout=subprocess.PIPE, text=True
    ) as ledger:
        try:
            print(json.loads(ledger.stdout.readline()))
            uvloop.run(run(data, wanted.rounds, wanted.seconds, full=wanted.full))
        finally:
            ledger.terminate()
            ledger.wait()
            shutil.rmtree(data)


if __name__ == "__main__":
    main()
