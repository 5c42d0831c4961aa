"""A token that hangs, fails or starts again under a running KAS."""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from contracts.conftest import MODULE, soft_token
from kas.world import SealedObject, World, running_world

from envelock_kas.custody.pkcs11 import Pkcs11Custody
from envelock_service.problem import Problem

DEADLINE = 0.5  # seconds that one operation may take
CALLERS = 20
RECOVERY_SECONDS = 10.0
TOLD_SECONDS = 5.0


@dataclass(frozen=True)
class Shop:
    """A KAS whose keys are in a token that fails on demand, and two sealed objects."""

    world: World
    faults: Path
    offline: SealedObject
    online: SealedObject

    def fail(self, how: str) -> None:
        """Let the token fail from now on."""
        (self.faults / how).touch()

    def mend(self) -> None:
        """Let it work again."""
        for fault in self.faults.iterdir():
            fault.unlink()

    async def open(self) -> str:
        """What comes of opening both objects: `released`, or the code of the problem."""
        doctor = self.world.person("doctor")
        try:
            opened = await self.world.request(doctor, self.offline, self.online).send()
        except Problem as problem:
            return problem.code
        assert opened.shares == [self.offline.share, self.online.share]
        return "released"

    async def recovers(self) -> None:
        """Wait until objects open again, without anything being started anew."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while await self.open() != "released":
            assert time.monotonic() < deadline, "it does not recover"
            await asyncio.sleep(0.05)


def compiled(folder: Path) -> Path:
    """The shim, around a SoftHSM that no other test of this process uses."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    module, shim = folder / "softhsm.so", folder / "shim.so"
    shutil.copy(MODULE, module)
    (folder / "faults").mkdir()
    source = Path(__file__).with_name("token_shim.c")
    places = [f'-DMODULE="{module}"', f'-DFOLDER="{folder / "faults"}"']
    command = [compiler, "-shared", "-fPIC", "-O1", *places, "-o", shim, source, "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return shim


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """The KAS, having opened both objects once."""
    pin = soft_token(tmp_path)
    shim = await asyncio.to_thread(compiled, tmp_path)
    token = Pkcs11Custody(
        module=shim,
        token_label="envelock",
        pin_file=pin,
        entropy=os.urandom,
        deadline_seconds=DEADLINE,
    )
    async with running_world(tmp_path / "world", custody=token) as world:
        offline, online = await world.seal(), await world.seal_online(world.person("doctor"))
        found = Shop(world, tmp_path / "faults", offline, online)
        assert await found.open() == "released"
        yield found
        found.mend()
    await token.aclose()


@pytest.mark.parametrize("how", ["fail", "hang"])
async def test_a_token_that_does_not_answer_releases_nothing_and_recovers(shop, how):
    """503 within the deadline, on record; the first release after it works again."""
    shop.fail(how)
    asked = time.monotonic()
    code = await shop.open()
    took = time.monotonic() - asked
    shop.mend()
    await shop.recovers()
    errors = [str(record["rsn"]) for record in await shop.world.records("error")]

    assert code == "hsm_unavailable"
    assert took < DEADLINE + 1
    assert errors
    assert {error.partition(":")[0] for error in errors} == {"custody"}
    assert len(await shop.world.records("release")) == 2


async def test_a_token_that_starts_again_is_used_again(shop):
    """Its sessions and handles are gone; at most one request notices."""
    shop.fail("reset")
    first, second = await shop.open(), await shop.open()
    released = len(await shop.world.records("release"))

    assert not (shop.faults / "reset").exists()
    assert first in ("released", "hsm_unavailable")
    assert second == "released"
    assert released == (3 if first == "released" else 2)


async def test_a_token_that_hangs_holds_up_nothing_else(shop):
    """Many callers hear of it within the deadline; the rest of the KAS goes on meanwhile."""
    threads = threading.active_count()
    shop.fail("hang")
    asked = time.monotonic()
    calls = [asyncio.create_task(shop.open()) for _ in range(CALLERS)]
    await asyncio.sleep(DEADLINE / 3)
    other = time.monotonic()
    shop.world.pdp.reasons["mallory"] = "entitlement"
    denied = await shop.world.request(shop.world.person("mallory"), shop.offline).send()
    meanwhile = time.monotonic() - other
    codes = await asyncio.gather(*calls)
    took = time.monotonic() - asked
    shop.mend()
    await shop.recovers()

    assert set(codes) == {"hsm_unavailable"}
    assert took < DEADLINE + 1
    assert denied.statuses == ["fail"]
    assert meanwhile < DEADLINE / 2
    assert threading.active_count() <= threads
    assert len(await shop.world.records("release")) == 2


@pytest.mark.parametrize("how", ["fail", "hang"])
async def test_a_token_that_does_not_answer_is_told(shop: Shop, how: str):
    """By probe alone, while nobody asks for anything; and again when it answers."""
    health = shop.world.worker.watch.health
    watching = asyncio.create_task(health.watch())
    try:
        await until(lambda: not health.down(), RECOVERY_SECONDS)
        began = time.time()
        shop.fail(how)
        await until(lambda: bool(health.down()), TOLD_SECONDS)
        [state] = health.down()
        shop.mend()
        await until(lambda: not health.down(), RECOVERY_SECONDS)
    finally:
        watching.cancel()
        await asyncio.wait({watching})

    assert state.name == "custody"
    assert abs(state.since - began) < TOLD_SECONDS
    assert await shop.open() == "released"


async def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until something is true, for so long at most."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 it is no event of anybody's
            await asyncio.sleep(0.02)
