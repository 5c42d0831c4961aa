"""A bit that flips at rest: it is noticed, or it changes nothing that the ledger answers."""

import asyncio
import random
import re
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from faults import target
from ledger.world import World, entry, fill, hiding, place_in

from envelock_ledger.entry import Once, Repeated, Spent
from envelock_ledger.errors import DamageError, LedgerError, LedgerUnavailableError
from envelock_ledger.writer import Writer

QUICK, MANY = 20, 200
SIZE = 300
NAMES = 40
IDS = [f"h-{number}" for number in range(NAMES)]
FILES = {
    "records": "ledger/ledger.db",
    "openings": "ledger/disclosure.db",
    "anchor": "anchor/a",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped ledger that has something in every table, and a stratum."""
    folder = tmp_path_factory.mktemp("made")
    asyncio.run(make(World(place_in(folder))))
    return folder


async def make(world: World) -> None:
    """Fill a ledger."""
    writer = await world.start()
    for number in range(NAMES):
        hidden = replace(hiding(f"h-{number}", sub=f"person {number}"), once=(once(number),))
        moved = entry(moves={f"fence-{number % 4}": number // 4 + 1}, topic="key", tn="bolt")
        await writer.append([hidden, moved])
    await fill(writer, SIZE)
    await writer.aclose()


def once(number: int, digest: str = target.DIGEST) -> Once:
    """A name that is spent."""
    return Once(f"dec:{number}", digest, None if number % 2 else 2_000_000_000)


async def answers(writer: Writer) -> dict[str, object]:
    """Everything that the ledger says; records last, as they go on growing."""
    said: dict[str, object] = {"head": await writer.head(), "size": await writer.size()}
    said["fences"] = await writer.fences([f"fence-{number}" for number in range(5)])
    said["topic"] = [receipt.index for receipt in await writer.topic("key", 0)]
    said["records"] = await writer.records(0, 200) + await writer.records(200, SIZE)
    again = [replace(entry(), once=(once(number),)) for number in range(NAMES)]
    other = [replace(entry(), once=(once(number, "00" * 32),)) for number in range(NAMES)]
    said["repeats"] = [type(outcome) for outcome in await writer.append(again)]
    said["replays"] = [type(outcome) for outcome in await writer.append(other)]
    return said


def flipped(made: Path, name: str, seed: int, to: Path) -> World:
    """A copy of the ledger with one bit of one file flipped."""
    shutil.copytree(made, to)
    content = bytearray((to / FILES[name]).read_bytes())
    chance = random.Random(seed)  # noqa: S311 repeatable
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    (to / FILES[name]).write_bytes(content)
    return World(place_in(to))


async def said_by(world: World) -> dict[str, object] | None:
    """Its answers; None when it noticed that something is wrong."""
    try:
        writer = await world.start()
    except (LedgerError, OSError):
        return None
    try:
        said, found = await answers(writer), [await writer.find(name) for name in IDS]
        verified = [world.verify(one) for one in found if one is not None]
    except LedgerError:
        return None
    finally:
        await writer.aclose()
    return said | {"found": [(record.fields["id"], record.openings) for record in verified]}


@pytest.fixture(scope="module")
def good(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the ledger says with all bits as they were."""
    folder = tmp_path_factory.mktemp("good") / "ledger"
    shutil.copytree(made, folder)
    said = asyncio.run(said_by(World(place_in(folder))))
    assert said is not None
    return said


def outcomes(made: Path, good: object, name: str, seeds: range, folder: Path) -> Counter[str]:
    """How many flips were noticed, made no difference, or went through."""
    found: Counter[str] = Counter()
    for seed in seeds:
        said = asyncio.run(said_by(flipped(made, name, seed, folder / str(seed))))
        other = "harmless" if said == good else f"seed {seed} changed the answers"
        found["noticed" if said is None else other] += 1
        shutil.rmtree(folder / str(seed))
    return found


def test_everything_is_asked(good):
    """The answers that are compared are those of a whole ledger."""
    assert good["size"] == SIZE
    assert good["repeats"] == [Repeated] * NAMES
    assert good["replays"] == [Spent] * NAMES
    assert good["found"] == [(f"h-{n}", {"sub": f"person {n}"}) for n in range(NAMES)]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_changes_no_answer(made, good, tmp_path, name):
    """Records, indexes, fences, topics, spent names, openings, anchor: noticed, or harmless."""
    found = outcomes(made, good, name, range(QUICK), tmp_path)

    assert set(found) <= {"noticed", "harmless"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FILES)
def test_many_flipped_bits_change_no_answer(made, good, tmp_path, name):
    """As above, many times; some of them matter."""
    found = outcomes(made, good, name, range(QUICK, MANY), tmp_path)

    assert set(found) == {"noticed", "harmless"}


@pytest.mark.parametrize("number", range(2))
def test_a_spent_name_is_not_revived(made, tmp_path, number):
    """No record holds the names that were spent; each bit of a row matters all the same."""
    shutil.copytree(made, tmp_path / "whole")
    path = tmp_path / "whole" / FILES["records"]
    content = path.read_bytes()
    row = re.escape(f'"dec:{number}"'.encode())
    for bit in range(-6, 40):
        spoilt = bytearray(content)
        for found in re.finditer(row, content):  # pages leave old copies behind
            spoilt[found.start() + bit // 2] ^= 1 << (bit % 8)
        path.write_bytes(spoilt)

        assert not asyncio.run(starts(World(place_in(tmp_path / "whole"))))


async def starts(world: World) -> bool:
    """Whether the start gate lets the ledger pass."""
    try:
        writer = await world.start()
    except DamageError:
        return False
    await writer.aclose()
    return True


async def test_openings_that_cannot_be_read_are_damage(made, tmp_path):
    """Text that is no UTF-8 is told to whoever asks for it, and the ledger goes on."""
    shutil.copytree(made, tmp_path / "whole")
    path = tmp_path / "whole" / FILES["openings"]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x93\xa3sub\xc4", b"\x93\xa3\xf5ub\xc4", 1))
    world = World(place_in(tmp_path / "whole"))
    writer = await world.start()
    damaged = 0
    for name in IDS:
        try:
            await writer.find(name)
        except LedgerUnavailableError as error:
            damaged += "openings of record" in str(error)
        await back(writer)
    await writer.aclose()

    assert damaged == 1


async def back(writer: Writer) -> None:
    """Wait until the ledger has passed its start gate again."""
    for _ in range(100):
        with suppress(LedgerUnavailableError):
            await writer.size()
            return
        await asyncio.sleep(0.02)
