"""Fixtures of the ledger's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledger.world import World, place_in

from envelock_ledger.writer import Writer


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A place for a ledger that is not founded yet."""
    return World(place_in(tmp_path))


@pytest.fixture
async def writer(world: World) -> AsyncIterator[Writer]:
    """A running ledger at the place of *world*."""
    running = await world.start()
    yield running
    await running.aclose()
