"""A server that stock clients find, for each module that needs one."""

from collections.abc import Iterator

import pytest
from interop.deployment import Deployment, deployment


@pytest.fixture(scope="package")
def stock() -> Iterator[Deployment]:
    """`envelock up` with the shipped policies, whose files name it by where it is."""
    with deployment() as running:
        yield running
