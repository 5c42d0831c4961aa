"""Private wrapping keys of every kind, as files and custodies hold them, unencrypted."""

import re
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from envelock_formats.der import DerError
from envelock_formats.errors import FormatError, UnsupportedAlgorithmError
from envelock_formats.framing import from_b64
from envelock_formats.kem import KemPrivateKey
from envelock_formats.publickey import algorithm_of_key

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | KemPrivateKey
_PKCS8 = re.compile(
    r"-----BEGIN PRIVATE KEY-----\s(.+?)\s-----END PRIVATE KEY-----\s*\Z", re.DOTALL
)


def algorithm_of_private(key: PrivateKey) -> str:
    """The algorithm that wraps to the public half of *key*.

    Raises:
        UnsupportedAlgorithmError: A curve or a length that is not used here.
    """
    return algorithm_of_key(key.public_key())


def pkcs8_of(key: PrivateKey) -> bytes:
    """*key* as PKCS#8 in DER."""
    if isinstance(key, KemPrivateKey):
        return key.pkcs8()
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def read_private_key(encoded: bytes) -> PrivateKey:
    """Read DER: PKCS#8, or the traditional form of RSA and EC.

    Raises:
        FormatError: Not a private key, or one that is locked with a passphrase.
        UnsupportedAlgorithmError: A kind of key, a curve or a length that is not used here.
    """
    try:
        return KemPrivateKey.from_pkcs8(encoded)
    except (UnsupportedAlgorithmError, DerError):
        pass  # not post-quantum
    try:
        return _classic(load_der_private_key(encoded, password=None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError("not a private key in DER without a passphrase") from error


def read_private_pem(text: bytes) -> PrivateKey:
    """As `read_private_key`, in PEM.

    Raises:
        FormatError, UnsupportedAlgorithmError: As there.
    """
    try:
        found = _PKCS8.search(text.decode("ascii"))
        if found is not None:
            return read_private_key(from_b64("".join(found[1].split())))
        return _classic(load_pem_private_key(text, password=None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError("not a private key in PEM without a passphrase") from error


def _classic(key: object) -> PrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise UnsupportedAlgorithmError("a private key of a kind that is not used here")
    algorithm_of_private(key)
    return key
