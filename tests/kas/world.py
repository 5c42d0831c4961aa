"""A KAS with a real ledger and real keys in one process, and a PDP that says what a test wants.

The PDP here keeps the contract of the real one: it signs what it is asked, for the KAS that asks,
bound to the caller whose token it is shown.
"""

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats import decision as decisions
from envelock_formats import jose
from envelock_formats.canonical import Json
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64, b64url, from_b64
from envelock_formats.keyid import KeyPath
from envelock_formats.online import OnlineWrap, hpke_info, is_online, open_data_key
from envelock_formats.request import Caller, key_sha256, policy_sha256, spki_from_pem
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy, keys_sha256, object_id
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import (
    KeyAccessEntry,
    ObjectEntry,
    PolicyEntry,
    PublishedKey,
    RewrapAnswer,
    RewrapBody,
    SealBody,
    receipt_of,
    write_request_token,
)
from envelock_formats.wrap import ec_from_pem, open_answer, public_pem, wrap_ec
from envelock_kas.admin import Announcement
from envelock_kas.catalogue import Asked, DefinedAttribute, Said, Subject
from envelock_kas.custody import Custody
from envelock_kas.custody.local import LocalCustody
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.opentdf.settings import OpenTdfSettings
from envelock_kas.pdp import Answer, Question, QuestionObject
from envelock_kas.records import Origin
from envelock_kas.settings import KasSettings
from envelock_kas.worker import Parts, Worker
from envelock_ledger.place import Place, found
from envelock_ledger.proof import Receipt
from envelock_ledger.writer import Writer
from envelock_service.callers import Authenticated, Callers
from envelock_service.dpop import Proof
from envelock_service.oidc import AccessToken, CallerSettings, TokenVerifier

SECRET = AttributeValue("clinic.example", "clearance", "secret")
ISSUER = "https://issuer.example"
KAS_ID = "envelock-kas"
PDP_ISSUER = "envelock-pdp"


@dataclass(frozen=True)
class Person:
    """Somebody with a key that their token is bound to."""

    subject: str
    tenant: str = "clinic"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def caller(self) -> Caller:
        """The caller that a verified token would show."""
        jkt = jose.thumbprint(jose.public_jwk(self.key.public_key()))
        return Caller(ISSUER, self.subject, self.tenant, jkt)

    def authenticated(self) -> Authenticated:
        """As after verification of a token, with a fresh proof."""
        expires = int(time.time()) + 600
        token = AccessToken(self.caller, {}, frozenset(), expires, os.urandom(32))
        proof = Proof(
            self.caller.jkt, self.key.public_key(), f"dpop:{os.urandom(8).hex()}", expires
        )
        return Authenticated(token, proof, f"token-of-{self.subject}@{self.tenant}")


@dataclass(frozen=True)
class SealedObject:
    """What a sealed file holds of its keys."""

    policy: str
    keys: tuple[KeyAccess, ...]
    share: bytes

    @property
    def id(self) -> str:
        """The object id."""
        wrapped = from_b64(self.keys[0].wrappedKey)
        online = self.keys[0].type == "wrapped" and is_online(wrapped)
        return OnlineWrap.parse(wrapped).id if online else object_id(self.keys)

    def entry(self, name: str = "policy") -> ObjectEntry:
        """The object in a rewrap."""
        keys = tuple(KeyAccessEntry(f"kao-{n}", key) for n, key in enumerate(self.keys))
        return ObjectEntry(keys, PolicyEntry(name, self.policy))


class ScriptedPdp:
    """A PDP whose answer a test chooses; everything else is as the real one does it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.reasons: dict[str, str] = {}  # by subject: why it is refused
        self.people: dict[str, Person] = {}
        self.epochs: dict[str, int] = {"clinic": 1}
        self.down = False
        self.changes: dict[str, object] = {}  # claims that a lying PDP would set
        self.obligations: tuple[str, ...] = ()
        self.asked = 0

    def current(self) -> Mapping[str, jose.VerifyingKey]:
        return {"pdp-1": self.key.public_key()}

    async def ask(self, question: Question) -> Answer:
        self.asked += 1
        if self.down:
            raise PdpUnavailableError("down")
        person = self.people[question.subject_token]
        reason = self.reasons.get(person.subject)
        objects = tuple(
            decisions.DecidedObject(
                item.asked.id,
                b64url(item.asked.policy_sha256),
                b64url(item.asked.keys_sha256),
                permit=reason is None,
                obligations=self.obligations,
                new_policy_sha256=_new_policy(item),
            )
            for item in question.objects
        )
        token = self.sign(
            person.caller, objects, question.act, question.tenant, b64url(question.key_digest)
        )
        reasons = {item.asked.id: reason for item in question.objects if reason is not None}
        return Answer(token, reasons)

    def sign(
        self,
        caller: Caller,
        objects: tuple[decisions.DecidedObject, ...],
        act: str,
        tenant: str,
        key_digest: str,
    ) -> str:
        """Sign a decision; `changes` overrides claims."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": PDP_ISSUER,
            "aud": KAS_ID,
            "sub": caller.subject,
            "sub_iss": caller.issuer,
            "sub_tenant": caller.tenant,
            "tenant": tenant,
            "act": act,
            "objs": objects,
            "key_sha256": key_digest,
            "policy": decisions.DecidedBy(b64url(bytes(32)), self.epochs[tenant], ("rule",)),
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "jti": os.urandom(16).hex(),
            "cnf": decisions.Confirmation(caller.jkt),
        }
        return decisions.sign(decisions.Decision(**(claims | self.changes)), self.key, "pdp-1")


class ScriptedCatalogue:
    """What a PDP would tell of policies, as a test wants it; `None` where it does not answer."""

    def __init__(self) -> None:
        self.defined: list[DefinedAttribute] | None = [
            DefinedAttribute("clinic.example", "clearance", "hierarchy", ("secret", "public"))
        ]
        self.epochs: list[int] = []  # under which it was asked

    async def definitions(self, tenant: str, epoch: int) -> Sequence[DefinedAttribute]:
        self.epochs.append(epoch)
        if self.defined is None:
            raise PdpUnavailableError("down")
        return self.defined if tenant == "clinic" else []

    async def holdings(self, tenant: str, subject: Subject) -> Sequence[str]:
        raise PdpUnavailableError(f"no word on {subject.name} of {tenant}")

    async def verdicts(self, subject: Subject, asked: Sequence[Asked]) -> Sequence[Said]:
        raise PdpUnavailableError(f"no word on {len(asked)} questions about {subject.name}")


def _new_policy(item: QuestionObject) -> str | None:
    return None if item.new_policy is None else b64url(policy_sha256(item.new_policy))


@dataclass
class Gate:
    """A place where one operation waits."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


class CountingCustody(LocalCustody):
    """The local custody, counting its operations and failing when told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, os.urandom)
        self.operations: Counter[str] = Counter()
        self.fault: Exception | None = None
        self._gate: Gate | None = None

    def gate(self) -> "Gate":
        """Hold the next operation until the gate is opened."""
        self._gate = Gate()
        return self._gate

    async def _counted(self, name: str) -> None:
        self.operations[name] += 1
        if self._gate is not None:
            gate, self._gate = self._gate, None
            gate.reached.set()
            await gate.open.wait()
        if self.fault is not None:
            raise self.fault

    async def wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        await self._counted("wrap")
        return await super().wrap(handle, dek, aad)

    async def unwrap(self, handle: str, wrapped: bytes, aad: bytes) -> bytes:
        await self._counted("unwrap")
        return await super().unwrap(handle, wrapped, aad)

    async def decrypt(self, handle: str, wrapped: bytes) -> bytes:
        await self._counted("decrypt")
        return await super().decrypt(handle, wrapped)

    async def decapsulate(self, handle: str, ciphertext: bytes) -> bytes:
        await self._counted("decapsulate")
        return await super().decapsulate(handle, ciphertext)

    async def agree(self, handle: str, peer: ec.EllipticCurvePublicKey) -> bytes:
        await self._counted("agree")
        return await super().agree(handle, peer)


@dataclass
class Clock:
    """The time, which a test can set ahead."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class World:
    """Everything a test touches."""

    now: Clock
    ledger: Writer
    ledger_key: str
    custody: CountingCustody
    pdp: ScriptedPdp
    worker: Worker
    parts: Parts

    def person(self, subject: str, tenant: str = "clinic") -> Person:
        """Somebody the PDP knows."""
        person = Person(subject, tenant)
        self.pdp.people[f"token-of-{subject}@{tenant}"] = person
        return person

    async def published(self, dataset: str = "records", tenant: str = "clinic") -> PublishedKey:
        """The key that new objects of a dataset are sealed to."""
        surface = self.worker.surface
        path = surface.naming.path(tenant, dataset)
        return await surface.publisher.publish(path, "ec:secp256r1", Actor(Origin("r-test")))

    async def seal(
        self,
        dataset: str = "records",
        *,
        tenant: str = "clinic",
        attributes: Sequence[AttributeValue] = (SECRET,),
    ) -> SealedObject:
        """The keys of an object, wrapped offline as a client does it."""
        published = await self.published(dataset, tenant)
        return self.seal_to(published.kid, published.pem, attributes)

    def seal_to(
        self, kid: str, pem: str, attributes: Sequence[AttributeValue] = (SECRET,)
    ) -> SealedObject:
        """The keys of an object, wrapped to a key that is given."""
        policy = write_policy(str(uuid.uuid4()), attributes)
        share = os.urandom(32)
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        wrapped = wrap_ec(share, ec_from_pem(pem), ephemeral=ephemeral, iv=os.urandom(12))
        key = KeyAccess(
            type="ec-wrapped",
            url="http://127.0.0.1:8080",
            wrappedKey=b64(wrapped),
            policyBinding=bind_policy(share, policy),
            kid=kid,
            ephemeralPublicKey=public_pem(ephemeral.public_key()),
        )
        return SealedObject(policy, (key,), share)

    async def seal_online(self, person: Person, dataset: str = "vault") -> SealedObject:
        """An object whose key the KAS made."""
        policy = write_policy(str(uuid.uuid4()), (SECRET,))
        key = ec.generate_private_key(ec.SECP256R1())
        body = SealBody(public_pem(key.public_key()), policy, b64url(os.urandom(16)), 1, dataset)
        token = write_request_token(body, person.key, now=int(time.time()))
        issue = self.worker.surface.issue
        answer = await issue(person.authenticated(), token, Origin("r-seal"))
        [issued] = answer.keys
        wrapped = from_b64(issued.wrappedKey)
        info = hpke_info(bytes.fromhex(answer.digest), bytes.fromhex(issued.id), wrapped)
        share = open_data_key(from_b64(issued.sealed), key, info)
        access = KeyAccess(
            type="wrapped",
            url=answer.url,
            wrappedKey=issued.wrappedKey,
            policyBinding=bind_policy(share, policy),
            kid=answer.kid,
        )
        return SealedObject(policy, (access,), share)

    async def announce(self, tenant: str, bundle: bytes, sharing: tuple[str, ...] = ()) -> None:
        """Put another bundle in force."""
        announced = Announcement(tenant, b64url(bundle), (f"{tenant}.example",), sharing)
        await self.worker.surface.administration.announce(announced)

    def body(self, sealed: SealedObject, pem: str) -> RewrapBody:
        """A request body for a client key that is given as PEM."""
        return RewrapBody(pem, (sealed.entry(),))

    def signed(self, person: Person, body: RewrapBody) -> "Request":
        """A request with a body of a test's making."""
        token = write_request_token(body, person.key, now=int(time.time()))
        return Request(self, person, ec.generate_private_key(ec.SECP256R1()), token)

    def request(
        self,
        person: Person,
        *objects: SealedObject,
        key: ec.EllipticCurvePrivateKey | None = None,
        decision: str | None = None,
        seen: int | None = None,
    ) -> "Request":
        """A signed rewrap request."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        entries = tuple(item.entry(f"policy-{n}") for n, item in enumerate(objects))
        body = RewrapBody(public_pem(key.public_key()), entries, decision=decision, seen=seen)
        token = write_request_token(body, person.key, now=int(time.time()))
        return Request(self, person, key, token)

    def decide(
        self, person: Person, key: ec.EllipticCurvePrivateKey, *objects: SealedObject
    ) -> str:
        """A signed decision that permits *objects*, as a consumer would get it from the PDP."""
        decided = tuple(
            decisions.DecidedObject(
                item.id,
                b64url(policy_sha256(item.policy)),
                b64url(keys_sha256(item.keys)),
                permit=True,
            )
            for item in objects
        )
        der = spki_from_pem(public_pem(key.public_key()))
        return self.pdp.sign(person.caller, decided, "open", "clinic", b64url(key_sha256(der)))

    async def records(self, typ: str | None = None) -> list[dict[str, Json]]:
        """All records so far, of one type or of all."""
        found: list[dict[str, Json]] = []
        size = int((await self.ledger.head()).splitlines()[1])
        for index in range(size):
            receipt: Receipt = await self.ledger.prove(index)
            fields = receipt.verify(self.parts.ledger_key).fields
            if typ is None or fields["typ"] == typ:
                found.append(dict(fields))
        return found


@dataclass
class Request:
    """A request that can be sent, and sent again with a fresh proof."""

    world: World
    person: Person
    key: ec.EllipticCurvePrivateKey
    token: str

    async def send(self, worker: Worker | None = None) -> "Opened":
        """Send it."""
        release = (worker or self.world.worker).surface.release
        answer = await release(
            self.person.authenticated(), self.token, Origin("r-test", "192.0.2.1")
        )
        return Opened(answer, self.key)


@dataclass
class Opened:
    """An answer at the client."""

    answer: RewrapAnswer
    key: ec.EllipticCurvePrivateKey

    @property
    def statuses(self) -> list[str]:
        """`permit` or `fail` for each key access object."""
        return [result.status for response in self.answer.responses for result in response.results]

    @property
    def errors(self) -> list[str]:
        """What is told of each that failed."""
        found = [result.error for response in self.answer.responses for result in response.results]
        return [error for error in found if error is not None]

    @property
    def shares(self) -> list[bytes]:
        """The shares that were released."""
        session = self.answer.sessionPublicKey
        return [
            open_answer(from_b64(result.kasWrappedKey), self.key, ec_from_pem(session or ""))
            for response in self.answer.responses
            for result in response.results
            if result.kasWrappedKey is not None
        ]

    @property
    def receipt(self) -> Receipt:
        """The receipt that came along."""
        return Receipt.parse(receipt_of(self.answer) or "")


@asynccontextmanager
async def running_world(
    folder: Path,
    callers: Callers | None = None,
    custody: Custody | None = None,
    opentdf: OpenTdfSettings | None = None,
    **settings: object,
) -> AsyncIterator[World]:
    """A world in *folder*, with a bundle in force for the tenant `clinic`.

    Without a *custody* of the test's own, keys lie in files and their operations are counted.
    """
    place = Place(folder / "ledger", folder / "anchor" / "ledger.anchor", folder / "ledger.pem")
    signer = found(place, os.urandom)
    ledger = await Writer.start(place, signer, lambda: time.time_ns() // 1000)
    counting, pdp = CountingCustody(folder / "keys"), ScriptedPdp()
    used = custody or counting
    tokens = TokenVerifier(CallerSettings(), time.time, time.monotonic)
    now = Clock()
    parts = Parts(
        settings=msgspec.convert(settings, KasSettings),
        ledger=ledger,
        ledger_key=signer.verifier,
        pdp=pdp,
        pdp_keys=pdp,
        callers=callers or Callers(tokens, [], time.time),
        custodies={used.name: used},
        custody=used.name,
        grace_seconds=90 * 86_400,
        configuration={},
        catalogue=ScriptedCatalogue(),
        clock=now,
        entropy=os.urandom,
        subject_secret=bytes(32),
        opentdf=opentdf or OpenTdfSettings(),
    )
    worker = Worker(parts)
    world = World(now, ledger, str(signer.verifier), counting, pdp, worker, parts)
    try:
        async with worker.running(keeper=False):
            bundle = Announcement("clinic", b64url(bytes(32)), ("clinic.example",))
            await worker.surface.administration.announce(bundle)
            yield world
    finally:
        await ledger.aclose()


async def another_worker(world: World) -> Worker:
    """A second worker over the same ledger and custody."""
    worker = Worker(world.parts)
    await worker.projection.catch_up()
    return worker


def path(text: str) -> KeyPath:
    """A key path."""
    return KeyPath(text)
