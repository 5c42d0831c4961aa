"""What may be done to keys. Every transition is one record that moves the version's fence.

Material is made in the custody first, durably, and then recorded; what no record names is collected
later. A version that is recorded `destroyed` is destroyed in the custody afterwards, and again at
every sweep until it is gone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from envelock_formats.keyid import KeyId, KeyPath
from envelock_formats.request import Caller
from envelock_kas.custody import AES, EC, RSA, Custody, Made
from envelock_kas.errors import KeyExistsError, StaleError, TransitionError
from envelock_kas.keys.foreign import MAX_LEGACY, ForeignKey
from envelock_kas.keys.registry import RECORD_TYPE, KeyVersion, Standing
from envelock_kas.keys.states import UNWRAPS, WRAPS, State
from envelock_kas.keys.transitions import Change, fields, material, moved, target
from envelock_kas.ledger import Ledger
from envelock_kas.projection import Projection
from envelock_kas.records import Origin, Scribe
from envelock_ledger.entry import Committed, Entry, Fenced, Once, Spent
from envelock_ledger.errors import LedgerError

Wraps: TypeAlias = Literal["offline", "online"]
VERSIONS_OF_A_RECORD = 50
UNRECORDED_SECONDS = 3600
MAX_PATHS = 10_000  # of a tenant, made by first use
_ATTEMPTS = 3
_LABEL_BYTES = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes a key: an operator, or nobody when a first use or a date does it."""

    origin: Origin
    caller: Caller | None = None
    proof: tuple[Once, ...] = ()  # the proof of possession, spent with the record
    judged: Mapping[str, int] = field(default_factory=dict)  # fences by which it may act


@dataclass(frozen=True, slots=True)
class Changed:
    """What was done: the versions as they are now, and the last record that says so."""

    versions: Sequence[KeyVersion]
    record: int


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where key material is kept, and for how long after its destruction was scheduled.

    Material is made in the custody named *fresh*, and labelled with *log*, the name of the ledger
    that records it. *algorithms* are those of a path's first version for offline sealing when
    nobody names any.
    """

    custodies: Mapping[str, Custody]
    fresh: str
    grace_seconds: int
    log: str
    algorithms: tuple[str, ...] = (EC, RSA)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A version to be added: keys of *algorithms* that are made, or one that is taken over."""

    op: str
    path: KeyPath
    wraps: Wraps
    algorithms: Sequence[str] = ()
    foreign: ForeignKey | None = None


class Lifecycle:
    """Makes, takes over, rotates, suspends and destroys keys."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        projection: Projection,
        scribe: Scribe,
        keeping: Keeping,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._ledger = ledger
        self._projection = projection
        self._scribe = scribe
        self._keeping = keeping
        self._clock = clock
        self._entropy = entropy
        self._fresh = keeping.custodies[keeping.fresh]
        self._unrecorded: dict[str, float] = {}  # handles made here, and when

    async def ensure(self, path: KeyPath, wraps: Wraps, actor: Actor) -> Standing:
        """The active version of *path*, and the numbers that prove it.

        It is made on first use, together with what stands above it.

        Raises:
            TransitionError: The path is not active, or wraps in the other way.
            CustodyError, LedgerError: As their names say.
        """
        self._require_room(path)
        for _ in range(_ATTEMPTS):
            newest = self._projection.registry.newest(path)
            if newest is not None and newest.keys:
                return await self._usable(newest, wraps)
            try:
                await self.create(path, wraps, actor)
            except KeyExistsError:
                await self._projection.catch_up()
        raise StaleError(f"key {path} could not be made")

    async def create(
        self, path: KeyPath, wraps: Wraps, actor: Actor, algorithms: Sequence[str] = ()
    ) -> Changed:
        """Make the first version of *path* that holds keys.

        Args:
            path: The path.
            wraps: How it is sealed under.
            actor: Who does it.
            algorithms: One key for each, the preferred one first; the configured ones when empty.
                What the KAS makes online has its own.

        Raises:
            KeyExistsError: The path has keys already, or somebody else is making them.
            TransitionError: A path above is shut, or wraps in the other way.
        """
        registry = self._projection.registry
        newest = registry.newest(path)
        if newest is not None and newest.keys:
            raise KeyExistsError(f"{path} exists: rotate it to get a new version")
        if newest is not None and newest.state is not State.ACTIVE:
            raise TransitionError(f"{path} is {newest.state}: resume it, or cancel its destruction")
        self._require_wraps(path, wraps)
        beside = self._above(path, wraps)
        if newest is not None:
            beside.append(moved(newest, State.DEPRECATED))
        plan = _Plan("create", path, wraps, algorithms or self._keeping.algorithms)
        return await self._add(plan, beside, actor)

    async def take_over(self, path: KeyPath, key: ForeignKey, actor: Actor) -> Changed:
        """Make a key of another KAS the next version of *path*: it opens what that KAS sealed.

        Its path is for keys that open: nothing new is sealed under it before it is rotated, unless
        the key was imported as active.

        Raises:
            KeyExistsError: A key with that foreign key id was imported before.
            TransitionError: The path seals new data, is shut, or wraps in the other way; or the
                tenant has as many keys for files that name none as may be tried.
        """
        registry = self._projection.registry
        if (known := registry.imported(key.kid)) is not None:
            where = f"as {known}" if known.tenant == path.tenant else "by another tenant"
            raise KeyExistsError(f"key id {key.kid!r} was imported before, {where}")
        if key.legacy and len(registry.legacy(path.tenant)) >= MAX_LEGACY:
            raise TransitionError(f"{path.tenant} has {MAX_LEGACY} legacy keys: no more are tried")
        self._require_wraps(path, "offline")
        newest = registry.newest(path)
        if newest is not None and newest.keys and newest.state is State.ACTIVE:
            raise TransitionError(f"{path} seals new data: import to a path of its own")
        if newest is not None and newest.state not in UNWRAPS:
            raise TransitionError(f"{path} is {newest.state}: resume it, or cancel its destruction")
        beside = self._above(path, "offline")
        if newest is not None and newest.state is State.ACTIVE:
            beside.append(moved(newest, State.DEPRECATED))
        return await self._add(_Plan("import", path, "offline", foreign=key), beside, actor)

    async def rotate(self, path: KeyPath, actor: Actor, algorithms: Sequence[str] = ()) -> Changed:
        """Make a new active version; the former one still opens what it wrapped.

        Args:
            path: The path.
            actor: Who does it.
            algorithms: As in `create`; those of the former version when empty.

        Raises:
            TransitionError: The path has no active version, nor an imported one that opens.
        """
        newest = self._projection.registry.newest(path)
        opens = newest is not None and newest.kid is not None and newest.state in UNWRAPS
        if newest is None or not (newest.state is State.ACTIVE or opens):
            state = "does not exist" if newest is None else f"is {newest.state}"
            raise TransitionError(f"{path} {state}: only an active key is rotated")
        algorithms = algorithms or [key.alg for key in newest.keys] or self._keeping.algorithms
        active = newest.state is State.ACTIVE
        deprecated = [moved(newest, State.DEPRECATED)] if active else []
        plan = _Plan("rotate", path, newest.wraps, algorithms)
        return await self._add(plan, deprecated, actor)

    async def change(self, path: KeyPath, change: Change, *, below: bool, actor: Actor) -> Changed:
        """Suspend, resume, schedule the destruction of, or save from it, every version of *path*.

        Raises:
            TransitionError: Nothing to change, or keys lie below and *below* was not said.
        """
        registry = self._projection.registry
        children = [
            child
            for child in registry.below(path)
            if any(target(version, change, 0) for version in registry.versions(child))
        ]
        if children and not below:
            listed = ", ".join(str(child) for child in children[:5])
            raise TransitionError(f"keys lie below {path}: {listed}; say so with --below")
        paths = [path, *children]
        now = int(self._clock()) + self._keeping.grace_seconds
        versions = [
            changed
            for found in paths
            for version in registry.versions(found)
            if (changed := target(version, change, now)) is not None
        ]
        if not versions:
            raise TransitionError(f"{path}: nothing to {change}")
        return await self._commit(change, versions, {}, (), actor)

    async def sweep(self, actor: Actor) -> Changed | None:
        """Destroy what is due: first the record, then the material."""
        await self._projection.catch_up()
        now = int(self._clock())
        due = [
            msgspec.structs.replace(moved(version, State.DESTROYED), was=(), destroy_at=None)
            for version in self._projection.registry.every()
            if version.state is State.PENDING_DESTRUCTION and (version.destroy_at or 0) <= now
        ]
        changed = await self._commit("destroy", due, {}, (), actor) if due else None
        await self._destroy_material()
        return changed

    async def collect(self) -> None:
        """Destroy material that this process made an hour ago and could not record.

        SECURITY: nothing else without a record is touched. It may be another deployment's, or of
        records that a restored backup has lost; destroying it could not be undone.
        """
        await self._projection.catch_up()
        recorded = {
            key.handle for version in self._projection.registry.every() for key in version.keys
        }
        now = self._clock()
        self._unrecorded = {
            handle: made for handle, made in self._unrecorded.items() if handle not in recorded
        }
        for handle, made in list(self._unrecorded.items()):
            if now - made > UNRECORDED_SECONDS:
                await self._fresh.destroy(handle)
                del self._unrecorded[handle]

    async def _destroy_material(self) -> None:
        """Destroy the material of versions that are recorded as destroyed, if it is there still."""
        for name, custody in self._keeping.custodies.items():
            existing = set(await custody.handles())
            for version in self._projection.registry.every():
                if version.state is State.DESTROYED and version.custody == name:
                    for key in version.keys:
                        if key.handle in existing:
                            await custody.destroy(key.handle)

    async def _add(self, plan: "_Plan", beside: Sequence[KeyVersion], actor: Actor) -> Changed:
        """Make material for the next version of a path and record it, with what changes beside."""
        registry, path = self._projection.registry, plan.path
        self._require_open_above(path)
        fences = registry.fences(path)  # of this judgement: making a key takes its time
        key_id = KeyId(path, len(registry.versions(path)) + 1)
        made = await self._material(key_id, plan)
        self._unrecorded |= {key.handle: self._clock() for key in made}
        foreign = plan.foreign
        version = KeyVersion(
            path=path.text,
            version=key_id.version,
            number=1,
            state=State.ACTIVE if foreign is None or foreign.active else State.DEPRECATED,
            wraps=plan.wraps,
            custody=self._keeping.fresh,
            keys=tuple(material(key) for key in made),
            kid=foreign.kid if foreign is not None else None,
            legacy=foreign is not None and foreign.legacy,
        )
        fresh = [found for found in (*beside, version) if found.number == 1]
        once = tuple(Once(f"create:{found.id}", None, None) for found in fresh)
        if foreign is not None:
            once = (*once, Once(f"import:{foreign.kid}", None, None))
        try:
            return await self._commit(plan.op, [*beside, version], fences, once, actor)
        except StaleError as error:
            for key in made:
                await self._fresh.destroy(key.handle)
            raise KeyExistsError(f"{key_id} was made by somebody else") from error

    async def _material(self, key_id: KeyId, plan: "_Plan") -> Sequence[Made]:
        custody = self._fresh
        label = f"{self._keeping.log}~{key_id}@{self._entropy(_LABEL_BYTES).hex()}"
        if plan.foreign is not None:
            return [await custody.adopt(label, plan.foreign.private)]
        return await custody.make(label, (AES,) if plan.wraps == "online" else plan.algorithms)

    async def _commit(
        self,
        op: str,
        versions: Sequence[KeyVersion],
        fences: Mapping[str, int],
        once: tuple[Once, ...],
        actor: Actor,
    ) -> Changed:
        """Record *versions*, in several records when they are many, those above first."""
        record = 0
        for start in range(0, len(versions), VERSIONS_OF_A_RECORD):
            part = versions[start : start + VERSIONS_OF_A_RECORD]
            moves = {version.fence: version.number for version in part}
            relied_on = {**actor.judged, **fences}
            expected = {name: number for name, number in relied_on.items() if name not in moves}
            body, openings = self._scribe.write(
                RECORD_TYPE, part[0].id.tenant, actor.origin, actor.caller, fields(op, part, moves)
            )
            entry = Entry(body, openings, (*once, *actor.proof) if start == 0 else (), expected)
            match (await self._ledger.append([entry]))[0]:
                case Committed(receipt):
                    record = receipt.index
                case Fenced() | Spent():
                    await self._projection.catch_up()
                    raise StaleError(f"{part[0].path} was changed by somebody else meanwhile")
                case _:
                    raise LedgerError(f"{part[0].path}: the ledger refused the change")
        await self._projection.catch_up()
        return Changed(versions, record)

    async def _usable(self, newest: KeyVersion, wraps: Wraps) -> Standing:
        registry = self._projection.registry
        standing = registry.standing(newest.id, permitted=WRAPS)
        if standing is None or standing.refusal is not None:
            await self._projection.catch_up()  # what this worker knows may be old
            newest = registry.newest(newest.id.path) or newest
            standing = registry.standing(newest.id, permitted=WRAPS)
        if standing is None or standing.refusal is not None:
            reason = standing.refusal if standing else f"key {newest.id} is unknown"
            raise TransitionError(f"{reason}: nothing new is sealed under it")
        if newest.wraps != wraps:
            raise TransitionError(f"{newest.path} is for {newest.wraps} sealing")
        return standing

    def _require_room(self, path: KeyPath) -> None:
        """Callers make keys by naming datasets: how many they may name is limited."""
        registry = self._projection.registry
        if registry.newest(path) is None and registry.count(path.tenant) >= MAX_PATHS:
            raise TransitionError(
                f"{path.tenant} has {MAX_PATHS} key paths: an operator has to create {path}"
            )

    def _require_wraps(self, path: KeyPath, wraps: Wraps) -> None:
        """The way of wrapping is fixed for a dataset, and immutable: the first key decides."""
        known = self._projection.registry.newest(path)
        above = path.ancestors[1:]
        if known is None and above:
            known = self._projection.registry.newest(above[-1])
        if known is not None and known.wraps != wraps:
            raise TransitionError(f"{known.path} is for {known.wraps} sealing")

    def _require_open_above(self, path: KeyPath) -> None:
        for above in path.ancestors:
            newest = self._projection.registry.newest(above)
            if newest is not None and newest.state not in UNWRAPS:
                raise TransitionError(f"{above} is {newest.state}: no key is made below it")

    def _above(self, path: KeyPath, wraps: Wraps) -> list[KeyVersion]:
        """The versions that have to be made above *path*: they hold no keys."""
        return [
            self._scope(
                above, wraps if above == path.ancestors[-1] and above.ancestors else "offline"
            )
            for above in path.ancestors
            if self._projection.registry.newest(above) is None
        ]

    def _scope(self, path: KeyPath, wraps: Wraps) -> KeyVersion:
        return KeyVersion(
            path=path.text,
            version=1,
            number=1,
            state=State.ACTIVE,
            wraps=wraps,
            custody=self._keeping.fresh,
        )
