"""otdf-python as its registry serves it, against a running server."""

import os

import pytest
from interop.cells import FAULTS, MIB, SIZES, Bench, damaged
from interop.clients import Installed, ours, python
from interop.deployment import Deployment


@pytest.fixture(scope="module")
def theirs() -> Installed:
    """otdf-python; skips where no registry is reached, fails where clients are required."""
    found = python()
    if not found.missing:
        return found
    if os.environ.get("ENVELOCK_REQUIRE_CLIENTS") == "1":
        pytest.fail(found.missing)
    return pytest.skip(f"not run: {found.missing}")


@pytest.fixture
def bench(stock: Deployment, theirs: Installed, tmp_path) -> Bench:
    """Both clients, and an empty folder."""
    return Bench((ours(), theirs), stock, tmp_path)


@pytest.mark.parametrize("size", [0, 2 * MIB + 1])
def test_what_ours_seals_opens_with_theirs(bench, theirs, size):
    """Under the server's first key, an EC one, at an empty file and beyond a segment."""
    plain, sealed = bench.plain(size), bench.folder / "file.tdf"
    made = bench.seal(ours(), plain, sealed)

    opened = bench.unseal(theirs, sealed, plain)

    assert made.ok, made.words
    assert opened.ok, opened.words


@pytest.mark.parametrize("size", [0, 2 * MIB + 1])
def test_what_theirs_seals_opens_with_both(bench, theirs, size):
    """It finds issuer and RSA key by itself."""
    plain, sealed = bench.plain(size), bench.folder / "file.tdf"
    made = bench.seal(theirs, plain, sealed)

    own, other = (bench.unseal(reader, sealed, plain) for reader in bench.clients)

    assert made.ok, made.words
    assert own.ok, own.words
    assert other.ok, other.words


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_size_both_ways(bench, size):
    """Each writes, each reads, at the borders of a segment."""
    plain, sealed = bench.plain(size), bench.folder / "file.tdf"

    done = [
        outcome
        for writer in bench.clients
        for outcome in (
            bench.seal(writer, plain, sealed),
            *(bench.unseal(reader, sealed, plain) for reader in bench.clients),
        )
    ]

    assert [outcome.words for outcome in done if not outcome.ok] == []


def test_it_is_denied_what_it_may_not_have(bench, theirs, stock):
    """Not entitled, and an altered policy: no plaintext, and the server's words in its log."""
    plain, sealed = bench.plain(1), bench.folder / "file.tdf"
    bench.seal(ours(), plain, sealed)
    bad = damaged(sealed, bench.folder / "bad.tdf", FAULTS["another policy"])

    denied = bench.unseal(theirs, sealed, None, person=stock.person("accountant"))
    altered = bench.unseal(theirs, bad, None)

    assert not denied.ok
    assert "desc = forbidden" in denied.words
    assert not altered.ok
    assert "desc = bad request" in altered.words
