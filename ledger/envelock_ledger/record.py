"""The envelope of a record: one canonical JSON object of at most 65,535 bytes.

The writer puts serial fields in front of a body that the caller encoded:

======  =============================================================================
`_i`    index in the log, from 0
`_of`   only in a repeat: index of the record that it repeats
`_p`    leaf hash of the previous record, hex; 64 zeros at index 0
`_t`    sequencing time, microseconds since 1970; never decreasing
`_tp`   leaf hash of the tenant's previous record, hex; 64 zeros for its first
`_tq`   position in the tenant's chain, from 0
======  =============================================================================

The body has at least `id` (unique), `tn` (tenant), `ts` (the caller's time, microseconds), `typ`
and `v` (1), and may have `topic`, `moves` (fence name to new number) and `c` (field to commitment,
hex). Its names begin with a lower-case letter, so the serial fields sort first and the whole stays
canonical when they are spliced in. A record has one spelling.

Not checked here: what a type means. Readers accept types they do not know.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, NoReturn, TypeVar

import msgspec
import orjson

from envelock_formats import canonical
from envelock_formats.canonical import CanonicalError, Json
from envelock_ledger.commitments import Opening, commit_encoded
from envelock_ledger.errors import ProofError, RecordError
from envelock_ledger.merkle import ZERO_HASH

MAX_RECORD = 65_535  # bytes: what an entry bundle of tlog-tiles can hold
MAX_SERIAL = 320  # bytes that the serial fields take at most
VERSION = 1
NO_TENANT = "-"  # the deployment itself; no key path can have it as its tenant
GENESIS_TYPE = "ledger.genesis"
OWN_TYPES = "ledger."  # written by the writer alone

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=canonical.MAX_INTEGER)]
_Moved = Annotated[int, msgspec.Meta(ge=1, le=canonical.MAX_INTEGER)]
_TYPE = re.compile(r"[a-z][a-z0-9.-]{0,63}\Z")
_Kind = Annotated[str, msgspec.Meta(max_length=64, pattern=rf"^{_TYPE.pattern}")]


class Body(msgspec.Struct, frozen=True, gc=False):
    """What the ledger itself reads of a caller's body; everything else is opaque to it."""

    id: _Text
    tenant: _Text = msgspec.field(name="tn")
    time_us: _Number = msgspec.field(name="ts")
    type: _Kind = msgspec.field(name="typ")
    version: _Moved = msgspec.field(name="v")
    topic: _Text | None = None
    moves: dict[_Text, _Moved] = {}
    commitments: dict[_Text, str] = msgspec.field(name="c", default={})


class Envelope(Body, frozen=True, kw_only=True, gc=False):
    """The serial fields of a stored record, beside what the ledger reads of its body."""

    index: _Number = msgspec.field(name="_i")
    previous: str = msgspec.field(name="_p")
    sequenced_us: _Number = msgspec.field(name="_t")
    tenant_previous: str = msgspec.field(name="_tp")
    tenant_position: _Number = msgspec.field(name="_tq")
    repeats: _Number | None = msgspec.field(name="_of", default=None)


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record, parsed: its envelope, and every field under its own name."""

    raw: bytes
    envelope: Envelope
    fields: dict[str, Json]


def encode_body(
    fields: Mapping[str, Json], personal: Mapping[str, Json], salts: Callable[[], bytes]
) -> tuple[bytes, tuple[Opening, ...]]:
    """Encode a body, its *personal* fields as commitments under `c`.

    Args:
        fields: Everything that may stand in the record for ever, by name.
        personal: Fields of people: they enter the record as commitments only.
        salts: Returns 16 fresh random bytes at each call.

    Returns:
        The canonical body, and the openings of its commitments.

    Raises:
        RecordError: The fields do not make a body, or `c` is among them.
    """
    if "c" in fields:
        raise RecordError("field 'c' holds the commitments and cannot be given")
    try:
        openings = tuple(Opening.of(name, salts(), value) for name, value in personal.items())
        hidden: dict[str, Json] = {
            o.field: commit_encoded(o.field, o.encoded, o.salt) for o in openings
        }
        body = canonical.encode({**fields, "c": hidden} if hidden else dict(fields))
    except CanonicalError as error:
        raise RecordError(f"record body: {error}") from error
    read_body(body)
    return body, openings


def read_body(body: bytes) -> Body:
    """Check that *body* may become a record, and read what the ledger needs of it.

    Raises:
        RecordError: Not canonical, too long, a required field is missing or of another shape, a
            name at the top begins with anything but a lower-case letter, or an unknown version.
    """
    if len(body) > MAX_RECORD - MAX_SERIAL:
        raise RecordError(f"record body of {len(body)} bytes")
    if not _BODY.match(body):  # canonical, so every later name sorts after the first
        raise RecordError("record body: names begin with a lower-case letter")
    read_value(body)  # canonical: it has one reading
    read = _decoded(body)
    if b"\\" in body or b"\x7f" in body:  # only then can there be a control character
        _refuse_controls(read)
    if read.version != VERSION:
        raise RecordError(f"record version {read.version}, expected {VERSION}")
    return read


def require_type(kind: str, body: bytes) -> None:
    """Raise `RecordError` unless *body* may become a record of the type *kind*."""
    if not _TYPE.match(kind) or len(body) + len(kind) > MAX_RECORD - MAX_SERIAL:
        raise RecordError(f"a record cannot get the type {kind[:64]!r}")


def with_type(body: bytes, kind: str) -> bytes:
    """The same body under another type, which `require_type` accepted."""
    match read_value(body):
        case dict() as fields:
            return canonical.encode({**fields, "typ": kind})
    raise RecordError("record body is not a JSON object")


def seal_openings(body: Body, openings: tuple[Opening, ...]) -> bytes | None:
    """Check that *openings* open every commitment of *body* and nothing else; encode them.

    Returns:
        MessagePack `[[field, salt, canonical JSON of the value], ...]`; None when there are none.

    Raises:
        RecordError: One does not match, is missing, or is too much.
    """
    commitments = body.commitments
    if len(openings) != len(commitments):
        raise RecordError(f"record {body.id}: every commitment needs one opening")
    if not openings:
        return None
    try:
        told = {o.field: commit_encoded(o.field, o.encoded, o.salt) for o in openings}
    except ProofError as error:
        raise RecordError(f"record {body.id}: malformed opening") from error
    if told != commitments:
        raise RecordError(f"record {body.id}: an opening does not match")
    return msgspec.msgpack.encode([(o.field, o.salt, o.encoded) for o in openings])


def unseal_openings(sealed: bytes) -> tuple[Opening, ...]:
    """Read what `seal_openings` encoded; `RecordError` when it cannot be read."""
    try:
        found = _SEALED.decode(sealed)
        return tuple([Opening(name, salt, read_value(raw), raw) for name, salt, raw in found])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"openings: {error}") from error


def splice(
    body: bytes,
    *,
    index: int,
    previous: bytes,
    sequenced_us: int,
    tenant_previous: bytes,
    tenant_position: int,
    repeats: int | None = None,
) -> bytes:
    """Put the serial fields in front of a body that `read_body` accepted."""
    of = b"" if repeats is None else b'"_of":%d,' % repeats
    return b'{"_i":%d,%b"_p":"%b","_t":%d,"_tp":"%b","_tq":%d,%b' % (
        index,
        of,
        previous.hex().encode(),
        sequenced_us,
        tenant_previous.hex().encode(),
        tenant_position,
        body[1:],
    )


def read_canonical(raw: bytes) -> Envelope:
    """Read what the ledger needs of a stored record, strictly.

    Raises:
        RecordError: Not canonical, too long, or a field of the envelope is missing or malformed.
    """
    if len(raw) > MAX_RECORD:
        raise RecordError(f"record of {len(raw)} bytes")
    return _shaped(read_value(raw), Envelope)


def parse(raw: bytes) -> Record:
    """Read a whole stored record, strictly.

    Raises:
        RecordError: Not canonical, too long, or a field of the envelope is missing or malformed.
    """
    if len(raw) > MAX_RECORD:
        raise RecordError(f"record of {len(raw)} bytes")
    match read_value(raw):
        case dict() as fields:
            return Record(raw, _shaped(fields, Envelope), fields)
    raise RecordError("record is not a JSON object")


def genesis(origin: str, verifier_key: str, time_us: int) -> bytes:
    """Return the whole record at index 0: it names the log, its key and the schema."""
    body = canonical.encode(
        {
            "id": "genesis",
            "ledger_key": verifier_key,
            "origin": origin,
            "schema": VERSION,
            "tn": NO_TENANT,
            "ts": time_us,
            "typ": GENESIS_TYPE,
            "v": VERSION,
        }
    )
    return splice(
        body,
        index=0,
        previous=ZERO_HASH,
        sequenced_us=time_us,
        tenant_previous=ZERO_HASH,
        tenant_position=0,
    )


def read_value(raw: bytes) -> Json:
    """Read any canonical JSON, quickly where bytes alone can tell that it has one reading.

    Raises:
        RecordError: It is not canonical.
    """
    try:
        # ASCII sorts alike in UTF-8 and UTF-16, so orjson's order is that of RFC 8785; and names
        # that occur twice, or in another order, do not come out as they went in.
        if raw.isascii():
            value: Json = _VALUES.decode(raw)
            if raw.count(b"{") + raw.count(b"[") > canonical.MAX_DEPTH:
                canonical.refuse_depth(value, canonical.MAX_DEPTH)
            again = orjson.dumps(value, option=_CANONICAL)
        else:
            value = canonical.parse(raw, max_bytes=MAX_RECORD)
            again = canonical.encode(value)
    except (CanonicalError, ValueError, TypeError, RecursionError) as error:
        raise RecordError("record is not canonical JSON") from error
    if again != raw:
        raise RecordError("record is not canonical JSON")
    return value


def _refuse_controls(body: Body) -> None:
    texts = [body.id, body.tenant, body.topic or "", *body.moves, *body.commitments]
    if any(map(_CONTROL.search, texts)):
        raise RecordError("record: a name holds control characters")


def _refuse_fraction(_: str) -> NoReturn:
    raise ValueError("a fraction has no canonical JSON here")


def _shaped(value: Json, shape: "type[_Shape]") -> "_Shape":
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        raise RecordError(f"record: {error}") from error


def _decoded(body: bytes) -> Body:
    try:
        return _BODIES.decode(body)
    except msgspec.DecodeError as error:
        raise RecordError(f"record: {error}") from error


_Shape = TypeVar("_Shape")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BODY = re.compile(rb'\{"[a-z]')
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_VALUES = msgspec.json.Decoder(float_hook=_refuse_fraction)
_BODIES = msgspec.json.Decoder(Body)
_SEALED = msgspec.msgpack.Decoder(list[tuple[str, bytes, bytes]])
