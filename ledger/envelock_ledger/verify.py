"""Verification of stored records, by their bytes.

Every record is hashed again, its index, chain, tenant chain and time are followed, and the tree is
built anew; what the other tables say is compared with what the records say. The first thing that
does not fit is named. A database's own integrity check notices few altered bytes; this all.

What no copy can show by itself: records after its end, and that others were given this same log.
"""

from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass, field

from envelock_ledger.errors import DamageError, RecordError
from envelock_ledger.merkle import EMPTY_ROOT, ZERO_HASH, Spine, leaf_hash
from envelock_ledger.note import VerifierKey
from envelock_ledger.record import GENESIS_TYPE, Envelope, parse, read_canonical
from envelock_ledger.store import Head, Row, Store, TenantHead

CHUNK = 4096  # records read at once
_FAR = 2**62


@dataclass(slots=True)
class Tally:
    """What the records examined so far add up to."""

    sizes: Collection[int] = ()  # at which the root is wanted
    spine: Spine = field(default_factory=Spine)
    previous: bytes = ZERO_HASH
    sequenced_us: int = 0
    tenants: dict[str, TenantHead] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    topics: list[tuple[str, int]] = field(default_factory=list)
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    _hiding: bytearray = field(default_factory=bytearray)  # one bit a record

    @property
    def size(self) -> int:
        """Records examined."""
        return self.spine.size

    @property
    def root(self) -> bytes:
        """Root over them."""
        return self.spine.root

    def hides(self, index: int) -> bool:
        """Whether the record at *index* was examined and has commitments."""
        return 0 <= index < self.size and bool(self._hiding[index >> 3] >> (index & 7) & 1)

    @property
    def hiding(self) -> int:
        """How many of them have commitments."""
        return int.from_bytes(self._hiding, "big").bit_count()

    def add(self, row: Row) -> None:
        """Examine the next record.

        Raises:
            DamageError: It does not fit; index and column are in the error.
        """
        index = self.spine.size
        number, leaf, record_id, body = row
        if number != index:
            raise _bad(index, "idx", "is missing")
        if type(body) is not bytes:  # a damaged file may say so
            raise _bad(index, "body", "is not bytes")
        if leaf_hash(body) != leaf:
            raise _bad(index, "body", "does not match its leaf")
        try:
            envelope = read_canonical(body)
        except RecordError as error:
            raise _bad(index, "body", str(error)) from error
        if record_id != envelope.id:
            raise _bad(index, "rid", "is not the id in the record")
        self._follow(index, envelope)
        self.tenants[envelope.tenant] = TenantHead(leaf, envelope.tenant_position + 1)
        if not index & 7:
            self._hiding.append(0)
        self._hiding[index >> 3] |= bool(envelope.commitments) << (index & 7)
        self.previous, self.sequenced_us = leaf, envelope.sequenced_us
        self.spine.append(leaf)
        if self.spine.size in self.sizes:
            self.roots[self.spine.size] = self.spine.root

    def _follow(self, index: int, envelope: Envelope) -> None:
        """Check the serial fields, and apply what the record moves."""
        tenant = self.tenants.get(envelope.tenant, TenantHead())
        if envelope.index != index:
            raise _bad(index, "body", f"says that it is record {envelope.index}")
        if envelope.previous != self.previous.hex():
            raise _bad(index, "body", "does not follow the record before it")
        chain = (envelope.tenant_previous, envelope.tenant_position)
        if chain != (tenant.leaf.hex(), tenant.position):
            raise _bad(index, "body", f"breaks the chain of tenant {envelope.tenant}")
        if envelope.sequenced_us < self.sequenced_us:
            raise _bad(index, "body", "was sequenced before the record in front of it")
        if envelope.repeats is not None and envelope.repeats >= index:
            raise _bad(index, "body", "repeats a later record")
        for name, number in envelope.moves.items():
            if self.fences.get(name, 0) != number - 1:
                raise _bad(index, "body", f"moves fence {name} to {number} out of turn")
            self.fences[name] = number
        if envelope.topic is not None:
            self.topics.append((envelope.topic, index))


def examine(store: Store, size: int, sizes: Collection[int] = ()) -> Tally:
    """Examine the first *size* records of *store*, and every table beside them.

    Args:
        store: An open store; nothing is written.
        size: How many records there must be.
        sizes: Tree sizes whose roots the result shall hold.

    Raises:
        DamageError: Something does not fit; the first bad record and column are named.
    """
    tally = Tally(sizes)
    rows = _read(store, size)
    for row in rows:
        try:
            tally.add(row)
        except DamageError as error:
            following = next(rows, None)
            rows.close()  # the error holds this frame, and may outlive the attempt to start
            raise _blame(error, row, following) from error
        if tally.spine.strata:
            _compare_strata(store, tally)
    if tally.size != size:
        raise _bad(tally.size, "idx", "is missing")
    for start, stop in ((-_FAR, 0), (size, _FAR)):
        if (stray := next(store.rows(start, stop), None)) is not None:
            raise _bad(stray.number, "idx", "is beyond the ends of the log")
    return tally


def compare_tables(store: Store, head: Head, tally: Tally) -> None:
    """Raise `DamageError` unless the tables of *store* say what its records say."""
    if (head.size, head.root) != (tally.size, tally.root):
        raise DamageError("table state: size and root are not those of the records")
    if not 0 <= head.prior <= head.size or head.sequenced_us < tally.sequenced_us:
        raise DamageError("table state: ends before its records")
    _compare("tenant", store.tenants(), tally.tenants)
    _compare("fence", store.fences(), tally.fences)
    topics = list(store.topics())
    if len(topics) != len(tally.topics) or set(topics) != set(tally.topics):
        raise DamageError("table topic: not what the records say")
    if sum(1 for _ in store.strata()) != sum(tally.size >> level for level in range(8, 64, 8)):
        raise DamageError("table stratum: has another number of nodes than the tree")
    store.check()


def check_genesis(store: Store, key: VerifierKey) -> None:
    """Raise `DamageError` unless record 0 names the log and the key of *key*."""
    first = next(store.rows(0, 1), None)
    if first is None:
        raise _bad(0, "idx", "is missing")
    fields = parse(first.body).fields
    named = (fields["typ"], fields.get("origin"), fields.get("ledger_key"))
    if named != (GENESIS_TYPE, key.name, str(key)):
        raise DamageError(
            f"record 0 is not the genesis of {key}",
            "give the key of this log, or take the copy of the other",
            index=0,
            column="body",
        )


def _read(store: Store, size: int) -> Generator[Row]:
    for start in range(0, size, CHUNK):
        yield from store.rows(start, min(start + CHUNK, size))


def _compare_strata(store: Store, tally: Tally) -> None:
    for level, number, node in tally.spine.strata:
        if store.hashes(level, number, number + 1) != [node]:
            raise DamageError(f"table stratum, level {level}, number {number}: not the node")
    tally.spine.strata.clear()


def _compare(table: str, stored: dict[str, TenantHead] | dict[str, int], told: object) -> None:
    if stored == told or not isinstance(told, dict):
        return
    names: Iterable[str] = stored.keys() | told.keys()
    differing = (name for name in names if stored.get(name) != told.get(name))
    first = min(differing, key=repr)  # damage may have changed the type of a name
    raise DamageError(f"table {table}, {first!r}: not what the records say")


def _blame(error: DamageError, row: Row, following: Row | None) -> DamageError:
    """When body and leaf differ, the next record tells which of the two was altered."""
    if error.column != "body" or following is None or type(row.body) is not bytes:
        return error
    if leaf_hash(row.body) == row.leaf or type(following.body) is not bytes:
        return error
    if f'"_p":"{leaf_hash(row.body).hex()}"'.encode() not in following.body:
        return error
    return _bad(row.number, "leaf", "does not match its body")


def _bad(index: int, column: str, what: str) -> DamageError:
    verified = f"; 0-{index - 1} verify" if index > 1 else ""
    return DamageError(
        f"record {index}, column {column}: {what}{verified}", index=index, column=column
    )
