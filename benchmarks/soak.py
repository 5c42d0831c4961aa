"""Does anything grow while a deployment works for half an hour?

    python benchmarks/soak.py [--minutes 30] [--wrap ec:secp256r1] [--custody local|softhsm]

Releases are sent as `release.py` does, in rounds; nothing is sent while the next round is signed.
After each minute: releases so far, and the memory of each process. At the end its open files and
threads, and the growth of memory by a straight line through the minutes after the fifteenth, in MB
in ten minutes (goal: less than 1).
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from release import deployment, ours, prepared, resident, sent

from envelock.reader import SealedFile

CONNECTIONS = 64
REQUESTS = 4000  # of a round
WARM_MINUTES = 15  # spent names are kept for minutes, and what a process holds follows the rate


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at a moment."""

    minutes: float
    megabytes: float
    files: int
    threads: int


def main() -> None:
    """Send rounds until the time is over, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--wrap", default="ec:secp256r1")
    parser.add_argument("--custody", choices=["local", "softhsm"], default="local")
    asked = parser.parse_args()
    with deployment(asked.wrap, asked.custody, os.cpu_count() or 2) as running:
        client = running.client("doctor")
        files = [SealedFile.open(client.encrypt(b"x", attrs="clearance=secret"))]
        processes = ours(running)
        samples: dict[int, list[Sample]] = {pid: [] for pid in processes}
        begun, shown, released, busy = time.monotonic(), 0, 0, 0.0
        while (minutes := (time.monotonic() - begun) / 60) < asked.minutes:
            signed = prepared(running, client, files, REQUESTS, decided=False)
            told, _ = sent(running.url, signed, CONNECTIONS)
            released, busy = released + told["answered"], busy + told["seconds"]
            if minutes >= shown:
                shown += 1
                for pid, found in samples.items():
                    found.append(sample(pid, minutes))
                now = " ".join(f"{found[-1].megabytes:6.1f}" for found in samples.values())
                print(f"{minutes:5.1f} min  {released:9,} releases  {now} MB", flush=True)
        share = 100 * busy / (time.monotonic() - begun)
        print(f"{released:,} releases, sending {share:.0f} % of the time, {released / busy:.0f}/s")
        for pid, name in processes.items():
            print(f"{name:16} {told_of(samples[pid])}")


def sample(pid: int, minutes: float) -> Sample:
    """What the process holds now."""
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return Sample(minutes, resident(pid), files, threads)


def told_of(samples: list[Sample]) -> str:
    """First and last, and the slope of memory once it is warm."""
    first, last = samples[0], samples[-1]
    warm = [one for one in samples if one.minutes >= WARM_MINUTES]
    slope = "too short for a slope"
    if len(warm) > 2:  # noqa: PLR2004 a line needs them
        minutes, held = [one.minutes for one in warm], [one.megabytes for one in warm]
        per_minute = statistics.linear_regression(minutes, held).slope
        slope = f"{10 * per_minute:+.2f} MB in ten minutes"
    return (
        f"{first.megabytes:.1f} -> {last.megabytes:.1f} MB ({slope}), "
        f"files {first.files} -> {last.files}, threads {first.threads} -> {last.threads}"
    )


if __name__ == "__main__":
    main()
