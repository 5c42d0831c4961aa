"""Tiles and notes against a log that Tessera wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelock_ledger.checkpoint import open_checkpoint
from envelock_ledger.errors import ProofError
from envelock_ledger.merkle import leaf_hash, root_of
from envelock_ledger.note import VerifierKey
from envelock_ledger.tiles import (
    bundle,
    bundle_path,
    parse_bundle,
    parse_tile,
    partial_width,
    tile,
    tile_path,
)

TESSERA = VerifierKey.parse(
    "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
)


@pytest.mark.parametrize("size", range(16))
def test_a_log_of_tessera_verifies_at_every_size(vectors, size):
    """Checkpoint, tile and bundle of each size agree with each other and with our code."""
    log = vectors / "tessera" / "log"
    checkpoint = open_checkpoint((log / f"checkpoint.{size}").read_text(), TESSERA)
    width = partial_width(0, size)
    entries: tuple[bytes, ...] = ()
    if width:
        entries = parse_bundle((log / bundle_path(0, width)).read_bytes())
        hashes = parse_tile((log / tile_path(0, 0, width)).read_bytes())
        assert list(hashes) == [leaf_hash(entry) for entry in entries]

    assert checkpoint.size == size == len(entries)
    assert checkpoint.root == root_of(map(leaf_hash, entries))


@pytest.mark.parametrize(
    ("number", "width", "expected"),
    [
        (0, 256, "tile/0/000"),
        (5, 256, "tile/0/005"),
        (273, 112, "tile/0/273.p/112"),
        (1234067, 256, "tile/0/x001/x234/067"),
        (999_999, 1, "tile/0/x999/999.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(number, width, expected):
    """Numbers are written in groups of three digits."""
    assert tile_path(0, number, width) == expected
    assert bundle_path(number, width) == expected.replace("tile/0", "tile/entries")


def test_widths_of_a_log_of_70000():
    """The example of the specification: 112, 17 and 1 hashes in the partial tiles."""
    assert [partial_width(level, 70_000) for level in range(4)] == [112, 17, 1, 0]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_bundles_are_read_as_written(entries):
    """A bundle holds its entries, each behind its length."""
    assert list(parse_bundle(bundle(entries))) == entries


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x00\x05abc", b"\x00\x01a" * 257])
def test_refuses_a_malformed_bundle(content):
    """Cut short, empty, or of more than 256 entries."""
    with pytest.raises(ProofError):
        parse_bundle(content)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), bytes(32 * 257)])
def test_refuses_a_malformed_tile(content):
    """A tile is 1 to 256 whole hashes."""
    with pytest.raises(ProofError):
        parse_tile(content)


@pytest.mark.parametrize(
    ("level", "number", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)]
)
def test_refuses_a_tile_that_cannot_be(level, number, width):
    """Levels end at 63, and a tile is neither empty nor wider than 256."""
    with pytest.raises(ProofError):
        tile_path(level, number, width)


def test_refuses_an_entry_that_no_bundle_holds():
    """A length is 16 bits."""
    with pytest.raises(ProofError):
        bundle([bytes(65_536)])
    with pytest.raises(ProofError):
        tile([])
