"""Fixtures of the attacks."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from attacks.places import Place, served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A KAS over HTTP for all attacks of a module."""
    async with served(tmp_path_factory.mktemp("attacked")) as found:
        yield found
