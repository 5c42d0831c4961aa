"""Erasure: openings are forgotten for good, on record, and every proof stays as it was."""

import asyncio
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from ledger.auditor import audit
from ledger.test_cli import Shell
from ledger.test_process import running, stop
from ledger.world import World, entry, hiding, receipt

from envelock_ledger import operating
from envelock_ledger.entry import Entry
from envelock_ledger.erasing import mark
from envelock_ledger.errors import DamageError, LedgerUnavailableError, LedgerUsageError
from envelock_ledger.exporting import write_export
from envelock_ledger.operating import Count, Counted, ask, erase_subject
from envelock_ledger.proof import Receipt
from envelock_ledger.record import encode_body
from envelock_ledger.remote import LedgerClient
from envelock_ledger.store.sqlite import SqliteStore
from envelock_ledger.writer import Writer

ANN, BOB = ["https://i.example", "ann"], ["https://i.example", "bob"]


async def people(writer: Writer) -> list[Receipt]:
    """Two records of Ann's, one of Bob's between them; as their clients got them."""
    entries = [
        hiding("r-1", sub=ANN, addr="192.0.2.7"),
        hiding("r-2", sub=BOB),
        hiding("r-3", sub=ANN, ua="curl"),
    ]
    return [receipt(outcome) for outcome in await writer.append(entries)]


def openings(world: World) -> list[tuple[int, bytes]]:
    """What the file of openings holds."""
    connection = sqlite3.connect(world.place.folder / "disclosure.db")
    rows = connection.execute("SELECT idx, openings FROM disclosure ORDER BY idx").fetchall()
    connection.close()
    return rows


def tamper(world: World, sql: str) -> None:
    """Edit the file of openings as somebody with the file could."""
    connection = sqlite3.connect(world.place.folder / "disclosure.db")
    connection.execute(sql)
    connection.commit()
    connection.close()


async def test_a_subject_is_forgotten_and_others_are_not(world):
    """Every field of each record that hid it; nothing of anybody else."""
    writer = await world.start()
    await people(writer)

    erased = await erase_subject(writer, ANN, "")

    opened = [dict((await writer.prove(index)).openings) for index in (1, 2, 3)]
    await writer.aclose()
    assert (erased.openings, erased.records) == (2, [4])
    assert opened[0] == opened[2] == {}
    assert opened[1]["sub"][1] == BOB


async def test_the_record_says_that_and_why_but_not_who(world):
    """Marks, a reason, the deployment's chain; no index and no name."""
    writer = await world.start()
    before = await people(writer)

    await erase_subject(writer, ANN, "request of 2026-11-22")

    fields = world.verify(await writer.prove(4)).fields
    await writer.aclose()
    assert (fields["typ"], fields["topic"], fields["tn"]) == ("subject.erased", "erasure", "-")
    assert fields["rsn"] == "request of 2026-11-22"
    assert fields["marks"] == sorted(mark(one.index, one.openings["sub"][0]) for one in before[::2])
    assert "c" not in fields


async def test_nothing_of_it_is_left_in_the_files(world):
    """Neither names nor salts, in the database or in its write-ahead log."""
    writer = await world.start()
    gone, kept, _ = await people(writer)
    await erase_subject(writer, ANN, "")

    content = b"".join(path.read_bytes() for path in world.place.folder.glob("*.db*"))
    await writer.aclose()

    assert kept.openings["sub"][0] in content
    assert b"bob" in content
    for needle in (b"ann", b"192.0.2.7", b"curl", gone.openings["sub"][0]):
        assert needle not in content


async def test_both_verifiers_hold_afterwards_and_say_so(world, tmp_path):
    """Old receipts, new receipts, the whole ledger: all verify; that openings are gone is said."""
    writer = await world.start()
    old, *_ = await people(writer)
    (tmp_path / "early").write_text(await writer.head())
    await erase_subject(writer, ANN, "")
    new = await writer.prove(1)
    await writer.aclose()
    for name, one in (("old", old), ("new", new)):
        (tmp_path / name).write_text(one.text())
    store = SqliteStore.read(world.place.database)
    write_export(store, new.checkpoint, tmp_path / "x.jsonl")
    store.close()
    key = world.signer.verifier

    export = audit("export", tmp_path / "x.jsonl", tmp_path / "early", tmp_path / "old", key=key)
    later = audit("receipt", tmp_path / "new", key=key)
    earlier = audit("receipt", tmp_path / "old", key=key)

    assert export.code == later.code == earlier.code == 0
    assert "record 4 erased 2 openings" in export.holds
    assert "old: opening erased, by record 4" in export.holds
    assert "sub stays hidden: its opening was erased, or is not shown" in later.holds
    assert 'sub opens to ["https://i.example","ann"]' in earlier.holds
    assert world.verify(old).openings["sub"] == ANN
    assert world.verify(new).openings == {}


async def test_a_backup_does_not_bring_them_back(world, tmp_path):
    """An older file of openings is put in place: the next start erases again."""
    writer = await world.start()
    await people(writer)
    await writer.aclose()
    backup = shutil.copy(world.place.folder / "disclosure.db", tmp_path / "backup")
    writer = await world.start()
    await erase_subject(writer, ANN, "")
    await writer.aclose()
    shutil.copy(backup, world.place.folder / "disclosure.db")

    writer = await world.start()
    opened = [dict((await writer.prove(index)).openings) for index in (1, 2, 3)]
    census = await writer.ask(lambda log: log.census())
    await writer.aclose()

    assert opened[0] == opened[2] == {}
    assert opened[1]["sub"][1] == BOB
    assert (census.kept, census.erased, census.recorded, census.missing) == (1, 2, 2, 0)


async def test_a_crash_after_the_record_is_made_up_for(world):
    """The record is first; what it announces is done at the next start."""
    writer = await world.start()
    gone, *_ = await people(writer)
    marks = [mark(1, gone.openings["sub"][0])]
    fields = {"id": "e", "marks": marks, "tn": "-", "topic": "erasure", "ts": 1}
    await writer.append(
        [Entry(encode_body(fields | {"typ": "subject.erased", "v": 1}, {}, bytes)[0])]
    )
    await writer.aclose()

    writer = await world.start()
    opened = [dict((await writer.prove(index)).openings) for index in (1, 3)]
    await writer.aclose()

    assert opened[0] == {}
    assert opened[1]["sub"][1] == ANN


async def test_many_are_told_by_several_records(world):
    """A record holds a thousand marks; a large subject takes more of them."""
    writer = await world.start()
    await writer.append([hiding(f"r-{number}", sub=ANN) for number in range(4100)])

    erased = await erase_subject(writer, ANN, "")

    counts = [len(world.verify(await writer.prove(i)).fields["marks"]) for i in erased.records]
    await writer.aclose()
    assert (erased.openings, counts) == (4100, [1000] * 4 + [100])
    assert all(row == b"\xff" for _, row in openings(world))


async def test_where_there_is_nothing_to_erase_nothing_is_recorded(world):
    """An unknown subject, and one that was erased before."""
    writer = await world.start()
    await people(writer)
    unknown = await erase_subject(writer, ["https://i.example", "eve"], "")
    await erase_subject(writer, ANN, "")
    again = await erase_subject(writer, ANN, "")
    size = await writer.size()
    await writer.aclose()

    assert (unknown.openings, unknown.records, again.openings) == (0, [], 0)
    assert size == 5


@pytest.mark.parametrize("reason", ["x" * 201, "a\nb", "\u202e"])
async def test_a_reason_that_cannot_be_read_is_refused(world, reason):
    """It is in the ledger for ever."""
    writer = await world.start()
    await people(writer)

    with pytest.raises(LedgerUsageError):
        await erase_subject(writer, ANN, reason)

    assert await writer.size() == 4
    await writer.aclose()


class TestMissing:
    """Openings that go without a record."""

    @pytest.fixture
    async def stopped(self, world: World) -> World:
        """A stopped ledger that erased Bob, on record."""
        writer = await world.start()
        await people(writer)
        await erase_subject(writer, BOB, "")
        await writer.aclose()
        return world

    async def census_error(self, world: World) -> str:
        """What is wrong with the openings, as the ledger finds at its start."""
        writer = await world.start()
        census = await writer.ask(lambda log: log.census())
        await writer.aclose()
        with pytest.raises(DamageError) as found:
            census.check()
        return str(found.value)

    async def test_a_lost_row_is_named(self, stopped):
        """The record hides something, and nobody erased its openings."""
        tamper(stopped, "DELETE FROM disclosure WHERE idx = 3")

        error = await self.census_error(stopped)

        assert error == "openings that nobody erased are missing: records 3"

    async def test_a_row_that_claims_to_be_erased_is_noticed(self, stopped):
        """More are marked as erased than records tell of."""
        tamper(stopped, "UPDATE disclosure SET openings = x'ff' WHERE idx = 3")

        error = await self.census_error(stopped)

        assert error == "openings were erased without a record: 2 records are, 1 were recorded"

    async def test_what_was_erased_on_record_is_not_missing(self, stopped):
        """The count comes out even."""
        writer = await stopped.start()
        census = await writer.ask(lambda log: log.census())
        await writer.aclose()

        census.check()
        assert (census.kept, census.erased) == (2, 1)


async def fill_data(data: Path) -> None:
    """The same people, through the socket of the key server."""
    client = LedgerClient(data / "run" / "ledger-kas.sock")
    await client.append([hiding("r-1", sub=ANN), hiding("r-2", sub=BOB)])
    await client.aclose()


class TestCommand:
    """`envelock ledger erase-subject`."""

    @pytest.mark.parametrize("alive", [True, False])
    def test_it_erases_in_a_running_and_in_a_stopped_ledger(self, tmp_path, alive):
        """The process is asked; a stopped ledger is opened for the occasion."""
        with running(tmp_path) as (process, ready):
            asyncio.run(fill_data(tmp_path))
            if not alive:
                stop(process)
            shell = Shell(tmp_path, str(ready["ledger_key"]))
            lines = shell.lines("erase-subject", *ANN, "--reason", "asked for")
            again = shell.lines("erase-subject", *ANN)
            verified = shell.lines("verify", "--ledger-key", shell.key)

        assert lines == [
            "erased the openings of 1 record; on record: 3",
            "not reached: receipts, backups, and whatever was disclosed before",
        ]
        assert again == ["nothing erased: no opening names this subject"]
        assert "ok    openings erased on record: 1; none is missing" in verified

    def test_as_json_it_is_one_object(self, tmp_path):
        """For programs."""
        with running(tmp_path) as (process, ready):
            asyncio.run(fill_data(tmp_path))
            stop(process)
        shell = Shell(tmp_path, str(ready["ledger_key"]))

        result = shell.run("erase-subject", *BOB, as_json=True)

        assert json.loads(result.output) == {"openings": 1, "records": [3]}

    def test_verify_finds_what_went_without_a_record(self, tmp_path):
        """Exit code 6, naming the record; the process says so too when it starts."""
        with running(tmp_path) as (process, ready):
            asyncio.run(fill_data(tmp_path))
            stop(process)
        connection = sqlite3.connect(tmp_path / "ledger" / "disclosure.db")
        connection.execute("DELETE FROM disclosure WHERE idx = 1")
        connection.commit()
        connection.close()
        shell = Shell(tmp_path, str(ready["ledger_key"]))

        stopped = shell.run("verify", "--ledger-key", shell.key)
        with running(tmp_path) as (process, _):
            alive = shell.run("verify", "--ledger-key", shell.key)
            stop(process)
            warning = json.loads(process.stderr.read())

        told = "openings that nobody erased are missing: records 1"
        assert (stopped.exit_code, alive.exit_code) == (6, 6)
        assert f"FAIL  {told}" in stopped.output.splitlines()
        assert f"FAIL  {told}" in alive.output.splitlines()
        assert warning == {
            "warning": told,
            "next": "look for them in a backup of disclosure.db",
        }

    def test_there_must_be_a_ledger(self, tmp_path):
        """An empty folder is exit 2."""
        assert Shell(tmp_path, "").error("erase-subject", *ANN).exit_code == 2

    def test_a_process_that_does_not_answer_is_exit_5(self, tmp_path):
        """It holds the lock, and has no socket."""
        with running(tmp_path) as (process, ready):
            (tmp_path / "run" / "ledger-operate.sock").unlink()
            error = Shell(tmp_path, str(ready["ledger_key"])).error("erase-subject", *ANN)
            stop(process)

        assert error.exit_code == 5


class TestSocket:
    """`run/ledger-operate.sock`."""

    def test_a_key_server_cannot_record_erasures(self, tmp_path):
        """Or it could have the traces of what it did removed."""

        async def try_it() -> None:
            client = LedgerClient(tmp_path / "run" / "ledger-kas.sock")
            with pytest.raises(LedgerUsageError):
                await client.append([entry(typ="subject.erased", topic="erasure", marks=[])])
            await client.append([entry(typ="subject.erased", marks=[])])  # without a topic: words
            await client.aclose()

        with running(tmp_path) as (process, _):
            asyncio.run(try_it())
            stop(process)

    def test_noise_is_answered_or_hung_up_on(self, tmp_path):
        """The ledger goes on."""
        path = tmp_path / "run" / "ledger-operate.sock"
        noise = [
            b"\n",
            b"{}\n",
            b'{"type":"burn"}\n',
            b"\xff\n",
            b'{"type":"erase"}\n',
            b"x" * 70_000,
        ]
        heard = []
        with running(tmp_path) as (process, _):
            for line in noise:
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.settimeout(5)
                    peer.connect(str(path))
                    peer.sendall(line)
                    heard.append(peer.recv(1000))
            census = asyncio.run(ask(path, Count()))
            code = stop(process)
            said = process.stderr.read()

        assert [json.loads(one)["type"] for one in heard if one] == ["failed"] * 5
        assert heard[5] == b""
        assert isinstance(census, Counted)
        assert (code, said) == (0, "")

    async def test_a_subject_that_no_record_can_hide_is_refused(self, tmp_path):
        """Only what has canonical JSON."""
        with running(tmp_path) as (process, _):
            with pytest.raises(LedgerUsageError):
                await ask(tmp_path / "run" / "ledger-operate.sock", operating.Erase([1.5]))
            stop(process)

    async def test_no_socket_is_unavailable(self, tmp_path):
        """Whoever asks learns where nobody answered."""
        with pytest.raises(LedgerUnavailableError) as refused:
            await ask(tmp_path / "none", Count())

        assert str(tmp_path / "none") in str(refused.value)
