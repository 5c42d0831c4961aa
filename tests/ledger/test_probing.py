"""Whether a record could be appended, told without appending one."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledger.world import fill, place_in

from envelock_ledger import probing
from envelock_ledger.errors import LedgerError, LedgerUnavailableError
from envelock_ledger.place import Place, found
from envelock_ledger.remote import LedgerClient
from envelock_ledger.serve import Role, Server
from envelock_ledger.writer import Writer
from envelock_service.sockets import bind

READ = Role("read")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "FRESH_SECONDS", 0.0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where the ledger lies."""
    return place_in(tmp_path)


@pytest.fixture
async def writer(place: Place) -> AsyncIterator[Writer]:
    """The ledger."""
    clock = lambda: time.time_ns() // 1000  # noqa: E731 short for a test
    opened = await Writer.start(place, found(place, os.urandom), clock)
    yield opened
    await opened.aclose()


async def test_tells_numbers_and_appends_nothing(writer: Writer, place: Place):
    """Size, batches and disks; no scratch file stays."""
    await fill(writer, 3)
    first, second = await writer.probe(), await writer.probe()

    assert (first["size"], second["size"]) == (3, 3)
    assert first["pid"] == os.getpid()
    assert first["appended"] == 2
    assert first["free_bytes"] > 0
    assert abs(first["signed_us"] / 1e6 - time.time()) < 60
    assert list(place.folder.glob(probing.SCRATCH)) == []


@pytest.mark.parametrize("name", ["database", "anchor"])
async def test_a_file_that_is_gone_is_noticed_without_an_append(writer, place, name):
    """And again when it is back; nothing is started anew."""
    path = getattr(place, name)
    away = path.with_name("away")
    path.rename(away)
    with pytest.raises(LedgerError, match=str(path)):
        await writer.probe()
    away.rename(path)

    assert (await writer.probe())["size"] == 1


async def test_a_disk_that_takes_nothing_is_noticed_without_an_append(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
):
    """The scratch file is written, or the ledger could not be."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(LedgerUnavailableError, match="No space"):
            await writer.probe()

    assert (await writer.probe())["size"] == 1


async def test_a_disk_that_hangs_holds_one_thread(writer: Writer, monkeypatch: pytest.MonkeyPatch):
    """Everybody who asks meanwhile waits for the same attempt."""
    begun: list[int] = []

    def slow(descriptor: int) -> None:
        begun.append(descriptor)
        time.sleep(0.3)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", slow)
        asked = [asyncio.wait_for(writer.probe(), 0.1) for _ in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        tried = len(begun)
        await asyncio.sleep(0.7)

    assert {type(answer) for answer in answers} == {TimeoutError}
    assert tried == 1


async def test_readers_may_ask_through_the_socket(writer: Writer, tmp_path: Path):
    """It takes no right to append; what is wrong is told as it is."""
    server = Server(writer, tmp_path)
    await server.listen(bind(tmp_path / "read.sock"), READ)
    client = LedgerClient(tmp_path / "read.sock")
    numbers = await client.probe()
    (tmp_path / "anchor").rename(tmp_path / "away")
    with pytest.raises(LedgerUnavailableError):
        await client.probe()
    await client.aclose()
    await server.aclose()

    assert numbers["size"] == 1
