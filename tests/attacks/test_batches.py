"""Batches that play tricks, and tenants that are crossed at random."""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from kas.world import ISSUER, Person, Request, SealedObject, World, running_world

from envelock_formats.decision import DecidedObject
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64url
from envelock_formats.request import Caller, key_sha256, policy_sha256, spki_from_pem
from envelock_formats.tdf.keyaccess import keys_sha256
from envelock_formats.wire import KeyAccessEntry, RewrapBody, SealBody
from envelock_formats.wrap import public_pem
from envelock_kas.records import Origin
from envelock_service.problem import Problem

TENANTS = ("clinic", "globex")
GUARD = {"subject_per_second": 1e6, "subject_burst": 10**6}


async def refused(request: Request) -> str:
    """Send a request that must be refused as a whole; returns the code."""
    with pytest.raises(Problem) as caught:
        await request.send()
    return caught.value.code


def body_of(*objects: SealedObject, **changes: object) -> RewrapBody:
    """A body about *objects*."""
    key = ec.generate_private_key(ec.SECP256R1())
    entries = tuple(item.entry(f"p{n}") for n, item in enumerate(objects))
    body = RewrapBody(public_pem(key.public_key()), entries)
    return msgspec.structs.replace(body, **changes)


async def sealed_many(world: World, number: int) -> list[SealedObject]:
    """Several objects under one key."""
    published = await world.published()
    return [world.seal_to(published.kid, published.pem) for _ in range(number)]


class TestTricks:
    """What one request may not mix."""

    async def test_one_bad_object_among_a_hundred_is_refused_alone(self, world: World):
        """Ninety-nine are released; the bad one is recorded with its reason, and no other."""
        objects = await sealed_many(world, 100)
        objects[41] = SealedObject(objects[7].policy, objects[41].keys, objects[41].share)
        opened = await world.request(world.person("doctor"), *objects).send()
        [released], [denied] = await world.records("release"), await world.records("denied")

        assert [n for n, status in enumerate(opened.statuses) if status != "permit"] == [41]
        assert opened.shares == [item.share for item in objects if item is not objects[41]]
        assert [row["id"] for row in denied["objs"]] == [objects[41].id]
        assert [row["id"] for row in released["objs"]] == [
            item.id for item in objects if item is not objects[41]
        ]

    async def test_a_policy_of_one_opens_no_key_of_another(self, world: World):
        """Policies that change places refuse both objects."""
        one, other = await sealed_many(world, 2)
        swapped = replace(one, policy=other.policy), replace(other, policy=one.policy)
        opened = await world.request(world.person("doctor"), *swapped).send()

        assert opened.statuses == ["fail", "fail"]
        assert await world.records("release") == []

    async def test_one_share_of_two_that_is_bad_refuses_its_object(self, world: World):
        """An object is released with all of its keys or with none."""
        one, other = await sealed_many(world, 2)
        joined = SealedObject(one.policy, one.keys + other.keys, one.share)
        opened = await world.request(world.person("doctor"), joined).send()

        assert opened.statuses == ["fail", "fail"]
        assert opened.shares == []

    @pytest.mark.parametrize("number", [121, 200])
    async def test_more_keys_than_a_record_holds_are_refused(self, world: World, number: int):
        """And on record all the same."""
        [sealed] = await sealed_many(world, 1)
        entries = [
            msgspec.structs.replace(
                sealed.entry(f"p{start}"),
                keyAccessObjects=tuple(
                    KeyAccessEntry(f"k{n}", sealed.keys[0])
                    for n in range(start, min(start + 20, number))
                ),
            )
            for start in range(0, number, 20)
        ]
        request = world.signed(world.person("doctor"), body_of(requests=tuple(entries)))

        assert await refused(request) == "malformed_request"
        assert not world.custody.operations
        assert len(await world.records("denied")) == 1

    @pytest.mark.parametrize("number", [0, 101])
    async def test_none_and_too_many_objects_are_refused(self, world: World, number: int):
        """A request is about 1 to 100 objects."""
        [sealed] = await sealed_many(world, 1)
        request = world.signed(world.person("doctor"), body_of(*([sealed] * number)))

        assert await refused(request) == "malformed_request"
        assert not world.custody.operations

    async def test_one_object_under_two_ids_is_one_object(self, world: World):
        """Released once, told twice; its key stands under another id each time."""
        [sealed] = await sealed_many(world, 1)
        again = msgspec.structs.replace(
            sealed.entry("p1"), keyAccessObjects=(KeyAccessEntry("other", sealed.keys[0]),)
        )
        body = body_of(requests=(sealed.entry("p0"), again))
        opened = await world.signed(world.person("doctor"), body).send()
        [record] = await world.records("release")

        ids = [one.results[0].keyAccessObjectId for one in opened.answer.responses]
        assert (opened.statuses, ids) == (["permit", "permit"], ["kao-0", "other"])
        assert len(record["objs"]) == sum(world.custody.operations.values()) == 1

    async def test_a_request_for_new_keys_opens_none(self, world: World):
        """Each kind of request has a body of its own."""
        [sealed] = await sealed_many(world, 1)
        doctor = world.person("doctor")
        key = ec.generate_private_key(ec.SECP256R1())
        seal = SealBody(public_pem(key.public_key()), sealed.policy, b64url(os.urandom(16)))

        assert await refused(world.signed(doctor, seal)) == "malformed_request"
        with pytest.raises(Problem, match="malformed_request"):
            await world.worker.surface.issue(
                doctor.authenticated(),
                world.signed(doctor, body_of(sealed)).token,
                Origin("r-test"),
            )
        assert not world.custody.operations

    @pytest.mark.parametrize("act", ["seal", "rebind"])
    async def test_a_decision_for_another_act_opens_nothing(self, world: World, act: str):
        """What may be sealed or rebound may not be opened for it."""
        [sealed] = await sealed_many(world, 1)
        doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
        world.pdp.changes = {"act": act}
        decision = world.decide(doctor, key, sealed)

        assert (
            await refused(world.request(doctor, sealed, key=key, decision=decision))
            == "decision_mismatch"
        )
        assert not world.custody.operations

    async def test_an_older_form_beside_requests_must_agree(self, world: World):
        """Two readers see one request."""
        one, other = await sealed_many(world, 2)
        doctor = world.person("doctor")
        for changes in ({"policy": other.policy}, {"keyAccess": other.keys[0]}):
            assert await refused(world.signed(doctor, body_of(one, **changes))) == (
                "malformed_request"
            )
        assert not world.custody.operations


@dataclass(frozen=True)
class Crossing:
    """One way to mix what belongs to two tenants."""

    token: str  # the caller's home
    decision: str | None  # the tenant that a brought decision names
    policy: str  # the namespace of the policy's attributes
    key: str  # the tenant that the key id names
    object: str  # the tenant to whose key the share was really wrapped

    @property
    def owned(self) -> bool:
        """Whether everything but the caller is one tenant's."""
        whose = {self.policy, self.key, self.object, self.decision or self.key}
        return len(whose) == 1


def crossings(number: int, seed: int) -> list[Crossing]:
    """As many crossings, at random."""
    chance = random.Random(seed)  # noqa: S311 reproducible on purpose
    return [
        Crossing(
            chance.choice(TENANTS),
            chance.choice([None, *TENANTS]),
            *(chance.choice(TENANTS) for _ in range(3)),
        )
        for _ in range(number)
    ]


@asynccontextmanager
async def two_tenants(folder: Path, sharing: tuple[str, ...]) -> AsyncIterator[World]:
    """A KAS with two tenants; the clinic shares with those that are named."""
    async with running_world(folder, guard=GUARD) as world:
        await world.announce("globex", bytes(32))
        world.pdp.epochs["globex"] = 1
        if sharing:
            await world.announce("clinic", b"\1" * 32, sharing)
            world.pdp.epochs["clinic"] = 2
        yield world


def decided(world: World, person: Person, key, sealed: SealedObject, tenant: str) -> str:
    """A decision of *tenant* that permits the object."""
    rows = (
        DecidedObject(
            sealed.id,
            b64url(policy_sha256(sealed.policy)),
            b64url(keys_sha256(sealed.keys)),
            permit=True,
        ),
    )
    digest = b64url(key_sha256(spki_from_pem(public_pem(key.public_key()))))
    return world.pdp.sign(person.caller, rows, "open", tenant, digest)


async def crossed(world: World, number: int, seed: int, shared: set[tuple[str, str]]) -> Counter:
    """Send crossings; returns how many were permitted and refused, and fails on a wrong one."""
    people = {home: world.person("doctor", home) for home in TENANTS}
    keys = {home: await world.published(tenant=home) for home in TENANTS}
    counted: Counter[str] = Counter()
    for crossing in crossings(number, seed):
        attribute = AttributeValue(f"{crossing.policy}.example", "clearance", "secret")
        sealed = world.seal_to(keys[crossing.key].kid, keys[crossing.object].pem, (attribute,))
        person, key = people[crossing.token], ec.generate_private_key(ec.SECP256R1())
        brought = crossing.decision and decided(world, person, key, sealed, crossing.decision)
        before = await size(world)
        operations = world.custody.operations.total()
        try:
            opened = await world.request(person, sealed, key=key, decision=brought).send()
            permitted = opened.shares == [sealed.share]
            assert permitted or not opened.shares
        except Problem:
            permitted = False
        fields = await newest(world)
        admitted = crossing.token == crossing.key or (crossing.key, crossing.token) in shared

        assert permitted == (crossing.owned and admitted), crossing
        assert (await size(world), fields["typ"]) == (
            before + 1,
            "release" if permitted else "denied",
        )
        assert fields["tn"] in {crossing.key, crossing.token}
        assert fields["home"] == crossing.token
        if crossing.token != crossing.key and not admitted:
            assert world.custody.operations.total() == operations, crossing
        counted["permitted" if permitted else "refused"] += 1
    return counted


async def size(world: World) -> int:
    """How many records there are."""
    return int((await world.ledger.head()).splitlines()[1])


async def newest(world: World):
    """The record that was written last."""
    receipt = await world.ledger.prove(await size(world) - 1)
    return receipt.verify(world.parts.ledger_key).fields


SHARING = pytest.mark.parametrize(
    ("sharing", "shared"),
    [((), set()), (("globex",), {("clinic", "globex")})],
    ids=["none", "with globex"],
)


@SHARING
async def test_no_key_crosses_tenants(tmp_path, sharing, shared):
    """T53: token, decision, policy, key and object of two tenants, mixed: always one record."""
    async with two_tenants(tmp_path, sharing) as world:
        counted = await crossed(world, 1000, 1, shared)

    assert min(counted["permitted"], counted["refused"]) > 25


@pytest.mark.slow
@SHARING
async def test_no_key_crosses_tenants_in_thousands_of_ways(tmp_path, sharing, shared):
    """T53 at length."""
    async with two_tenants(tmp_path, sharing) as world:
        counted = await crossed(world, 2000, random.SystemRandom().randrange(1 << 32), shared)

    assert min(counted["permitted"], counted["refused"]) > 50


def test_people_of_two_tenants_are_two_callers():
    """Though one issuer may name both by one subject."""
    one, other = (Caller(ISSUER, "doctor", home, "") for home in TENANTS)

    assert one != other
