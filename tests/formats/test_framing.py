"""Labels, length prefixes and the spellings of base64."""

import base64
import hashlib
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, b64url, count, digest, framed, from_b64, from_b64url

FIELDS = st.lists(st.binary(max_size=8), max_size=5)


@given(FIELDS, FIELDS)
def test_different_fields_give_different_bytes(one, other):
    """Framing is injective: no two lists of fields share their bytes."""
    assume(one != other)

    assert framed("label", *one) != framed("label", *other)


def test_frames_as_specified():
    """The label in ASCII, then each field behind its u32 big-endian length."""
    assert framed("x/v1", b"a", b"") == b"x/v1\x00\x00\x00\x01a\x00\x00\x00\x00"
    assert digest("x/v1") == hashlib.sha256(b"x/v1").digest()
    assert count([1, 2, 3]) == b"\x00\x00\x00\x03"


@given(st.binary(max_size=80))
def test_base64_survives_a_round_trip(raw):
    """Both alphabets decode what they encoded."""
    assert from_b64(b64(raw)) == raw
    assert from_b64url(b64url(raw)) == raw


@given(st.text("ABab01+/-_=\n ", max_size=12))
def test_every_accepted_spelling_is_the_canonical_one(text):
    """Whatever is accepted is what the encoder would have written."""
    for read, write in ((from_b64, b64), (from_b64url, b64url)):
        try:
            raw = read(text)
        except FormatError:
            continue

        assert write(raw) == text


@pytest.mark.parametrize(
    "text", ["QUJ=", "QQ", "QQ=", "Q Q=", "QQ==\n", "-_8=", "QR==", "é", "Q==="]
)
def test_refuses_other_base64(text):
    """Spare bits, missing padding, blanks and the other alphabet are errors."""
    with pytest.raises(FormatError):
        from_b64(text)


@pytest.mark.parametrize("text", ["QQ==", "Q", "QR", "Q\n", "+/8", "QQ ", "é"])
def test_refuses_other_base64url(text):
    """Padding, spare bits and the other alphabet are errors."""
    with pytest.raises(FormatError):
        from_b64url(text)


@given(st.text("AQZaz09+/-_= \n", max_size=12))
def test_base64_is_read_in_one_spelling_alone(text: str):
    """Whatever is read is written the same way again, and nothing that could be is refused."""
    for read, write, plain in (
        (from_b64url, b64url, base64.urlsafe_b64decode),
        (from_b64, b64, base64.b64decode),
    ):
        padded = text + "=" * (-len(text) % 4) if read is from_b64url else text
        with suppress(ValueError):
            expected = plain(padded)
            if write(expected) == text:
                assert read(text) == expected
                continue
        with pytest.raises(FormatError):
            read(text)
