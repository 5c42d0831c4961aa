"""One KAS worker, put together from its parts. Nothing else in this room knows all of them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from envelock_formats.canonical import Json
from envelock_kas.admin import Administration
from envelock_kas.catalogue import Catalogue
from envelock_kas.custody import Custody
from envelock_kas.decisions import Decisions, PdpKeys
from envelock_kas.errors import KasError
from envelock_kas.gate import Gate
from envelock_kas.guard import Guard
from envelock_kas.http import Surface, application, internal_application
from envelock_kas.issue import Issue
from envelock_kas.keys.budget import WrapBudget
from envelock_kas.keys.lifecycle import Actor, Keeping, Lifecycle
from envelock_kas.keys.registry import RegistryError
from envelock_kas.ledger import Ledger
from envelock_kas.naming import Naming
from envelock_kas.opentdf.cors import cors
from envelock_kas.opentdf.routes import OpenTdf
from envelock_kas.opentdf.settings import OpenTdfSettings
from envelock_kas.operators import Operators
from envelock_kas.pdp import DecisionPoint
from envelock_kas.projection import Projection
from envelock_kas.publish import Publisher
from envelock_kas.rebind import Rebind
from envelock_kas.recorder import Recorder
from envelock_kas.records import Origin, Scribe
from envelock_kas.release import Release
from envelock_kas.rewrapping import Rewrapper
from envelock_kas.settings import KasSettings
from envelock_kas.watching import Probes, Watch
from envelock_ledger.errors import LedgerError
from envelock_ledger.note import VerifierKey
from envelock_service.callers import Callers

SWEEP_SECONDS = 30.0
REQUEST_ID_BYTES = 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made from: everything that reaches outside, and time and randomness."""

    settings: KasSettings
    ledger: Ledger
    ledger_key: VerifierKey
    pdp: DecisionPoint
    pdp_keys: PdpKeys
    callers: Callers
    custodies: Mapping[str, Custody]
    custody: str  # the one that new keys are made in
    grace_seconds: int
    configuration: Mapping[str, Json]
    catalogue: Catalogue
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    subject_secret: bytes = field(repr=False)
    probes: Probes = field(default_factory=Probes)
    opentdf: OpenTdfSettings = field(default_factory=OpenTdfSettings)


class Worker:
    """A KAS: its public and its internal application, and its housekeeping."""

    def __init__(self, parts: Parts) -> None:
        self.counts: dict[str, int] = {}  # of requests that proved nobody, by code
        self.watch = Watch(parts, self.counts)
        parts = self.watch.metered()
        settings, ledger, clock = parts.settings, parts.ledger, parts.clock
        self.projection = Projection(ledger, parts.ledger_key)
        self.watch.follow(self.projection)
        self._guard = Guard(settings.guard, time.monotonic)
        self._entropy = parts.entropy
        self._scribe = Scribe(clock, parts.entropy, settings.id)
        self._recorder = Recorder(ledger, self._scribe)
        self._naming = Naming(settings.template, clock, parts.subject_secret)
        self.lifecycle = Lifecycle(
            ledger=ledger,
            projection=self.projection,
            scribe=self._scribe,
            keeping=Keeping(
                parts.custodies,
                parts.custody,
                parts.grace_seconds,
                parts.ledger_key.name,
                settings.algorithms,
            ),
            clock=clock,
            entropy=parts.entropy,
        )
        self._administration = Administration(
            ledger=ledger,
            projection=self.projection,
            scribe=self._scribe,
            subject_secret=parts.subject_secret,
            request_ids=self._request_ids,
        )
        self.surface = self._surface(parts)
        operators = Operators(self.surface, self.lifecycle)
        opentdf = OpenTdf(
            self.surface, settings, parts.opentdf, parts.configuration, parts.catalogue
        )
        self.app: web.Application = application(
            self.surface,
            (operators.routes, opentdf.routes),
            (cors(parts.opentdf.browser_origins),),
        )
        self.internal_app: web.Application = internal_application(
            self._administration, self._request_ids
        )

    @contextlib.asynccontextmanager
    async def running(self, *, keeper: bool) -> AsyncIterator[None]:
        """Read the ledger, then keep house until the end of the context.

        Args:
            keeper: Whether this worker also destroys keys that are due; one of them should.

        Raises:
            LedgerError, RegistryError: The ledger cannot be read, or does not hold.
        """
        await self.projection.catch_up()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._record_refused()),
                group.create_task(self._every(self.lifecycle.collect)),
            ]
            if keeper:
                tasks.append(group.create_task(self._every(self._sweep)))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def _surface(self, parts: Parts) -> Surface:
        settings = parts.settings
        gate = Gate(
            settings.id,
            self.projection,
            self._guard,
            self._recorder,
            self._budget(parts),
            parts.clock,
            parts.subject_secret,
        )
        decisions = Decisions(
            pdp=parts.pdp,
            keys=parts.pdp_keys,
            issuer=settings.pdp_issuer,
            kas_id=settings.id,
            recorder=self._recorder,
            clock=parts.clock,
        )
        decisions = self.watch.decisions(decisions)
        publisher = Publisher(
            ledger=parts.ledger,
            projection=self.projection,
            lifecycle=self.lifecycle,
            custodies=parts.custodies,
            kas_url=settings.url,
        )
        return Surface(
            callers=parts.callers,
            gate=gate,
            behind_proxy=settings.behind_proxy,
            release=Release(
                gate=gate,
                decisions=decisions,
                recorder=self._recorder,
                custodies=parts.custodies,
                entropy=parts.entropy,
            ),
            issue=self._issue(parts, gate, decisions),
            rebind=self._rebind(parts, gate, decisions, publisher),
            publisher=publisher,
            naming=self._naming,
            administration=self._administration,
            pdp_keys=parts.pdp_keys,
            request_ids=self._request_ids,
            count=self._count,
            health=self.watch.health,
        )

    def _budget(self, parts: Parts) -> WrapBudget:
        return WrapBudget(
            ledger=parts.ledger,
            projection=self.projection,
            scribe=self._scribe,
            lifecycle=self.lifecycle,
            limit=parts.settings.max_wraps,
        )

    def _issue(self, parts: Parts, gate: Gate, decisions: Decisions) -> Issue:
        return Issue(
            gate=gate,
            decisions=decisions,
            recorder=self._recorder,
            naming=self._naming,
            custodies=parts.custodies,
            kas_url=parts.settings.url,
            entropy=parts.entropy,
        )

    def _rebind(
        self, parts: Parts, gate: Gate, decisions: Decisions, publisher: Publisher
    ) -> Rebind:
        rewrapper = Rewrapper(custodies=parts.custodies, publisher=publisher, entropy=parts.entropy)
        return Rebind(gate=gate, decisions=decisions, recorder=self._recorder, rewrapper=rewrapper)

    def _request_ids(self) -> str:
        return f"r-{self._entropy(REQUEST_ID_BYTES).hex()}"

    def _count(self, code: str) -> None:
        self.counts[code] = self.counts.get(code, 0) + 1

    async def _record_refused(self) -> None:
        """Record what the rate guard refused, and tell the operator of noise."""
        told: dict[str, int] = {}
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for caller, number in self._guard.take_refused().items():
                origin = Origin(self._request_ids())
                if not await self._recorder.note_refused(caller, origin, number):
                    self._guard.put_back(caller, number)
            if self.counts != told:
                told = dict(self.counts)
                _log.warning("requests that proved nobody, by code: %s", told)

    async def _sweep(self) -> None:
        await self.lifecycle.sweep(Actor(Origin(self._request_ids())))

    async def _every(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* again and again; what fails is tried again."""
        while True:
            try:
                await work()
            except (KasError, LedgerError, RegistryError) as error:
                _log.warning("keeping house: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)
