"""Exports: verified as they are written and read, and read by two programs."""

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from ledger.auditor import audit
from ledger.test_cli import Shell
from ledger.test_process import running, stop
from ledger.world import World, entry, fill, hiding, place_in

from envelock_ledger.errors import DamageError, LedgerError, LedgerUsageError
from envelock_ledger.exporting import import_export, is_export, write_export
from envelock_ledger.merkle import leaf_hash
from envelock_ledger.store.sqlite import SqliteStore

SIZE = 300


async def make(world: World, folder: Path) -> None:
    """A snapshot and an export of one ledger."""
    writer = await world.start()
    await writer.append([hiding("r-hidden", sub="ann", addr="ü"), entry(moves={"a": 1}, tn="bolt")])
    await fill(writer, SIZE)
    await writer.snapshot(folder / "copy")
    await writer.aclose()
    store = SqliteStore.read(folder / "copy")
    write_export(store, store.checkpoint() or "", folder / "out.jsonl")
    store.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, and the log's key."""
    folder = tmp_path_factory.mktemp("made")
    world = World(place_in(folder))
    asyncio.run(make(world, folder))
    (folder / "key").write_text(str(world.signer.verifier))
    return folder


@pytest.fixture
def shell(made: Path, tmp_path: Path) -> Shell:
    """An auditor's machine, with nothing but the key."""
    return Shell(tmp_path, (made / "key").read_text())


def altered(made: Path, tmp_path: Path, old: bytes, new: bytes) -> Path:
    """The export with one replacement."""
    content = (made / "out.jsonl").read_bytes()
    assert old in content
    path = tmp_path / "altered.jsonl"
    path.write_bytes(content.replace(old, new, 1))
    return path


def test_an_export_is_the_records_to_the_byte(made):
    """Every line holds the bytes that were hashed, and can be read as JSON too."""
    first, *lines = (made / "out.jsonl").read_bytes().splitlines()
    store = SqliteStore.read(made / "copy")
    rows = list(store.rows(0, SIZE))
    told = [json.loads(line) for line in lines]

    assert json.loads(first) == {"checkpoint": store.checkpoint(), "format": "envelock-export/1"}
    assert [line.partition(b'"record":')[2][:-1] for line in lines] == [row.body for row in rows]
    assert [one["leaf"] for one in told] == [row.leaf.hex() for row in rows]
    assert [one["index"] for one in told] == list(range(SIZE))
    assert told[1]["record"]["id"] == "r-hidden"


def test_it_holds_no_openings(made):
    """Whatever is hidden in the ledger stays hidden in a copy."""
    assert b"ann" not in (made / "out.jsonl").read_bytes()


def test_it_is_private(made):
    """Only its owner can read the file."""
    assert (made / "out.jsonl").stat().st_mode & 0o777 == 0o600


def test_it_makes_the_same_snapshot_again(made, tmp_path):
    """Imported and exported it is the same to the byte."""
    import_export(made / "out.jsonl", tmp_path / "copy")
    store = SqliteStore.read(tmp_path / "copy")
    size = write_export(store, store.checkpoint() or "", tmp_path / "again")
    store.close()

    assert size == SIZE
    assert (tmp_path / "again").read_bytes() == (made / "out.jsonl").read_bytes()


def test_every_command_reads_it(made, shell):
    """`verify`, `show`, `prove` and `checkpoint` give what they give of a snapshot."""
    copy, export = made / "copy", made / "out.jsonl"

    assert shell.lines("verify", export, "--ledger-key", shell.key) == shell.lines(
        "verify", copy, "--ledger-key", shell.key
    )
    for command in (["show"], ["show", "r-hidden"], ["prove", "1"], ["checkpoint"]):
        assert shell.lines(*command, "--from", export) == shell.lines(*command, "--from", copy)


def test_the_command_writes_it_for_the_other_program(made, shell, tmp_path):
    """An export of a snapshot verifies without any of our code."""
    [line] = shell.lines("export", tmp_path / "x.jsonl", "--from", made / "copy")

    found = audit("export", tmp_path / "x.jsonl", key=shell.key)

    assert line.startswith(f"wrote {tmp_path / 'x.jsonl'}, 300 records: ")
    assert found.code == 0
    assert found.holds[0] == "300 records: leaves, chain, 2 tenant chains, time, fences"
    assert shell.error("export", tmp_path / "x.jsonl", "--from", made / "copy").exit_code == 2


@pytest.mark.parametrize("alive", [True, False])
def test_a_data_directory_is_exported(tmp_path, alive):
    """From the process that runs it, or from its files when it is stopped."""
    with running(tmp_path) as (process, ready):
        if not alive:
            stop(process)
        shell = Shell(tmp_path, str(ready["ledger_key"]))
        shell.lines("export", tmp_path / "x.jsonl")

    assert audit("export", tmp_path / "x.jsonl", key=shell.key).code == 0


def test_a_file_is_never_replaced(made):
    """An export goes to a new file."""
    store = SqliteStore.read(made / "copy")

    with pytest.raises(LedgerUsageError):
        write_export(store, store.checkpoint() or "", made / "copy")
    store.close()


CHANGES = {
    "a body": (b'"id":"r-hidden"', b'"id":"r-hiddem"'),
    "a leaf": (b'{"index":7,"leaf":"', b'{"index":7,"leaf":"00'),
    "an index": (b'{"index":7,', b'{"index":8,'),
    "a cut line": (b'{"index":7,', b"{"),
    "a line too many": (b'{"index":7,', b'{}\n{"index":7,'),
    "a spelling": (b'{"index":7,', b'{ "index":7,'),
    "another version": (b"envelock-export/1", b"envelock-export/2"),
    "a spelling of the first line": (b'{"checkpoint":', b'{"checkpoint": '),
    "a size": (b"\\n300\\n", b"\\n299\\n"),
    "a larger size": (b"\\n300\\n", b"\\n301\\n"),
    "no checkpoint": (b"\\n300\\n", b"\\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_export_is_refused_by_both_programs(made, shell, tmp_path, change):
    """One replacement in one line, and neither takes it."""
    path = altered(made, tmp_path, *CHANGES[change])

    assert shell.error("verify", path, "--ledger-key", shell.key).exit_code == 6
    assert audit("export", path, key=shell.key).code == 6


@pytest.mark.parametrize("kept", [1, 2, 150])
def test_a_cut_export_is_refused_by_both_programs(made, shell, tmp_path, kept):
    """Lines that are missing at the end."""
    lines = (made / "out.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "cut.jsonl"
    path.write_bytes(b"".join(lines[:kept]))

    assert shell.error("verify", path, "--ledger-key", shell.key).exit_code == 6
    found = audit("export", path, key=shell.key)
    assert (found.code, found.fails) == (
        6,
        f"cut.jsonl: record {kept - 1}: is missing; {kept - 1} before it hold",
    )


def test_a_damaged_ledger_is_not_exported(made, tmp_path):
    """What does not verify is no export, and nothing is left of the attempt."""
    shutil.copy(made / "copy", tmp_path / "copy")
    connection = sqlite3.connect(tmp_path / "copy")
    connection.execute("DROP TRIGGER entry_unchanged")
    body = b"{}"
    connection.execute("UPDATE entry SET body = ?, leaf = ? WHERE idx = 7", (body, leaf_hash(body)))
    connection.commit()
    connection.close()
    store = SqliteStore.read(tmp_path / "copy")

    with pytest.raises(DamageError) as refused:
        write_export(store, store.checkpoint() or "", tmp_path / "out")

    store.close()
    assert refused.value.index == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_nothing_is_left_of_a_refused_import(made, tmp_path):
    """An export that does not verify makes no snapshot."""
    path = altered(made, tmp_path, *CHANGES["a body"])

    with pytest.raises(LedgerError):
        import_export(path, tmp_path / "copy")

    assert sorted(one.name for one in tmp_path.iterdir()) == ["altered.jsonl"]
    assert not is_export(tmp_path / "none")
