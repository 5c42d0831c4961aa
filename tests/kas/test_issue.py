"""Data keys made online: what they are bound to, and what the record says."""

import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from kas.test_release import replaced
from kas.world import SealedObject, World, path

from envelock_formats.framing import b64, b64url, from_b64
from envelock_formats.online import OnlineWrap
from envelock_formats.tdf.keyaccess import bind_policy
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import SealBody, write_request_token
from envelock_formats.wrap import public_pem
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.records import Origin
from envelock_ledger.proof import Receipt
from envelock_service.problem import Problem

OPERATOR = Actor(Origin("r-operator"))


async def test_opens_what_was_issued(world: World):
    """A data key made online opens again under its policy, and is one record."""
    doctor = world.person("doctor")
    sealed = await world.seal_online(doctor)
    opened = await world.request(doctor, sealed).send()

    [record] = await world.records("issue")
    assert opened.shares == [sealed.share]
    assert [row["id"] for row in record["objs"]] == [sealed.id]


async def test_another_policy_does_not_open_an_online_wrap(world: World):
    """Even a reader who knows the data key cannot bind it to a friendlier policy."""
    doctor = world.person("doctor")
    sealed = await world.seal_online(doctor)
    friendlier = write_policy("00000000-0000-4000-8000-000000000000", ())
    rebound = SealedObject(friendlier, sealed.keys, sealed.share)
    rebound = replaced(rebound, policyBinding=bind_policy(sealed.share, friendlier))
    opened = await world.request(doctor, rebound).send()

    assert opened.statuses == ["fail"]
    assert (await world.records("denied"))[0]["rsn"] == "unwrap failed"


@pytest.mark.parametrize("part", ["id", "kid", "rest"])
async def test_every_part_of_an_online_wrap_is_bound(world: World, part: str):
    """Object id, key version and ciphertext: altering one opens nothing."""
    doctor = world.person("doctor")
    sealed, other = await world.seal_online(doctor), await world.seal_online(doctor)
    raw = bytearray(from_b64(sealed.keys[0].wrappedKey))
    if part == "kid":
        newest = world.worker.projection.registry.paths("clinic")[-1]
        await world.worker.lifecycle.rotate(newest, OPERATOR)
        kid = sealed.keys[0].kid or ""
        altered = replaced(sealed, kid=kid.replace(":v1", ":v2"))
    else:
        theirs = from_b64(other.keys[0].wrappedKey)
        span = slice(2, 18) if part == "id" else slice(18, None)
        raw[span] = theirs[span]
        altered = replaced(sealed, wrappedKey=b64(bytes(raw)))
    opened = await world.request(doctor, altered).send()

    assert opened.statuses == ["fail"]


async def test_a_denied_caller_gets_no_data_key(world: World):
    """Sealing online is decided like opening, and costs nothing when refused."""
    world.pdp.reasons["accountant"] = "rules: none applies"

    with pytest.raises(Problem, match="access_denied"):
        await world.seal_online(world.person("accountant"))
    assert (await world.records("denied"))[0]["rsn"] == "rules: none applies"
    assert not world.custody.operations


async def test_the_same_request_again_is_refused(world: World):
    """A request token is good for one issue: a repeat would hand out keys twice on one record."""
    doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
    policy = write_policy("00000000-0000-4000-8000-000000000000", ())
    body = SealBody(public_pem(key.public_key()), policy, b64url(os.urandom(16)))
    token = write_request_token(body, doctor.key, now=int(time.time()))
    issue = world.worker.surface.issue
    answer = await issue(doctor.authenticated(), token, Origin("r-1"))

    with pytest.raises(Problem, match="decision_replayed"):
        await issue(doctor.authenticated(), token, Origin("r-2"))
    record = Receipt.parse(answer.receipt or "").verify(world.parts.ledger_key)
    assert record.fields["scope"] == str(world.worker.surface.naming.path("clinic", "vault"))


async def test_an_offline_dataset_issues_no_data_keys(world: World):
    """The first key of a dataset decides how it is sealed."""
    await world.seal("records")

    with pytest.raises(Problem, match="offline sealing"):
        await world.seal_online(world.person("doctor"), "records")


async def test_a_suspended_scope_issues_nothing(world: World):
    """Nothing new is wrapped under a suspended path."""
    doctor = world.person("doctor")
    await world.seal_online(doctor)
    await world.worker.lifecycle.change(path("clinic:vault"), "suspend", below=True, actor=OPERATOR)

    with pytest.raises(Problem, match="suspended"):
        await world.seal_online(doctor)


async def test_data_keys_of_one_request_differ(world: World):
    """Each has its own id, its own wrap and its own key."""
    doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
    policy = write_policy("00000000-0000-4000-8000-000000000000", ())
    body = SealBody(public_pem(key.public_key()), policy, b64url(os.urandom(16)), count=10)
    token = write_request_token(body, doctor.key, now=int(time.time()))
    answer = await world.worker.surface.issue(doctor.authenticated(), token, Origin("r-1"))
    wraps = [OnlineWrap.parse(from_b64(item.wrappedKey)) for item in answer.keys]

    assert len({wrap.id for wrap in wraps}) == 10
    assert len({wrap.rest for wrap in wraps}) == 10


async def test_data_keys_go_to_p256_alone(world: World):
    """HPKE is fixed to one suite; another curve is a malformed request, and nothing is made."""
    doctor = world.person("doctor")
    key = ec.generate_private_key(ec.SECP384R1())
    policy = write_policy("00000000-0000-4000-8000-000000000000", ())
    body = SealBody(public_pem(key.public_key()), policy, b64url(os.urandom(16)), 1, "vault")
    token = write_request_token(body, doctor.key, now=int(time.time()))

    with pytest.raises(Problem) as caught:
        await world.worker.surface.issue(doctor.authenticated(), token, Origin("r-seal"))
    assert caught.value.code == "malformed_request"
    assert await world.records("issue") == []
