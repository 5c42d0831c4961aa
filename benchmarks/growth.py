"""What grows when there are ten and a hundred times more keys, rules, mappings or records?

    python benchmarks/growth.py [--quick]

One deployment for each row, with two KAS workers; releases are sent as `release.py` does. Columns:
keys released in a second, milliseconds at the 99th percentile, processor time of a release in each
process, memory of each process, size of the data directory. For records, also how long it takes to
verify all of them, which is also what a start of the ledger does first.
"""

import argparse
import asyncio
import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from append import entries
from release import cpu_seconds, deployment, ours, prepared, resident, sent

from envelock.reader import SealedFile
from envelock.testing import Server
from envelock_ledger.remote import LedgerClient

CONNECTIONS = 64
KEYS, RULES, MAPPINGS, RECORDS = (
    40,
    10,
    10,
    10_000,
)  # callers may name 10,000 key paths, two a dataset
IN_FLIGHT = 256


def main() -> None:
    """Print a row for each of 1 x, 10 x and 100 x."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="1 x and 10 x alone")
    steps = (1, 10) if parser.parse_args().quick else (1, 10, 100)
    for step in steps:
        row(f"{KEYS * step} keys", lambda running, step=step: add_keys(running, KEYS * step))
    for step in steps:
        row(f"{RULES * step} rules", lambda _: "", partial(add_rules, count=RULES * step))
    for step in steps:
        row(f"{MAPPINGS * step} mappings", lambda _: "", partial(map_more, count=MAPPINGS * step))
    for step in steps:
        row(
            f"{RECORDS * step} records",
            lambda running, step=step: fill_ledger(running, RECORDS * step),
        )


def row(
    name: str, fill: Callable[[Server], str], change: Callable[[Path], None] | None = None
) -> None:
    """Fill a deployment whose policies were changed, measure it, print one line."""
    with tempfile.TemporaryDirectory() as folder:
        policies = clinic(Path(folder) / "clinic")
        if change is not None:
            change(policies)
        with deployment("ec:secp256r1", "local", os.cpu_count() or 2, policies) as running:
            told = fill(running)
            print(f"{name:16} {measured(running)} {told}", flush=True)


def measured(running: Server, requests: int = 1500) -> str:
    """Send requests twice; the first time warms up."""
    client = running.client("doctor")
    files = [SealedFile.open(client.encrypt(b"x", attrs="clearance=secret"))]
    processes = ours(running)
    for _ in range(2):
        signed = prepared(running, client, files, requests, decided=False)
        before = {pid: cpu_seconds(pid) for pid in processes}
        answer, _ = sent(running.url, signed, CONNECTIONS)
    share = dict.fromkeys(processes.values(), 0.0)
    for pid, name in processes.items():
        share[name] += (cpu_seconds(pid) - before[pid]) / answer["answered"]
    memory = {name: resident(pid) for pid, name in processes.items()}
    cpu = ", ".join(f"{name[9:]} {1e6 * spent:.0f}" for name, spent in share.items())
    held = ", ".join(f"{name[9:]} {size:.0f}" for name, size in memory.items())
    disk = sum(one.stat().st_size for one in running.data.rglob("*") if one.is_file())
    return (
        f"{answer['answered'] / answer['seconds']:5.0f}/s p99 {answer['p99_ms']:4.0f} ms"
        f" | us: {cpu} | MB: {held} | disk {disk / 1e6:.0f} MB"
    )


def add_keys(running: Server, count: int) -> str:
    """Give *count* datasets a key by asking for it."""
    client = running.client("doctor")
    begun = time.perf_counter()
    for number in range(count):
        client.run(client.session.published_key(f"set-{number}"))
    return f"| {1000 * (time.perf_counter() - begun) / count:.1f} ms to make a key"


def clinic(target: Path) -> Path:
    """A copy of the shipped policies."""
    source = importlib.resources.files("envelock_policies") / "clinic"
    with importlib.resources.as_file(source) as folder:
        shutil.copytree(folder, target)
    return target


def add_rules(policies: Path, count: int) -> None:
    """Add *count* rules that apply to somebody else."""
    rules = [
        {
            "uid": f"growth-{number}",
            "effect": "deny",
            "targets": {"subject_id": f"person-{number}"},
            "rules": {"subject": {"$.sub": {"condition": "Equals", "value": f"person-{number}"}}},
        }
        for number in range(count)
    ]
    (policies / "rules" / "growth.json").write_text(json.dumps(rules), "utf-8")


def map_more(policies: Path, count: int) -> None:
    """Add *count* values of one more attribute, with a subject mapping each."""
    names = [f"unit-{number}" for number in range(count)]
    attributes, mappings = policies / "attributes.json", policies / "mappings.json"
    defined = json.loads(attributes.read_text("utf-8"))
    defined.append({"name": "unit", "rule": "anyOf", "values": names})
    attributes.write_text(json.dumps(defined), "utf-8")
    mapped = json.loads(mappings.read_text("utf-8"))
    mapped += [
        {"claim": "$.units", "operator": "in", "values": [name], "grants": f"unit={name}"}
        for name in names
    ]
    mappings.write_text(json.dumps(mapped), "utf-8")


def fill_ledger(running: Server, count: int) -> str:
    """Append *count* records of releases, then time a verification of a copy."""
    asyncio.run(append_records(running, count))
    with tempfile.TemporaryDirectory() as folder:
        copy = str(Path(folder) / "copy.db")
        command = [sys.executable, "-m", "envelock", "ledger"]
        snapshot = [*command, "snapshot", copy, "--data", str(running.data)]
        subprocess.run(snapshot, check=True, capture_output=True)  # noqa: S603 our own words
        begun = time.perf_counter()
        verify = [*command, "verify", copy, "--ledger-key", running.ledger_key]
        subprocess.run(verify, check=True, capture_output=True)  # noqa: S603 our own words
        return f"| verified in {time.perf_counter() - begun:.1f} s"


async def append_records(running: Server, count: int) -> None:
    """Append *count* records, many at a time."""
    ledger = LedgerClient(running.data / "run" / "ledger-kas.sock")
    source = entries(os.urandom(4).hex(), full=False)
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await ledger.append([next(source)])

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    await ledger.aclose()


if __name__ == "__main__":
    main()
