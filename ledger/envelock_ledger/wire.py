"""Frames between the ledger's process and its clients.

A frame is a length (u32 big-endian, at most 16 MiB) and MessagePack: a list of requests, or a list
of answers. A request carries a number that its answer repeats, so many can be under way on one
connection and answers come in any order. Structs travel as arrays, the first item naming the kind.
"""

from collections.abc import Iterator, Sequence

import msgspec

from envelock_formats import canonical
from envelock_ledger.commitments import Opening
from envelock_ledger.entry import (
    Committed,
    Entry,
    Expired,
    Fenced,
    Once,
    Outcome,
    Repeated,
    Spent,
)
from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.merkle import HASH_SIZE
from envelock_ledger.proof import Consistency, Receipt
from envelock_ledger.record import read_value

MAX_FRAME = 16 << 20  # bytes
LENGTH_SIZE = 4

WireOpening = tuple[str, bytes, bytes]  # field, salt, canonical JSON of the value


class WireEntry(msgspec.Struct, frozen=True, array_like=True):
    """An `Entry`."""

    body: bytes
    openings: list[WireOpening]
    once: tuple[Once, ...]
    fences: dict[str, int]
    repeat: str | None
    seen: int | None


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Answered by `Outcomes`."""

    entries: list[WireEntry]


class Fences(msgspec.Struct, frozen=True, array_like=True, tag="fences"):
    """Answered by `Numbers`."""

    names: list[str]


class Find(msgspec.Struct, frozen=True, array_like=True, tag="find"):
    """Answered by `Receipts` with one or none."""

    record_id: str


class Prove(msgspec.Struct, frozen=True, array_like=True, tag="prove"):
    """Answered by `Receipts` with one."""

    index: int
    seen: int | None


class Topic(msgspec.Struct, frozen=True, array_like=True, tag="topic"):
    """Answered by `Receipts`."""

    name: str
    since: int


class Head(msgspec.Struct, frozen=True, array_like=True, tag="head"):
    """Answered by `Text`: the latest signed checkpoint."""


class Records(msgspec.Struct, frozen=True, array_like=True, tag="records"):
    """Answered by `Many`: the bytes of records `start <= index < stop`, one page at most."""

    start: int
    stop: int


class Copy(msgspec.Struct, frozen=True, array_like=True, tag="copy"):
    """Make a snapshot for this connection; answered by `Numbers` with its `size` in bytes."""


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag="chunk"):
    """Bytes of this connection's snapshot from an offset on; answered by `Raw`."""

    offset: int


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """Could a record be appended now? Answered by `Numbers` about the ledger, or by `Failed`."""


class Outcomes(msgspec.Struct, frozen=True, array_like=True, tag="outcomes"):
    """What became of the entries of one `Append`, and the checkpoint of their receipts."""

    note: str
    outcomes: list["WireOutcome"]


class Numbers(msgspec.Struct, frozen=True, array_like=True, tag="numbers"):
    """Names with numbers."""

    numbers: dict[str, int]


class Receipts(msgspec.Struct, frozen=True, array_like=True, tag="receipts"):
    """Receipts under one checkpoint."""

    note: str
    receipts: list["WireReceipt"]


class Text(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """One text."""

    text: str


class Raw(msgspec.Struct, frozen=True, array_like=True, tag="raw"):
    """Some bytes."""

    raw: bytes


class Many(msgspec.Struct, frozen=True, array_like=True, tag="many"):
    """Several byte strings."""

    items: list[bytes]


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The request failed: the `code` of the error, its message and its hint."""

    code: str
    message: str
    hint: str | None


class WireReceipt(msgspec.Struct, frozen=True, array_like=True, tag="receipt"):
    """A `Receipt` without its checkpoint; hashes are joined."""

    index: int
    record: bytes
    openings: list[WireOpening] | None  # None: those of the entry itself
    path: bytes
    earlier: int | None
    consistency: bytes


class WireRepeated(msgspec.Struct, frozen=True, array_like=True, tag="repeated"):
    """A `Repeated`."""

    receipt: WireReceipt


class WireSpent(msgspec.Struct, frozen=True, array_like=True, tag="spent"):
    """A `Spent`."""

    index: int


class WireFenced(msgspec.Struct, frozen=True, array_like=True, tag="fenced"):
    """A `Fenced`."""

    name: str


class WireExpired(msgspec.Struct, frozen=True, array_like=True, tag="expired"):
    """An `Expired`."""

    name: str


WireOutcome = WireReceipt | WireRepeated | WireSpent | WireFenced | WireExpired
Request = Append | Fences | Find | Prove | Topic | Head | Records | Copy | Chunk | Probe
Answer = Outcomes | Numbers | Receipts | Text | Raw | Many | Failed
Requests = list[tuple[int, Request]]
Answers = list[tuple[int, Answer]]


class Inbox:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, received: bytes) -> Iterator[memoryview]:
        """Add bytes and yield every frame that is complete; each is valid until the next.

        Raises:
            LedgerUnavailableError: A frame is longer than `MAX_FRAME`.
        """
        self._bytes += received
        start = 0
        while len(self._bytes) - start >= LENGTH_SIZE:
            length = int.from_bytes(self._bytes[start : start + LENGTH_SIZE], "big")
            if length > MAX_FRAME:
                raise LedgerUnavailableError(f"frame of {length} bytes")
            end = start + LENGTH_SIZE + length
            if len(self._bytes) < end:
                break
            with memoryview(self._bytes) as whole, whole[start + LENGTH_SIZE : end] as frame:
                yield frame
            start = end
        del self._bytes[:start]


def frame(messages: Sequence[tuple[int, Request]] | Sequence[tuple[int, Answer]]) -> bytes:
    """One frame of requests or of answers.

    Raises:
        LedgerUnavailableError: It would be longer than `MAX_FRAME`.
    """
    content = msgspec.msgpack.encode(messages)
    if len(content) > MAX_FRAME:
        raise LedgerUnavailableError(f"frame of {len(content)} bytes")
    return len(content).to_bytes(LENGTH_SIZE, "big") + content


def pack_entry(entry: Entry) -> WireEntry:
    """An entry, for the wire."""
    return WireEntry(
        entry.body,
        _pack_openings(entry.openings),
        entry.once,
        dict(entry.fences),
        entry.repeat,
        entry.seen,
    )


def unpack_entry(wire: WireEntry) -> Entry:
    """An entry, from the wire; `RecordError` when an opening is not canonical JSON."""
    return Entry(
        wire.body,
        _unpack_openings(wire.openings),
        wire.once,
        wire.fences,
        wire.repeat,
        wire.seen,
    )


def pack_outcomes(outcomes: Sequence[Outcome], *, openings: bool) -> Outcomes:
    """Outcomes of one call, for the wire; *openings* says whether first records are opened."""
    note = ""
    packed: list[WireOutcome] = []
    for outcome in outcomes:
        match outcome:
            case Committed(receipt):
                note = receipt.checkpoint
                packed.append(_pack(receipt, None))
            case Repeated(receipt):
                note = receipt.checkpoint
                packed.append(WireRepeated(pack_receipt(receipt, openings=openings)))
            case Spent(index):
                packed.append(WireSpent(index))
            case Fenced(name):
                packed.append(WireFenced(name))
            case Expired(name):
                packed.append(WireExpired(name))
    return Outcomes(note, packed)


def unpack_outcomes(wire: Outcomes, entries: Sequence[Entry]) -> list[Outcome]:
    """Outcomes of *entries*, from the wire."""
    pairs = zip(wire.outcomes, entries, strict=True)
    return [_unpack_outcome(outcome, entry, wire.note) for outcome, entry in pairs]


def _unpack_outcome(wire: WireOutcome, entry: Entry, note: str) -> Outcome:
    match wire:
        case WireReceipt():
            return Committed(_unpack(wire, entry.openings, note))
        case WireRepeated(receipt):
            return Repeated(unpack_receipt(receipt, note))
        case WireSpent(index):
            return Spent(index)
        case WireFenced(name):
            return Fenced(name)
        case WireExpired(name):
            return Expired(name)


def pack_receipt(receipt: Receipt, *, openings: bool) -> WireReceipt:
    """A receipt, for the wire; without *openings* nothing in it is opened."""
    opened = receipt.openings.items() if openings else ()
    return _pack(receipt, [(name, salt, canonical.encode(value)) for name, (salt, value) in opened])


def unpack_receipt(wire: WireReceipt, note: str) -> Receipt:
    """A receipt, from the wire."""
    return _unpack(wire, _unpack_openings(wire.openings or []), note)


def _pack(receipt: Receipt, openings: list[WireOpening] | None) -> WireReceipt:
    earlier = receipt.consistency
    return WireReceipt(
        receipt.index,
        receipt.record,
        openings,
        b"".join(receipt.path),
        None if earlier is None else earlier.size,
        b"" if earlier is None else b"".join(earlier.hashes),
    )


def _unpack(wire: WireReceipt, openings: Sequence[Opening], note: str) -> Receipt:
    consistency = None
    if wire.earlier is not None:
        consistency = Consistency(wire.earlier, _hashes(wire.consistency))
    return Receipt(
        index=wire.index,
        record=wire.record,
        openings={o.field: (o.salt, o.value) for o in openings},
        path=_hashes(wire.path),
        checkpoint=note,
        consistency=consistency,
    )


def _hashes(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + HASH_SIZE] for at in range(0, len(joined), HASH_SIZE))


def _pack_openings(openings: Sequence[Opening]) -> list[WireOpening]:
    return [(o.field, o.salt, o.encoded) for o in openings]


def _unpack_openings(openings: Sequence[WireOpening]) -> tuple[Opening, ...]:
    if not openings:
        return ()
    return tuple([Opening(name, salt, read_value(raw), raw) for name, salt, raw in openings])
