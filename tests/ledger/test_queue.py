"""What waits for the writer: how much may, how it becomes batches, and how it ends."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ledger.world import body, entry, fill

from envelock_ledger.copying import Copy
from envelock_ledger.entry import Committed, Entry
from envelock_ledger.errors import DamageError, LedgerUnavailableError
from envelock_ledger.log import Log
from envelock_ledger.sequence import Prepared, prepare
from envelock_ledger.writer import Writer

MIB = 1 << 20
WEIGHT = MIB // 16  # bytes of one call, of which 16 make a MiB


def a_sixteenth() -> list[Prepared]:
    """Entries of a call that asks for 64 KiB; the same records each time, so most are refused."""
    half = WEIGHT // 2
    short = half - len(body(id="one", pad=""))
    return [prepare(Entry(body(id=name, pad="x" * short))) for name in ("one", "two")]


@asynccontextmanager
async def held(writer: Writer) -> AsyncIterator[None]:
    """Keep the writer's thread busy while the block runs."""
    begun, done = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait(_: Log) -> None:
        loop.call_soon_threadsafe(begun.set)
        done.wait(30)

    holding = asyncio.ensure_future(writer.ask(wait))
    await begun.wait()
    try:
        yield
    finally:
        done.set()
        await holding


def broken(_: Log) -> None:
    """A question that finds damage."""
    raise DamageError("found damage")


async def recovered(writer: Writer) -> None:
    """Wait until the files are open again."""
    for _ in range(200):
        try:
            await writer.size()
        except LedgerUnavailableError:
            await asyncio.sleep(0.02)
        else:
            return
    pytest.fail("it does not open again")


async def test_the_queue_holds_64_mib_and_not_a_byte_more(writer):
    """Callers are refused at once rather than made to wait behind a mountain."""
    call, told = a_sixteenth(), []
    assert sum(len(one.entry.body) for one in call) == WEIGHT
    async with held(writer):
        for _ in range(64 * 16):
            writer.submit(call, told.append)
        assert told == []
        writer.submit(call, told.append)

        assert isinstance(told[0], LedgerUnavailableError)
    await writer.size()
    assert len(told) == 64 * 16 + 1


async def test_one_call_may_be_larger_than_the_queue(writer, monkeypatch):
    """What is alone is taken, whatever it weighs; else it could never be."""
    monkeypatch.setattr("envelock_ledger.writer.MAX_WAITING_BYTES", 10)

    assert isinstance((await writer.append([entry()]))[0], Committed)


async def test_batches_take_8_mib(writer):
    """Everything that waits is one batch, up to its size; the rest is the next."""
    call, told = a_sixteenth(), []
    async with held(writer):
        for _ in range(2 * 8 * 16 + 1):
            writer.submit(call, told.append)
            await asyncio.sleep(0)
    await writer.size()

    assert (await writer.probe())["batches"] == 3
    assert len(told) == 2 * 8 * 16 + 1


async def test_it_tells_what_it_has_done(writer):
    """Batches, entries and errors since its start."""
    before = await writer.probe()
    await writer.append([entry(), entry(), entry()])
    await writer.append([entry()])
    with pytest.raises(LedgerUnavailableError):
        await writer.ask(broken)
    await recovered(writer)
    after = await writer.probe()

    assert [before[name] for name in ("batches", "appended", "faults")] == [0, 0, 0]
    assert [after[name] for name in ("batches", "appended", "faults")] == [2, 4, 1]
    assert after["size"] == before["size"] + 4
    assert after["queued_bytes"] == 0


async def test_damage_found_by_a_reader_closes_the_files_and_undoes_nothing(writer):
    """Who was committed in the same turn stays so, and the queue is counted once."""
    committed = asyncio.ensure_future(writer.append([entry(pad="x" * 4000)]))
    found = asyncio.ensure_future(writer.ask(broken))
    with pytest.raises(LedgerUnavailableError, match="found damage"):
        await found
    await recovered(writer)

    assert isinstance((await committed)[0], Committed)
    assert (await writer.probe())["queued_bytes"] == 0


async def test_closing_takes_what_was_asked_in_the_same_turn(writer):
    """It was accepted, so it is recorded; what comes after is refused."""
    accepted = asyncio.ensure_future(writer.append([entry()]))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(writer.aclose())
    await asyncio.sleep(0)
    with pytest.raises(LedgerUnavailableError, match="closed"):
        await writer.append([entry()])
    await closing

    assert isinstance((await accepted)[0], Committed)


async def test_closing_at_once_takes_what_was_asked_just_before(writer):
    """Without a turn of the loop between the two; and it is told once."""
    told: list[object] = []
    writer.submit([prepare(entry())], told.append)
    await writer.aclose()

    [[outcome]] = told
    assert isinstance(outcome, Committed)


async def test_a_ledger_that_nobody_asks_does_nothing(writer):
    """It waits, rather than look again and again."""
    await writer.size()
    before = time.process_time()
    await asyncio.sleep(0.5)

    assert time.process_time() - before < 0.25


async def test_appends_do_not_wait_for_a_copy(writer, tmp_path, monkeypatch):
    """They are taken between two of its steps."""
    step, appended = Copy.step, threading.Event()
    monkeypatch.setattr(Copy, "step", lambda copy: appended.is_set() and step(copy))
    copying = asyncio.ensure_future(writer.snapshot(tmp_path / "copy"))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await writer.append([entry()])
        await writer.append([entry()])
    appended.set()
    await copying

    assert (tmp_path / "copy").exists()


def test_a_process_that_forgets_to_close_it_ends(tmp_path):
    """The thread keeps no process alive; what was answered is durable anyway."""
    script = (
        "import asyncio; from pathlib import Path; from ledger.world import World, place_in;"
        f"asyncio.run(World(place_in(Path({str(tmp_path)!r}))).start())"
    )
    places = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False)

    assert done.returncode == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_error_that_nobody_foresaw_leaves_nobody_waiting(writer):
    """The thread ends; everybody who waits hears of it, and so does whoever comes later."""

    def unforeseen(_: Log) -> None:
        raise ZeroDivisionError

    answers: list[object] = []
    writer.submit([prepare(entry())], answers.append)
    waiting = [asyncio.ensure_future(writer.ask(unforeseen))]
    waiting += [asyncio.ensure_future(writer.append([entry()])) for _ in range(3)]
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)

    assert isinstance(told[0], LedgerUnavailableError)
    assert all(isinstance(one, (list, LedgerUnavailableError)) for one in told[1:])
    assert len(answers) == 1
    with pytest.raises(LedgerUnavailableError, match="closed"):
        await asyncio.wait_for(writer.append([entry()]), 10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_what_is_accepted_while_the_thread_ends_is_told(writer):
    """It was put into a queue that nobody reads any more."""

    def unforeseen(_: Log) -> None:
        raise ZeroDivisionError

    told: list[object] = []
    waiting = asyncio.ensure_future(writer.ask(unforeseen))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writer.submit([prepare(entry())], told.append)
    for thread in threading.enumerate():
        if thread.name == "ledger-writer":
            thread.join(10)
    with pytest.raises(LedgerUnavailableError):
        await waiting
    await asyncio.sleep(0.05)

    [answer] = told
    assert isinstance(answer, LedgerUnavailableError)


async def test_what_fails_at_the_end_is_told_once(writer, monkeypatch):
    """Refused with the batch, and not again with what was left over."""

    def damaged(*_: object) -> list[object]:
        raise DamageError("found damage")

    monkeypatch.setattr(Log, "append", damaged)
    told: list[object] = []
    writer.submit([prepare(entry())], told.append)
    await writer.aclose()

    [answer] = told
    assert "found damage" in str(answer)


async def test_what_is_refused_at_the_end_is_told_once(writer):
    """The files are closed after an error, and then for good."""
    with pytest.raises(LedgerUnavailableError):
        await writer.ask(broken)
    told: list[object] = []
    writer.submit([prepare(entry())], told.append)
    await writer.aclose()

    assert len(told) == 1


@pytest.mark.parametrize("end", ["damage", "closing", "failure"])
async def test_a_copy_under_way_leaves_nothing(writer, tmp_path, monkeypatch, end):
    """However it ends: also what was copied so far is removed."""
    begun, failing, folder = asyncio.Event(), threading.Event(), tmp_path / "copies"
    folder.mkdir()
    loop = asyncio.get_running_loop()

    def step(_: Copy) -> bool:
        loop.call_soon_threadsafe(begun.set)
        if failing.is_set():
            raise LedgerUnavailableError("no space")
        return False

    monkeypatch.setattr(Copy, "step", step)
    copying = asyncio.ensure_future(writer.snapshot(folder / "copy"))
    await begun.wait()
    partial = list(folder.iterdir())
    if end == "damage":
        with pytest.raises(LedgerUnavailableError):
            await writer.ask(broken)
    elif end == "closing":
        await writer.aclose()
    failing.set()
    with pytest.raises(LedgerUnavailableError):
        await copying

    assert len(partial) > 0
    assert list(folder.iterdir()) == []


async def test_a_snapshot_ends_with_the_files_and_leaves_nothing(writer, tmp_path):
    """A copy that was under way when the files were closed is not gone on with."""
    await fill(writer, 5000)
    folder = tmp_path / "copies"
    folder.mkdir()
    copying = asyncio.ensure_future(writer.snapshot(folder / "copy"))
    await asyncio.sleep(0)
    with pytest.raises(LedgerUnavailableError):
        await writer.ask(broken)
    with pytest.raises(LedgerUnavailableError, match="found damage"):
        await copying
    await recovered(writer)

    assert list(folder.iterdir()) == []
    await writer.snapshot(folder / "another")
    assert [path.name for path in folder.iterdir()] == ["another"]
