"""What only a token can promise, and what only a token can do wrong."""

import asyncio
import os
import shutil
from pathlib import Path

import pkcs11
import pytest
from contracts.conftest import MODULE, soft_token
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from envelock_formats.wrap import UnwrapError
from envelock_kas.custody import AES, CLASSIC, EC, RSA
from envelock_kas.custody.pkcs11 import Pkcs11Custody
from envelock_kas.errors import CustodyError


def opened(pin: Path, **changes: object) -> Pkcs11Custody:
    """A custody over the token whose PIN file is given."""
    arguments = {
        "module": MODULE,
        "token_label": "envelock",
        "pin_file": pin,
        "entropy": os.urandom,
        "deadline_seconds": 5.0,
    }
    return Pkcs11Custody(**(arguments | changes))


async def attributes(custody: Pkcs11Custody, handle: str) -> dict[str, object]:
    """What the token says of a key."""
    names = ("SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "ALWAYS_SENSITIVE", "LOCAL", "UNWRAP")

    def read() -> dict[str, object]:
        key = custody._usable(handle, object)  # noqa: SLF001 the token's own view of the key
        return {name: key[getattr(pkcs11.Attribute, name)] for name in names}

    return await custody._call(read)  # noqa: SLF001 on the custody's thread


async def test_keys_never_leave_the_token(tmp_path: Path):
    """Every key is sensitive, was never extractable, was made inside, and unwraps no keys."""
    custody = opened(soft_token(tmp_path))
    made = await custody.make("acme:v1@00", CLASSIC)
    found = [await attributes(custody, key.handle) for key in made]
    await custody.aclose()

    expected = {
        "SENSITIVE": True,
        "EXTRACTABLE": False,
        "NEVER_EXTRACTABLE": True,
        "ALWAYS_SENSITIVE": True,
        "LOCAL": True,
        "UNWRAP": False,
    }
    assert found == [expected] * len(CLASSIC)


async def test_the_value_of_a_key_cannot_be_read(tmp_path: Path):
    """The token refuses to show the bytes of a KEK."""
    custody = opened(soft_token(tmp_path))
    [key] = await custody.make("acme:v1@00", [AES])

    def read() -> bytes:
        return bytes(custody._usable(key.handle, object)[pkcs11.Attribute.VALUE])  # noqa: SLF001

    with pytest.raises(CustodyError, match="AttributeSensitive"):
        await custody._call(read)  # noqa: SLF001 on the custody's thread
    await custody.aclose()


async def test_a_token_that_comes_back_works_again(tmp_path: Path):
    """While the token is away every operation fails; afterwards no restart is needed."""
    custody = opened(soft_token(tmp_path))
    [key] = await custody.make("acme:v1@00", [AES])
    wrapped = await custody.wrap(key.handle, b"k" * 32, b"")
    shutil.move(tmp_path / "tokens", tmp_path / "away")
    for _ in range(3):
        with pytest.raises(CustodyError):
            await custody.unwrap(key.handle, wrapped, b"")
    shutil.move(tmp_path / "away", tmp_path / "tokens")
    again = await custody.unwrap(key.handle, wrapped, b"")
    await custody.aclose()

    assert again == b"k" * 32


async def test_garbage_makes_a_key_wrap_once(tmp_path: Path):
    """To tell garbage from a fault the key is tried, on what it wrapped the first time."""
    nonces: list[bytes] = []

    def counted(size: int) -> bytes:
        nonces.append(os.urandom(size))
        return nonces[-1]

    custody = opened(soft_token(tmp_path), entropy=counted)
    [key] = await custody.make("acme:v1@00", [AES])
    before = len(nonces)
    for _ in range(5):
        with pytest.raises(UnwrapError):
            await custody.unwrap(key.handle, bytes(60), b"")
    await custody.aclose()

    assert len(nonces) - before == 1


async def test_a_wrong_pin_is_an_error_without_the_pin(tmp_path: Path):
    """A login that fails says so, and does not say with what."""
    pin = soft_token(tmp_path)
    pin.write_text("0000")
    custody = opened(pin)

    with pytest.raises(CustodyError, match="PinIncorrect") as caught:
        await custody.make("acme:v1@00", [AES])
    assert "0000" not in str(caught.value)
    await custody.aclose()


async def test_a_token_that_hangs_is_an_error_in_time(tmp_path: Path):
    """An operation that takes longer than the deadline is given up."""
    custody = opened(soft_token(tmp_path), deadline_seconds=0.2)
    blocked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(blocked.set)
        asyncio.run(asyncio.sleep(0.6))

    hanging = asyncio.create_task(custody._call(hang))  # noqa: SLF001 a token that hangs
    await blocked.wait()
    with pytest.raises(CustodyError, match="does not answer"):
        await custody.handles()
    with pytest.raises(CustodyError, match="does not answer"):
        await hanging
    await asyncio.sleep(0.5)
    assert list(await custody.handles()) == []
    await custody.aclose()


@pytest.mark.parametrize("algorithm", [EC, RSA])
async def test_a_public_key_without_its_token_is_an_error(tmp_path: Path, algorithm: str):
    """An unknown key has no public half."""
    custody = opened(soft_token(tmp_path))

    with pytest.raises(CustodyError):
        await custody.public(f"none#{algorithm.replace(':', '-')}")
    await custody.aclose()


@pytest.mark.parametrize("algorithm", [EC, RSA])
async def test_an_adopted_key_does_not_leave_the_token_again(tmp_path: Path, algorithm: str):
    """It is sensitive from then on, and shown as one that was elsewhere before."""
    custody = opened(soft_token(tmp_path))
    key = {
        EC: lambda: ec.generate_private_key(ec.SECP256R1()),
        RSA: lambda: rsa.generate_private_key(65537, 2048),
    }[algorithm]()
    adopted = await custody.adopt("acme:v1@00", key)
    found = await attributes(custody, adopted.handle)
    await custody.aclose()

    assert found == {
        "SENSITIVE": True,
        "EXTRACTABLE": False,
        "NEVER_EXTRACTABLE": False,
        "ALWAYS_SENSITIVE": False,
        "LOCAL": False,
        "UNWRAP": False,
    }
