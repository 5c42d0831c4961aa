"""Fixtures of the attacks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from attacks.places import Place, served
from kas.world import World, running_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A KAS over HTTP for all attacks of a module."""
    async with served(tmp_path_factory.mktemp("attacked")) as found:
        yield found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A KAS in one process."""
    async with running_world(tmp_path) as found:
        yield found
