"""Request digests: every part counts."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64
from envelock_formats.request import (
    Caller,
    RequestedObject,
    key_sha256,
    policy_sha256,
    request_digest,
    seal_digest,
    spki_from_pem,
)

CALLER = {"issuer": "https://idp", "subject": "doctor", "tenant": "clinic", "jkt": "j"}
OBJECT = {"id": "sha256:00", "policy_sha256": b"p" * 32, "keys_sha256": b"k" * 32}
ASKED = {"kas_id": "kas", "owner": "clinic", "act": "open", "key_digest": b"c" * 32}
SEAL = {"kas_id": "kas", "owner": "clinic", "key_digest": b"c" * 32, "scope": "clinic:r",
        "count": 2, "nonce": b"n" * 16}  # fmt: skip


def digest_with(**changes):
    """The digest of one request with some of its parts changed."""
    caller = Caller(**{name: changes.get(name, value) for name, value in CALLER.items()})
    asked = RequestedObject(**{name: changes.get(name, value) for name, value in OBJECT.items()},
                            new_policy_sha256=changes.get("new"))  # fmt: skip
    parts = {name: changes.get(name, value) for name, value in ASKED.items()}
    return request_digest(caller=caller, objects=[asked] * changes.get("times", 1), **parts)


@pytest.mark.parametrize(
    "changes",
    [{name: value + "x"} for name, value in (CALLER | {"kas_id": "kas", "owner": "clinic"}).items()]
    + [{"act": "rebind"}, {"key_digest": b"d" * 32}, {"id": "sha256:01"}, {"times": 2}]
    + [{"policy_sha256": b"q" * 32}, {"keys_sha256": b"l" * 32}, {"new": b"n" * 32}],
)
def test_every_part_of_a_request_moves_its_digest(changes):
    """A decision spent on one request cannot fit another."""
    assert len(digest_with()) == 32
    assert digest_with(**changes) != digest_with()


@pytest.mark.parametrize(
    "changes",
    [{"scope": "clinic:s"}, {"count": 3}, {"nonce": b"m" * 16}, {"key_digest": b"d" * 32}],
)
def test_every_part_of_a_seal_moves_its_digest(changes):
    """Two wishes for data keys are two requests."""
    caller = Caller(**CALLER)

    assert seal_digest(caller=caller, **SEAL) != seal_digest(caller=caller, **SEAL | changes)


def test_digests_the_text_of_a_policy():
    """Another spelling of one policy is another policy, and bad base64 is none."""
    assert policy_sha256(b64(b"{}")) != policy_sha256(b64(b"{ }"))
    with pytest.raises(FormatError):
        policy_sha256("e30")


def pem(key, point=PublicFormat.SubjectPublicKeyInfo):
    """The PEM text of the key's public half."""
    return key.public_key().public_bytes(Encoding.PEM, point).decode()


def test_reads_the_keys_that_clients_seal_to():
    """EC and RSA from 2048 bits on become DER, the same for every spelling."""
    curves = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    on_curves = [ec.generate_private_key(curve) for curve in curves]
    for key in (*on_curves, rsa.generate_private_key(65537, 2048)):
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

        assert spki_from_pem(pem(key)) == spki_from_pem(pem(key).replace("\n", "\r\n")) == der
        assert len(key_sha256(der)) == 32


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024),  # noqa: S505 too short on purpose
     ec.generate_private_key(ec.SECP256K1()),
     ed25519.Ed25519PrivateKey.generate()],
)  # fmt: skip
def test_refuses_other_keys(key):
    """Short RSA, other curves and signature keys are errors."""
    with pytest.raises(FormatError):
        spki_from_pem(pem(key))


@pytest.mark.parametrize(
    "text", ["", "x", "é", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----"]
)
def test_refuses_what_is_no_key(text):
    """Text that is no PEM public key is an error."""
    with pytest.raises(FormatError):
        spki_from_pem(text)
