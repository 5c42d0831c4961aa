"""Release: what is given, what is refused, and what is on record either way."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats.canonical import parse
from envelock_formats.framing import from_b64
from envelock_service.problem import Problem
from kas.world import World, another_worker, path
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.records import Origin

OPERATOR = Actor(Origin("r-operator"))


class TestRelease:
    async def test_gives_the_share_with_a_receipt_of_this_very_request(self, world: World):
        """A permitted caller gets the share, and a receipt whose record names the object."""
        sealed = await world.seal()
        opened = await world.request(world.person("doctor"), sealed).send()

        assert opened.shares == [sealed.share]
        record = opened.receipt.verify(world.parts.ledger_key).fields
        assert record["typ"] == "release"
        assert [row["id"] for row in record["objs"]] == [sealed.id]

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

    async def test_one_decision_in_parallel_releases_once(self, world: World):
        """Two subsets of one decision's objects in parallel: one is released, one refused."""
        one, two = await world.seal(), await world.seal()
        doctor, key = world.person("doctor"), ec.generate_private_key(ec.SECP256R1())
        decision = world.decide(doctor, key, one, two)
        requests = [world.request(doctor, item, key=key, decision=decision) for item in (one, two)]
        results = await asyncio.gather(
            *(request.send() for request in requests), return_exceptions=True
        )

        assert sorted(type(result).__name__ for result in results) == ["Opened", "Problem"]
        assert len(await world.records("release")) == 1

    async def test_the_same_request_again_is_answered_again_and_recorded_as_retry(
        self, world: World
    ):
        """A retry with a fresh proof gives the same share, and no second release."""
        sealed = await world.seal()
        request = world.request(world.person("doctor"), sealed)
        first, second = await request.send(), await request.send()

        assert first.shares == second.shares == [sealed.share]
        assert [len(await world.records(typ)) for typ in ("release", "retry")] == [1, 1]

    async def test_a_suspended_key_opens_nothing_on_any_worker(self, world: World):
        """After the record of a suspension no worker releases, however warm its caches."""
        sealed = await world.seal()
        doctor = world.person("doctor")
        other = await another_worker(world)
        await world.request(doctor, sealed).send(other)
        await world.worker.lifecycle.change(
            path("clinic:records"), "suspend", below=True, actor=OPERATOR
        )
        opened = await world.request(doctor, sealed).send(other)

        assert opened.statuses == ["fail"]
        assert "kek_disabled" in opened.errors[0]
