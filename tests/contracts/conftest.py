"""Every implementation of a Protocol, under one name."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from envelock_kas.custody import Custody
from envelock_kas.custody.local import LocalCustody

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
Opener = Callable[[], AbstractAsyncContextManager[Custody]]


@pytest.fixture(params=["local", "pkcs11"])
def open_custody(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens a custody; opened again it has the same keys."""
    if request.param == "local":
        return lambda: _local(tmp_path / "keys")
    token = soft_token(tmp_path)
    return lambda: _pkcs11(token)


@pytest.fixture
async def custody(open_custody: Opener) -> AsyncIterator[Custody]:
    """An open custody."""
    async with open_custody() as opened:
        yield opened


def soft_token(folder: Path) -> Path:
    """Initialise a SoftHSM token in *folder*; returns the file with its PIN."""
    if shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed")
    tokens = folder / "tokens"
    tokens.mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    pin = folder / "pin"
    pin.write_text("4711")
    pin.chmod(0o600)
    command = ["softhsm2-util", "--init-token", "--free", "--label", "envelock"]
    subprocess.run([*command, "--pin", "4711", "--so-pin", "0815"], check=True, capture_output=True)
    return pin


@asynccontextmanager
async def _local(directory: Path) -> AsyncIterator[Custody]:
    yield LocalCustody(directory, os.urandom)


@asynccontextmanager
async def _pkcs11(pin: Path) -> AsyncIterator[Custody]:
    from envelock_kas.custody.pkcs11 import Pkcs11Custody  # noqa: PLC0415 an extra of its own

    opened = Pkcs11Custody(
        module=MODULE,
        token_label="envelock",
        pin_file=pin,
        entropy=os.urandom,
        deadline_seconds=5.0,
    )
    try:
        yield opened
    finally:
        await opened.aclose()
