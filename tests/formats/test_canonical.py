"""Strict JSON in, canonical JSON out."""

import json
import time

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.canonical import MAX_INTEGER, CanonicalError, decode, encode, parse

INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER)
SCALARS = st.none() | st.booleans() | INTEGERS | st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20
)


@given(VALUES)
def test_reads_back_what_it_wrote(value):
    """Encoding then parsing is the identity."""
    assert parse(encode(value), max_depth=64) == value


@given(VALUES)
def test_writes_what_the_reference_writes(value):
    """Our RFC 8785 equals an independent implementation over the subset we write."""
    assert encode(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("name", ["arrays", "french", "unicode", "weird"])
def test_writes_the_vectors(vectors, name):
    """The published RFC 8785 pairs come out to the byte."""
    value = json.loads((vectors / "jcs" / "input" / f"{name}.json").read_bytes())

    assert encode(value) == (vectors / "jcs" / "output" / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", ["structures", "values"])
def test_refuses_the_vectors_with_fractions(vectors, name):
    """Fractions lie outside the subset and are refused, never rounded."""
    value = json.loads((vectors / "jcs" / "input" / f"{name}.json").read_bytes())

    with pytest.raises(CanonicalError):
        encode(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"o":{"a":1,"\\u0061":2}}',
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5000,
        b'\xef\xbb\xbf{"a":1}',
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b"{} {}",
        b"",
        b"[1,]",
        b"{'a':1}",
        b'"\n"',
        b"[" * 17 + b"]" * 17,
        b"[" * 100_000,
    ],
)
def test_refuses_what_two_parsers_could_read_differently(text):
    """Duplicates, surrogates, constants, wide integers, depth and bad UTF-8 are errors."""
    with pytest.raises(CanonicalError):
        parse(text)


def test_refuses_a_text_that_is_too_long():
    """The size is checked before anything is parsed."""
    with pytest.raises(CanonicalError, match="JSON of 11 bytes"):
        parse(b'"aaaaaaaaa"', max_bytes=10)


def test_counts_only_brackets_outside_of_strings():
    """Brackets in text are text, behind escaped quotes too."""
    value = ["[" * 50, '"{' * 50, "\\", [[[{}]]]]

    assert parse(json.dumps(value).encode(), max_depth=5) == value


@pytest.mark.parametrize("filler", [b'\\"', b'"\n"', b"\\", b'"', b'"\\'])
def test_counts_depth_in_linear_time(filler):
    """A megabyte of quotes that never close is refused at once."""
    text = b"[" * 16 + b"{" + b'"' + filler * (900_000 // len(filler))
    start = time.perf_counter()

    with pytest.raises(CanonicalError):
        parse(text)
    assert time.perf_counter() - start < 2


def test_names_the_member_that_does_not_fit():
    """A shape mismatch names its path."""
    with pytest.raises(CanonicalError, match=r"\$\[1\]"):
        decode(b'[1,"2"]', list[int])


@pytest.mark.parametrize("value", [1.0, 2**53, -(2**53), "\ud800", {"\ud800": 1}, object(), b""])
def test_writes_nothing_that_has_no_canonical_form(value):
    """Fractions, wide integers, surrogates and foreign types are refused."""
    with pytest.raises(CanonicalError):
        encode(value)
