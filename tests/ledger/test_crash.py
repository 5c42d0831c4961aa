"""What a ledger may be found in when it starts, and what it does when its files fail."""

import asyncio
import itertools
import os
import pkgutil
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger.faulty import FaultyPlace
from ledger.world import World, entry, fill, hiding, place_in, receipt

from envelock_ledger.anchor import Anchor, read_anchor
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.entry import Committed, Spent
from envelock_ledger.errors import DamageError, LedgerUnavailableError
from envelock_ledger.store.files import Lock

POINTS = {
    "before the openings' commit": False,
    "after the openings' commit": False,
    "before the records' commit": False,
    "after the records' commit": True,
    "before the anchor line": True,
    "inside the anchor line": True,
    "after the anchor line": True,
}


async def recovered(act: Callable[[], Any]) -> Any:
    """What *act* returns once the ledger has come back by itself."""
    for _ in range(100):
        try:
            return await act()
        except LedgerUnavailableError:
            await asyncio.sleep(0.02)
    return await act()


@pytest.mark.parametrize(("point", "recorded"), POINTS.items())
async def test_a_fault_leaves_the_outcome_unknown_and_the_ledger_whole(tmp_path, point, recorded):
    """Callers learn that they do not know; a look by id tells; the next append goes on."""
    place = place_in(tmp_path, FaultyPlace)
    assert isinstance(place, FaultyPlace)
    world = World(place)
    writer = await world.start()
    await fill(writer, 5)

    place.faults.at = point
    with pytest.raises(LedgerUnavailableError):
        await writer.append([hiding("r-x", sub="ann")])
    with pytest.raises(LedgerUnavailableError):
        await writer.head()  # nothing is shown while it is poisoned
    place.faults.at = ""
    found = await recovered(lambda: writer.find("r-x"))
    [again] = await writer.append([hiding("r-x", sub="ann")])
    await writer.aclose()

    assert (found is not None) == recorded
    assert isinstance(again, Spent if recorded else Committed)
    if found is not None:
        assert world.verify(found).openings == {"sub": "ann"}


@pytest.mark.parametrize(("point", "recorded"), POINTS.items())
async def test_a_crash_at_the_same_points(tmp_path, point, recorded):
    """A process that ends there starts again, with the record or without it."""
    place = place_in(tmp_path, FaultyPlace)
    assert isinstance(place, FaultyPlace)
    writer = await World(place).start()
    await fill(writer, 5)
    place.faults.at = point
    with pytest.raises(LedgerUnavailableError):
        await writer.append([hiding("r-x", sub="ann")])
    await writer.aclose()

    world = World(place_in(tmp_path))
    writer = await world.start()
    found = await writer.find("r-x")
    size = await writer.size()
    [outcome] = await writer.append([entry()])
    await writer.aclose()

    assert (found is not None, size) == (recorded, 6 if recorded else 5)
    assert world.verify(receipt(outcome)).index == size


@pytest.mark.parametrize(("point", "recorded"), [*POINTS.items(), ("", True)])
async def test_a_kill_at_the_same_points(tmp_path, point, recorded):
    """The same where nothing is closed in order: the write-ahead logs are found as they were."""
    dying = f"import asyncio, sys; from ledger.test_crash import die; asyncio.run(die({point!r}))"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", dying, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        check=False,
        capture_output=True,
        text=True,
    )
    world = World(place_in(tmp_path))
    writer = await world.start()
    found = await writer.find("r-x")
    size = await writer.size()
    [again] = await writer.append([hiding("r-x", sub="ann")])
    await writer.aclose()

    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert (found is not None, size) == (recorded, 6 if recorded else 5)
    assert isinstance(again, Spent if recorded else Committed)
    if found is not None:
        assert world.verify(found).openings == {"sub": "ann"}


async def die(point: str) -> None:
    """Append one record and be killed at *point* of that, or right after the answer."""
    place = place_in(Path(sys.argv[1]), FaultyPlace)
    assert isinstance(place, FaultyPlace)
    writer = await World(place).start()
    await fill(writer, 5)
    place.faults.at, place.faults.fatal = point, True
    await writer.append([hiding("r-x", sub="ann")])
    place.faults.fail()


async def test_the_order_of_a_batch(tmp_path):
    """Openings, records, anchor: each is durable before the next begins, and all before answers."""
    place = place_in(tmp_path, FaultyPlace)
    assert isinstance(place, FaultyPlace)
    writer = await World(place).start()
    place.faults.seen.clear()
    outcomes = await writer.append([hiding("r-1", sub="ann"), hiding("r-2", sub="bob")])
    seen = list(place.faults.seen)
    await writer.aclose()

    assert [type(outcome) for outcome in outcomes] == [Committed, Committed]
    assert seen == [
        f"{when} {what}"
        for what in ("the openings' commit", "the records' commit", "the anchor line")
        for when in ("before", "after")
    ]


FOUNDING = (
    "envelock_ledger.place.make_folder",
    "envelock_ledger.place.write_new",
    "envelock_ledger.store.files.os.fsync",
    "envelock_ledger.store.files.os.link",
    "envelock_ledger.store.files.Path.unlink",
    "envelock_ledger.place.create_anchor",
    "envelock_ledger.store.sqlite.create_or_refuse",
    "envelock_ledger.store.sqlite._create",
    "envelock_ledger.place.SqliteStore.write",
    "envelock_ledger.store.disclosure.create_or_refuse",
    "envelock_ledger.place.Disclosures.collect",
    "envelock_ledger.place.Anchor.append",
)


class EndError(Exception):
    """The process would have ended here."""


@pytest.mark.parametrize("step", FOUNDING)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_founding_that_ends_anywhere_goes_on(tmp_path, monkeypatch, step, late):
    """Each step of founding and genesis, every time it is made: the next start completes it."""
    place = place_in(tmp_path)
    ends = 0
    for number in range(20):
        with monkeypatch.context() as patch:
            ended = ending_at(patch, step, number, late=late)
            with suppress(EndError):
                await (await World(place).start()).aclose()
        if not ended:
            break
        ends += 1
    world = World(place)
    writer = await world.start()
    size = await writer.size()
    [outcome] = await writer.append([entry()])
    await writer.aclose()

    assert ends > 0
    assert size == 1
    assert world.verify(receipt(outcome)).index == 1


def ending_at(patch: pytest.MonkeyPatch, step: str, number: int, *, late: bool) -> list[str]:
    """Let the *number*th call of *step* be the last thing that happens; filled once it was."""
    owner, _, name = step.rpartition(".")
    genuine = getattr(pkgutil.resolve_name(owner), name)
    ended: list[str] = []
    calls = itertools.count()

    def ending(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == number
        if last:
            ended.append(step)
        if last and not late:
            raise EndError(step)
        result = genuine(*arguments, **named)
        if last:
            raise EndError(step)
        return result

    patch.setattr(step, ending)
    return ended


async def test_openings_without_a_record_are_collected(tmp_path):
    """What opens a record that was never committed does not open the one in its place."""
    place = place_in(tmp_path, FaultyPlace)
    assert isinstance(place, FaultyPlace)
    world = World(place)
    writer = await world.start()
    place.faults.at = "after the openings' commit"
    with pytest.raises(LedgerUnavailableError):
        await writer.append([hiding("r-lost", sub="ann")])
    place.faults.at = ""

    [outcome] = await recovered(lambda: writer.append([hiding("r-next", sub="bob")]))
    proven = await writer.prove(receipt(outcome).index)
    await writer.aclose()

    assert world.verify(proven).openings == {"sub": "bob"}


async def test_neighbours_of_a_fault_all_learn_of_it(tmp_path):
    """Whoever waits in the batch, or behind it, gets an answer."""
    place = place_in(tmp_path, FaultyPlace)
    assert isinstance(place, FaultyPlace)
    writer = await World(place).start()
    place.faults.at = "before the anchor line"
    calls = [asyncio.ensure_future(writer.append([entry()])) for _ in range(20)]
    calls.append(asyncio.ensure_future(writer.snapshot(tmp_path / "copy")))

    results = await asyncio.gather(*calls, return_exceptions=True)
    await writer.aclose()

    assert {type(result) for result in results} == {LedgerUnavailableError}


@pytest.fixture
async def stopped(world: World) -> World:
    """A ledger of 20 records in several batches, stopped."""
    writer = await world.start()
    for size in (5, 12, 20):
        await fill(writer, size)
    await writer.aclose()
    return world


async def refused(world: World, kind: type[Exception] = DamageError) -> str:
    """Why *world* does not start."""
    with pytest.raises(kind) as caught:
        await (await world.start()).aclose()
    return str(caught.value)


class TestAnchor:
    """The anchor against the database."""

    async def test_missing_it_refuses(self, stopped):
        """Without its anchor a database could be yesterday's."""
        stopped.place.anchor.unlink()

        assert "is missing" in await refused(stopped)

    async def test_a_torn_last_line_is_dropped(self, stopped):
        """A line without its end was never answered for."""
        with stopped.place.anchor.open("ab") as file:
            file.write(b"21 AAAA")

        writer = await stopped.start()
        await fill(writer, 22)
        await writer.aclose()

        assert read_anchor(stopped.place.anchor).checkpoint.size == 22

    @pytest.mark.parametrize("step", [1, 7])
    async def test_a_last_line_torn_anywhere_is_dropped(self, stopped, tmp_path, step):
        """Whatever is left of it, bytes or zeros, it is as if the line had not been begun."""
        whole = stopped.place.anchor.read_bytes()
        start = whole.rindex(b"\n", 0, -1) + 1
        line, before = whole[start:], whole[:start]
        torn = tmp_path / "torn"
        for cut in range(0, len(line), step):
            left = line[:cut] if step == 1 else bytes(cut) + line[cut:]
            torn.write_bytes(before + left)
            found = read_anchor(torn).checkpoint.size
            Anchor(torn).close()

            assert found == (20 if left == line else 12)
            assert torn.read_bytes() == before + (line if left == line else b"")

    async def test_a_torn_line_of_the_last_batch_is_written_again(self, stopped):
        """The batch is in the database: the gate anchors it, and appends go on."""
        whole = stopped.place.anchor.read_bytes()
        stopped.place.anchor.write_bytes(whole[:-40])

        writer = await stopped.start()
        size = await writer.size()
        await fill(writer, 22)
        await writer.aclose()

        assert size == 20
        assert read_anchor(stopped.place.anchor).checkpoint.size == 22

    async def test_a_malformed_last_line_refuses(self, stopped):
        """A whole line that is none was not written by the ledger."""
        with stopped.place.anchor.open("ab") as file:
            file.write(b"21 AAAA\n")

        await refused(stopped)

    async def test_one_batch_behind_is_normal(self, stopped):
        """The last commit may have no line; the gate writes it."""
        lines = stopped.place.anchor.read_text().splitlines(keepends=True)
        stopped.place.anchor.write_text("".join(lines[:-1]))

        writer = await stopped.start()
        await writer.aclose()

        assert read_anchor(stopped.place.anchor).checkpoint.size == 20

    async def test_two_batches_behind_refuses(self, stopped):
        """An anchor of long ago is somebody's copy."""
        lines = stopped.place.anchor.read_text().splitlines(keepends=True)
        stopped.place.anchor.write_text("".join(lines[:-2]))

        assert "different times" in await why(stopped)

    async def test_ahead_of_the_database_refuses(self, stopped):
        """A line for records that are not there: the database was rolled back."""
        foreign = Checkpoint(stopped.signer.verifier.name, 25, bytes(32))
        anchor = Anchor(stopped.place.anchor)
        anchor.append(foreign.sign(stopped.signer))
        anchor.close()

        assert "ends at 20 records" in await refused(stopped)

    async def test_with_another_root_it_refuses(self, stopped):
        """The same size under another root is a fork."""
        foreign = Checkpoint(stopped.signer.verifier.name, 20, bytes(32))
        anchor = Anchor(stopped.place.anchor)
        anchor.append(foreign.sign(stopped.signer))
        anchor.close()

        assert "not the anchor's" in await refused(stopped)

    async def test_unsigned_it_refuses(self, stopped):
        """A line that the log did not sign anchors nothing."""
        text = stopped.place.anchor.read_text()
        lines = text.splitlines()
        parts = lines[-1].split(" ")
        forged = f"{parts[0]} {'A' * 43}= {parts[2]}"
        stopped.place.anchor.write_text("\n".join([*lines[:-1], forged]) + "\n")

        assert "does not verify" in await refused(stopped)

    async def test_of_another_log_it_refuses(self, stopped, tmp_path_factory):
        """An anchor that another log wrote does not fit this key."""
        other = World(place_in(tmp_path_factory.mktemp("other")))
        await (await other.start()).aclose()
        shutil.copy(other.place.anchor, stopped.place.anchor)

        assert "not the key of" in await refused(stopped)

    async def test_with_its_key_from_another_log_it_refuses(self, stopped, tmp_path_factory):
        """Anchor and key of another log do not make it the owner of these records."""
        other = World(place_in(tmp_path_factory.mktemp("other")))
        writer = await other.start()
        await fill(writer, 20)
        await writer.aclose()
        shutil.copy(other.place.anchor, stopped.place.anchor)
        shutil.copy(other.place.key_file, stopped.place.key_file)

        assert "genesis" in await refused(stopped)

    async def test_it_is_replaced_when_it_grew_long(self, stopped, monkeypatch):
        """A long file starts anew with its last line; nothing is lost."""
        monkeypatch.setattr("envelock_ledger.anchor.MAX_BYTES", 1000)
        writer = await stopped.start()
        for size in range(21, 41):
            await fill(writer, size)
        await writer.aclose()
        length = stopped.place.anchor.stat().st_size
        writer = await stopped.start()
        size = await writer.size()
        await writer.aclose()

        assert length < 1500
        assert size == 40


async def why(world: World) -> str:
    """The hint with which *world* does not start."""
    with pytest.raises(DamageError) as caught:
        await (await world.start()).aclose()
    return str(caught.value.hint)


class TestFiles:
    """Files that are missing, old, or taken."""

    async def test_an_older_database_refuses(self, stopped, tmp_path):
        """Yesterday's copy agrees with itself; only the anchor tells."""
        backup = tmp_path / "backup"
        shutil.copy(stopped.place.database, backup)
        writer = await stopped.start()
        for size in (30, 40):
            await fill(writer, size)
        await writer.aclose()
        shutil.copy(backup, stopped.place.database)

        assert "ends at 20 records" in await refused(stopped)

    async def test_an_emptied_database_refuses(self, stopped):
        """A database that lost everything does not begin again."""
        stopped.place.database.unlink()

        assert "is missing" in await refused(stopped)
        assert not stopped.place.database.exists()
        stopped.place.database.touch()
        assert "is empty" in await refused(stopped)

    async def test_a_lost_log_refuses(self, stopped):
        """A write-ahead log that vanished takes acknowledged records with it; that is noticed."""
        writer = await stopped.start()
        await fill(writer, 30)
        await fill(writer, 31)
        shutil.copy(stopped.place.database, f"{stopped.place.database}.kept")
        await writer.aclose()
        shutil.move(f"{stopped.place.database}.kept", stopped.place.database)

        assert "ends at 20 records" in await refused(stopped)

    @pytest.mark.parametrize(
        ("name", "allowed"),
        [("ledger.db-wal", {None, "all"}), ("disclosure.db-wal", {None, "all", "fewer openings"})],
    )
    async def test_a_log_that_was_cut_is_never_shorter_than_what_was_published(
        self, stopped, tmp_path, name, allowed
    ):
        """Cut at any sector, it holds every record or the start is refused; openings may be lost.

        What is lost opens nothing, never something else.
        """
        writer = await stopped.start()
        for size in range(21, 29):
            await writer.append([hiding(f"r-{size}", sub="ann")])
        killed = tmp_path / "killed"
        shutil.copytree(stopped.place.folder, killed)
        await writer.aclose()
        content = (killed / name).read_bytes()
        for path in stopped.place.folder.iterdir():
            path.unlink()
        found = []
        for cut in range(len(content) % 512, len(content) + 1, 512)[-40:]:
            shutil.copytree(killed, stopped.place.folder, dirs_exist_ok=True)
            (stopped.place.folder / name).write_bytes(content[:cut])
            found.append(await what_opens(stopped))

        assert set(found) <= allowed
        assert found[-1] == "all"

    async def test_a_lost_key_refuses(self, stopped):
        """A key that is gone is not made again."""
        stopped.place.key_file.unlink()

        assert "cannot be read" in await refused(stopped)
        assert not stopped.place.key_file.exists()

    async def test_a_file_that_is_no_database_refuses(self, stopped):
        """Something else under the name of the database is left as it is."""
        stopped.place.database.write_bytes(b"hello" * 1000)

        await refused(stopped)
        assert stopped.place.database.read_bytes() == b"hello" * 1000

    async def test_a_database_that_somebody_else_has_open_refuses(self, stopped):
        """Two openers can lose commits; the second is refused."""
        other = sqlite3.connect(stopped.place.database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")

        reason = await refused(stopped, LedgerUnavailableError)
        other.close()

        assert "locked" in reason

    def test_one_process_owns_a_folder(self, tmp_path):
        """The lock is held until it is released."""
        lock = Lock(tmp_path / "lock")
        with pytest.raises(LedgerUnavailableError, match="owns the ledger"):
            Lock(tmp_path / "lock")
        lock.release()

        Lock(tmp_path / "lock").release()

    @pytest.mark.parametrize("which", ["database", "anchor", "disclosure"])
    @pytest.mark.parametrize("how", ["unlink", "replace"])
    async def test_a_file_that_is_taken_away_stops_appends(self, stopped, which, how):
        """An unlinked file accepts writes that nobody will read; the next append notices."""
        path = {
            "database": stopped.place.database,
            "anchor": stopped.place.anchor,
            "disclosure": stopped.place.folder / "disclosure.db",
        }[which]
        writer = await stopped.start()
        kept = path.with_name("kept")
        path.rename(kept)
        if how == "replace":
            shutil.copy(kept, path)

        with pytest.raises(LedgerUnavailableError):
            await writer.append([hiding("r-x", sub="ann")])
        kept.replace(path)
        [outcome] = await recovered(lambda: writer.append([hiding("r-y", sub="ann")]))
        found = await writer.find("r-x")
        await writer.aclose()

        assert isinstance(outcome, Committed)
        assert found is None or stopped.verify(found).fields["id"] == "r-x"

    async def test_founding_that_was_cut_short_goes_on(self, world):
        """Key and anchor without a database: the ledger begins."""
        key = world.signer.verifier
        writer = await world.start()
        size = await writer.size()
        await writer.aclose()

        assert (size, world.signer.verifier) == (1, key)


async def what_opens(world: World) -> str | None:
    """What there is of eight records; None when the start is refused."""
    try:
        writer = await world.start()
    except (DamageError, LedgerUnavailableError):
        return None
    found = [await writer.find(f"r-{size}") for size in range(21, 29)]
    await writer.aclose()
    if any(one is None for one in found):
        return "fewer records"
    opened = [world.verify(one).openings for one in found if one is not None]
    if not all(openings in ({}, {"sub": "ann"}) for openings in opened):
        return "other openings"
    return "all" if all(opened) else "fewer openings"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting needs root")
    options = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(options, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


async def until_full(writer: Any) -> int:
    """Append until the ledger refuses; how many were acknowledged."""
    for acknowledged in range(10_000):
        try:
            await writer.append([entry(pad="x" * 5000)])
        except LedgerUnavailableError:
            return acknowledged
    return pytest.fail("the disk never filled up")


@pytest.mark.parametrize("full", ["folder", "anchor"])
async def test_a_full_disk_stops_appends_until_there_is_space(small_disk, tmp_path, full):
    """Nothing acknowledged is lost, and with space again the ledger goes on by itself."""
    place = place_in(tmp_path)
    if full == "folder":
        place = replace(place_in(small_disk), anchor=place.anchor, key_file=place.key_file)
    else:
        place = replace(place, anchor=small_disk / "a")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    world = World(place)
    writer = await world.start()
    await fill(writer, 3)
    if full == "anchor":
        fill_up(small_disk / "more")

    acknowledged = await until_full(writer)
    ballast.unlink()
    (small_disk / "more").unlink(missing_ok=True)
    [outcome] = await recovered(lambda: writer.append([entry()]))
    size = await writer.size()
    first = await writer.prove(2 + acknowledged)
    await writer.aclose()

    assert isinstance(outcome, Committed)
    assert 3 + acknowledged + 1 <= size <= 3 + acknowledged + 2  # one may have been durable
    assert world.verify(first).index == 2 + acknowledged


async def test_a_read_only_disk_is_refused_until_it_is_writable(small_disk, tmp_path):
    """Nothing is answered that could not be recorded, and nothing needs repair afterwards."""
    usual = place_in(tmp_path)
    world = World(replace(place_in(small_disk), anchor=usual.anchor, key_file=usual.key_file))
    writer = await world.start()
    await fill(writer, 5)
    await writer.aclose()
    remount(small_disk, "ro")
    try:
        reason = await refused(world, LedgerUnavailableError)
    finally:
        remount(small_disk, "rw")
    writer = await world.start()
    size = await writer.size()
    await writer.aclose()

    assert "ledger.db" in reason
    assert size == 5


def remount(folder: Path, how: str) -> None:
    """Make a mounted file system read-only, or writable again."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def fill_up(path: Path) -> None:
    """Write to *path* until there is no space."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))


async def test_a_quota_stops_appends_until_it_is_lifted(stopped):
    """The same where no disk can be mounted: a limit on the size of files."""
    writer = await stopped.start()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        await until_full(writer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    [outcome] = await recovered(lambda: writer.append([entry()]))
    await writer.aclose()

    assert isinstance(outcome, Committed)
