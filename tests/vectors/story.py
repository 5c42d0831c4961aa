"""Every record that the KAS writes, written by its own code into a real ledger.

Keys, clock and randomness are fixed, so the same story gives the same log to the byte.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from envelock_formats.canonical import Json
from envelock_formats.decision import DecidedBy, DecidedObject, Decision
from envelock_formats.framing import b64url
from envelock_formats.keyid import KeyPath
from envelock_formats.request import Caller, RequestedObject, request_digest, seal_digest
from envelock_kas.admin import Administration, Announcement
from envelock_kas.context import Context
from envelock_kas.custody import AES, EC, Made
from envelock_kas.keys.lifecycle import Actor, Keeping, Lifecycle
from envelock_kas.projection import Projection
from envelock_kas.recorder import Draft, Recorder, RefusedObject, bound_to, row
from envelock_kas.records import Origin, Scribe, subject_fence
from envelock_ledger.entry import Entry, Once, Opening, Outcome
from envelock_ledger.note import VerifierKey
from envelock_ledger.place import Place, found
from envelock_ledger.proof import Receipt
from envelock_ledger.record import read_body
from envelock_ledger.writer import Writer
from envelock_service.callers import Authenticated
from envelock_service.dpop import Proof
from envelock_service.oidc import AccessToken

NOW = 1_795_000_000  # 2026-11-18
ISSUER = "https://issuer.example"
SUBJECT_SECRET = bytes(range(32))
POLICY, KEYS, KEY = (bytes([byte]) * 32 for byte in b"pkc")
PATH = KeyPath("clinic:records:2026-11")
DOCTOR = Caller(ISSUER, "doctor", "clinic", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I")
HERE = Origin("r-0123456789ab", "192.0.2.7", "envelock")


class Chance:
    """Bytes that look random and are always the same."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self, size: int) -> bytes:
        number = next(self._numbers).to_bytes(8, "big")
        return hashlib.sha512(b"envelock golden vectors" + number).digest()[:size]


class Clock:
    """A clock that moves on by a second when it is told to."""

    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> float:
        return float(self.seconds)

    def microseconds(self) -> int:
        """The same, for the ledger."""
        return self.seconds * 1_000_000


class FixedCustody:
    """A custody whose keys are always the same; it only makes them."""

    name = "local"

    def __init__(self, rsa_pem: str) -> None:
        key = load_pem_private_key(rsa_pem.encode(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("not RSA")
        self._rsa = key.public_key()

    async def make(self, label: str, algorithms: Sequence[str]) -> Sequence[Made]:
        """Name one key for each algorithm."""
        p256 = ec.derive_private_key(5, ec.SECP256R1()).public_key()
        keys = {AES: None, EC: p256}
        return [
            Made(name, f"{label}#{name.replace(':', '-')}", keys.get(name, self._rsa))
            for name in algorithms
        ]


@dataclass
class Listening:
    """A ledger that remembers what was handed to it."""

    writer: Writer
    openings: dict[str, tuple[Opening, ...]] = field(default_factory=dict)

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Append, and remember openings by record id."""
        for entry in entries:
            self.openings[read_body(entry.body).id] = entry.openings
        return await self.writer.append(entries)

    async def prove(self, index: int, seen: int | None = None) -> Receipt:
        """As the writer does."""
        return await self.writer.prove(index, seen)

    async def topic(self, name: str, since: int) -> list[Receipt]:
        """As the writer does."""
        return await self.writer.topic(name, since)


@dataclass(frozen=True)
class Log:
    """What came of it."""

    seed: bytes  # of the log key
    origin: str
    records: list[bytes]
    openings: dict[str, tuple[Opening, ...]]  # by record id


class Teller:
    """Tells the story, one method for each room of the KAS."""

    def __init__(
        self, ledger: Listening, verifier: VerifierKey, clock: Clock, rsa_pem: str
    ) -> None:
        self.clock, self.chance = clock, Chance()
        self.ledger = ledger
        self.scribe = Scribe(self.clock, self.chance, "envelock-kas")
        self.recorder = Recorder(ledger, self.scribe)
        self.projection = Projection(ledger, verifier)
        self.administration = Administration(
            ledger=ledger,
            projection=self.projection,
            scribe=self.scribe,
            subject_secret=SUBJECT_SECRET,
            request_ids=lambda: f"r-{self.chance(6).hex()}",
        )
        self.lifecycle = Lifecycle(
            ledger=ledger,
            projection=self.projection,
            scribe=self.scribe,
            keeping=Keeping(
                custodies={"local": FixedCustody(rsa_pem)},
                fresh="local",
                grace_seconds=90 * 86_400,
                log=verifier.name,
            ),
            clock=self.clock,
            entropy=self.chance,
        )

    def context(self, act: str, proof: str) -> Context:
        """A request of the doctor's, decided."""
        token = AccessToken(DOCTOR, {}, frozenset(), NOW + 600, b"")
        key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
        shown = Proof(DOCTOR.jkt, key, f"dpop:{proof}", NOW + 65)
        return Context(Authenticated(token, shown, ""), HERE, act, "clinic")

    async def policies_and_keys(self) -> None:
        """A bundle comes into force, a key is made on first use."""
        announced = Announcement("clinic", b64url(b"b" * 32), ("clinic.example",), ("laboratory",))
        await self.administration.announce(announced)
        self.clock.seconds += 1
        await self.lifecycle.create(PATH, "offline", Actor(HERE, DOCTOR))

    async def releases(self) -> None:
        """One object is released and another refused; the same request comes again."""
        for number in (1, 2):
            self.clock.seconds += 1
            context = self._decided("open", f"proof-{number}")
            key_id = f"{PATH}:v1"
            refused = RefusedObject(row("sha256:" + "22" * 32, key_id, POLICY), "dissem")
            released = "sha256:" + "11" * 32
            draft = Draft(
                typ="release",
                fields={"objs": [row(released, key_id, POLICY)]},
                bound_to=bound_to(context, [released]),
                fences=self._fences() | {"policy:clinic": 1},
                refused=[refused],
            )
            await self.recorder.commit(context, draft)

    async def refusals(self) -> None:
        """What was refused as a whole, what failed, and what came too fast."""
        self.clock.seconds += 1
        await self.recorder.refuse(self.context("open", "proof-3"), "subject revoked")
        await self.recorder.report(self.context("open", "proof-4"), "custody: TimeoutError")
        await self.recorder.note_refused(DOCTOR, Origin("r-ba9876543210"), 17)

    async def issues(self) -> None:
        """Two data keys are made online."""
        self.clock.seconds += 1
        await self.lifecycle.create(KeyPath("clinic:vault:2026-11"), "online", Actor(HERE, DOCTOR))
        context = self._decided("seal", "proof-5")
        ids = [f"{number:032x}" for number in (1, 2)]
        rows: list[Json] = [row(one, "clinic:vault:2026-11:v1", POLICY) for one in ids]
        draft = Draft(
            typ="issue",
            fields={"objs": rows, "scope": "clinic:vault:2026-11"},
            bound_to=bound_to(context, ids),
            fences={"policy:clinic": 1},
            repeatable=False,
        )
        await self.recorder.commit(context, draft)

    async def operators(self) -> None:
        """Rotation, suspension, destruction; a subject is shut out, a tenant closed."""
        operator = Caller(ISSUER, "operator", "clinic", DOCTOR.jkt)
        actor = Actor(HERE, operator)
        self.clock.seconds += 1
        await self.lifecycle.rotate(PATH, actor)
        await self.lifecycle.change(PATH, "suspend", below=False, actor=actor)
        await self.lifecycle.change(PATH, "destroy", below=False, actor=actor)
        once = (Once("dpop:proof-6", None, NOW + 65),)
        spending = Actor(HERE, operator, once)
        await self.administration.set_subject(DOCTOR, "shut", spending)
        await self.administration.set_tenant("clinic", "shut", actor)

    def _decided(self, act: str, proof: str) -> Context:
        context = self.context(act, proof)
        shared = {"kas_id": "envelock-kas", "owner": "clinic", "caller": DOCTOR}
        if act == "seal":
            scope = "clinic:vault:2026-11"
            context.digest = seal_digest(
                **shared, key_digest=KEY, scope=scope, count=2, nonce=b"n" * 16
            )
        else:
            ids = ("sha256:" + "11" * 32, "sha256:" + "22" * 32)
            objects = [RequestedObject(one, POLICY, KEYS) for one in ids]
            context.digest = request_digest(**shared, act=act, key_digest=KEY, objects=objects)
        context.request_token = Once(f"srt:{act}", None, NOW + 120)
        context.decision = Decision(
            iss="envelock-pdp",
            aud="envelock-kas",
            sub=DOCTOR.subject,
            sub_iss=DOCTOR.issuer,
            sub_tenant="clinic",
            tenant="clinic",
            act="seal" if act == "seal" else "open",
            objs=(DecidedObject("any", b64url(POLICY), b64url(KEYS), permit=True),),
            key_sha256=b64url(KEY),
            policy=DecidedBy(b64url(b"b" * 32), 1, ("treatment",)),
            iat=NOW,
            nbf=NOW,
            exp=NOW + 30,
            jti=f"decision-to-{act}",
        )
        return context

    def _fences(self) -> dict[str, int]:
        subject = subject_fence(SUBJECT_SECRET, DOCTOR.tenant, DOCTOR.issuer, DOCTOR.subject)
        above = {"key:clinic:v1": 1, "key:clinic:records:v1": 1, f"key:{PATH}:v1": 1}
        return {subject: 0, "tenant:clinic": 0} | above


async def told(rsa_pem: str) -> Log:
    """Tell the whole story."""
    chance, clock = Chance(), Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = Place(folder / "ledger", folder / "anchor" / "file", folder / "key.pem")
        seed = Chance()(32)
        signer = found(place, chance)
        writer = await Writer.start(place, signer, clock.microseconds)
        teller = Teller(Listening(writer), signer.verifier, clock, rsa_pem)
        for step in (teller.policies_and_keys, teller.releases, teller.refusals, teller.issues,
                     teller.operators):  # fmt: skip
            await step()
        size = await writer.size()
        records = await writer.records(0, size)
        await writer.aclose()
    return Log(seed, signer.verifier.name, records, teller.ledger.openings)
