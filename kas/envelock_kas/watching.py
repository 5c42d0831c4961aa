"""What a worker watches: the parts that a release needs, by use and by probe.

A failed use does not by itself take a part down where a caller could bring the failure about: it
only has the part probed at once. What no caller can bring about counts at once: an append whose
outcome is unknown, and a PDP that signs what it was not asked.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats.canonical import Json
from envelock_formats.decision import DecisionError, DecisionMismatchError
from envelock_formats.privatekey import PrivateKey
from envelock_formats.publickey import PublicKey
from envelock_kas.context import Context
from envelock_kas.custody import AES, EC, RSA, Custody, Made
from envelock_kas.decisions import Decisions, Verdicts
from envelock_kas.errors import CustodyError, PdpUnavailableError
from envelock_kas.keys.registry import KeyVersion, Registry
from envelock_kas.keys.states import UNWRAPS
from envelock_kas.ledger import Ledger
from envelock_kas.meters import Meters, Tally, timed
from envelock_kas.pdp import Answer, DecisionPoint, Question, QuestionObject
from envelock_kas.projection import Projection
from envelock_ledger.entry import Entry, Outcome
from envelock_ledger.errors import DamageError, LedgerUnavailableError, ProofError
from envelock_ledger.proof import Receipt
from envelock_service.health import HOLD_SECONDS, SOON_SECONDS, Health, Part
from envelock_service.problem import Problem

if TYPE_CHECKING:
    from envelock_kas.worker import Parts

LEDGER, CUSTODY, PDP, POLICY, ISSUER = "ledger", "custody", "pdp", "policy", "issuer"
LAG_SECONDS = 3.0  # that the PDP and this worker may differ about an epoch
OPENING = frozenset({"agree", "decapsulate", "decrypt", "unwrap"})
PROBE_CONTEXT = b"envelock/health/v1"
T = TypeVar("T")


class NotWorkingError(Exception):
    """What a probe found; the message is for operators."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What a PDP says is in force: epochs by tenant, and folders without one."""

    epochs: Mapping[str, int]
    missing: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Probes:
    """How to ask what only the composition root can reach; None where use alone tells.

    `pdp` asks the PDP for a decision, and what is in force; `issuer` has the issuers' keys fetched
    if they are not known. Each raises whatever it likes.
    """

    pdp: Callable[[], Awaitable[InForce]] | None = None
    issuer: Callable[[], Awaitable[None]] | None = None


@dataclass(slots=True)
class Watch:
    """The health and the meters of one worker."""

    parts: "Parts"
    counts: Mapping[str, int]  # of requests that proved nobody, by code
    meters: Meters = field(default_factory=Meters)
    health: Health = field(init=False)
    in_force: InForce | None = None
    _projection: Projection | None = None
    _differs_since: float | None = None
    _used: KeyVersion | None = None  # whose key the custody is tried with
    _peer: ec.EllipticCurvePublicKey | None = None
    _asked: float = float("-inf")  # when the PDP was asked last
    _sample: tuple[str, bytes] | None = None  # a symmetric key, and what it wrapped

    def __post_init__(self) -> None:
        watched = [
            Part(LEDGER, self._probe_ledger, hold_seconds=HOLD_SECONDS),
            Part(CUSTODY, self._probe_custody),
        ]
        if self.parts.probes.pdp is not None:
            watched.append(Part(PDP, self._probe_pdp, hold_seconds=HOLD_SECONDS))
            watched.append(Part(POLICY, self._probe_policy))
        if self.parts.probes.issuer is not None:
            watched.append(Part(ISSUER, self.parts.probes.issuer))
        self.health = Health(watched, self.parts.clock, time.monotonic)

    def metered(self) -> "Parts":
        """The parts, with everything that reaches outside counted and timed."""
        parts = self.parts
        return replace(
            parts,
            ledger=_Ledger(parts.ledger, self),
            pdp=_Pdp(parts.pdp, self),
            custodies={name: _Custody(one, self) for name, one in parts.custodies.items()},
        )

    def follow(self, projection: Projection) -> None:
        """Take *projection* for what this worker knows."""
        self._projection = projection
        tally = Tally(self.meters, self.counts, lambda: self.epochs().values(), self.parts.clock)
        self.meters.registry.register(tally)

    def epochs(self) -> dict[str, int]:
        """The policy epoch of every tenant, as the ledger has it."""
        projection = self._projection
        return {} if projection is None else dict(projection.epochs())

    def shown(self) -> dict[str, Json]:
        """What `/status` tells of this worker."""
        refusals: dict[str, Json] = dict(sorted(self.meters.refusals.items()))
        return {
            "custody": self.parts.custody,
            "kas_id": self.parts.settings.id,
            "ledger": dict(self.meters.ledger),
            "epochs": dict(self.epochs()),
            "records": dict(sorted(self.meters.records.items())),
            "refusals": refusals,
            "unauthenticated": dict(sorted(self.counts.items())),
        }

    def decisions(self, inner: Decisions) -> Decisions:
        """*inner*, watched: a PDP whose signed answer does not fit is a PDP that does not work."""
        return _Decisions(inner, self) if self.parts.probes.pdp is not None else inner

    async def _probe_ledger(self) -> None:
        if self._projection is not None:
            await self._projection.catch_up()
        self.meters.ledger = await self.parts.ledger.probe()

    async def _probe_custody(self) -> None:
        """One operation with a key that is in use; without one, a look at what there is."""
        custody = self.parts.custodies[self.parts.custody]
        version = self._version_in_use()
        handles = {key.alg: key.handle for key in version.keys} if version else {}
        if EC in handles:
            if self._peer is None:
                self._peer = ec.generate_private_key(ec.SECP256R1()).public_key()
            await custody.agree(handles[EC], self._peer)
        elif AES in handles:
            if self._sample is None or self._sample[0] != handles[AES]:  # once: it is not counted
                made = await custody.wrap(handles[AES], bytes(32), PROBE_CONTEXT)
                self._sample = handles[AES], made
            await custody.unwrap(*self._sample, PROBE_CONTEXT)
        elif RSA in handles:
            await custody.public(handles[RSA])
        else:
            await custody.handles()

    def _version_in_use(self) -> KeyVersion | None:
        registry = self._projection.registry if self._projection is not None else Registry()
        if self._used is not None:
            self._used = registry.get(self._used.id)
        if self._used is None or self._used.state not in UNWRAPS:
            usable = (
                version
                for version in registry.every()
                if version.keys
                and version.state in UNWRAPS
                and version.custody == self.parts.custody
            )
            self._used = next(usable, None)
        return self._used

    async def _probe_pdp(self) -> None:
        if self.parts.probes.pdp is not None:
            self._asked = time.monotonic()
            self.in_force = await self.parts.probes.pdp()

    async def _probe_policy(self) -> None:
        """The PDP decides by what the ledger has in force; a difference may last a moment.

        What the PDP said a while ago may be over, and while it is used it is not probed: it is
        asked again before anything is found wrong.
        """
        if self.in_force is None:
            raise NotWorkingError("no PDP has said what is in force")
        doubtful = self._missing(self.in_force) or self._differing(self.in_force)
        if doubtful and time.monotonic() - self._asked >= SOON_SECONDS:
            await self._probe_pdp()
        if missing := self._missing(self.in_force):
            raise NotWorkingError(missing)
        now, differing = time.monotonic(), self._differing(self.in_force)
        if not differing:
            self._differs_since = None
            return
        self._differs_since = self._differs_since or now
        if now - self._differs_since > LAG_SECONDS:
            raise NotWorkingError(differing)

    @staticmethod
    def _missing(in_force: InForce) -> str:
        if in_force.missing:
            return f"not in force: {', '.join(in_force.missing)}"
        return "" if in_force.epochs else "no policy is in force"

    def _differing(self, in_force: InForce) -> str:
        known = self.epochs()
        return "; ".join(
            f"{tenant}: the PDP is at epoch {epoch}, the ledger at {known.get(tenant, 0)}"
            for tenant, epoch in in_force.epochs.items()
            if known.get(tenant) != epoch
        )


class _Ledger:
    """A ledger that is watched."""

    def __init__(self, inner: Ledger, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        watch = self._watch
        try:
            with timed(watch.meters.append):
                outcomes = await self._inner.append(entries)
        except (LedgerUnavailableError, DamageError, ProofError) as error:
            watch.meters.append_failures.inc()
            watch.health.failed(LEDGER, str(error))
            raise
        watch.meters.committed(entries, outcomes)
        watch.health.worked(LEDGER)
        return outcomes

    async def prove(self, index: int, seen: int | None = None) -> Receipt:
        return await self._inner.prove(index, seen)

    async def topic(self, name: str, since: int) -> list[Receipt]:
        return await self._inner.topic(name, since)

    async def probe(self) -> Mapping[str, int]:
        return await self._inner.probe()


class _Pdp:
    """A decision point that is watched."""

    def __init__(self, inner: DecisionPoint, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    async def ask(self, question: Question) -> Answer:
        try:
            with timed(self._watch.meters.pdp):
                return await self._inner.ask(question)
        except PdpUnavailableError:
            self._watch.meters.pdp_failures.inc()
            if self._watch.parts.probes.pdp is not None:
                self._watch.health.doubt(PDP)
            raise


class _Decisions(Decisions):
    """Decisions that are watched."""

    def __init__(self, inner: Decisions, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    async def decide(
        self,
        context: Context,
        key_digest: bytes,
        objects: Sequence[QuestionObject],
        presented: str | None,
    ) -> Verdicts:
        try:
            verdicts = await self._inner.decide(context, key_digest, objects, presented)
        except Problem as problem:
            cause = problem.__cause__
            if presented is None and isinstance(cause, DecisionError | DecisionMismatchError):
                self._watch.meters.pdp_failures.inc()
                self._blame(context, str(cause))
            raise
        if presented is None:
            self._watch.health.worked(PDP)
        return verdicts

    def _blame(self, context: Context, cause: str) -> None:
        """Take the PDP down, unless the caller let its token expire on the way.

        No decision outlives the token, so one that is asked for in the token's last moment comes
        too late from the best of PDPs.
        """
        if self._watch.parts.clock() >= context.authenticated.token.expires:
            self._watch.health.doubt(PDP)
        else:
            self._watch.health.failed(PDP, f"false answer: {cause}")


class _Custody:
    """A custody that is watched."""

    def __init__(self, inner: Custody, watch: Watch) -> None:
        self.name, self.algorithms = inner.name, inner.algorithms
        self._inner, self._watch = inner, watch

    async def make(self, label: str, algorithms: Sequence[str]) -> Sequence[Made]:
        return await self._watched("make", self._inner.make(label, algorithms))

    async def adopt(self, label: str, key: PrivateKey) -> Made:
        return await self._watched("adopt", self._inner.adopt(label, key))

    async def wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        return await self._watched("wrap", self._inner.wrap(handle, dek, aad))

    async def unwrap(self, handle: str, wrapped: bytes, aad: bytes) -> bytes:
        return await self._watched("unwrap", self._inner.unwrap(handle, wrapped, aad))

    async def decrypt(self, handle: str, wrapped: bytes) -> bytes:
        return await self._watched("decrypt", self._inner.decrypt(handle, wrapped))

    async def agree(self, handle: str, peer: ec.EllipticCurvePublicKey) -> bytes:
        return await self._watched("agree", self._inner.agree(handle, peer))

    async def decapsulate(self, handle: str, ciphertext: bytes) -> bytes:
        return await self._watched("decapsulate", self._inner.decapsulate(handle, ciphertext))

    async def public(self, handle: str) -> PublicKey:
        return await self._watched("public", self._inner.public(handle))

    async def handles(self) -> Sequence[str]:
        return await self._watched("handles", self._inner.handles())

    async def destroy(self, handle: str) -> None:
        await self._watched("destroy", self._inner.destroy(handle))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _watched(self, operation: str, work: Awaitable[T]) -> T:
        watch = self._watch
        try:
            with timed(watch.meters.operation(operation)):
                done = await work
        except CustodyError:
            watch.meters.custody_failures.labels(operation).inc()
            watch.health.doubt(CUSTODY)
            raise
        if operation in OPENING:  # what else there is may come from a memory of the custody's
            watch.health.worked(CUSTODY)
        return done
