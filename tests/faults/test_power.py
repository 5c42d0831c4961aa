"""Power cuts: at any system call, with any of the unsynced bytes lost or torn.

A real ledger process is recorded once. Its writes are then played on a simulated disk up to some
call, the power goes, and the ledger is started on what is left. It must start by itself and hold
everything that was acknowledged before the cut.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import orjson
import pytest
from faults import target
from faults.checker import Left, complaints
from faults.disk import Disk, Keeping
from faults.founding import digest
from faults.trace import Call, Replay, require_strace, traced
from ledger.world import Clock, World, place_in

from envelock_ledger.entry import Committed, Spent
from envelock_ledger.errors import LedgerError
from envelock_ledger.proof import Receipt
from envelock_ledger.writer import Writer

TARGET = "faults.target"
QUICK_SEEDS = 150
TEST_SEEDS = 20  # of a test of the test
SEEDS = 500
LATEST = (
    12  # acknowledged records whose openings and names are looked at; a power cut costs no other
)


@dataclass(frozen=True, slots=True)
class Recording:
    """The calls of several lives of one ledger, one after the other."""

    top: PurePosixPath
    lives: Sequence[Sequence[Call]]

    def __len__(self) -> int:
        return sum(map(len, self.lives))

    def until(self, stop: int) -> tuple[Disk, list[Receipt]]:
        """The disk after the first *stop* calls, and what was acknowledged by then."""
        disk, told = Disk(), []
        for life in self.lives:
            replay = Replay(self.top, disk)
            for call in life[: max(0, stop)]:
                replay.play(call)
            stop -= len(life)
            told += [line for text in replay.told for line in text.splitlines()]
        lines = [orjson.loads(line) for line in told]
        return disk, [Receipt.parse(text) for line in lines for text in line.get("receipts", [])]


def record(folder: Path, *, weak: str = "") -> Recording:
    """Record a ledger that is founded and killed; one that is not *weak* starts again and stops."""
    require_strace()
    weakness = ["--weak", weak] if weak else []
    top, log = folder / "traced", folder / "log"
    top.mkdir()
    lives = [traced(log, TARGET, top / "data", "--die", *weakness)]
    if not weak:
        lives.append(traced(log, TARGET, top / "data", "--first", "100"))
    return Recording(PurePosixPath(top), tuple(_relevant(top, lives)))


def _relevant(top: Path, lives: Sequence[Sequence[Call]]) -> Iterator[list[Call]]:
    """The calls that concern the folder, so that cuts are not spent on imports."""
    disk = Disk()
    for life in lives:
        replay, relevant = Replay(PurePosixPath(top), disk), []
        for call in life:
            if replay.concerns(call):
                relevant.append(call)
                replay.play(call)
        yield relevant


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The ledger as it is."""
    return record(tmp_path_factory.mktemp("recorded"))


async def after_cut(top: Path, told: Sequence[Receipt]) -> list[str]:
    """Start the ledger on what is left, and check it against what was *told*."""
    world = World(place_in(top), Clock(target.clock_us()))
    try:
        writer = await world.start()
    except LedgerError as error:
        return [f"does not start: {error}"]
    try:
        return [*await _forgotten(writer, told), *complaints(told, await _left(world, writer))]
    except LedgerError as error:
        return [f"does not go on: {error}"]
    finally:
        await writer.aclose()


async def _left(world: World, writer: Writer) -> Left:
    records = [
        record
        for start in range(0, await writer.size(), 200)
        for record in await writer.records(start, start + 200)
    ]
    return Left(world.signer.verifier, records, await writer.head())


async def _forgotten(writer: Writer, told: Sequence[Receipt]) -> list[str]:
    """Openings and spent names that are not what they were, and appends that do not go on."""
    found = []
    for receipt in told[-LATEST:]:
        kept = await writer.prove(receipt.index)
        if kept.openings != receipt.openings:
            found.append(f"record {receipt.index} lost what opens it")
        spent_by = str(orjson.loads(receipt.record)["id"])
        [outcome] = await writer.append([target.reusing(f"{spent_by}-again", spent_by)])
        if not isinstance(outcome, Spent):
            found.append(f"what {spent_by} spent can be spent again")
    outcomes = await writer.append(target.batch(90_000, 2))
    return found + [f"no append: {one}" for one in outcomes if not isinstance(one, Committed)]


def survived(recording: Recording, seed: int, folder: Path) -> list[str]:
    """What is wrong after one power cut, which *seed* chooses."""
    chance = random.Random(seed)  # noqa: S311 repeatable
    stop = chance.randrange(len(recording) + 1)
    return cut(recording, stop, Keeping(chance), folder / f"cut-{seed}")


def cut(recording: Recording, stop: int, keep: Keeping, top: Path) -> list[str]:
    """What is wrong when the ledger ended after *stop* calls and *keep* was kept."""
    disk, told = recording.until(stop)
    disk.lose_power(top, keep)
    return [f"call {stop}: {one}" for one in asyncio.run(after_cut(top / "data", told))]


def test_power_cuts_lose_nothing_that_was_acknowledged(recording, tmp_path):
    """Records, openings, spent names and the anchor outlast a cut at any call."""
    wrong = {seed: survived(recording, seed, tmp_path) for seed in range(QUICK_SEEDS)}

    assert {seed: found for seed, found in wrong.items() if found} == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hundreds_of_power_cuts_lose_nothing(recording, tmp_path):
    """As above, many times."""
    wrong = {seed: survived(recording, seed, tmp_path) for seed in range(QUICK_SEEDS, SEEDS)}

    assert {seed: found for seed, found in wrong.items() if found} == {}


SHOWS = {
    "records": "database ends at",
    "openings": "lost what opens it",
    "anchor": "anchor",
}


@pytest.mark.parametrize("weak", target.WEAKNESSES)
def test_a_file_that_is_not_synced_is_found_out(weak, tmp_path):
    """The cuts are hard enough: with one sync fewer, acknowledged records are lost."""
    recording = record(tmp_path, weak=weak)
    wrong = [one for seed in range(TEST_SEEDS) for one in survived(recording, seed, tmp_path)]

    assert any(SHOWS[weak] in one for one in wrong)


def moments(recording: Recording) -> list[int]:
    """Every call of the founding and the first append, and of the first append after a crash."""
    first, second = recording.lives
    return [*range(_told(first, 3)), *range(len(first), len(first) + _told(second, 2))]


def _told(life: Sequence[Call], lines: int) -> int:
    """How many calls there are until so many lines were told."""
    told = [
        number for number, call in enumerate(life) if call.name == "write" if b'"' in call.texts[0]
    ]
    return told[lines - 1] + 1


def test_a_kill_at_any_call_loses_nothing(recording, tmp_path):
    """A process that dies while the machine goes on: at each system call of founding and commit."""
    stops = [stop for stop in moments(recording) if stop % 4 == 0]
    wrong = [
        one
        for stop in stops
        for one in cut(recording, stop, Keeping(random.Random(0), 1.0), tmp_path / str(stop))  # noqa: S311 keeps all
    ]

    assert len(stops) > 40
    assert wrong == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mood", [0.0, 1.0])
def test_every_call_may_be_the_last(recording, tmp_path, mood):
    """All of them, with all that was not synced kept, and with all of it lost."""
    wrong = [
        one
        for stop in range(len(recording) + 1)
        for one in cut(recording, stop, Keeping(random.Random(stop), mood), tmp_path / str(stop))  # noqa: S311 repeatable
    ]

    assert wrong == []


def test_what_a_deployment_is_founded_on_outlasts_a_power_cut(tmp_path):
    """Secrets that fences depend on, and key material: there as soon as anybody relies on them."""
    require_strace()
    top = tmp_path / "traced"
    top.mkdir()
    replay = Replay(PurePosixPath(top))
    for call in traced(tmp_path / "log", "faults.founding", top / "data"):
        replay.play(call)
    made = orjson.loads(replay.told[-1])
    found = []
    for seed in range(QUICK_SEEDS):
        cut_at = tmp_path / f"cut-{seed}"
        replay.disk.lose_power(cut_at, Keeping(random.Random(seed)))  # noqa: S311 repeatable
        found.append({name: digest(cut_at / name) for name in made})

    assert "data/secrets/subjects.key" in made
    assert len([name for name in made if name.startswith("data/keys/")]) == 2
    assert found == [made] * QUICK_SEEDS
