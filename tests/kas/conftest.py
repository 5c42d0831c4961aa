"""Fixtures of the KAS's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kas.world import World, running_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A KAS in one process."""
    async with running_world(tmp_path) as found:
        yield found
