"""Every reason for which a key is refused: what it costs, what is told, what is on record.

The reasons are read from the source: one that nobody tries here fails a test.
"""

import ast
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from kas.world import Person, Request, SealedObject, World, path

import envelock_kas
from envelock_formats import jose
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64, b64url, from_b64
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import SealBody, write_request_token
from envelock_formats.wrap import public_pem
from envelock_kas.errors import CustodyError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.records import Origin
from envelock_kas.release import _BAD_REQUEST, _FORBIDDEN
from envelock_ledger.entry import Entry
from envelock_ledger.record import encode_body
from envelock_service.problem import Problem

OPERATOR = Actor(Origin("r-operator"))
MODULES = ("decisions", "gate", "issue", "owner", "recorder", "release", "shares")
RAISING = {"OwnershipError", "Refusal", "ShareError", "refuse", "report"}
Scene = Callable[[World, Person], Awaitable[Request]]


def fresh() -> ec.EllipticCurvePrivateKey:
    """A client's key."""
    return ec.generate_private_key(ec.SECP256R1())


def replaced(sealed: SealedObject, **members: object) -> SealedObject:
    """The object with members of its key access object replaced."""
    key = msgspec.structs.replace(sealed.keys[0], **members)
    return SealedObject(sealed.policy, (key,), sealed.share)


async def malformed(world: World, doctor: Person) -> Request:
    """No token."""
    return Request(world, doctor, fresh(), "a.b.c")


async def several_owners(world: World, doctor: Person) -> Request:
    """Keys of two tenants."""
    foreign = replaced(await world.seal(), kid="globex:records:v1")
    return world.request(doctor, await world.seal(), foreign)


async def no_policy(world: World, doctor: Person) -> Request:
    """A tenant that nobody announced."""
    return world.request(doctor, replaced(await world.seal(), kid="globex:records:v1"))


async def foreign_namespace(world: World, doctor: Person) -> Request:
    """An attribute of somebody else."""
    foreign = AttributeValue("globex.example", "clearance", "secret")
    return world.request(doctor, await world.seal(attributes=(foreign,)))


async def from_elsewhere(world: World, _doctor: Person) -> Request:
    """A caller of another home."""
    return world.request(world.person("doctor", "globex"), await world.seal())


async def revoked(world: World, doctor: Person) -> Request:
    """A subject that is shut out."""
    sealed = await world.seal()
    await world.worker.surface.administration.set_subject(doctor.caller, "shut", OPERATOR)
    return world.request(doctor, sealed)


async def closed(world: World, doctor: Person) -> Request:
    """A tenant that is shut out."""
    sealed = await world.seal()
    await world.worker.surface.administration.set_tenant("clinic", "shut", OPERATOR)
    return world.request(doctor, sealed)


async def own_key(world: World, doctor: Person) -> Request:
    """A client key that is one of our KEKs."""
    return world.signed(doctor, world.body(await world.seal(), (await world.published()).pem))


async def mismatch(world: World, doctor: Person) -> Request:
    """A decision about something else."""
    key, one, other = fresh(), await world.seal(), await world.seal()
    decision = world.decide(doctor, key, one)
    return world.request(doctor, other, key=key, decision=decision)


async def forged(world: World, doctor: Person) -> Request:
    """A decision of nobody."""
    key, sealed, genuine = fresh(), await world.seal(), world.pdp.key
    world.pdp.key = fresh()
    decision = world.decide(doctor, key, sealed)
    world.pdp.key = genuine
    return world.request(doctor, sealed, key=key, decision=decision)


async def denied(world: World, doctor: Person) -> Request:
    """A denial of the PDP."""
    world.pdp.reasons["doctor"] = "entitlement: clearance"
    return world.request(doctor, await world.seal())


async def denied_by_decision(world: World, doctor: Person) -> Request:
    """A denial that is brought along, with no reason in it."""
    key, sealed = fresh(), await world.seal()
    token = world.decide(doctor, key, sealed)
    objs = msgspec.json.decode(_part(token, 1))["objs"]
    decision = _resigned(world, token, objs=[objs[0] | {"permit": False}])
    return world.request(doctor, sealed, key=key, decision=decision)


def _part(token: str, number: int) -> bytes:
    text = token.split(".")[number]
    return from_b64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))


def _resigned(world: World, token: str, **claims: object) -> str:
    changed = msgspec.json.decode(_part(token, 1)) | claims
    return jose.sign(world.pdp.key, changed, typ="kas-decision+jwt", kid="pdp-1")


async def owing(world: World, doctor: Person) -> Request:
    """An obligation."""
    world.pdp.obligations = ("watermark",)
    return world.request(doctor, await world.seal())


async def nobodys_key(world: World, doctor: Person) -> Request:
    """A key id that is none of ours and was never imported."""
    return world.request(doctor, replaced(await world.seal(), kid="r1"))


async def unknown_key(world: World, doctor: Person) -> Request:
    """A key that is not there."""
    return world.request(doctor, replaced(await world.seal(), kid="clinic:nothing:v1"))


async def suspended(world: World, doctor: Person) -> Request:
    """A key that is suspended."""
    sealed = await world.seal()
    await world.worker.lifecycle.change(
        path("clinic:records"), "suspend", below=True, actor=OPERATOR
    )
    return world.request(doctor, sealed)


async def wrong_share(world: World, doctor: Person) -> Request:
    """A wrapped key that was altered."""
    sealed = await world.seal()
    raw = bytearray(from_b64(sealed.keys[0].wrappedKey))
    raw[20] ^= 1
    return world.request(doctor, replaced(sealed, wrappedKey=b64(bytes(raw))))


async def wrong_binding(world: World, doctor: Person) -> Request:
    """Another policy than the bound one."""
    sealed = await world.seal()
    other = write_policy("00000000-0000-4000-8000-000000000000", ())
    return world.request(doctor, SealedObject(other, sealed.keys, sealed.share))


async def no_such_wrap(world: World, doctor: Person) -> Request:
    """An RSA wrap under a version that has no RSA key of that size."""
    return world.request(doctor, replaced(await world.seal(), type="wrapped",
                                          wrappedKey=b64(bytes(range(256)) * 2),
                                          ephemeralPublicKey=None))  # fmt: skip


async def offline_in_online(world: World, doctor: Person) -> Request:
    """An offline wrap under a key for online wraps."""
    standing = await world.worker.lifecycle.ensure(path("clinic:vault:x"), "online", OPERATOR)
    forged_to = world.seal_to(str(standing.version.id), public_pem(fresh().public_key()))
    return world.request(doctor, forged_to)


async def stale_policy(world: World, doctor: Person) -> Request:
    """A decision of an epoch that is over."""
    sealed = await world.seal()
    await world.announce("clinic", b"\x01" * 32)
    return world.request(doctor, sealed)


async def rebound(world: World, doctor: Person) -> Request:
    """An online wrap whose policy was replaced."""
    sealed = await world.seal_online(doctor)
    fields = {"id": "moved", "tn": "clinic", "ts": 1, "typ": "rebind", "v": 1}
    fields["moves"] = {f"object:{sealed.id}": 1}
    body, _ = encode_body(fields, {}, lambda: os.urandom(16))
    await world.ledger.append([Entry(body)])
    return world.request(doctor, sealed)


async def pdp_down(world: World, doctor: Person) -> Request:
    """No PDP."""
    world.pdp.down = True
    return world.request(doctor, await world.seal())


async def custody_down(world: World, doctor: Person) -> Request:
    """No custody."""
    request = world.request(doctor, await world.seal())
    world.custody.fault = CustodyError("gone")
    return request


async def no_custody(world: World, doctor: Person) -> Request:
    """A custody that the settings do not have."""
    request = world.request(doctor, await world.seal())
    world.parts.custodies.clear()
    world.worker.surface.release._custodies.clear()  # type: ignore[attr-defined]  # noqa: SLF001 no setting reaches it while it runs
    return request


async def replayed(world: World, doctor: Person) -> Request:
    """A request token that was spent on another outcome."""
    good, held = await world.seal(), await world.seal("held")
    for change in ("suspend", "resume"):
        await world.worker.lifecycle.change(path("clinic:held"), change, below=True, actor=OPERATOR)
        if change == "suspend":
            request = world.request(doctor, good, held)
            await request.send()
    return request


@dataclass(frozen=True)
class Reason:
    """One reason: the scene that causes it, what is told, whether the custody had to be asked."""

    scene: Scene = field(repr=False)
    told: str
    costs: bool = False  # it can only be known once a share is unwrapped
    typ: str = "denied"


FORBIDDEN, BAD_REQUEST = _FORBIDDEN, _BAD_REQUEST
REASONS = {
    "malformed: ": Reason(malformed, "malformed_request"),
    "tenant: several owners in one request": Reason(several_owners, "malformed_request"),
    "tenant: no policy in force": Reason(no_policy, "access_denied"),
    "tenant: namespace ": Reason(foreign_namespace, "access_denied"),
    "tenant: caller is at home elsewhere": Reason(from_elsewhere, "access_denied"),
    "subject revoked": Reason(revoked, "access_denied"),
    "tenant closed": Reason(closed, "access_denied"),
    "client key is one of our own": Reason(own_key, "access_denied"),
    "decision mismatch: ": Reason(mismatch, "decision_mismatch"),
    "decision: ": Reason(forged, "access_denied"),
    "entitlement: clearance": Reason(denied, FORBIDDEN),
    "decision: deny": Reason(denied_by_decision, FORBIDDEN),
    "obligation ": Reason(owing, FORBIDDEN),
    "key ... unknown": Reason(unknown_key, FORBIDDEN),
    "no key is known as ": Reason(nobodys_key, FORBIDDEN),
    "key ... suspended": Reason(suspended, f"{FORBIDDEN} (kek_disabled)"),
    "key ... has no ": Reason(no_such_wrap, BAD_REQUEST),
    "key ... opens online wraps only": Reason(offline_in_online, BAD_REQUEST),
    "key ...: its custody is not configured": Reason(no_custody, BAD_REQUEST),
    "unwrap failed": Reason(wrong_share, BAD_REQUEST, costs=True),
    "policy binding does not hold": Reason(wrong_binding, BAD_REQUEST, costs=True),
    "policy epoch is no longer in force": Reason(stale_policy, "policy_stale", costs=True),
    "object has another policy now": Reason(rebound, "access_denied", costs=True),
    "replayed": Reason(replayed, "decision_replayed", costs=True),
    "pdp: ": Reason(pdp_down, "pdp_unavailable", typ="error"),
    "custody: ": Reason(custody_down, "hsm_unavailable", costs=True, typ="error"),
}
NOT_HERE = {
    "kind of wrap is not supported": "kinds that are not known do not pass the parser",
    "expired": "tests/ledger/test_writer.py: the clock of the ledger passes that of the KAS",
    "operator: lacks the scope ": "tests/kas/test_http.py::TestOperators: no key is asked for",
    "moved meanwhile: ": "tests/kas/test_issue.py: issuing, as a key moves",
}


def reasons_in_source() -> set[str]:
    """The texts that refusals begin with, `...` for what is filled in."""
    found: set[str] = set()
    folder = Path(envelock_kas.__file__).parent
    for module in MODULES:
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in RAISING:
                found |= {text for text in map(written, node.args) if text}
    return found


def written(node: ast.expr) -> str:
    """The constant text of an argument; only its beginning where the rest quotes the outside."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values
        )
    return ""


def known(text: str) -> bool:
    """Whether a text of the source is tried here, or said to be tried elsewhere."""
    listed = [*REASONS, *NOT_HERE]
    return any(text.removesuffix("...").startswith(one.removesuffix("...")) for one in listed)


def test_every_reason_of_the_source_is_tried():
    """A refusal that is added has to be tried, too."""
    found = reasons_in_source()

    assert len(found) > 20
    assert [text for text in sorted(found) if not known(text)] == []


def fits(reason: str, recorded: str) -> bool:
    """Whether a recorded reason is the one that is meant."""
    first, _, last = reason.partition("...")
    return recorded.startswith(first) and last.strip() in recorded


@pytest.mark.parametrize("name", REASONS)
async def test_a_refusal_costs_nothing_and_tells_nothing(world: World, name: str):
    """The answer is that of its class, the reason is in the record alone, no share is unwrapped."""
    reason = REASONS[name]
    request = await reason.scene(world, world.person("doctor"))
    earlier = len(await world.records(reason.typ))
    operations = world.custody.operations.total()
    try:
        opened = await request.send()
        told, shares = opened.errors[-1], opened.shares
    except Problem as problem:
        told, shares = problem.code, []
        detail = problem.detail
        assert name.startswith("malformed") or name.strip(" .") not in detail
    recorded = (await world.records(reason.typ))[earlier:]

    assert told == reason.told
    assert shares == []
    assert [fits(name, str(record["rsn"])) for record in recorded] == [True]
    assert "entitlement" not in told
    if not reason.costs:
        assert world.custody.operations.total() == operations


def test_answers_are_of_few_classes():
    """Reasons outnumber what is told: the classes are those of the protocol."""
    told = {str(reason.told) for reason in REASONS.values()}

    assert len(told) <= 11
    assert sum(reason.told == FORBIDDEN for reason in REASONS.values()) >= 4
    assert sum(reason.told == BAD_REQUEST for reason in REASONS.values()) >= 5


SEALING = {
    "malformed": ({}, "malformed_request"),
    "denied": ({}, "access_denied"),
    "foreign": ({}, "access_denied"),
    "dataset": ({"dataset": "../x"}, "malformed_request"),
    "count": ({"count": 101}, "malformed_request"),
    "nonce": ({"nonce": "AA"}, "malformed_request"),
    "key": ({"clientPublicKey": "x"}, "malformed_request"),
    "policy": ({"policy": "e30="}, "malformed_request"),
}


@pytest.mark.parametrize("name", SEALING)
async def test_a_refused_wish_for_keys_makes_none(world: World, name: str):
    """Issuing too: on record, without an operation, and no key is made."""
    changes, code = SEALING[name]
    doctor = world.person("doctor")
    namespace = "globex.example" if name == "foreign" else "clinic.example"
    policy = write_policy(
        "00000000-0000-4000-8000-000000000000", (AttributeValue(namespace, "a", "b"),)
    )
    if name == "denied":
        world.pdp.reasons["doctor"] = "entitlement: clearance"
    body = SealBody(public_pem(fresh().public_key()), policy, b64url(os.urandom(16)))
    token = write_request_token(
        msgspec.structs.replace(body, **changes), doctor.key, now=int(time.time())
    )
    issue = world.worker.surface.issue
    with pytest.raises(Problem) as caught:
        await issue(
            doctor.authenticated(), "a.b.c" if name == "malformed" else token, Origin("r-test")
        )

    assert caught.value.code == code
    assert not world.custody.operations
    assert len(await world.records("denied")) == 1
    assert await world.records("issue") == []
