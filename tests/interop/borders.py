"""Files at the borders of the zip format, from ours to the Go SDK and back."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from interop.cells import MIB, Bench, Cell
from interop.clients import NOT_RUN

GIB = 1 << 30
OVERHEAD = 28  # bytes that sealing adds to a segment of 2 MiB
# Sizes of plaintext whose sealed payload lies where readers differ.
BORDERS = {
    "just under 2 GiB": 2 * GIB - (2 * GIB // (2 * MIB)) * OVERHEAD - 1,
    "2 GiB + 1": 2 * GIB + 1,
    "3 GiB": 3 * GIB,
    "just under 4 GiB": 4 * GIB - (4 * GIB // (2 * MIB)) * OVERHEAD - MIB,
    "4 GiB + 1 MiB": 4 * GIB + MIB,
}
ROOM = 10 * GIB + GIB  # a sealed file and its plaintext
SECONDS = 600


def borders(bench: Bench) -> Iterator[Cell]:
    """Ours to Go and Go to ours; the plaintext is a file with a hole."""
    free = shutil.disk_usage(bench.folder).free
    for column, size in BORDERS.items():
        for names in (("envelock", "go"), ("go", "envelock")):
            row = (f"{names[0]} to {names[1]}",)
            if free < ROOM:
                words = f"{free // GIB} GiB are free, and {ROOM // GIB} GiB are needed"
                yield Cell("borders", row, column, NOT_RUN, words)
            else:
                yield _across(bench, row, names, (column, size))


def _across(
    bench: Bench, row: tuple[str, ...], names: tuple[str, str], size: tuple[str, int]
) -> Cell:
    plain, sealed = bench.folder / "large", bench.folder / "large.tdf"
    writer, reader = (bench.client(name) for name in names)
    try:
        _sparse(plain, size[1])
        done = bench.seal(writer, plain, sealed, seconds=SECONDS)
        if done.ok:
            done = bench.unseal(reader, sealed, plain, seconds=SECONDS)
        return Cell("borders", row, size[0], done.state, done.words)
    finally:
        for path in (plain, sealed, sealed.with_suffix(".out")):
            path.unlink(missing_ok=True)


def _sparse(path: Path, size: int) -> None:
    """A file of *size* bytes with something at both ends and a hole between."""
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")
    if path.stat().st_size != size:
        raise OSError(f"{path} is not of {size} bytes")
