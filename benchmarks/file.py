"""How fast is a large file sealed and opened, beside a plain copy and bare AES-GCM?

    python benchmarks/file.py [--megabytes 256] [--rounds 7] [--directory DIR]

Every round runs all contenders once, in turn; new files each time, page cache, no fsync (a path as
target adds one fsync, which is the disk's time and not ours). Memory is the growth of the resident
peak of a fresh process that does nothing else.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envelock.reader import SealedFile
from envelock.writer import SealPlan, seal
from envelock_formats.framing import b64
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy
from envelock_formats.tdf.manifest import SEGMENT_SIZE
from envelock_formats.tdf.policy import write_policy

DEK = bytes(range(32))
POLICY = write_policy("00000000-0000-0000-0000-000000000000", ())
KEY = KeyAccess(
    type="wrapped",
    url="http://127.0.0.1:8080/kas",
    wrappedKey=b64(bytes(256)),
    policyBinding=bind_policy(DEK, POLICY),
    kid="bench:v1",
)
PLAN = SealPlan(dek=DEK, key_access=(KEY,), policy=POLICY)


def copy(source: Path, target: Path) -> None:
    """Read and write in steps of one segment."""
    buffer = memoryview(bytearray(SEGMENT_SIZE))
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        while count := read.readinto(buffer):
            write.write(buffer[:count])


def sealed(source: Path, target: Path) -> None:
    """Seal through file objects."""
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        seal(read, write, PLAN)


def opened(source: Path, target: Path) -> None:
    """Open, verify, and write all of the plaintext."""
    with SealedFile.open(source).unlock(DEK) as reader, target.open("wb", buffering=0) as write:
        reader.copy_to(write)


def bare(source: Path, _: Path) -> None:
    """AES-GCM alone, memory to memory, over as many bytes as *source* has."""
    cipher, plain = AESGCM(DEK), bytes(SEGMENT_SIZE)
    out = bytearray(SEGMENT_SIZE + 16)
    for number in range(source.stat().st_size // SEGMENT_SIZE):
        cipher.encrypt_into(number.to_bytes(12, "big"), plain, None, out)


def seconds(run: Callable[[Path, Path], None], source: Path, target: Path) -> float:
    """Wall time of one run into a new file."""
    target.unlink(missing_ok=True)
    start = time.perf_counter()
    run(source, target)
    return time.perf_counter() - start


def growth(run: Callable[[Path, Path], None], source: Path, target: Path) -> int:
    """Megabytes by which the resident peak of a fresh process grows."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_growth, (run, source, target))


def _growth(run: Callable[[Path, Path], None], source: Path, target: Path) -> int:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_kilobytes()
    run(source, target)
    return (peak_kilobytes() - before) // 1024


def peak_kilobytes() -> int:
    """Highest resident size of this process since the peak was last forgotten."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1])


def main() -> None:
    """Run and print one line for each contender."""
    options = argparse.ArgumentParser()
    options.add_argument("--megabytes", type=int, default=256)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--directory", type=Path, default=None)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        compare(Path(name), chosen.megabytes << 20, chosen.rounds)


def compare(place: Path, size: int, rounds: int) -> None:
    """Time the contenders in turn, *rounds* times."""
    plain, container, target = place / "plain", place / "plain.tdf", place / "target"
    with plain.open("wb") as stream:
        for _ in range(0, size, SEGMENT_SIZE):
            stream.write(os.urandom(SEGMENT_SIZE))
    seal(plain, container, PLAN)
    contenders = {
        "copy": (copy, plain), "seal": (sealed, plain), "open": (opened, container),
        "AES-GCM": (bare, plain),
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):  # the first warms up
        for name, (run, source) in contenders.items():
            times[name].append(seconds(run, source, target))
    roof = statistics.median(times["copy"][1:])
    for name, (run, source) in contenders.items():
        taken = times[name][1:]
        median = statistics.median(taken)
        print(
            f"{name:8} {size / median / 1e9:6.2f} GB/s"
            f"  [{size / max(taken) / 1e9:.2f}-{size / min(taken) / 1e9:.2f}]"
            f"  {100 * roof / median:4.0f} % of copy  +{growth(run, source, target)} MB"
        )


if __name__ == "__main__":
    main()
