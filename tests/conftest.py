"""Fixtures that every room's tests share."""

import os
import signal
from pathlib import Path

import pytest

# A shell that starts the tests in the background has them ignore interrupts, and what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The directory of third-party vectors; skips without them, fails where they are required."""
    default = Path(__file__).resolve().parents[2] / "shared" / "vectors"
    path = Path(os.environ.get("ENVELOCK_VECTORS", default))
    if path.is_dir():
        return path
    if os.environ.get("ENVELOCK_REQUIRE_VECTORS") == "1":
        pytest.fail(f"third-party vectors are required, and {path} is missing")
    return pytest.skip(f"no third-party vectors at {path}")
