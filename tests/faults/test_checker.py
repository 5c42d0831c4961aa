"""The checker sees what it is there for."""

from dataclasses import replace

import orjson
import pytest
from faults.checker import Left, complaints
from ledger.world import World, entry, place_in, receipt

from envelock_ledger.proof import Receipt


@pytest.fixture
async def whole(tmp_path) -> tuple[list[Receipt], Left]:
    """A ledger of seven records, and what two clients were told."""
    world = World(place_in(tmp_path))
    writer = await world.start()
    told = [receipt((await writer.append([entry(dec=f"d-{n}")]))[0]) for n in range(6)]
    left = Left(world.signer.verifier, await writer.records(0, 200), await writer.head())
    await writer.aclose()
    return told, left


def test_a_whole_ledger_is_not_complained_of(whole):
    """All that was told is there once."""
    assert complaints(*whole) == []


def shorter(left: Left, head: str) -> Left:
    """The ledger without its last records."""
    return replace(left, records=left.records[:4], head=head)


def test_lost_records_and_lower_heads_are_seen(whole):
    """A ledger that was rolled back agrees with itself, and not with its clients."""
    told, left = whole
    found = complaints(told, shorter(left, told[2].checkpoint))

    assert found == [f"record {n} was acknowledged and is lost" for n in (4, 5, 6)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": "other"}, "is another than was acknowledged"),
        ({"_p": "0" * 64}, "does not follow the one before it"),
        ({"dec": "d-0"}, "decision d-0 released twice"),
    ],
)
def test_altered_and_doubled_records_are_seen(whole, change, complaint):
    """Whatever field it is, and although nobody signed it."""
    told, left = whole
    altered = orjson.dumps(orjson.loads(left.records[6]) | change)
    found = complaints(told, replace(left, records=[*left.records[:6], altered]))

    assert [one for one in found if complaint in one] != []
    assert any("the head of 7" in one for one in found)


def test_a_record_that_occurs_twice_is_seen(whole):
    """One id is one record."""
    told, left = whole
    found = complaints(told, replace(left, records=[*left.records, left.records[6]]))

    assert any("occurs twice" in one for one in found)


def test_a_forged_head_is_seen(whole):
    """The key decides."""
    told, left = whole

    assert complaints(told, replace(left, head=left.head.replace("7", "8", 1)))[0].startswith(
        "head"
    )
