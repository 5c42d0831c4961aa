"""C2SP tlog-tiles: where a static copy of the log keeps its hashes and records.

A tile holds up to 256 hashes of one level; tile level L holds nodes of tree level 8 * L. An entry
bundle holds up to 256 records, each behind its length as u16 big-endian. Only full subtrees have a
place in a tile, so level L + 1 sees full tiles of level L alone.
"""

from collections.abc import Sequence

from envelock_ledger.errors import ProofError
from envelock_ledger.merkle import HASH_SIZE

WIDTH = 256  # hashes of a full tile, records of a full bundle
MAX_LEVEL = 63
MAX_ENTRY = 65_535  # bytes
_GROUP = 1000  # numbers are written in groups of three digits


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """Path of a tile below the log's prefix.

    Args:
        level: Tile level, 0 to 63.
        number: Position among the tiles of the level.
        width: Hashes in it, 1 to 256; fewer than 256 make a partial tile.

    Raises:
        ProofError: There is no such tile.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise ProofError(f"no tile level {level}")
    return f"tile/{level}/{_position(number, width)}"


def bundle_path(number: int, width: int = WIDTH) -> str:
    """Path of an entry bundle below the log's prefix; arguments as for `tile_path`."""
    return f"tile/entries/{_position(number, width)}"


def partial_width(level: int, size: int) -> int:
    """Hashes in the partial tile of *level* in a log of *size*; 0 when there is none."""
    return (size >> (8 * level)) % WIDTH


def tile(hashes: Sequence[bytes]) -> bytes:
    """Content of a tile: its hashes, one after the other; `ProofError` for a wrong length."""
    if not 0 < len(hashes) <= WIDTH or any(len(item) != HASH_SIZE for item in hashes):
        raise ProofError("a tile holds 1 to 256 hashes of 32 bytes")
    return b"".join(hashes)


def parse_tile(content: bytes) -> tuple[bytes, ...]:
    """Hashes of a tile; `ProofError` unless there are 1 to 256 whole ones."""
    hashes = tuple(
        content[start : start + HASH_SIZE] for start in range(0, len(content), HASH_SIZE)
    )
    if tile(hashes) != content:
        raise ProofError("a tile holds 1 to 256 hashes of 32 bytes")
    return hashes


def bundle(entries: Sequence[bytes]) -> bytes:
    """Content of an entry bundle; `ProofError` for more than 256 entries or too long a one."""
    if not 0 < len(entries) <= WIDTH or any(len(entry) > MAX_ENTRY for entry in entries):
        raise ProofError("a bundle holds 1 to 256 entries of at most 65,535 bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(content: bytes) -> tuple[bytes, ...]:
    """Entries of a bundle; `ProofError` unless it holds 1 to 256 whole ones."""
    entries, start = [], 0
    while start < len(content):
        end = start + 2 + int.from_bytes(content[start : start + 2], "big")
        entries.append(content[start + 2 : end])
        start = end
    if bundle(entries) != content:
        raise ProofError("an entry bundle is cut short")
    return tuple(entries)


def _position(number: int, width: int) -> str:
    if number < 0 or not 0 < width <= WIDTH:
        raise ProofError(f"no tile {number} of width {width}")
    groups = [f"{number % _GROUP:03d}"]
    while number := number // _GROUP:
        groups.append(f"x{number % _GROUP:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return "/".join(reversed(groups)) + partial
