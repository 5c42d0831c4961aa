"""One deployment for each module of tests that needs one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.shell import Shell

from envelock.testing import Server, server


@pytest.fixture(scope="module")
def deployment() -> Iterator[Server]:
    """`envelock up` with the shipped policies."""
    with server() as running:
        yield running


@pytest.fixture
def shell(deployment: Server, tmp_path: Path) -> Shell:
    """A shell in an empty directory, beside the deployment."""
    return Shell(tmp_path, {"ENVELOCK_DATA": str(deployment.data)})
