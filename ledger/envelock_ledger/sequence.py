"""The serial section: which entries become records, in which order, under which conditions.

`entry` states the rules. Entries of one batch see each other: a name spent or a fence moved by one
holds for the next. Nothing here does I/O; what it decides becomes true when the batch is durable,
and after any failure the whole state is thrown away and read again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from envelock_ledger.entry import Entry, Expired, Fenced, Once, Spent
from envelock_ledger.errors import RecordError
from envelock_ledger.merkle import ZERO_HASH, Growth, leaf_hash
from envelock_ledger.record import (
    OWN_TYPES,
    Body,
    read_body,
    require_type,
    seal_openings,
    splice,
    with_type,
)
from envelock_ledger.spent import SpentNames, is_expired
from envelock_ledger.store import Batch, Head, Row, SpentRow, TenantHead
from envelock_ledger.store.disclosure import Disclosed

MAX_NAMES = 1000  # once-names and fences of one entry
GROWTH_KEPT = 8192  # leaves whose nodes stay in memory

Refused = Spent | Fenced | Expired


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry that is well-formed; whether it is accepted is decided in its turn."""

    entry: Entry
    body: Body
    disclosed: bytes | None = field(repr=False)  # openings of the body, as they are stored


@dataclass(frozen=True, slots=True)
class Sequenced:
    """The entry's record is at *index*."""

    index: int


@dataclass(frozen=True, slots=True)
class RepeatOf:
    """The entry repeats the record at *index*."""

    index: int


Verdict = Sequenced | RepeatOf | Refused


def prepare(entry: Entry) -> Prepared:
    """Check an entry by itself, before it waits for its turn.

    Raises:
        RecordError: The body is malformed or of a type that the ledger writes itself, an opening
            does not match, a repeat would move fences, or there are too many names.
    """
    body = read_body(entry.body)
    for kind in (body.type, entry.repeat or ""):
        if kind.startswith(OWN_TYPES):
            raise RecordError(f"record {body.id}: type {kind} is written by the ledger alone")
    if entry.repeat is not None:
        if body.moves:
            raise RecordError(f"record {body.id}: a repeat moves nothing")
        require_type(entry.repeat, entry.body)
    disclosed = seal_openings(body, entry.openings)
    if len(entry.once) + len(entry.fences) > MAX_NAMES:
        raise RecordError(f"record {body.id}: more than {MAX_NAMES} names")
    if entry.once and len({once.name for once in entry.once}) != len(entry.once):
        raise RecordError(f"record {body.id}: a name is to be spent twice")
    return Prepared(entry, body, disclosed)


@dataclass(slots=True)
class Pending:
    """What one batch will write, while it is put together."""

    prior: int
    rows: list[Row] = field(default_factory=list)
    disclosed: list[Disclosed] = field(default_factory=list)
    tenants: dict[str, TenantHead] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    topics: list[tuple[str, int]] = field(default_factory=list)
    spent: list[SpentRow] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Sequencer:
    """The state that decides; owned by the writer's thread."""

    growth: Growth
    sequenced_us: int
    previous: bytes
    tenants: dict[str, TenantHead]
    fences: dict[str, int]
    spent: SpentNames
    find: Callable[[Sequence[str]], dict[str, int]]  # indexes of ids that are stored
    _pending: Pending = field(init=False)

    def __post_init__(self) -> None:
        self._pending = Pending(self.growth.size)

    def sequence(self, entries: Sequence[Prepared], now_us: int) -> list[Verdict]:
        """Decide on *entries* in order; `take` then returns what to write.

        Args:
            entries: Whatever waited.
            now_us: The clock, microseconds since 1970; time never runs backwards in the log.
        """
        self.sequenced_us = max(now_us, self.sequenced_us)
        self._pending = Pending(self.growth.size)
        self._pending.ids.update(self.find([entry.body.id for entry in entries]))
        return [self._decide(entry) for entry in entries]

    def take(self) -> tuple[Batch, list[Disclosed]] | None:
        """What the last `sequence` wants written, and the openings that must be durable before.

        None when every entry was refused. A repeat without a record of its own still spends names.
        """
        pending, growth = self._pending, self.growth
        if not pending.rows and not pending.spent:
            return None
        root = growth.frontier().root
        batch = Batch(
            rows=pending.rows,
            head=Head(growth.size, pending.prior, root, self.sequenced_us),
            strata=growth.strata,
            tenants=pending.tenants,
            fences=pending.fences,
            topics=pending.topics,
            spent=pending.spent,
            forgotten=self.spent.forget(self.sequenced_us),
        )
        return batch, pending.disclosed

    def shed(self) -> None:
        """Let go of nodes that only old records need, once there are many."""
        self.growth.strata = []
        if len(self.growth.levels[0]) > GROWTH_KEPT:
            self.growth = Growth.of(self.growth.frontier())

    def _decide(self, prepared: Prepared) -> Verdict:
        refused, first = self._judge(prepared)
        if refused is not None:
            return refused
        if first is None:
            index = self._append(prepared.entry.body, prepared.body, prepared.disclosed)
            self._spend(prepared.entry.once, index, index)
            return Sequenced(index)
        return self._repeat(prepared, first)

    def _judge(self, prepared: Prepared) -> tuple[Refused | None, int | None]:
        """Apply the rules; the second value is the record that the entry repeats."""
        entry = prepared.entry
        if (fence := self._fenced(entry, prepared.body)) is not None:
            return Fenced(fence), None
        for once in entry.once:
            if is_expired(once.expires, self.sequenced_us):
                return Expired(once.name), None
        if prepared.body.id in self._pending.ids:
            return Spent(self._pending.ids[prepared.body.id]), None
        first: int | None = None
        for once in entry.once:
            used = self.spent.get(once.name)
            if used is None:
                continue
            digest, number = used
            if once.digest is None or once.digest != digest:
                return Spent(number), None
            first = number if first is None else min(first, number)
        return None, first

    def _fenced(self, entry: Entry, body: Body) -> str | None:
        fences = self.fences
        for name, expected in entry.fences.items():
            if fences.get(name, 0) != expected:
                return name
        for name, number in body.moves.items():
            if fences.get(name, 0) != number - 1:
                return name
        return None

    def _repeat(self, prepared: Prepared, first: int) -> RepeatOf:
        entry, index = prepared.entry, first
        if entry.repeat is not None:
            again = with_type(entry.body, entry.repeat)
            index = self._append(again, prepared.body, prepared.disclosed, repeats=first)
        self._spend(entry.once, first, index)
        return RepeatOf(first)

    def _append(
        self, raw: bytes, body: Body, disclosed: bytes | None, repeats: int | None = None
    ) -> int:
        pending, index = self._pending, self.growth.size
        tenant = self.tenants.get(body.tenant, _NEW_TENANT)
        record = splice(
            raw,
            index=index,
            previous=self.previous,
            sequenced_us=self.sequenced_us,
            tenant_previous=tenant.leaf,
            tenant_position=tenant.position,
            repeats=repeats,
        )
        leaf = leaf_hash(record)
        self.growth.append(leaf)
        self.previous = leaf
        head = TenantHead(leaf, tenant.position + 1)
        self.tenants[body.tenant] = pending.tenants[body.tenant] = head
        pending.rows.append(Row(index, leaf, body.id, record))
        pending.ids[body.id] = index
        if disclosed is not None:
            pending.disclosed.append((index, disclosed))
        for name, number in body.moves.items():
            self.fences[name] = pending.fences[name] = number
        if body.topic is not None:
            pending.topics.append((body.topic, index))
        return index

    def _spend(self, names: tuple[Once, ...], first: int, index: int) -> None:
        row = self.spent.spend(names, first, index)
        if row is not None:
            self._pending.spent.append(row)


_NEW_TENANT = TenantHead(ZERO_HASH, 0)
