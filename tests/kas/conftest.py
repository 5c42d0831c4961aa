"""Fixtures of the KAS's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kas.served import Served, running_served
from kas.world import World, running_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A KAS in one process."""
    async with running_world(tmp_path) as found:
        yield found


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A KAS with a real issuer, over HTTP."""
    async with running_served(tmp_path) as found:
        yield found
