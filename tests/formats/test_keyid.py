"""Key paths and key ids: one value, one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.keyid import KeyId, KeyIdError, KeyPath

PARTS = st.from_regex(r"[A-Za-uw-z0-9](?:[A-Za-z0-9.-]{0,10}[A-Za-z0-9])?", fullmatch=True)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map(":".join)


@given(PATHS, st.integers(1, 10**10 - 1))
def test_reads_back_what_it_wrote(path, version):
    """Parsing the text of a key id gives the key id."""
    key_id = KeyId(KeyPath(path), version)

    assert KeyId.parse(str(key_id)) == key_id


def test_knows_its_place():
    """Tenant, ancestors and descent follow from the text alone."""
    path = KeyPath("acme:patients:2026-11")

    assert path.tenant == "acme"
    assert path.ancestors == (KeyPath("acme"), KeyPath("acme:patients"))
    assert path.below(KeyPath("acme"))
    assert not path.below(path)
    assert not KeyPath("acmes:x").below(KeyPath("acme"))
    assert KeyId(path, 3).tenant == "acme"


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":a", "a::b", "a b", "a_b", "a%b", "a/b", "a:v1", "v1", "a:v01:b", "é", "a\n",
     "-a", "a-", ".a", "..", "a" * 201, "a\x00"],
)  # fmt: skip
def test_refuses_other_paths(text):
    """Empty parts, other characters, versions in the middle and long texts are errors."""
    with pytest.raises(KeyIdError):
        KeyPath(text)


@pytest.mark.parametrize(
    "text",
    ["a", "a:1", "a:v0", "a:v01", "a:V1", "a:v1 ", "a:v", "a:v1\n", "a:v\u0661", "a:v12345678901"],
)
def test_refuses_other_key_ids(text):
    """A version is counted from 1, in ASCII, without leading zeros."""
    with pytest.raises(KeyIdError):
        KeyId.parse(text)


@pytest.mark.parametrize("version", [0, -1, 10**10])
def test_refuses_versions_out_of_range(version):
    """A key id that could not be written cannot be made."""
    with pytest.raises(KeyIdError):
        KeyId(KeyPath("a"), version)
