"""A secret that two people share to sign assertions with HS256; never a key of another kind.

SECURITY: whoever knows the bytes of a secret can sign with it. Bytes that may be public, such as a
public key or a certificate, are therefore no secret, whatever form they have.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

MIN_SECRET_SIZE = 32  # bytes
_MARKS = (
    b"-----BEGIN",  # PEM, PGP
    b"---- BEGIN",  # RFC 4716
    b"ssh-",
    b"ecdsa-sha2-",
    b'"kty"',  # RFC 7517
    bytes.fromhex("06092a864886f70d0101"),  # object identifiers in DER: RSA,
    bytes.fromhex("06072a8648ce3d0201"),  # and elliptic curves (RFC 5480)
    bytes.fromhex("300506032b65"),  # Ed25519, X25519 and their like (RFC 8410)
)
_LONG_FORM = 0x80
_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True, eq=False)
class Secret:
    """A shared secret: at least 32 bytes that nobody else knows, taken as they are.

    Raises:
        TypeError: It is not bytes.
        ValueError: It is shorter, or is a key of another kind (PEM, DER, SSH, JWK), perhaps public.
    """

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.value, bytes):
            raise TypeError("a secret is bytes")
        if len(self.value) < MIN_SECRET_SIZE:
            raise ValueError(f"a secret for assertions is at least {MIN_SECRET_SIZE} bytes")
        if any(map(_is_key, _forms(self.value))):
            raise ValueError("a secret for assertions is no key: this may be known to others")


def _forms(value: bytes) -> Iterator[bytes]:
    """The bytes, their text if it is UTF-16, and what they are the base64 of."""
    yield value
    yield value.replace(b"\0", b"")
    try:
        yield b64decode(value)
    except binascii.Error:
        return


def _is_key(value: bytes) -> bool:
    return any(mark in value for mark in _MARKS) or _is_der(value)


def _is_der(value: bytes) -> bool:
    """Whether a DER key stands there, whatever follows it: PKCS#1 has no identifier inside."""
    size = _der_size(value)
    if size is None:
        return False
    for load in (load_der_public_key, lambda der: load_der_private_key(der, password=None)):
        try:
            load(value[:size])
        except (ValueError, TypeError):
            continue
        except UnsupportedAlgorithm:
            return True
        return True
    return False


def _der_size(value: bytes) -> int | None:
    """Bytes of the DER sequence that *value* begins with; None when it begins with none."""
    if len(value) < 2 or value[0] != _SEQUENCE:  # noqa: PLR2004 a tag and a length
        return None
    if value[1] < _LONG_FORM:
        return 2 + value[1]
    count = value[1] - _LONG_FORM
    return 2 + count + int.from_bytes(value[2 : 2 + count], "big")
