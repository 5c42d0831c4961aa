"""Every kind of wrapping key, and every kind of key that a client may seal its answer to."""

import os
import uuid
from pathlib import Path

import pytest
from contracts.conftest import Opener, open_custody  # noqa: F401 a fixture
from cryptography.hazmat.primitives.asymmetric import ec
from kas.test_release import refused, replaced
from kas.world import SECRET, SealedObject, World, path, running_world

from envelock_formats.framing import b64
from envelock_formats.publickey import read_public_key, wrap_share
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import PublishedKey
from envelock_formats.wrap import public_pem
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.records import Origin
from envelock_service.problem import Problem

OPERATOR = Actor(Origin("r-operator"))
KEY = path("clinic:records:2026-11")


async def published(world: World, algorithm: str = "") -> PublishedKey:
    """A key of the path as a client gets it."""
    return await world.worker.surface.publisher.publish(KEY, algorithm, OPERATOR)


def sealed_to(key: PublishedKey) -> SealedObject:
    """An object whose share is wrapped as the key's algorithm wants it."""
    policy, share = write_policy(str(uuid.uuid4()), (SECRET,)), os.urandom(32)
    made = wrap_share(share, read_public_key(key.pem), iv=os.urandom(12))
    access = KeyAccess(
        type=made.kind,
        url=key.url,
        wrappedKey=b64(made.wrapped),
        policyBinding=bind_policy(share, policy),
        kid=key.kid,
        ephemeralPublicKey=made.ephemeral_pem,
    )
    return SealedObject(policy, (access,), share)


async def test_every_algorithm_opens_in_every_custody(open_custody: Opener, tmp_path: Path):  # noqa: F811 the fixture
    """One version with a key of each kind: a wrap is opened by the one that it was made for."""
    async with open_custody() as custody, running_world(tmp_path / "kas", custody=custody) as world:
        doctor = world.person("doctor")
        offline = custody.algorithms[1:]
        await world.worker.lifecycle.create(KEY, "offline", OPERATOR, offline)
        objects = [sealed_to(await published(world, name)) for name in offline]
        opened = await world.request(doctor, *objects).send()

    assert opened.shares == [item.share for item in objects]


async def test_the_first_algorithm_is_the_one_that_clients_seal_to(tmp_path: Path):
    """Settings say what first use makes; who asks for none gets the first, who asks another gets
    that, and what there is not is not found.
    """
    async with running_world(tmp_path, algorithms=["ec:secp384r1", "rsa:2048"]) as world:
        first, other = await published(world), await published(world, "rsa:2048")
        with pytest.raises(LookupError):
            await published(world, "ec:secp256r1")

    assert (first.algorithm, other.algorithm) == ("ec:secp384r1", "rsa:2048")


async def test_a_rotation_to_another_algorithm_leaves_old_files_open(world: World):
    """The new version has other keys; what the old one wrapped is opened by the old one."""
    doctor = world.person("doctor")
    await world.worker.lifecycle.create(KEY, "offline", OPERATOR, ["rsa:2048"])
    old = sealed_to(await published(world))
    await world.worker.lifecycle.rotate(KEY, OPERATOR, ["ec:secp521r1"])
    new = sealed_to(await published(world))
    opened = await world.request(doctor, old, new).send()

    assert opened.shares == [old.share, new.share]


async def test_a_wrap_for_a_key_that_the_version_lacks_is_refused(world: World):
    """A wrap on another curve names no key of the version; the reason is in the ledger alone."""
    doctor = world.person("doctor")
    sealed = sealed_to(await published(world))
    other = public_pem(ec.generate_private_key(ec.SECP384R1()).public_key())
    opened = await world.request(doctor, replaced(sealed, ephemeralPublicKey=other)).send()

    [record] = await world.records("denied")
    assert opened.statuses == ["fail"]
    assert record["rsn"] == f"key {sealed.keys[0].kid} has no ec:secp384r1"


@pytest.mark.parametrize("wrapped", [bytes(300), bytes(128)])
async def test_a_wrap_of_no_known_size_is_refused(world: World, wrapped: bytes):
    """Neither RSA of a known length nor an online wrap."""
    doctor = world.person("doctor")
    sealed = sealed_to(await published(world, "rsa:2048"))
    opened = await world.request(doctor, replaced(sealed, wrappedKey=b64(wrapped))).send()

    assert opened.statuses == ["fail"]
    assert (await world.records("denied"))[0]["rsn"] == "kind of wrap is not supported"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=str)
async def test_an_answer_is_sealed_on_the_clients_curve(world: World, curve: ec.EllipticCurve):
    """Clients that choose a larger session key get their shares under it."""
    doctor, sealed = world.person("doctor"), await world.seal()
    key = ec.generate_private_key(curve)
    opened = await world.request(doctor, sealed, key=key).send()

    assert opened.shares == [sealed.share]


async def test_a_curve_that_is_not_used_here_gets_no_answer(world: World):
    """It is a malformed request, on record."""
    doctor, sealed = world.person("doctor"), await world.seal()
    key = ec.generate_private_key(ec.SECP256K1())
    problem = await refused(world.request(doctor, sealed, key=key))

    assert isinstance(problem, Problem)
    assert problem.code == "malformed_request"
