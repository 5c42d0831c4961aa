"""Online wraps and sealed data keys: bound to everything they belong to."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats import online
from envelock_formats.errors import FormatError, UnsupportedAlgorithmError
from envelock_formats.framing import digest, framed
from envelock_formats.wrap import UnwrapError

DEK = bytes(range(32))
ID = bytes(range(16))
NONCE = bytes(12)
KEK = AESGCM(b"k" * 32)
POLICY = b"p" * 32
AAD = online.online_aad("clinic", "clinic:records:v1", ID, POLICY)
CLIENT = ec.generate_private_key(ec.SECP256R1())


def wrapped():
    """A data key wrapped online."""
    return online.wrap_online(DEK, KEK, object_id=ID, nonce=NONCE, aad=AAD)


def test_a_wrap_is_laid_out_as_specified():
    """Mark, format, object id, nonce, ciphertext, tag: 78 bytes, and back."""
    raw = bytes(wrapped())

    assert raw == b"\xe2\x01" + ID + NONCE + KEK.encrypt(NONCE, DEK, AAD)
    assert len(raw) == online.ONLINE_SIZE == 78
    assert online.OnlineWrap.parse(raw) == wrapped()
    assert wrapped().id == "000102030405060708090a0b0c0d0e0f"
    assert online.unwrap_online(wrapped(), KEK, AAD) == DEK


def test_opens_for_its_tenant_key_object_and_policy_alone():
    """Each part of the associated data is bound."""
    for parts in (
        ("other", "clinic:records:v1", ID, POLICY),
        ("clinic", "clinic:records:v2", ID, POLICY),
        ("clinic", "clinic:records:v1", ID[::-1], POLICY),
        ("clinic", "clinic:records:v1", ID, b"q" * 32),
    ):
        with pytest.raises(UnwrapError):
            online.unwrap_online(wrapped(), KEK, online.online_aad(*parts))
    with pytest.raises(UnwrapError):
        online.unwrap_online(wrapped(), AESGCM(b"l" * 32), AAD)


def test_associated_data_is_framed_as_specified():
    """A label, then tenant, key id, object id, policy digest."""
    assert framed("envelock/online-wrap/v1", b"clinic", b"clinic:records:v1", ID, POLICY) == AAD


@given(st.binary(max_size=600))
def test_whatever_is_accepted_has_one_spelling(raw):
    """Parsing is exact: what is read is written back to the byte."""
    for text in (raw, b"\xe2\x02" + raw):
        try:
            found = online.OnlineWrap.parse(text)
        except FormatError:
            continue

        assert bytes(found) == text
        assert online.is_online(text)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xe2", b"\xe2\x01" + bytes(75), b"\xe2\x01" + bytes(77), b"\xe1\x01" + bytes(76),
     b"\xe2\x00" + bytes(76), b"\xe2\x03" + bytes(76), b"\xe2\x02" + bytes(16),
     b"\xe2\x02" + bytes(76), b"\xe2\x02" + bytes(254), b"\xe2\x02" + bytes(382),
     b"\xe2\x02" + bytes(510), b"\xe2\x02" + bytes(8191)],
    ids=len,
)  # fmt: skip
def test_refuses_other_lengths_formats_and_marks(raw):
    """No online wrap is as long as an RSA wrap, or of an unknown format."""
    with pytest.raises(FormatError):
        online.OnlineWrap.parse(raw)


def test_names_the_expected_and_the_seen_mark():
    """A blob of another kind is told by its first byte."""
    with pytest.raises(FormatError, match="0xe2, not 0xe1"):
        online.OnlineWrap.parse(b"\xe1\x01" + bytes(76))


def test_tells_an_rsa_wrap_by_its_length():
    """An RSA wrap may start with any byte."""
    assert not online.is_online(b"\xe2" + bytes(255))
    assert not online.is_online(b"\xe3\x01" + bytes(76))
    assert not online.is_online(b"")
    assert online.is_online(bytes(wrapped()))


def test_another_format_does_not_unwrap_here():
    """The custody's own bytes are opened by the custody."""
    with pytest.raises(UnwrapError):
        online.unwrap_online(online.OnlineWrap(2, ID, bytes(100)), KEK, AAD)


def test_a_sealed_data_key_opens_for_its_request_object_and_wrap_alone():
    """HPKE info binds all three."""
    info = online.hpke_info(b"r" * 32, ID, bytes(wrapped()))
    sealed = online.seal_data_key(DEK, CLIENT.public_key(), info)

    assert online.open_data_key(sealed, CLIENT, info) == DEK
    assert len(sealed) == online.HPKE_SEALED_SIZE == 113
    assert info == framed(
        "envelock/datakey/v1", b"r" * 32, ID, digest("envelock/wrapped-key/v1", bytes(wrapped()))
    )
    for other in (
        online.hpke_info(b"s" * 32, ID, bytes(wrapped())),
        online.hpke_info(b"r" * 32, ID[::-1], bytes(wrapped())),
        online.hpke_info(b"r" * 32, ID, b"x"),
    ):
        with pytest.raises(UnwrapError):
            online.open_data_key(sealed, CLIENT, other)


def test_every_failure_to_open_a_data_key_looks_the_same():
    """Other keys, lengths, bytes and curves: one error."""
    sealed = online.seal_data_key(DEK, CLIENT.public_key(), b"i")
    other, curve = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())

    for text, key in ((sealed, other), (sealed, curve), (sealed[:-1], CLIENT), (b"", CLIENT),
                      (b"\4" + bytes(112), CLIENT), (sealed[:-1] + b"\0", CLIENT)):  # fmt: skip
        with pytest.raises(UnwrapError):
            online.open_data_key(text, key, b"i")
    with pytest.raises(UnsupportedAlgorithmError):
        online.seal_data_key(DEK, curve.public_key(), b"i")
