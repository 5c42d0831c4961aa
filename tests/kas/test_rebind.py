"""Another policy on an old key: what it takes, what it leaves behind, and what it cannot do."""

import asyncio
import os
import time
import uuid
from dataclasses import dataclass

import msgspec
import pytest
from kas.test_release import refused, replaced
from kas.world import Person, SealedObject, World, another_worker, path

from envelock_formats import decision as decisions
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64, b64url, from_b64
from envelock_formats.online import OnlineWrap, rebound_id
from envelock_formats.request import policy_sha256
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy, keys_sha256
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import RebindAnswer, RebindBody, write_request_token
from envelock_formats.wrap import algorithm_of_wrap, wrap_rsa
from envelock_kas.asked import AskedObject, read_object
from envelock_kas.custody import RSA
from envelock_kas.errors import CustodyError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.keys.states import State
from envelock_kas.rebind import NOBODY, OVERTAKEN
from envelock_kas.records import Origin
from envelock_kas.worker import Worker
from envelock_ledger.proof import Receipt
from envelock_service.problem import Problem

OPERATOR = Actor(Origin("r-operator"))
INTERNAL = AttributeValue("clinic.example", "clearance", "internal")
PUBLIC = AttributeValue("clinic.example", "clearance", "public")


def policy(*attributes: AttributeValue) -> str:
    """A policy that asks for *attributes*."""
    return write_policy(str(uuid.uuid4()), attributes)


@dataclass
class Request:
    """A request to rebind that can be sent, and sent again."""

    world: World
    person: Person
    token: str

    async def send(self, worker: Worker | None = None) -> RebindAnswer:
        """Send it with a fresh proof."""
        rebind = (worker or self.world.worker).surface.rebind
        return await rebind(self.person.authenticated(), self.token, Origin("r-rebind"))


def asking(
    world: World, person: Person, sealed: SealedObject, new: str, decision: str | None = None
) -> Request:
    """A request of *person* to put *sealed* under the policy *new*."""
    nonce = b64url(os.urandom(16))
    body = RebindBody(sealed.keys, sealed.policy, new, nonce, decision)
    return Request(world, person, write_request_token(body, person.key, now=int(time.time())))


async def rebound(world: World, person: Person, sealed: SealedObject, new: str) -> SealedObject:
    """The object under *new*, as its file then has it."""
    answer = await asking(world, person, sealed, new).send()
    return SealedObject(new, answer.keyAccess, sealed.share)


class TestOnline:
    """An online wrap is replaced: its object does not open under the former policy again."""

    async def test_opens_under_the_new_policy_alone(self, world: World):
        """The new wrap gives the same share, the former one nothing, on every worker."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        new = await rebound(world, doctor, former, policy(INTERNAL))
        opened = await world.request(doctor, new).send()
        problem = await refused(world.request(doctor, former))
        with pytest.raises(Problem, match="access_denied"):
            await world.request(doctor, former).send(await another_worker(world))

        assert opened.shares == [former.share]
        assert problem.code == "access_denied"
        assert (await world.records("denied"))[-1]["rsn"] == OVERTAKEN

    async def test_is_one_record_that_names_both_objects(self, world: World):
        """Both ids, policies and keys, the fences that moved, and the decision; with a receipt."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        new = policy(INTERNAL)
        answer = await asking(world, doctor, former, new).send()
        [record] = await world.records("rebind")
        digest = policy_sha256(new)
        kid = former.keys[0].kid

        assert Receipt.parse(answer.receipt or "").verify(world.parts.ledger_key).fields == record
        assert answer.id == rebound_id(former.id, digest).hex() != former.id
        assert record["objs"] == [
            {"id": former.id, "kid": kid, "pol": policy_sha256(former.policy).hex()}
        ]
        assert record["new"] == [{"id": answer.id, "kid": kid, "pol": digest.hex()}]
        assert record["moves"] == {f"object:{former.id}": 1, f"rebound:{answer.id}": 1}
        assert (record["act"], record["rules"]) == ("rebind", ["rule"])

    async def test_the_share_never_leaves(self, world: World):
        """Neither the answer nor any record holds it, in any spelling."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        answer = await asking(world, doctor, former, policy(INTERNAL)).send()
        written = msgspec.json.encode([answer, await world.records()])

        assert former.share.hex().encode() not in written
        assert b64(former.share).rstrip("=").encode() not in written
        assert b64url(former.share).encode() not in written

    async def test_the_same_request_again_is_answered_again(self, world: World):
        """A lost answer costs nothing: the same object, the first receipt, and a retry record."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        new = policy(INTERNAL)
        request = asking(world, doctor, former, new)
        first, second = await request.send(), await request.send(await another_worker(world))
        opened = await world.request(
            doctor, SealedObject(new, second.keyAccess, former.share)
        ).send()
        receipts = [Receipt.parse(one.receipt or "") for one in (first, second)]

        assert first.id == second.id
        assert [receipt.index for receipt in receipts] == [receipts[0].index] * 2
        assert [len(await world.records(typ)) for typ in ("rebind", "retry")] == [1, 1]
        assert opened.shares == [former.share]

    async def test_whoever_lost_the_answer_for_good_asks_anew(self, world: World):
        """From the former file and for the same policy, in a record of its own that moves nothing.

        This is what keeps a file whose rewriting was cut short from being lost.
        """
        doctor, archivist = world.person("doctor"), world.person("archivist")
        former = await world.seal_online(doctor)
        new = policy(INTERNAL)
        await asking(world, doctor, former, new).send()
        again = await asking(world, archivist, former, new).send()
        opened = await world.request(doctor, SealedObject(new, again.keyAccess, b"")).send()
        first, second = await world.records("rebind")

        assert opened.shares == [former.share]
        assert "moves" in first
        assert "moves" not in second
        assert first["new"] == second["new"]

    async def test_a_former_object_gets_no_third_policy(self, world: World):
        """Once replaced, no other policy, and not the former one either, is bound to it."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        await asking(world, doctor, former, policy(INTERNAL)).send()

        with pytest.raises(Problem, match=OVERTAKEN):
            await asking(world, doctor, former, policy()).send()
        assert (await world.records("denied"))[-1]["objs"][0]["rsn"] == OVERTAKEN
        assert len(await world.records("rebind")) == 1

    async def test_a_replacement_that_was_replaced_is_not_made_again(self, world: World):
        """An older replacement asked for again would be a wrap that opens nowhere."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        first = policy(INTERNAL)
        between = await rebound(world, doctor, former, first)
        last = await rebound(world, doctor, between, policy(PUBLIC))

        with pytest.raises(Problem, match=OVERTAKEN):
            await asking(world, doctor, former, first).send()
        assert (await refused(world.request(doctor, between))).code == "access_denied"
        assert (await world.request(doctor, last).send()).shares == [former.share]

    async def test_there_and_back_is_a_third_object(self, world: World):
        """Returning to a policy does not revive the files that were sealed under it."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        between = await rebound(world, doctor, former, policy(INTERNAL))
        last = await rebound(world, doctor, between, former.policy)

        assert len({former.id, between.id, last.id}) == 3
        assert (await world.request(doctor, last).send()).shares == [former.share]
        assert (await refused(world.request(doctor, former))).code == "access_denied"

    async def test_the_newest_version_wraps(self, world: World):
        """After a rotation the former version still opens, and the new one wraps."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        await world.worker.lifecycle.rotate(
            world.worker.projection.registry.paths("clinic")[-1], OPERATOR
        )
        new = await rebound(world, doctor, former, policy(INTERNAL))

        assert str(new.keys[0].kid).endswith(":v2")
        assert (await world.request(doctor, new).send()).shares == [former.share]

    async def test_an_open_that_was_overtaken_releases_nothing(self, world: World):
        """What was unwrapped under the former policy is not recorded after it was replaced."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        gate = world.custody.gate()
        opening = asyncio.create_task(world.request(doctor, former).send())
        await gate.reached.wait()
        await asking(world, doctor, former, policy(INTERNAL)).send(await another_worker(world))
        gate.open.set()

        with pytest.raises(Problem, match="access_denied"):
            await opening
        assert await world.records("release") == []

    async def test_of_several_at_once_one_policy_wins(self, world: World):
        """Whatever the order on however many workers, one object comes of one object."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        workers = [world.worker, await another_worker(world)]
        requests = [asking(world, doctor, former, policy(INTERNAL)) for _ in range(6)]
        sent = (request.send(workers[n % 2]) for n, request in enumerate(requests))
        done = await asyncio.gather(*sent, return_exceptions=True)
        answers = [one for one in done if isinstance(one, RebindAnswer)]
        problems = [one for one in done if isinstance(one, Problem)]

        assert (len(answers), len(problems)) == (1, 5)
        assert {problem.code for problem in problems} == {"conflict"}
        assert len(await world.records("rebind")) == 1


class TestOffline:
    """An offline wrap gets one beside it; the former one is in the file's copies for ever."""

    async def test_opens_under_the_new_policy(self, world: World):
        """With the same share, as another object."""
        doctor = world.person("doctor")
        former = await world.seal()
        new = await rebound(world, doctor, former, policy(INTERNAL))
        [record] = await world.records("rebind")

        assert (await world.request(doctor, new).send()).shares == [former.share]
        assert [row["id"] for row in record["new"]] == [new.id]
        assert new.id != former.id
        assert "moves" not in record

    async def test_former_copies_open_as_before(self, world: World):
        """What rebinding cannot do where clients wrap keys themselves: the documents say so."""
        doctor = world.person("doctor")
        former = await world.seal()
        await rebound(world, doctor, former, policy(INTERNAL))

        assert (await world.request(doctor, former).send()).shares == [former.share]

    async def test_the_same_request_again_is_refused(self, world: World):
        """Each makes another wrap, so one record does not stand for two; a new request is free."""
        doctor = world.person("doctor")
        former, new = await world.seal(), policy(INTERNAL)
        request = asking(world, doctor, former, new)
        await request.send()

        with pytest.raises(Problem, match="decision_replayed"):
            await request.send()
        assert await rebound(world, doctor, former, new)

    async def test_the_newest_version_wraps_by_the_same_algorithm(self, world: World):
        """RSA stays RSA, EC stays EC, each share for itself, and all are in one record."""
        doctor = world.person("doctor")
        ec_sealed = await world.seal()
        publisher = world.worker.surface.publisher
        dataset = world.worker.surface.naming.path("clinic", "records")
        published = await publisher.publish(dataset, RSA, OPERATOR)
        version = world.worker.projection.registry.newest(dataset)
        material = version and version.material(RSA)
        key = await world.custody.public(material.handle if material else "")
        share = bytes(range(32))
        rsa_access = KeyAccess(
            type="wrapped",
            url=published.url,
            wrappedKey=b64(wrap_rsa(share, key)),
            policyBinding=bind_policy(share, ec_sealed.policy),
            kid=published.kid,
            sid="two",
        )
        both = SealedObject(ec_sealed.policy, (*ec_sealed.keys, rsa_access), share)
        await world.worker.lifecycle.rotate(dataset, OPERATOR)
        new = await rebound(world, doctor, both, policy(INTERNAL))

        assert [key.kid for key in new.keys] == [f"{dataset}:v2"] * 2
        assert [algorithm_of_wrap(key) for key in new.keys] == ["ec:secp256r1", RSA]
        assert [key.sid for key in new.keys] == [None, "two"]
        assert (await world.request(doctor, new).send()).shares == [ec_sealed.share, share]

    async def test_a_retired_version_still_lets_go(self, world: World):
        """A retired key opens nothing but what is wrapped anew in the same step."""
        former = await world.seal()
        dataset = world.worker.surface.naming.path("clinic", "records")
        await world.worker.lifecycle.rotate(dataset, OPERATOR)
        registry = world.worker.projection.registry
        retired = msgspec.structs.replace(
            registry.versions(dataset)[0], state=State.RETIRED, number=3
        )
        registry.apply(
            registry.next_index,
            {"keys": [msgspec.to_builtins(retired)], "moves": {retired.fence: 3}},
        )
        opened = registry.standing(retired.id)
        done = await world.worker.surface.rebind._stand(  # noqa: SLF001 the ledger has no such record
            None, _Wished(former)
        )

        assert opened is not None
        assert opened.refusal is not None
        assert done[0].wraps.version.version == 2


@dataclass
class _Wished:
    """As much of a wish as key states are judged by."""

    sealed: SealedObject

    @property
    def former(self) -> AskedObject:
        """The object, read."""
        return read_object(self.sealed.entry())


class TestRefusals:
    """Everything that stands between a caller and another policy."""

    async def test_a_denied_caller_costs_no_custody_operation(self, world: World):
        """The decision comes first; the refusal is on record with its reason."""
        former = await world.seal_online(world.person("doctor"))
        world.pdp.reasons["nurse"] = "rule: rebind"
        world.custody.operations.clear()

        with pytest.raises(Problem, match="access_denied"):
            await asking(world, world.person("nurse"), former, policy(INTERNAL)).send()
        assert (await world.records("denied"))[-1]["rsn"] == "rule: rebind"
        assert not world.custody.operations

    @pytest.mark.parametrize("change", ["act", "new", "none", "former"])
    async def test_a_decision_for_something_else_rebinds_nothing(self, world: World, change: str):
        """One to open, for another new policy, for none, or for another former policy."""
        doctor = world.person("doctor")
        former, new = await world.seal_online(doctor), policy(INTERNAL)
        stated = {"act": policy_sha256(new), "new": policy_sha256(policy()), "none": None}
        digest = stated.get(change, policy_sha256(new))
        old = policy_sha256(policy() if change == "former" else former.policy)
        decided = decisions.DecidedObject(
            former.id,
            b64url(old),
            b64url(keys_sha256(former.keys)),
            permit=True,
            new_policy_sha256=None if digest is None else b64url(digest),
        )
        act = "open" if change == "act" else "rebind"
        decision = world.pdp.sign(doctor.caller, (decided,), act, "clinic", b64url(NOBODY))

        with pytest.raises(Problem, match="decision_mismatch"):
            await asking(world, doctor, former, new, decision).send()
        assert (await world.request(doctor, former).send()).shares == [former.share]

    async def test_a_presented_decision_is_spent_on_one_policy(self, world: World):
        """It rebinds, and the same one opens or rebinds nothing else."""
        doctor = world.person("doctor")
        former, new = await world.seal_online(doctor), policy(INTERNAL)
        decided = decisions.DecidedObject(
            former.id,
            b64url(policy_sha256(former.policy)),
            b64url(keys_sha256(former.keys)),
            permit=True,
            new_policy_sha256=b64url(policy_sha256(new)),
        )
        decision = world.pdp.sign(doctor.caller, (decided,), "rebind", "clinic", b64url(NOBODY))
        answer = await asking(world, doctor, former, new, decision).send()

        assert answer.keyAccess
        with pytest.raises(Problem, match="decision_mismatch"):
            await asking(world, doctor, former, policy(PUBLIC), decision).send()
        with pytest.raises(Problem, match="decision_mismatch"):
            await world.request(doctor, former, decision=decision).send()

    async def test_a_foreign_namespace_is_no_new_policy(self, world: World):
        """The owner's attributes alone: another tenant's bundle must not decide about its file."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        foreign = AttributeValue("laboratory.example", "clearance", "any")

        with pytest.raises(Problem, match="access_denied"):
            await asking(world, doctor, former, policy(foreign)).send()
        assert "not the owner's" in str((await world.records("denied"))[-1]["rsn"])

    async def test_a_friendlier_former_policy_is_not_believed(self, world: World):
        """Online or offline, what is stated as the former policy must be the one that is bound."""
        doctor = world.person("doctor")
        for sealed in (await world.seal_online(doctor), await world.seal()):
            stated = SealedObject(policy(), sealed.keys, sealed.share)
            with pytest.raises(Problem, match="the object does not open"):
                await asking(world, doctor, stated, policy(INTERNAL)).send()

        reasons = [record["rsn"] for record in await world.records("denied")]
        assert reasons == ["unwrap failed", "policy binding does not hold"]
        assert await world.records("rebind") == []

    async def test_a_known_key_does_not_get_into_an_online_scope(self, world: World):
        """Whoever read the object cannot bring its key back as an offline wrap and rebind that."""
        doctor = world.person("doctor")
        online, offline = await world.seal_online(doctor), await world.seal()
        forged = replaced(offline, kid=online.keys[0].kid)

        with pytest.raises(Problem, match="the object does not open"):
            await asking(world, doctor, forged, policy(INTERNAL)).send()
        assert "online wraps only" in str((await world.records("denied"))[-1]["rsn"])

    async def test_a_shut_key_is_told_and_an_unknown_one_is_not(self, world: World):
        """Key states are told to whom the decision permits; which keys exist is told to nobody."""
        doctor, former = world.person("doctor"), await world.seal()
        unknown = replaced(former, kid="clinic:elsewhere:v1")
        with pytest.raises(Problem, match="access_denied"):
            await asking(world, doctor, unknown, policy(INTERNAL)).send()
        await world.worker.lifecycle.change(
            path("clinic:records"), "suspend", below=True, actor=OPERATOR
        )

        with pytest.raises(Problem, match="suspended"):
            await asking(world, doctor, former, policy(INTERNAL)).send()

    async def test_a_key_suspended_meanwhile_rebinds_nothing(self, world: World):
        """The record is fenced by the numbers of the evidence: 503, and asked again it is told."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        gate = world.custody.gate()
        request = asking(world, doctor, former, policy(INTERNAL))
        sending = asyncio.create_task(request.send(await another_worker(world)))
        await gate.reached.wait()
        await world.worker.lifecycle.change(
            path("clinic:vault"), "suspend", below=True, actor=OPERATOR
        )
        gate.open.set()

        with pytest.raises(Problem, match="policy_stale"):
            await sending
        with pytest.raises(Problem, match="suspended"):
            await request.send()
        assert await world.records("rebind") == []

    async def test_a_caller_of_another_tenant_is_refused(self, world: World):
        """Without a sharing rule of the owner's, whatever its own PDP would say."""
        former = await world.seal_online(world.person("doctor"))

        with pytest.raises(Problem, match="access_denied"):
            await asking(world, world.person("spy", "other"), former, policy(INTERNAL)).send()

    @pytest.mark.parametrize("fault", ["same", "none", "many", "policy", "two owners"])
    async def test_a_malformed_request_is_refused_on_record(self, world: World, fault: str):
        """The same policy, no key, too many, no policy, keys of two tenants."""
        doctor, former = world.person("doctor"), await world.seal()
        other = replaced(former, kid="other:records:v1", sid="x")
        new = {"same": former.policy, "policy": "AAAA"}.get(fault, policy(INTERNAL))
        keys = {"none": (), "many": former.keys * 21, "two owners": former.keys + other.keys}
        wrong = SealedObject(former.policy, keys.get(fault, former.keys), former.share)

        with pytest.raises(Problem, match=r"malformed_request|one owner") as found:
            await asking(world, doctor, wrong, new).send()
        assert found.value.code == "malformed_request"
        assert len(await world.records("denied")) == 1

    async def test_without_ledger_or_custody_nothing_is_rebound(self, world: World):
        """503 either way; the custody's failure is on record, and the former file still opens."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        world.custody.fault = CustodyError("gone")
        with pytest.raises(Problem, match="hsm_unavailable"):
            await asking(world, doctor, former, policy(INTERNAL)).send()
        world.custody.fault = None
        assert (await world.request(doctor, former).send()).shares == [former.share]
        await world.ledger.aclose()

        with pytest.raises(Problem, match="ledger_unavailable"):
            await asking(world, doctor, former, policy(INTERNAL)).send()

    async def test_the_wrap_is_bound_to_its_new_object_and_policy(self, world: World):
        """The former id on the new wrap, or the former policy beside it, opens nothing."""
        doctor = world.person("doctor")
        former = await world.seal_online(doctor)
        new = await rebound(world, doctor, former, policy(INTERNAL))
        wrap = OnlineWrap.parse(from_b64(new.keys[0].wrappedKey))
        other_id = OnlineWrap(wrap.format, bytes(16), wrap.rest)
        moved = replaced(new, wrappedKey=b64(bytes(other_id)))
        old_policy = SealedObject(former.policy, new.keys, former.share)
        old_policy = replaced(old_policy, policyBinding=bind_policy(former.share, former.policy))

        for altered in (moved, old_policy):
            assert (await world.request(doctor, altered).send()).statuses == ["fail"]
