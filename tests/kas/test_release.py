"""Release: what is given, what is refused, and what is on record either way."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from kas.world import (
    Person,
    Request,
    SealedObject,
    World,
    another_worker,
    path,
    running_world,
)

from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64
from envelock_formats.tdf.keyaccess import bind_policy, keys_sha256
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import RewrapBody, receipt_of
from envelock_formats.wrap import public_pem
from envelock_kas.errors import CustodyError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.records import Origin
from envelock_kas.worker import Worker
from envelock_ledger.entry import Entry, Fenced, Outcome
from envelock_ledger.record import encode_body
from envelock_service.problem import Problem

OPERATOR = Actor(Origin("r-operator"))


async def refused(request: Request) -> Problem:
    """Send a request that must be refused as a whole; returns the problem."""
    with pytest.raises(Problem) as caught:
        await request.send()
    return caught.value


def older(world: World, sealed: SealedObject) -> Request:
    """The doctor's request in the older form."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = public_pem(key.public_key())
    body = RewrapBody(pem, keyAccess=sealed.keys[0], policy=sealed.policy)
    return replace(world.signed(world.person("doctor"), body), key=key)


class TestReleased:
    """What a permitted caller gets."""

    async def test_gives_the_share_with_a_receipt_of_this_very_request(self, world: World):
        """A permitted caller gets the share, and a receipt whose record names the object."""
        sealed = await world.seal()
        opened = await world.request(world.person("doctor"), sealed).send()

        assert opened.shares == [sealed.share]
        record = opened.receipt.verify(world.parts.ledger_key).fields
        assert record["typ"] == "release"
        assert [row["id"] for row in record["objs"]] == [sealed.id]

    async def test_names_nobody_in_the_record(self, world: World):
        """Subject, address and user agent stand in the record as commitments only."""
        opened = await world.request(world.person("doctor"), await world.seal()).send()

        record = opened.receipt.record.decode()
        assert "doctor" not in record
        assert "192.0.2.1" not in record
        assert sorted(opened.receipt.verify(world.parts.ledger_key).openings) == ["addr", "sub"]

    async def test_many_objects_under_one_decision_are_one_record(self, world: World):
        """Objects of one request are listed in one release, each with its key and policy."""
        objects = [await world.seal() for _ in range(5)]
        opened = await world.request(world.person("doctor"), *objects).send()

        [record] = await world.records("release")
        assert [row["id"] for row in record["objs"]] == [item.id for item in objects]
        assert opened.shares == [item.share for item in objects]

    async def test_refused_objects_do_not_fail_their_neighbours(self, world: World):
        """A tampered object fails alone; its reason is recorded but not in the receipt."""
        good, bad = await world.seal(), await world.seal()
        bad = tampered(bad)
        opened = await world.request(world.person("doctor"), good, bad).send()

        assert opened.statuses == ["permit", "fail"]
        [denied] = await world.records("denied")
        assert denied["objs"][0]["rsn"] == "policy binding does not hold"
        assert "binding" not in opened.receipt.record.decode()

    async def test_the_ledger_extends_what_the_client_saw(self, world: World):
        """A client that names the size it saw gets the consistency proof from there."""
        doctor = world.person("doctor")
        first = await world.request(doctor, await world.seal()).send()
        before = first.receipt.verify(world.parts.ledger_key).checkpoint
        again = await world.request(doctor, await world.seal(), seen=before.size).send()

        verified = again.receipt.verify(world.parts.ledger_key)
        verified.check_extends(before.size, before.root)
        assert verified.checkpoint.size > before.size


class TestDenied:
    """I2: an authenticated refusal is on record with its reason, and told without it."""

    async def test_records_a_denial_before_refusing(self, world: World):
        """A refused caller hears no reason; the record has it; the custody was not touched."""
        sealed = await world.seal()
        world.pdp.reasons["accountant"] = "entitlement: clearance"
        opened = await world.request(world.person("accountant"), sealed).send()

        assert opened.statuses == ["fail"]
        assert "clearance" not in opened.errors[0]
        [record] = await world.records("denied")
        assert record["rsn"] == "entitlement: clearance"
        assert not world.custody.operations

    async def test_a_denial_carries_no_receipt_and_no_session_key(self, world: World):
        """Nothing in a refusal could be mistaken for a release."""
        world.pdp.reasons["accountant"] = "entitlement: clearance"
        opened = await world.request(world.person("accountant"), await world.seal()).send()

        assert receipt_of(opened.answer) is None
        assert opened.answer.sessionPublicKey is None

    async def test_a_denied_request_spends_its_proof(self, world: World):
        """The proof of a denied request cannot be used for another one."""
        world.pdp.reasons["mallory"] = "entitlement: clearance"
        mallory, sealed = world.person("mallory"), await world.seal()
        request = world.request(mallory, sealed)
        shown = mallory.authenticated()
        await world.worker.surface.release(shown, request.token, Origin("r-1"))
        world.pdp.reasons.clear()
        again = world.request(mallory, sealed)

        with pytest.raises(Problem, match="decision_replayed"):
            await world.worker.surface.release(shown, again.token, Origin("r-2"))
        assert not await world.records("release")

    async def test_wrong_binding_and_wrong_key_are_one_answer(self, world: World):
        """A caller cannot tell an altered wrap from an altered policy (no oracle)."""
        doctor, sealed = world.person("doctor"), await world.seal()
        key = sealed.keys[0]
        wrapped = key.wrappedKey[:-8] + ("AAAA" if key.wrappedKey[-8:-4] != "AAAA" else "BBBB")
        garbled = replaced(sealed, wrappedKey=wrapped + key.wrappedKey[-4:])
        answers = [await world.request(doctor, item).send() for item in (tampered(sealed), garbled)]

        assert answers[0].errors == answers[1].errors
        reasons = [record["rsn"] for record in await world.records("denied")]
        assert reasons == ["policy binding does not hold", "unwrap failed"]

    async def test_a_malformed_request_is_recorded_for_its_caller(self, world: World):
        """An authenticated caller's garbage is refused and on record in the caller's chain."""
        doctor = world.person("doctor")
        request = Request(world, doctor, ec.generate_private_key(ec.SECP256R1()), "a.b.c")
        problem = await refused(request)

        assert problem.code == "malformed_request"
        assert (await world.records("denied"))[0]["tn"] == "clinic"

    async def test_an_obligation_that_nobody_can_fulfil_denies(self, world: World):
        """A permit with an obligation releases nothing, and names it to the caller."""
        world.pdp.obligations = ("watermark",)
        opened = await world.request(world.person("doctor"), await world.seal()).send()
        [result] = opened.answer.responses[0].results

        assert opened.statuses == ["fail"]
        assert result.metadata == {"X-Required-Obligations": ["watermark"]}
        assert (await world.records("denied"))[0]["rsn"] == "obligation watermark"


class TestDecisions:
    """I4: a decision is for one request, and releases once."""

    async def test_one_decision_in_parallel_releases_each_object_once(self, world: World):
        """Many subsets of one decision's objects in parallel: exactly one is released."""
        objects = [await world.seal() for _ in range(8)]
        doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
        decision = world.decide(doctor, key, *objects)
        workers = [world.worker, await another_worker(world)]
        results = await asyncio.gather(
            *(
                world.request(doctor, item, key=key, decision=decision).send(workers[n % 2])
                for n, item in enumerate(objects)
            ),
            return_exceptions=True,
        )

        kinds = [type(result).__name__ for result in results]
        assert sorted(kinds) == ["Opened", *["Problem"] * 7]
        assert len(await world.records("release")) == 1

    async def test_one_decision_with_other_client_keys_releases_once(self, world: World):
        """A stolen decision is of no use with another client key."""
        doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
        sealed = await world.seal()
        decision = world.decide(doctor, key, sealed)
        problems = [
            await refused(world.request(doctor, sealed, decision=decision)) for _ in range(5)
        ]

        assert {problem.code for problem in problems} == {"decision_mismatch"}
        assert not world.custody.operations

    async def test_the_same_request_again_is_a_retry(self, world: World):
        """A retry with a fresh proof gives the same share, and no second release."""
        sealed = await world.seal()
        request = world.request(world.person("doctor"), sealed)
        first, second = await request.send(), await request.send()

        assert first.shares == second.shares == [sealed.share]
        assert [len(await world.records(typ)) for typ in ("release", "retry")] == [1, 1]

    async def test_a_retry_in_parallel_is_one_release(self, world: World):
        """The same request many times at once: one release, the others retries of it."""
        sealed = await world.seal()
        request = world.request(world.person("doctor"), sealed)
        answers = await asyncio.gather(*(request.send() for _ in range(10)))

        assert [opened.shares for opened in answers] == [[sealed.share]] * 10
        assert [len(await world.records(typ)) for typ in ("release", "retry")] == [1, 9]

    async def test_a_decision_for_one_object_is_none_for_another(self, world: World):
        """A decision about A presented for B is refused before any key is touched."""
        doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
        one, other = await world.seal(), await world.seal()
        problem = await refused(
            world.request(doctor, other, key=key, decision=world.decide(doctor, key, one))
        )

        assert problem.code == "decision_mismatch"
        assert not world.custody.operations

    async def test_a_retry_may_not_open_more_than_the_first_time(self, world: World):
        """The same request with another outcome is another use of its token, and refused."""
        good, held = await world.seal(), await world.seal("held")
        await world.worker.lifecycle.change(
            path("clinic:held"), "suspend", below=True, actor=OPERATOR
        )
        request = world.request(world.person("doctor"), good, held)
        first = await request.send()
        await world.worker.lifecycle.change(
            path("clinic:held"), "resume", below=True, actor=OPERATOR
        )

        assert first.statuses == ["permit", "fail"]
        assert (await refused(request)).code == "decision_replayed"

    @pytest.mark.parametrize(
        ("claim", "value"),
        [
            ("sub", "somebody"),
            ("sub_iss", "https://other.example"),
            ("sub_tenant", "other"),
            ("act", "seal"),
            ("cnf", None),
            ("tenant", "other"),
            ("key_sha256", "A" * 43),
            ("aud", "other-kas"),
            ("iss", "other-pdp"),
            ("exp", int(time.time()) - 1),
            ("iat", int(time.time()) + 50_000),
        ],
    )
    async def test_a_lying_pdp_releases_nothing(self, world: World, claim: str, value: object):
        """A decision that differs from the request in any claim is as good as none: 503."""
        world.pdp.changes = {claim: value}
        if claim == "iat":
            world.pdp.changes |= {"nbf": value, "exp": int(time.time()) + 50_030}
        if claim == "exp":
            world.pdp.changes |= {"iat": value - 30, "nbf": value - 30}
        problem = await refused(world.request(world.person("doctor"), await world.seal()))

        assert problem.code == "pdp_unavailable"
        assert not world.custody.operations

    async def test_a_decision_signed_by_another_key_is_refused(self, world: World):
        """Only pinned keys decide."""
        doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
        sealed = await world.seal()
        genuine = world.pdp.key
        world.pdp.key = ec.generate_private_key(ec.SECP256R1())
        forged = world.decide(doctor, key, sealed)
        world.pdp.key = genuine
        problem = await refused(world.request(doctor, sealed, key=key, decision=forged))

        assert problem.code == "access_denied"


class TestUnrecordable:
    """No caller can make its refusal too large, or too odd, to be recorded."""

    @pytest.mark.parametrize("size", [150, 60_000, 90_000])
    async def test_a_long_name_in_a_policy_is_refused_on_record(self, world: World, size: int):
        """The reason is cut; the record is there."""
        sealed = await world.seal()
        text = f'{{"uuid":"00000000-0000-4000-8000-000000000000","{"x" * size}":1,"body":{{}}}}'
        odd = SealedObject(b64(text.encode()), sealed.keys, sealed.share)
        problem = await refused(world.request(world.person("doctor"), odd))

        assert problem.code == "malformed_request"
        [record] = await world.records("denied")
        assert len(record["rsn"]) <= 200

    async def test_the_largest_request_can_be_recorded(self, world: World):
        """As many objects as a request may have, all refused: one record with all of them."""
        objects = [await world.seal() for _ in range(100)]
        world.pdp.reasons["doctor"] = "x" * 1000
        opened = await world.request(world.person("doctor"), *objects).send()

        assert opened.statuses == ["fail"] * 100
        assert len((await world.records("denied"))[0]["objs"]) == 100

    async def test_an_rsa_key_that_cannot_seal_costs_no_operation(self, world: World):
        """A client key with an even modulus is refused before anything is unwrapped."""
        numbers = rsa.RSAPublicNumbers(65537, 2**2047 + 2)
        body = world.body(await world.seal(), public_pem(numbers.public_key()))
        problem = await refused(world.signed(world.person("doctor"), body))

        assert problem.code == "malformed_request"
        assert not world.custody.operations


class TestFormatsOfRequests:
    """What a request may not be."""

    async def test_two_ephemeral_keys_make_two_objects(self, world: World):
        """One wrapped key under another ephemeral key is another object for every decision."""
        sealed = await world.seal()
        other = ec.generate_private_key(ec.SECP256R1())
        moved = replaced(sealed, ephemeralPublicKey=public_pem(other.public_key()))

        assert keys_sha256(sealed.keys) != keys_sha256(moved.keys)

    async def test_a_client_key_that_is_one_of_ours_is_refused(self, world: World):
        """Shares are never sealed to a public half of a KEK."""
        doctor, sealed = world.person("doctor"), await world.seal()
        published = await world.published()
        body = world.body(sealed, published.pem)
        problem = await refused(world.signed(doctor, body))

        assert problem.code == "access_denied"
        assert (await world.records("denied"))[0]["rsn"] == "client key is one of our own"

    @pytest.mark.parametrize("again", ["policy id", "key id"])
    async def test_an_id_twice_in_a_batch_refuses_the_whole_batch(self, world: World, again: str):
        """W19: with one name for two results a denied one could pass for the permitted one."""
        doctor = world.person("doctor")
        one, other = await world.seal(), await world.seal()
        key = ec.generate_private_key(ec.SECP256R1())
        entries = one.entry("p"), other.entry("p" if again == "policy id" else "q")
        if again == "key id":
            twice = (*entries[0].keyAccessObjects, *entries[0].keyAccessObjects)
            entries = msgspec.structs.replace(entries[0], keyAccessObjects=twice), entries[1]
        problem = await refused(
            world.signed(doctor, RewrapBody(public_pem(key.public_key()), entries))
        )

        assert (problem.code, problem.status) == ("malformed_request", 400)
        assert await world.records("release") == []
        [record] = await world.records("denied")
        assert "stands twice" in record["rsn"]

    async def test_copies_of_an_object_share_its_fate(self, world: World):
        """Clients open several copies of one file at once: one decision, one row, two results."""
        doctor, sealed, other = world.person("doctor"), await world.seal(), await world.seal()
        opened = await world.request(doctor, sealed, other, sealed).send()
        ids = [response.policyId for response in opened.answer.responses]
        [record] = await world.records("release")

        assert opened.shares == [sealed.share, other.share, sealed.share]
        assert ids == ["policy-0", "policy-1", "policy-2"]
        assert [row["id"] for row in record["objs"]] == [sealed.id, other.id]
        assert world.custody.operations["agree"] == 2

    async def test_copies_that_are_refused_are_refused_alike(self, world: World):
        """No result of one can pass for another's."""
        doctor, sealed = world.person("doctor"), await world.seal()
        world.pdp.reasons["doctor"] = "no"
        opened = await world.request(doctor, sealed, sealed).send()

        assert opened.statuses == ["fail", "fail"]
        assert opened.shares == []

    async def test_one_object_under_two_policies_is_refused(self, world: World):
        """The keys are bound to one of them at most."""
        one = await world.seal()
        other = replace(one, policy=(await world.seal()).policy)
        problem = await refused(world.request(world.person("doctor"), one, other))

        assert problem.code == "malformed_request"
        assert await world.records("release") == []

    async def test_a_key_that_nobody_knows_fails_alone(self, world: World):
        """Its neighbours are released; it costs neither a question nor an operation."""
        doctor, sealed = world.person("doctor"), await world.seal()
        strange = replaced(await world.seal(), kid="r1")
        opened = await world.request(doctor, strange, sealed).send()
        [release], [denied] = await world.records("release"), await world.records("denied")

        assert opened.statuses == ["fail", "permit"]
        assert opened.shares == [sealed.share]
        assert [row["id"] for row in release["objs"]] == [sealed.id]
        assert [(row["id"], row["rsn"]) for row in denied["objs"]] == [
            (strange.id, "no key is known as 'r1'")
        ]
        assert world.custody.operations["agree"] == 1

    async def test_nothing_but_unknown_keys_is_a_refusal_on_record(self, world: World):
        """Told like any other denial, without a question to the PDP."""
        strange = replaced(await world.seal(), kid="r1")
        opened = await world.request(world.person("doctor"), strange).send()
        [denied] = await world.records("denied")

        assert opened.statuses == ["fail"]
        assert "desc = forbidden" in opened.errors[0]
        assert denied["rsn"] == "no key is known as 'r1'"
        assert (world.pdp.asked, sum(world.custody.operations.values())) == (0, 0)

    async def test_an_offline_wrap_does_not_open_in_an_online_scope(self, world: World):
        """Whoever read an object cannot wrap its key anew under a friendlier policy."""
        doctor = world.person("doctor")
        version = (
            await world.worker.lifecycle.ensure(path("clinic:vault:x"), "online", OPERATOR)
        ).version
        stranger = ec.generate_private_key(ec.SECP256R1())
        forged = world.seal_to(str(version.id), public_pem(stranger.public_key()))
        opened = await world.request(doctor, forged).send()

        assert opened.statuses == ["fail"]
        assert "online wraps only" in (await world.records("denied"))[0]["rsn"]

    async def test_a_request_token_signed_by_another_key_is_refused(self, world: World):
        """With a bound token the request token counts only under that very key."""
        doctor, mallory = world.person("doctor"), Person("mallory")
        request = world.request(mallory, await world.seal())
        stolen = Request(world, doctor, request.key, request.token)

        assert (await refused(stolen)).code == "malformed_request"


class TestOlderForm:
    """One key that is asked for at the top level of the request, and told there."""

    async def test_gives_the_share_at_the_top_level_too(self, world: World):
        """The same share, under one receipt."""
        sealed = await world.seal()
        opened = await older(world, sealed).send()

        assert opened.answer.entityWrappedKey == opened.answer.responses[0].results[0].kasWrappedKey
        assert opened.shares == [sealed.share]
        assert opened.receipt.verify(world.parts.ledger_key).fields["typ"] == "release"

    async def test_a_denial_fails_the_request(self, world: World):
        """On record as any other."""
        world.pdp.reasons["doctor"] = "no"

        assert (await refused(older(world, await world.seal()))).code == "access_denied"
        assert (await world.records("denied"))[0]["rsn"] == "no"

    async def test_what_was_altered_is_told_apart(self, world: World):
        """A client can tell a changed file from a denial, here as in the newer form."""
        problem = await refused(older(world, tampered(await world.seal())))

        assert problem.code == "bad_request"
        assert (await world.records("denied"))[0]["rsn"] == "policy binding does not hold"


class TestTenants:
    """I5: token, decision, policy, key and object are of one tenant."""

    async def test_a_caller_of_another_tenant_is_refused(self, world: World):
        """A foreign caller gets nothing, however the PDP decides."""
        stranger = world.person("doctor", tenant="globex")
        problem = await refused(world.request(stranger, await world.seal()))

        assert problem.code == "access_denied"
        assert not world.custody.operations

    async def test_a_namespace_of_another_tenant_is_refused(self, world: World):
        """A policy that asks for attributes of a foreign namespace opens nothing."""
        foreign = AttributeValue("globex.example", "clearance", "secret")
        sealed = await world.seal(attributes=(foreign,))
        problem = await refused(world.request(world.person("doctor"), sealed))

        assert problem.code == "access_denied"

    async def test_keys_of_two_tenants_in_one_request_are_refused(self, world: World):
        """One request has one owner."""
        one = await world.seal()
        two = replaced(await world.seal(), kid="globex:records:v1")
        problem = await refused(world.request(world.person("doctor"), one, two))

        assert problem.code == "malformed_request"
        [denied] = await world.records("denied")
        assert denied["rsn"] == "tenant: several owners in one request"

    async def test_an_unknown_key_is_refused_like_a_forbidden_one(self, world: World):
        """There is no telling which keys exist."""
        doctor = world.person("doctor")
        unknown = replaced(await world.seal(), kid="clinic:secret-project:v1")
        missing = await world.request(doctor, unknown).send()
        world.pdp.reasons["doctor"] = "entitlement: clearance"
        denied = await world.request(doctor, await world.seal()).send()

        assert missing.errors == denied.errors

    async def test_a_sharing_rule_of_the_owner_admits_another_home(self, world: World):
        """Only the owner's own bundle can admit callers of another tenant."""
        await world.announce("clinic", b"\x01" * 32, sharing=("globex",))
        world.pdp.epochs["clinic"] = 2
        partner = world.person("doctor", tenant="globex")
        sealed = await world.seal()
        opened = await world.request(partner, sealed).send()

        assert opened.shares == [sealed.share]


class TestStanding:
    """I6: nothing is released after the record that forbids it, however warm the caches."""

    @pytest.mark.parametrize("change", ["suspend", "destroy"])
    async def test_a_shut_key_opens_nothing_on_any_worker(self, world: World, change: str):
        """After the record no worker releases, and the permitted caller hears why."""
        sealed, doctor = await world.seal(), world.person("doctor")
        other = await another_worker(world)
        await world.request(doctor, sealed).send(other)
        await world.worker.lifecycle.change(
            path("clinic:records"), change, below=True, actor=OPERATOR
        )
        opened = await world.request(doctor, sealed).send(other)

        assert opened.statuses == ["fail"]
        assert "kek_disabled" in opened.errors[0]

    async def test_a_key_that_is_suspended_itself_opens_nothing(self, world: World):
        """Its own state counts, also when every path above it is open."""
        sealed, doctor = await world.seal(), world.person("doctor")
        own = path((await world.published()).path)
        await world.worker.lifecycle.change(own, "suspend", below=False, actor=OPERATOR)
        before = Counter(world.custody.operations)
        opened = await world.request(doctor, sealed).send()

        assert opened.statuses == ["fail"]
        assert "kek_disabled" in opened.errors[0]
        assert world.custody.operations == before

    async def test_a_tenant_key_that_is_suspended_shuts_what_lies_below(self, world: World):
        """Every version of every path above is fenced, not only the key itself."""
        sealed, doctor = await world.seal(), world.person("doctor")
        other = await another_worker(world)
        versions = world.worker.projection.registry.versions(path("clinic"))
        await world.worker.lifecycle.change(path("clinic"), "suspend", below=True, actor=OPERATOR)
        opened = await world.request(doctor, sealed).send(other)

        assert len(versions) == 1
        assert opened.statuses == ["fail"]

    async def test_resumed_keys_open_again_everywhere(self, world: World):
        """A suspension is reversible, also for a worker that refused meanwhile."""
        sealed, doctor = await world.seal(), world.person("doctor")
        other = await another_worker(world)
        for change in ("suspend", "resume"):
            await world.worker.lifecycle.change(
                path("clinic:records"), change, below=True, actor=OPERATOR
            )
            opened = await world.request(doctor, sealed).send(other)

        assert opened.shares == [sealed.share]

    async def test_a_rotated_key_still_opens_what_it_wrapped(self, world: World):
        """Rotation touches no file."""
        sealed, doctor = await world.seal(), world.person("doctor")
        await world.worker.lifecycle.rotate(path((await world.published()).path), OPERATOR)
        fresh = await world.seal()
        opened = await world.request(doctor, sealed, fresh).send()

        assert sealed.keys[0].kid != fresh.keys[0].kid
        assert opened.shares == [sealed.share, fresh.share]

    async def test_a_revoked_subject_gets_nothing_on_any_worker(self, world: World):
        """Revocation is one record, and holds for a worker that has not read it."""
        sealed, doctor = await world.seal(), world.person("doctor")
        other = await another_worker(world)
        await world.request(doctor, sealed).send(other)
        await world.worker.surface.administration.set_subject(doctor.caller, "shut", OPERATOR)

        with pytest.raises(Problem, match="access_denied"):
            await world.request(doctor, sealed).send(other)
        assert (await world.records("denied"))[0]["rsn"] == "subject revoked"

    async def test_operators_shut_out_subjects_of_their_own_tenant_only(self, world: World):
        """Another tenant's operator neither lets in nor shuts out, though they share an issuer."""
        sealed, doctor = await world.seal(), world.person("doctor")
        administration = world.worker.surface.administration
        await administration.set_subject(doctor.caller, "shut", OPERATOR)
        foreign = replace(doctor.caller, tenant="globex")
        await administration.set_subject(foreign, "shut", OPERATOR)
        await administration.set_subject(foreign, "open", OPERATOR)

        with pytest.raises(Problem, match="access_denied"):
            await world.request(doctor, sealed).send()

    @pytest.mark.parametrize("which", ["subject", "tenant"])
    async def test_who_is_shut_out_while_a_release_waits_gets_nothing(
        self, world: World, which: str
    ):
        """This worker reads on meanwhile; the release still expects what it was judged by."""
        sealed, doctor = await world.seal(), world.person("doctor")
        gate = world.custody.gate()
        sending = asyncio.create_task(world.request(doctor, sealed).send())
        await gate.reached.wait()
        administration = world.worker.surface.administration
        if which == "subject":
            await administration.set_subject(doctor.caller, "shut", OPERATOR)
        else:
            await administration.set_tenant("clinic", "shut", OPERATOR)
        gate.open.set()

        with pytest.raises(Problem, match="access_denied"):
            await sending
        assert not await world.records("release")

    async def test_a_closed_tenant_gets_nothing(self, world: World):
        """A closed tenant's objects and callers are shut out until it is opened again."""
        sealed, doctor = await world.seal(), world.person("doctor")
        administration = world.worker.surface.administration
        await administration.set_tenant("clinic", "shut", OPERATOR)
        problem = await refused(world.request(doctor, sealed))
        await administration.set_tenant("clinic", "open", OPERATOR)
        opened = await world.request(doctor, sealed).send()

        assert problem.code == "access_denied"
        assert opened.shares == [sealed.share]

    async def test_an_older_policy_epoch_releases_nothing(self, world: World):
        """A decision of an epoch that is no longer in force is asked for again: 503."""
        sealed, doctor = await world.seal(), world.person("doctor")
        await world.announce("clinic", b"\x01" * 32)
        problem = await refused(world.request(doctor, sealed))
        world.pdp.epochs["clinic"] = 2
        opened = await world.request(doctor, sealed).send()

        assert problem.code == "policy_stale"
        assert opened.shares == [sealed.share]

    async def test_an_object_whose_policy_was_replaced_stays_closed(self, world: World):
        """A restored old file does not bring its old policy back."""
        doctor = world.person("doctor")
        sealed = await world.seal_online(doctor)
        fields = {"id": "moved", "tn": "clinic", "ts": 1, "typ": "rebind", "v": 1}
        fields["moves"] = {f"object:{sealed.id}": 1}
        body, _ = encode_body(fields, {}, lambda: os.urandom(16))
        await world.ledger.append([Entry(body)])
        problem = await refused(world.request(doctor, sealed))

        assert problem.code == "access_denied"

    async def test_what_was_judged_by_old_evidence_is_not_committed(self, world: World):
        """A key suspended between unwrap and record is refused by its fence, then by its state."""
        sealed, doctor = await world.seal(), world.person("doctor")
        other = await another_worker(world)
        gate = world.custody.gate()
        sending = asyncio.create_task(world.request(doctor, sealed).send(other))
        await gate.reached.wait()
        await world.worker.lifecycle.change(
            path("clinic:records"), "suspend", below=True, actor=OPERATOR
        )
        gate.open.set()
        opened = await sending

        assert opened.statuses == ["fail"]
        assert not await world.records("release")


class TestFailClosed:
    """I1, I3: no record, no key; whatever is in doubt is a 503."""

    async def test_releases_nothing_it_cannot_record(self, world: World):
        """A closed ledger means no key, though everything else permits it."""
        request = world.request(world.person("doctor"), await world.seal())
        await world.ledger.aclose()

        assert (await refused(request)).code == "ledger_unavailable"

    async def test_a_pdp_that_is_down_is_503_on_record_and_recovers(self, world: World):
        """Without a decision nothing is released; the failure is recorded; then it works again."""
        request = world.request(world.person("doctor"), await world.seal())
        world.pdp.down = True
        problem = await refused(request)
        world.pdp.down = False
        opened = await request.send()

        assert problem.code == "pdp_unavailable"
        assert (await world.records("error"))[0]["rsn"] == "pdp: down"
        assert opened.statuses == ["permit"]

    async def test_a_custody_that_is_gone_is_503_on_record_and_recovers(self, world: World):
        """An HSM that does not answer releases nothing, and the next request may succeed."""
        request = world.request(world.person("doctor"), await world.seal())
        world.custody.fault = CustodyError("gone")
        problem = await refused(request)
        world.custody.fault = None
        opened = await request.send()

        assert problem.code == "hsm_unavailable"
        assert (await world.records("error"))[0]["rsn"] == "custody: gone"
        assert opened.statuses == ["permit"]

    async def test_fences_that_never_rest_release_nothing(self, world: World):
        """Whose evidence is refused again and again gets no key, and is told to come again."""

        class Restless:
            """A ledger whose fences have always moved when a release comes."""

            def __getattr__(self, name: str) -> object:
                return getattr(world.ledger, name)

            async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
                if any(b'"typ":"release"' in entry.body for entry in entries):
                    return [Fenced("key:clinic:v1") for _ in entries]
                return await world.ledger.append(entries)

        request = world.request(world.person("doctor"), await world.seal())
        restless = Worker(replace(world.parts, ledger=Restless()))
        await restless.projection.catch_up()

        with pytest.raises(Problem, match="policy_stale"):
            await request.send(restless)
        assert not await world.records("release")

    async def test_a_fast_caller_is_refused_before_anything_dear(self, tmp_path):
        """Over the rate nothing is decided, unwrapped or recorded one by one."""
        limits = {"subject_per_second": 0.001, "subject_burst": 2}
        async with running_world(tmp_path, guard=limits) as world:
            sealed, doctor = await world.seal(), world.person("doctor")
            requests = [world.request(doctor, sealed) for _ in range(4)]
            results = await asyncio.gather(
                *(request.send() for request in requests), return_exceptions=True
            )

            assert [getattr(result, "code", "") for result in results] == [
                "",
                "",
                *["rate_limited"] * 2,
            ]
            assert world.pdp.asked == 2

    async def test_a_large_request_counts_as_several(self, tmp_path):
        """A hundred policies in one request are no way round the rate."""
        limits = {"subject_per_second": 0.001, "subject_burst": 9}
        async with running_world(tmp_path, guard=limits) as world:
            sealed, doctor, nurse = (
                await world.seal(),
                world.person("doctor"),
                world.person("nurse"),
            )
            many = [replaced(sealed, sid=f"split-{number}") for number in range(40)]
            await world.request(doctor, *many).send()
            owing = await refused(world.request(doctor, sealed))
            others = await world.request(nurse, sealed).send()

        assert owing.code == "rate_limited"
        assert others.statuses == ["permit"]


def tampered(sealed: SealedObject) -> SealedObject:
    """The object under another policy than the one that is bound to its share."""
    policy = write_policy("00000000-0000-4000-8000-000000000000", ())
    return SealedObject(policy, sealed.keys, sealed.share)


def replaced(sealed: SealedObject, **members: object) -> SealedObject:
    """The object with members of its key access object replaced."""
    key = msgspec.structs.replace(sealed.keys[0], **members)
    return SealedObject(sealed.policy, (key,), sealed.share)


def test_a_binding_is_of_one_policy():
    """The binding under a share differs for every policy."""
    share = bytes(range(32))
    one, other = (write_policy(f"00000000-0000-4000-8000-00000000000{n}", ()) for n in (1, 2))

    assert bind_policy(share, one) != bind_policy(share, other)
