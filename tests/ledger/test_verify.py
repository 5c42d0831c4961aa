"""Verification: whatever is altered in a copy is named."""

import asyncio
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from ledger.world import World, body, entry, fill, hiding, place_in

from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.errors import DamageError, LedgerError
from envelock_ledger.merkle import leaf_hash, root_of
from envelock_ledger.record import parse, splice
from envelock_ledger.report import Since, verify_store
from envelock_ledger.store import Row
from envelock_ledger.store.sqlite import SqliteStore
from envelock_ledger.verify import Tally

SIZE = 600


async def snapshot(world: World, path: Path) -> None:
    """A snapshot of a ledger with strata, fences, topics and three tenants."""
    writer = await world.start()
    await writer.append(
        [hiding("r-hidden", sub="ann"), entry(moves={"a": 1}, topic="t", tn="bolt")]
    )
    await writer.append([entry(moves={"a": 2}, topic="t", tn="core")])
    await fill(writer, SIZE)
    await writer.snapshot(path)
    await writer.aclose()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that ledger, stopped, and the snapshot beside it."""
    folder = tmp_path_factory.mktemp("made")
    asyncio.run(snapshot(World(place_in(folder)), folder / "copy"))
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    """The ledger, for this test to spoil."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return World(place_in(tmp_path))


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    """The snapshot, for this test to spoil."""
    assert world.place.database.exists()
    return tmp_path / "copy"


def verified(world: World, path: Path, since: Since | None = None):
    """What verification of the copy at *path* reports."""
    try:
        store = SqliteStore.read(path)
        note = store.checkpoint()
    except LedgerError as error:
        return str(error)
    report = verify_store(store, note or "", world.signer.verifier, since)
    store.close()
    return report


def tampered(path: Path, sql: str, values: tuple[object, ...] = ()) -> None:
    """Edit a copy as somebody with the file could."""
    connection = sqlite3.connect(path)
    for trigger in ("entry_unchanged", "entry_kept"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    connection.execute(sql, values)
    connection.commit()
    connection.close()


async def test_a_copy_verifies(world, copy):
    """An untouched copy holds, and what it cannot show is said."""
    report = verified(world, copy)

    assert report.failed is None
    assert report.lines[0].startswith("ok    records 0-599: leaves, chain, root ")
    assert report.lines[0].endswith(", 3 tenant chains")
    assert report.lines[1].startswith("ok    checkpoint of 2027-01-15 08:00Z, signed by ")
    assert report.lines[2].startswith("open  not shown: later records; ")


EDITS = {
    "UPDATE entry SET body = CAST(replace(body, 'acme', 'acmf') AS BLOB) WHERE idx = 412": (
        412,
        "body",
    ),
    "UPDATE entry SET leaf = zeroblob(32) WHERE idx = 412": (412, "leaf"),
    "UPDATE entry SET rid = 'other' WHERE idx = 412": (412, "rid"),
    "UPDATE entry SET body = CAST(body || ' ' AS BLOB) WHERE idx = 412": (412, "body"),
    "UPDATE entry SET body = CAST(replace(body, 'acme', 'acmf') AS BLOB) WHERE idx = 599": (
        599,
        "body",
    ),
    "UPDATE entry SET idx = 10000 WHERE idx = 412": (412, "idx"),
    "DELETE FROM entry WHERE idx = 412": (412, "idx"),
    "DELETE FROM entry WHERE idx = 0": (0, "idx"),
    "DELETE FROM entry WHERE idx = 599": (599, "idx"),
    "INSERT INTO entry SELECT 600, leaf, 'new', body FROM entry WHERE idx = 5": (600, "idx"),
    "INSERT INTO entry SELECT -1, leaf, 'new', body FROM entry WHERE idx = 5": None,
    "UPDATE stratum SET hash = zeroblob(32) WHERE n = 1": None,
    "DELETE FROM stratum WHERE n = 1": None,
    "INSERT INTO stratum VALUES (8, 2, zeroblob(32))": None,
    "UPDATE state SET size = 599": None,
    "UPDATE state SET size = 601": None,
    "UPDATE state SET root = zeroblob(32)": None,
    "UPDATE state SET prior = 700": None,
    "UPDATE state SET sequenced_us = 1": None,
    "UPDATE tenant SET leaf = zeroblob(32) WHERE tenant = 'bolt'": None,
    "UPDATE tenant SET position = 7 WHERE tenant = 'bolt'": None,
    "DELETE FROM tenant WHERE tenant = 'bolt'": None,
    "INSERT INTO tenant VALUES ('evil', zeroblob(32), 1)": None,
    "UPDATE fence SET number = 1": None,
    "DELETE FROM fence": None,
    "INSERT INTO fence VALUES ('b', 1)": None,
    "UPDATE topic SET topic = 'u' WHERE idx = 2": None,
    "DELETE FROM topic WHERE idx = 2": None,
    "INSERT INTO topic VALUES ('t', 7)": None,
    "UPDATE checkpoint SET note = replace(note, '600', '599')": None,
    "UPDATE checkpoint SET note = 'none'": None,
}


@pytest.mark.parametrize(("edit", "place"), EDITS.items())
async def test_an_edit_is_named(world, copy, edit, place):
    """Every column of every table: one edit, and verification fails, naming a record's column."""
    tampered(copy, edit)

    report = verified(world, copy)

    assert isinstance(report.failed, LedgerError)
    assert report.failed.exit_code == 6
    if place is not None:
        assert isinstance(report.failed, DamageError)
        assert (report.failed.index, report.failed.column) == place
        assert report.lines[-2].startswith(f"FAIL  record {place[0]}, column {place[1]}: ")


async def test_the_first_bad_record_is_named_as_people_read_it(world, copy):
    """The line of the transcript."""
    tampered(
        copy, "UPDATE entry SET body = CAST(replace(body, 'acme', 'acmf') AS BLOB) WHERE idx = 412"
    )

    lines = verified(world, copy).lines

    assert lines[0] == "FAIL  record 412, column body: does not match its leaf; 0-411 verify"


async def test_two_rows_that_changed_places_are_named(world, copy):
    """Order is part of what is recorded."""
    tampered(copy, "UPDATE entry SET idx = 10000 WHERE idx = 412")
    tampered(copy, "UPDATE entry SET idx = 412 WHERE idx = 413")
    tampered(copy, "UPDATE entry SET idx = 413 WHERE idx = 10000")

    assert verified(world, copy).failed.index == 412


async def test_a_rewritten_history_does_not_match_what_was_signed(world, copy):
    """Recomputing every leaf, chain and root helps nobody without the log's key."""
    store = SqliteStore.read(copy)
    rows = list(store.rows(0, SIZE))
    store.close()
    leaves = [row.leaf for row in rows]
    body = rows[SIZE - 1].body.replace(b'"tn":"acme"', b'"tn":"acmf"')
    leaves[-1] = leaf_hash(body)
    tampered(copy, "UPDATE entry SET body = ?, leaf = ? WHERE idx = 599", (body, leaves[-1]))
    tampered(copy, "UPDATE state SET root = ?", (root_of(leaves),))
    tampered(copy, "DELETE FROM tenant WHERE tenant = 'acme'")
    tampered(copy, "INSERT INTO tenant SELECT 'acme', leaf, 0 FROM entry WHERE idx = 598")

    assert verified(world, copy).failed is not None


async def test_truncation_does_not_match_what_was_signed(world, copy):
    """Records cut from the end, with the state made to fit."""
    tampered(copy, "DELETE FROM entry WHERE idx = 599")
    tampered(copy, "UPDATE state SET size = 599, prior = 598")

    assert "covers 600 records" in str(verified(world, copy).failed)


@pytest.mark.parametrize("seed", range(40))
async def test_a_flipped_bit_is_noticed_unless_it_carries_nothing(world, copy, seed):
    """Any one bit of the file: verification fails, or every record is still what it was."""
    before = SqliteStore.read(copy)
    rows = list(before.rows(0, SIZE))
    before.close()
    content = bytearray(copy.read_bytes())
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice of bits
    position = chance.randrange(100, len(content))
    content[position] ^= 1 << chance.randrange(8)
    copy.write_bytes(content)

    report = verified(world, copy)

    if not isinstance(report, str) and report.failed is None:
        after = SqliteStore.read(copy)
        assert list(after.rows(0, SIZE)) == rows
        after.close()


async def test_a_log_with_a_damaged_record_does_not_start(world, copy):
    """The start gate verifies the same way, and signs nothing over damage."""
    before = world.place.anchor.read_bytes()
    tampered(
        world.place.database,
        "UPDATE entry SET body = CAST(replace(body, 'acme', 'acmf') AS BLOB) WHERE idx = 412",
    )

    with pytest.raises(DamageError) as caught:
        await world.start()

    assert (caught.value.index, caught.value.column) == (412, "body")
    assert copy.exists()
    assert world.place.anchor.read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE fence SET number = 1",
        "DELETE FROM fence",
        "UPDATE tenant SET position = 7 WHERE tenant = 'bolt'",
        "DELETE FROM topic",
        "UPDATE stratum SET hash = zeroblob(32) WHERE n = 1",
        "UPDATE state SET sequenced_us = 1",
        "INSERT INTO spent VALUES (9, NULL, x'00')",
    ],
)
async def test_a_log_whose_tables_contradict_its_records_does_not_start(world, edit):
    """A fence that was set back would revive what was revoked: the gate compares."""
    tampered(world.place.database, edit)

    with pytest.raises(DamageError, match="table"):
        await world.start()


def stored(**serial: object) -> Row:
    """A second record, with other serial fields than it should have."""
    first = Row(0, *_hashed(splice(body(id="a"), **FIRST)))
    right = {
        "index": 1,
        "previous": first.leaf,
        "sequenced_us": 6,
        "tenant_previous": first.leaf,
        "tenant_position": 1,
    }
    moves = serial.pop("moves", None)
    raw = body(id="b", **({} if moves is None else {"moves": moves}))
    return Row(1, *_hashed(splice(raw, **{**right, **serial})))


def _hashed(raw: bytes) -> tuple[bytes, str, bytes]:
    return leaf_hash(raw), parse(raw).envelope.id, raw


FIRST = {
    "index": 0,
    "previous": bytes(32),
    "sequenced_us": 5,
    "tenant_previous": bytes(32),
    "tenant_position": 0,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"index": 2},
        {"previous": bytes(32)},
        {"sequenced_us": 4},
        {"tenant_previous": bytes(32)},
        {"tenant_position": 0},
        {"tenant_position": 2},
        {"repeats": 1},
        {"moves": {"a": 2}},
    ],
)
def test_a_record_that_a_rogue_writer_placed_is_named(wrong):
    """Leaf and root may be right and signed: the fields inside must follow as well."""
    tally = Tally()
    tally.add(Row(0, *_hashed(splice(body(id="a"), **FIRST))))

    with pytest.raises(DamageError) as caught:
        tally.add(stored(**wrong))

    assert (caught.value.index, caught.value.column) == (1, "body")


def test_a_record_in_its_place_is_accepted():
    """The same record with the right fields follows."""
    tally = Tally()
    tally.add(Row(0, *_hashed(splice(body(id="a"), **FIRST))))
    tally.add(stored())

    assert tally.size == 2


async def test_the_key_of_another_log_verifies_nothing(world, copy):
    """A copy is verified under the reader's key, not under the one it brings."""
    other = "log+3a3b0f2c+AQ=="
    store = SqliteStore.read(copy)
    key = world.signer.verifier
    strange = type(key)(key.name, bytes([9] * 32))

    report = verify_store(store, store.checkpoint() or "", strange, None)
    store.close()

    assert other not in str(report.failed)
    assert report.failed is not None


async def test_a_copy_extends_an_earlier_checkpoint(tmp_path):
    """Nothing was removed or rewritten since; a foreign past is refused."""
    world = World(place_in(tmp_path / "new"))
    writer = await world.start()
    await fill(writer, 11)
    earlier = open_checkpoint(await writer.head(), world.signer.verifier)
    await fill(writer, 50)
    await writer.snapshot(tmp_path / "copy")
    await writer.aclose()

    good = verified(world, tmp_path / "copy", Since("sep.checkpoint", earlier))
    foreign = Checkpoint(earlier.origin, 11, bytes(32))
    bad = verified(world, tmp_path / "copy", Since("sep.checkpoint", foreign))
    future = verified(
        world, tmp_path / "copy", Since("x", Checkpoint(earlier.origin, 99, bytes(32)))
    )

    assert good.lines[2] == (
        "ok    extends sep.checkpoint (11 records): nothing removed or rewritten"
    )
    assert bad.failed is not None
    assert "has 99 records" in str(future.failed)


def test_records_refuse_to_be_changed(tmp_path):
    """The database itself refuses the careless; the signatures are against the rest."""
    SqliteStore.open(tmp_path / "db", create=True).close()
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("INSERT INTO entry VALUES (0, zeroblob(32), 'r', zeroblob(1))")

    for statement in ("UPDATE entry SET rid = 'x'", "DELETE FROM entry"):
        with pytest.raises(sqlite3.IntegrityError, match="records are never"):
            connection.execute(statement)
    connection.close()


async def test_a_log_that_does_not_start_is_given_back_at_once(world):
    """Whoever mends it, or looks at it, need not wait for the error to be forgotten."""
    tampered(world.place.database, "UPDATE entry SET body = zeroblob(9) WHERE idx = 412")

    with pytest.raises(DamageError) as refused:
        await world.start()

    assert refused.value.index == 412
    tampered(world.place.database, "DELETE FROM entry WHERE idx = 412")
