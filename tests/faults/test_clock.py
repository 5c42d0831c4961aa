"""Clocks that are set back and ahead: nothing expired comes back, and mistakes can be undone."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from kas.world import World as KasWorld
from kas.world import running_world
from ledger.world import World, entry, place_in, receipt

from envelock_ledger.clock import MAX_LEAP_SECONDS, Clock
from envelock_ledger.entry import Committed
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.writer import Writer
from envelock_service.problem import Problem

SECOND = 1_000_000_000
DAY = 86_400
START = 1_800_000_000 * SECOND


@dataclass
class Machine:
    """The clocks of a machine, in nanoseconds."""

    of_day: int = START
    passed: int = 77 * SECOND

    def let_pass(self, seconds: float) -> None:
        """Time passes, on both clocks."""
        self.of_day += int(seconds * SECOND)
        self.passed += int(seconds * SECOND)

    def set_ahead(self, seconds: float) -> None:
        """Somebody sets the clock, ahead or back."""
        self.of_day += int(seconds * SECOND)

    @property
    def clock(self) -> Clock:
        """The ledger's clock on this machine."""
        return Clock(lambda: self.of_day, lambda: self.passed)


class TestLedger:
    """The ledger's own time."""

    @pytest.mark.parametrize("seconds", [2 * MAX_LEAP_SECONDS, 400 * DAY])
    async def test_a_leap_ahead_stops_appends_until_it_is_undone(self, tmp_path, seconds):
        """No record gets the wrong time, which would hold the log there for good."""
        machine, place = Machine(), place_in(tmp_path)
        world = World(place)
        writer = await Writer.start(place, world.signer, machine.clock)
        await writer.append([entry()])
        machine.let_pass(10)
        machine.set_ahead(seconds)
        with pytest.raises(LedgerUnavailableError, match="leapt ahead") as caught:
            await writer.append([entry()])
        machine.set_ahead(-seconds)
        outcome = await appended(writer)
        record = world.verify(receipt(outcome))
        await writer.aclose()

        assert "start the ledger again" in str(caught.value.hint)
        assert START // 1000 <= record.fields["_t"] < START // 1000 + 60_000_000

    async def test_a_start_with_the_clock_ahead_is_believed(self, tmp_path):
        """An operator who starts the ledger again says that the clock is right."""
        machine, place = Machine(), place_in(tmp_path)
        writer = await Writer.start(place, World(place).signer, machine.clock)
        machine.set_ahead(400 * DAY)
        await writer.aclose()
        writer = await Writer.start(place, World(place).signer, machine.clock)
        [outcome] = await writer.append([entry()])
        await writer.aclose()

        assert isinstance(outcome, Committed)

    @pytest.mark.parametrize("seconds", [-5, -400 * DAY, 30])
    async def test_small_steps_and_steps_back_stop_nothing(self, tmp_path, seconds):
        """A clock that is corrected costs nothing; the log's time does not run backwards."""
        machine, place = Machine(), place_in(tmp_path)
        world = World(place)
        writer = await Writer.start(place, world.signer, machine.clock)
        times = []
        for _ in range(3):
            [outcome] = await writer.append([entry()])
            times.append(world.verify(receipt(outcome)).fields["_t"])
            machine.set_ahead(seconds)
        await writer.aclose()

        assert times == sorted(times)

    def test_an_idle_night_is_no_leap(self):
        """What passed on both clocks was not set by anybody."""
        machine = Machine()
        clock = machine.clock
        before = clock()
        machine.let_pass(10 * DAY)

        assert clock() - before == 10 * DAY * 1_000_000


async def appended(writer: Writer) -> object:
    """The outcome of an append, once the ledger has come back."""
    for _ in range(200):
        try:
            return (await writer.append([entry()]))[0]
        except LedgerUnavailableError:
            time.sleep(0.01)  # noqa: ASYNC251 the writer's thread is what is waited for
    return None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[KasWorld]:
    """A KAS in one process."""
    async with running_world(tmp_path) as running:
        yield running


class TestKas:
    """The KAS's clock against everybody else's."""

    @pytest.mark.parametrize("seconds", [-2 * 3600, -400, 400, 400 * DAY])
    async def test_a_wrong_clock_releases_nothing(self, world, seconds):
        """Requests and decisions are of another time; with the clock right again all is well."""
        doctor, sealed = world.person("doctor"), await world.seal()
        world.now.ahead = seconds
        with pytest.raises(Problem) as caught:
            await world.request(doctor, sealed).send()
        operations = dict(world.custody.operations)
        world.now.ahead = 0
        opened = await world.request(doctor, sealed).send()

        assert caught.value.code in {"malformed_request", "pdp_unavailable"}
        assert not operations
        assert opened.shares == [sealed.share]
        assert len(await world.records("release")) == 1

    async def test_an_expired_decision_stays_expired(self, world):
        """The KAS's clock goes back to when it was good: the ledger's does not."""
        doctor, sealed = world.person("doctor"), await world.seal()
        key = ec.generate_private_key(ec.SECP256R1())
        decision = world.decide(doctor, key, sealed)
        world.ledger._clock = lambda: time.time_ns() // 1000 + 61_000_000  # noqa: SLF001 later
        await world.ledger.append([entry(tn="clinic", typ="error")])
        world.ledger._clock = lambda: time.time_ns() // 1000  # noqa: SLF001 as it was
        with pytest.raises(Problem) as caught:
            await world.request(doctor, sealed, key=key, decision=decision).send()

        assert caught.value.code == "decision_replayed"
        assert await world.records("release") == []
        assert len(await world.records("denied")) == 1
