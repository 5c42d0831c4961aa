"""How long until a command answers, a library is there, a deployment is ready; how much memory?

    python benchmarks/start.py [--rounds 15]

Wall time of whole processes, the bare interpreter in the same rounds. `envelock up` is timed from
an empty directory (it makes keys, a ledger, policies) and again from the same one; ready means that
it said so, which it does once it has answered itself.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
ENVELOCK = [sys.executable, "-m", "envelock"]


def main() -> None:
    """Time everything in turn and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    contenders: dict[str, list[str]] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import envelock": [sys.executable, "-c", "import envelock"],
        "envelock --help": [str(BIN / "envelock"), "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, command in contenders.items():
            times[name].append(seconds(lambda command=command: whole(command)))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(max(3, rounds // 3)):
            data = Path(folder) / f"data-{number}"
            times.setdefault("up, first time", [0.0]).append(seconds_until_ready(data))
            times.setdefault("up, again", [0.0]).append(seconds_until_ready(data))
    for name, found in times.items():
        taken = [1000 * one for one in found[1:]]  # the first warms up
        middle = statistics.median(taken)
        print(f"{name:16} {middle:7.0f} ms  [{min(taken):.0f}-{max(taken):.0f}]")


def whole(command: list[str]) -> None:
    """Run a process to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 our own words


def seconds(work: Callable[[], None]) -> float:
    """Wall time of *work*."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def seconds_until_ready(data: Path) -> float:
    """Wall time until `envelock up` says that it is ready; stops it."""
    command = [*ENVELOCK, "up", "--json", "--data", str(data), "--listen", "127.0.0.1:0"]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603 our own words
        line = process.stdout.readline() if process.stdout else b""
        taken = time.perf_counter() - begun
        process.send_signal(signal.SIGTERM)
    if not line.startswith(b"{"):
        sys.exit("envelock up did not start")
    return taken


if __name__ == "__main__":
    os.environ.pop("ENVELOCK_DATA", None)
    main()
