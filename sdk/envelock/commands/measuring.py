"""Figures of this machine: medians with their spread, beside what no program here can beat."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats.canonical import Json

REPEATS = 200
BLOCK = 8192  # bytes of one write that is made durable
CHUNK = 1 << 20
MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, once for each round."""

    what: str
    unit: str
    rounds: tuple[float, ...]

    def value(self) -> dict[str, Json]:
        """For `--json`."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": _rounded(statistics.median(self.rounds)),
            "low": _rounded(min(self.rounds)),
            "high": _rounded(max(self.rounds)),
            "rounds": len(self.rounds),
        }


def fsync_cost(folder: Path) -> Figure:
    """One write and fdatasync on the file system of *folder*; each append waits for several."""
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:

        def write() -> None:
            file.write(bytes(BLOCK))
            os.fdatasync(file.fileno())

        costs = [_seconds(write) * 1000 for _ in range(REPEATS)]
    path.unlink()
    return Figure("write of 8 KiB and fdatasync", "ms", _tenths(costs))


def signature_costs() -> tuple[Figure, Figure]:
    """One P-256 signature, and its verification, on one core."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, algorithm = key.public_key(), ec.ECDSA(hashes.SHA256())
    signature = key.sign(b"x", algorithm)
    signing = [_seconds(lambda: key.sign(b"x", algorithm)) * MEGA for _ in range(REPEATS)]
    verifying = [
        _seconds(lambda: public.verify(signature, b"x", algorithm)) * MEGA for _ in range(REPEATS)
    ]
    return (
        Figure("P-256 signature", "us", _tenths(signing)),
        Figure("P-256 verification", "us", _tenths(verifying)),
    )


def copy_speed(source: Path, rounds: int) -> Figure:
    """A plain copy of *source* in blocks of 1 MiB, from the page cache."""
    target = source.with_name("copy")
    speeds = []
    for _ in range(rounds):
        speeds.append(source.stat().st_size / MEGA / _seconds(lambda: _copy(source, target)))
        target.unlink()
    return Figure("plain copy", "MB/s", tuple(speeds))


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """A line for each figure: median, and the lowest and highest round."""
    width = max(len(figure.what) for figure in figures)
    for figure in figures:
        found = figure.value()
        spread = f"{found['low']} to {found['high']}"
        yield f"{figure.what:<{width}}  {found['median']:>10} {figure.unit:<5}  {spread}"


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(CHUNK):
            writing.write(block)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _tenths(costs: Sequence[float]) -> tuple[float, ...]:
    """Medians of ten runs of repeats, so that the spread is that of medians too."""
    size = len(costs) // 10
    return tuple(statistics.median(costs[at * size : (at + 1) * size]) for at in range(10))


def _rounded(value: float) -> float:
    return round(value, 2) if value < 100 else round(value)  # noqa: PLR2004 three digits say enough
