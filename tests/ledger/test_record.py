"""The envelope of a record: one spelling, and no field that could be taken for another."""

import os

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from envelock_ledger.commitments import check, commit
from envelock_ledger.errors import ProofError, RecordError
from envelock_ledger.merkle import ZERO_HASH
from envelock_ledger.record import (
    MAX_RECORD,
    MAX_SERIAL,
    encode_body,
    genesis,
    parse,
    read_body,
    seal_openings,
    splice,
    unseal_openings,
)

FIELDS = {"id": "r-1", "tn": "acme", "ts": 1, "typ": "release", "v": 1}
PLAIN = b'{"id":"r-1","tn":"acme","ts":1,"typ":"release","v":1}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def salt() -> bytes:
    """16 random bytes."""
    return os.urandom(16)


def spliced(raw: bytes, repeats: int | None = None) -> bytes:
    """A body as the record at index 7."""
    return splice(
        raw,
        index=7,
        previous=bytes([1] * 32),
        sequenced_us=9,
        tenant_previous=bytes([2] * 32),
        tenant_position=3,
        repeats=repeats,
    )


@given(
    extra=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{2,8}", fullmatch=True), JSON, max_size=4)
)
def test_a_record_is_canonical_with_its_serial_fields(extra):
    """The serial fields are spliced in front, and the whole is RFC 8785."""
    names = {"topic", "moves"}
    raw, _ = encode_body({**{k: v for k, v in extra.items() if k not in names}, **FIELDS}, {}, salt)

    record = parse(spliced(raw, repeats=2))

    assert record.raw == rfc8785.dumps(record.fields)
    assert (record.envelope.index, record.envelope.repeats) == (7, 2)
    assert record.envelope.previous == bytes([1] * 32).hex()
    assert (record.envelope.tenant_position, record.envelope.sequenced_us) == (3, 9)


def test_personal_fields_enter_as_commitments():
    """The record holds commitments; the openings open them and nothing else."""
    raw, openings = encode_body(FIELDS, {"sub": "ann", "ip": "192.0.2.7"}, salt)
    read = read_body(raw)

    sealed = seal_openings(read, openings)

    assert unseal_openings(sealed or b"") == openings
    assert b"ann" not in raw
    assert {o.field for o in openings} == set(read.commitments) == {"sub", "ip"}


def test_equal_people_are_not_linked():
    """Fresh salt: one person gives another commitment in every record."""
    first, second = (encode_body(FIELDS, {"sub": "ann"}, salt)[0] for _ in range(2))

    assert read_body(first).commitments != read_body(second).commitments


def test_a_commitment_binds_field_salt_and_value():
    """A commitment opens under its own field, salt and value alone."""
    commitment = commit("sub", "ann", bytes(16))

    check("sub", "ann", bytes(16), commitment)
    for field, value, other in [
        ("ip", "ann", bytes(16)),
        ("sub", "bob", bytes(16)),
        ("sub", "ann", bytes([1] * 16)),
    ]:
        with pytest.raises(ProofError):
            check(field, value, other, commitment)
    with pytest.raises(ProofError):
        commit("sub", "ann", bytes(15))


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN.replace(b":1,", b": 1,"),
        PLAIN.replace(b'"ts":1', b'"ts":1.0'),
        PLAIN.replace(b'"ts":1', b'"ts":1e0'),
        PLAIN.replace(b'"ts":1', b'"ts":-0'),
        PLAIN.replace(b'"ts":1', b'"ts":9007199254740992'),
        PLAIN.replace(b'"ts":1', b'"ts":1,"ts":1'),
        PLAIN.replace(b"acme", b"\\u0061cme"),
        PLAIN.replace(b"acme", b"\\/"),
        PLAIN.replace(b"acme", b"\xff"),
        PLAIN.replace(b"acme", b"\xed\xa0\x80"),
        b" " + PLAIN,
        PLAIN + b"\n",
        b"\xef\xbb\xbf" + PLAIN,
        b'{"typ":"release","id":"r-1","tn":"acme","ts":1,"v":1}',
        b"",
        b"{}",
        b"[]",
        b'{"a":' * 20 + b"1" + b"}" * 20,
    ],
)
def test_refuses_every_other_spelling(raw):
    """Spaces, order, escapes, fractions, twins, depth: a record has one spelling."""
    with pytest.raises(RecordError):
        read_body(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": ""},
        {"id": "a\n"},
        {"id": "a\x7f"},
        {"tn": "a\x00"},
        {"topic": "a\x1b"},
        {"moves": {"a\n": 1}},
        {"id": 1},
        {"tn": None},
        {"tn": ""},
        {"ts": True},
        {"ts": -1},
        {"ts": "1"},
        {"typ": "Release"},
        {"typ": ""},
        {"v": 2},
        {"v": None},
        {"topic": ""},
        {"topic": 3},
        {"moves": {"f": 0}},
        {"moves": {"f": "1"}},
        {"moves": {"": 1}},
        {"moves": []},
        {"_i": 4},
        {"_z": 4},
        {"Id": 4},
        {"": 4},
    ],
)
def test_refuses_a_malformed_field(change):
    """Each field of the envelope has its shape, and no name can pass for a serial one."""
    fields = {name: value for name, value in {**FIELDS, **change}.items() if value is not None}

    with pytest.raises(RecordError):
        encode_body(fields, {}, salt)


def test_refuses_a_body_that_would_not_fit():
    """A record, serial fields included, fits an entry of tlog-tiles."""
    room = MAX_RECORD - MAX_SERIAL - len(PLAIN) - len(b'"pad":"",')

    raw, _ = encode_body({**FIELDS, "pad": "x" * room}, {}, salt)
    assert len(spliced(raw, repeats=2**53 - 1)) <= MAX_RECORD
    with pytest.raises(RecordError):
        encode_body({**FIELDS, "pad": "x" * (room + 1)}, {}, salt)


def test_commitments_cannot_be_given():
    """`c` is made from personal fields and from nothing else."""
    with pytest.raises(RecordError):
        encode_body({**FIELDS, "c": {}}, {}, salt)


@pytest.mark.parametrize("personal", [{"sub": 1.5}, {"sub": "\ud800"}])
def test_refuses_a_value_without_canonical_json(personal):
    """Fractions and lone surrogates cannot be committed to."""
    with pytest.raises(RecordError):
        encode_body(FIELDS, personal, salt)


def test_refuses_openings_that_do_not_open():
    """Every commitment needs its own opening, and it has to match."""
    raw, openings = encode_body(FIELDS, {"sub": "ann"}, salt)
    _, others = encode_body(FIELDS, {"sub": "bob"}, salt)
    _, strangers = encode_body(FIELDS, {"ip": "ann"}, salt)

    for wrong in [(), others, strangers, openings + others]:
        with pytest.raises(RecordError):
            seal_openings(read_body(raw), wrong)


@pytest.mark.parametrize("sealed", [b"", b"\x90\x90", b"\x91\x93\xa1f\xc4\x00\xc4\x01{"])
def test_refuses_openings_that_cannot_be_read(sealed):
    """Stored openings that were altered are refused, not guessed at."""
    with pytest.raises(RecordError):
        unseal_openings(sealed)


def test_names_beyond_the_basic_plane_sort_by_utf16():
    """Where UTF-8 and UTF-16 order differ, only the order of RFC 8785 is accepted."""
    raw, _ = encode_body({**FIELDS, "moves": {"\U0001f600": 1, "\uff61": 1}}, {}, salt)
    [first, second] = ["\U0001f600".encode(), "\uff61".encode()]
    swapped = raw.replace(first, b"?").replace(second, first).replace(b"?", second)

    assert raw.index(first) < raw.index(second)
    with pytest.raises(RecordError):
        read_body(swapped)


def test_genesis_is_a_record_of_no_tenant():
    """Record 0 names origin, key and schema, and follows nothing."""
    record = parse(genesis("log", "log+00000000+AA==", 5))

    assert record.envelope.tenant == "-"
    assert record.envelope.previous == record.envelope.tenant_previous == ZERO_HASH.hex()
    assert record.fields["origin"] == "log"
    assert record.fields["ledger_key"] == "log+00000000+AA=="
    assert record.fields["schema"] == 1
