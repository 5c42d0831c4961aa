"""DER: one value, one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats import der
from envelock_formats.der import DerError


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_reads_back_what_it_wrote(content: bytes, rest: bytes):
    """Content of every length, with or without something behind it."""
    assert der.read(der.write(der.OCTET_STRING, content) + rest, der.OCTET_STRING) == (
        content,
        rest,
    )


@given(st.binary(max_size=12))
def test_accepts_the_canonical_spelling_alone(encoded: bytes):
    """Whatever is read is what would be written."""
    try:
        content = der.read_whole(encoded, der.OCTET_STRING)
    except DerError:
        return

    assert der.write(der.OCTET_STRING, content) == encoded


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "04",
        "0401",
        "048100",  # long form of a short length
        "04810178",
        "0482000178",  # leading zero
        "0480780000",  # indefinite
        "048178" + "00" * 119,
        "0484ffffffff",
        "04ff",
        "030178",  # another tag
        "04017800",  # something behind
    ],
)
def test_refuses_other_spellings(encoded: str):
    """Lengths that are cut, too long, indefinite, or spelt longer than needed."""
    with pytest.raises(DerError):
        der.read_whole(bytes.fromhex(encoded), der.OCTET_STRING)
