"""What a release needs is gone, full or locked: no key, a clear error, and then it recovers."""

import asyncio
import os
import resource
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from contracts.conftest import MODULE, soft_token
from kas.world import World, running_world

from envelock_kas.custody.pkcs11 import Pkcs11Custody
from envelock_ledger.errors import LedgerUnavailableError
from envelock_service.problem import Problem

RECOVERY_SECONDS = 20.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A KAS in one process, its ledger on a real disk."""
    async with running_world(tmp_path) as found:
        yield found


async def problem_of(work: Awaitable[object]) -> str:
    """The code of the problem that *work* ends in."""
    with pytest.raises(Problem) as caught:
        await work
    return caught.value.code


async def eventually(work: Callable[[], Awaitable[object]]) -> object:
    """The result of *work* as soon as it is not a problem any more."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            return await work()
        except Problem:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def releases(world: World) -> int:
    """How many releases are recorded."""
    return len(await world.records("release"))


async def test_a_full_disk_releases_nothing_and_recovers(world: World):
    """While the ledger cannot grow there is no key; with room again everything works."""
    doctor, sealed = world.person("doctor"), await world.seal()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    database = world.parts.ledger._place.database  # noqa: SLF001 where it really lies
    resource.setrlimit(resource.RLIMIT_FSIZE, (database.stat().st_size // 2, before[1]))
    try:
        codes = {await problem_of(world.request(doctor, sealed).send()) for _ in range(3)}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    opened = await eventually(lambda: world.request(doctor, sealed).send())

    assert codes == {"ledger_unavailable"}
    assert opened.shares == [sealed.share]
    assert await releases(world) == 1


async def test_a_denial_that_cannot_be_recorded_is_no_denial(world: World):
    """Without a record even a refusal is only 503: it says nothing about the caller."""
    world.pdp.reasons["mallory"] = "entitlement: clearance"
    request = world.request(world.person("mallory"), await world.seal())
    await world.ledger.aclose()

    assert await problem_of(request.send()) == "ledger_unavailable"


async def test_nobody_can_lock_the_database_away(world: World):
    """The ledger's process holds the lock for good: another program cannot hold up releases."""
    doctor, sealed = world.person("doctor"), await world.seal()
    database = world.parts.ledger._place.database  # noqa: SLF001 where it really lies
    intruder = sqlite3.connect(database, isolation_level=None, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        intruder.execute("begin immediate")
    intruder.close()
    opened = await world.request(doctor, sealed).send()

    assert opened.shares == [sealed.share]


async def test_a_deleted_database_is_noticed(world: World):
    """Records would go into a file that nobody can find: nothing is released any more."""
    doctor, sealed = world.person("doctor"), await world.seal()
    database = world.parts.ledger._place.database  # noqa: SLF001 where it really lies
    database.rename(database.with_name("stolen.db"))

    assert await problem_of(world.request(doctor, sealed).send()) == "ledger_unavailable"


async def test_an_unknown_outcome_releases_nothing(world: World):
    """The ledger recorded the release but its answer was lost: no key, and a retry is a retry."""
    doctor, sealed = world.person("doctor"), await world.seal()
    request = world.request(doctor, sealed)
    recorder = world.worker.surface.release._recorder  # noqa: SLF001 where the answer is lost
    genuine = recorder._ledger  # noqa: SLF001 as above

    class Forgetful:
        """Appends, and then says that it does not know."""

        async def append(self, entries):
            await genuine.append(entries)
            raise LedgerUnavailableError("the answer was lost")

    recorder._ledger = Forgetful()  # noqa: SLF001 as above
    code = await problem_of(request.send())
    recorder._ledger = genuine  # noqa: SLF001 as before
    opened = await request.send()

    assert code == "ledger_unavailable"
    assert opened.shares == [sealed.share]
    assert await releases(world) == 1
    assert len(await world.records("retry")) == 1


async def test_an_hsm_that_is_gone_releases_nothing_and_recovers(tmp_path: Path):
    """The token's directory is moved away and back, under a running KAS."""
    token = Pkcs11Custody(
        module=MODULE,
        token_label="envelock",
        pin_file=soft_token(tmp_path),
        entropy=os.urandom,
        deadline_seconds=5.0,
    )
    async with running_world(tmp_path / "world", custody=token) as world:
        doctor, sealed = world.person("doctor"), await world.seal()
        online = await world.seal_online(doctor)
        await world.request(doctor, sealed, online).send()
        shutil.move(tmp_path / "tokens", tmp_path / "away")
        codes = {await problem_of(world.request(doctor, sealed).send()) for _ in range(3)}
        shutil.move(tmp_path / "away", tmp_path / "tokens")
        opened = await eventually(lambda: world.request(doctor, sealed, online).send())
        errors = [record["rsn"] for record in await world.records("error")]

        assert codes == {"hsm_unavailable"}
        assert opened.shares == [sealed.share, online.share]
        assert len(errors) == 3
        assert await releases(world) == 2
    await token.aclose()
