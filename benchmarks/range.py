"""How much of a 10 GB sealed file does a reader touch for 4 KiB somewhere in it?

    python benchmarks/range.py [--gigabytes 10] [--directory DIR]

The file is sealed from zeros, so the disk holds one copy. Reads are counted where they reach the
file, in bytes and in segments of the container's payload; opening, which reads the container's
ends and its manifest, is counted apart.
"""

import argparse
import io
import random
import statistics
import tempfile
import time
from pathlib import Path

from file import DEK, PLAN, peak_kilobytes

from envelock.reader import SealedFile
from envelock.writer import seal
from envelock_formats.tdf.manifest import SEGMENT_SIZE

RANGE = 4096
TRIES = 200


class Zeros(io.RawIOBase):
    """A stream of that many zeros."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Fill *buffer*, or what is left."""
        count = min(len(buffer), self._left)
        buffer[:count] = bytes(count)
        self._left -= count
        return count


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.touched = 0

    def readinto(self, buffer: memoryview) -> int:
        """Read, and count."""
        count = super().readinto(buffer) or 0
        self.touched += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Read, and count."""
        found = super().read(size) or b""
        self.touched += len(found)
        return found


def main() -> None:
    """Seal, then read ranges at random places."""
    options = argparse.ArgumentParser()
    options.add_argument("--gigabytes", type=int, default=10)
    options.add_argument("--directory", type=Path, default=None)
    chosen = options.parse_args()
    size = chosen.gigabytes * 1_000_000_000
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        container = Path(name) / "large.tdf"
        begun = time.perf_counter()
        with container.open("wb", buffering=0) as write:
            seal(Zeros(size), write, PLAN)
        print(f"sealed {size / 1e9:.0f} GB in {time.perf_counter() - begun:.1f} s")
        measure(container, size)


def measure(container: Path, size: int) -> None:
    """Print what opening and what ranges touch."""
    source = Counted(container)
    begun = time.perf_counter()
    reader = SealedFile.open(source).unlock(DEK)
    taken = time.perf_counter() - begun
    print(f"opening reads {source.touched / 1e6:.2f} MB, {1e3 * taken:.0f} ms")
    chance = random.Random(7)
    touched, times = [], []
    for number in range(TRIES):
        at = chance.randrange(size - RANGE)
        if number % 2:  # every other one crosses from one segment into the next
            at = max(1, at // SEGMENT_SIZE) * SEGMENT_SIZE - RANGE // 2
        before, begun = source.touched, time.perf_counter()
        reader.seek(at)
        if reader.read(RANGE) != bytes(RANGE):
            raise SystemExit("another plaintext came back")
        times.append(time.perf_counter() - begun)
        touched.append(-(-(source.touched - before) // (SEGMENT_SIZE + 28)))
    print(
        f"4 KiB: {statistics.median(touched):.0f} segments in the middle, {max(touched)} at most,"
        f" {1e3 * statistics.median(times):.2f} ms [{1e3 * max(times):.2f}]"
    )
    print(f"peak memory of this process {peak_kilobytes() / 1024:.0f} MB")


if __name__ == "__main__":
    main()
