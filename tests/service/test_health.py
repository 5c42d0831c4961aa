"""Health is what use and probes found, never that a process is alive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from envelock_service.health import UNHEARD, Health, Part


@dataclass
class Fragile:
    """A part that works, fails or hangs, and two clocks that a test moves."""

    trouble: str = ""
    probes: int = 0
    now: float = 1000.0
    hang: asyncio.Event = field(default_factory=asyncio.Event)

    async def probe(self) -> None:
        """Do as told."""
        self.probes += 1
        if self.trouble == "hang":
            await self.hang.wait()
        if self.trouble:
            raise OSError(self.trouble)

    def clock(self) -> float:
        """The time that the test says."""
        return self.now

    def watched(self, *, hold: float = 0.0) -> Health:
        """Its health."""
        part = Part("part", self.probe, seconds=0.05, hold_seconds=hold)
        return Health([part], self.clock, self.clock)


@contextlib.asynccontextmanager
async def watching(health: Health) -> AsyncIterator[None]:
    """Watch until the end of the block."""
    task = asyncio.create_task(health.watch())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_was_never_heard_of_is_down():
    """Silence is no good news."""
    health = Fragile().watched()

    [state] = health.parts()
    assert (state.up, state.since, state.succeeded, state.detail) == (False, 1000.0, None, UNHEARD)


async def test_the_first_failure_is_the_time_that_counts():
    """Later failures move nothing; recovery is told with its own time."""
    part = Fragile()
    health = part.watched()
    await health.look()
    part.trouble = "gone"
    seen = []
    for part.now in (1010.0, 1020.0):
        await health.look()
        seen += [(state.since, state.succeeded, state.detail) for state in health.down()]
    part.trouble, part.now = "", 1030.0
    await health.look()

    assert seen == [(1010.0, 1000.0, "gone")] * 2
    assert [(state.up, state.since) for state in health.parts()] == [(True, 1030.0)]


async def test_a_part_that_hangs_is_down_in_time():
    """The probe is given up."""
    part = Fragile(trouble="hang")
    health = part.watched()
    async with asyncio.timeout(1):
        await health.look()

    assert [state.detail for state in health.down()] == ["no answer in 0.05 s"]


async def test_strangers_hear_name_state_and_time_only():
    """The detail may name files and tenants."""
    part = Fragile(trouble="/secret/path")
    health = part.watched()
    await health.look()
    before = health.answer()
    part.trouble = ""
    await health.look()

    told = {"name": "part", "state": "down", "since": 1000}
    assert before == {"status": "unavailable", "parts": [told]}
    assert health.answer() == {"status": "ok"}


async def test_what_a_use_found_outlives_probes_that_see_nothing():
    """It counts for a while, or until a use succeeds."""
    part = Fragile()
    health = part.watched(hold=10.0)
    health.failed("part", "it lied")
    await health.look()
    held = [state.detail for state in health.down()]
    part.now += 10.0
    await health.look()
    let_go = health.down()
    health.failed("part", "it lied")
    health.worked("part")

    assert held == ["it lied"]
    assert let_go == ()
    assert health.down() == ()


async def test_use_takes_the_place_of_probes():
    """Who is busy is not asked as well."""
    part = Fragile()
    health = part.watched()
    health.worked("part")
    async with watching(health):
        await asyncio.sleep(0.1)

    assert part.probes == 0
    assert health.down() == ()


async def test_it_recovers_by_itself():
    """Nobody has to ask, and nothing is started anew."""
    part = Fragile(trouble="gone")
    health = part.watched()
    async with watching(health):
        await asyncio.sleep(0.1)
        down = health.down()
        part.trouble = ""
        await asyncio.sleep(0.4)
        after = health.down()

    assert (len(down), after) == (1, ())


@pytest.mark.parametrize("error", ["a\x1b[31mb", "x" * 10_000])
async def test_details_are_printable_and_short(error):
    """They end up on terminals."""
    health = Fragile(trouble=error).watched()
    await health.look()

    [state] = health.down()
    assert state.detail.isprintable()
    assert len(state.detail) <= 200
