"""Public wrapping keys of every kind, as a KAS publishes them: PEM or DER SubjectPublicKeyInfo.

And what is wrapped to them: `wrap_share` knows for each kind what stands in a key access object.
"""

from dataclasses import dataclass
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)

from envelock_formats.errors import FormatError, UnsupportedAlgorithmError
from envelock_formats.framing import b64, from_b64
from envelock_formats.kem import KemPublicKey, wrap_kem
from envelock_formats.request import client_key
from envelock_formats.wrap import (
    algorithm_of,
    key_access_type,
    public_pem,
    wrap_ec,
    wrap_rsa,
)

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | KemPublicKey
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_LINE = 64


@dataclass(frozen=True, slots=True)
class WrappedShare:
    """A share as a key access object has it: `type`, and for `ec-wrapped` the ephemeral key."""

    kind: str
    wrapped: bytes
    ephemeral_pem: str | None


def wrap_share(share: bytes, key: PublicKey, *, iv: bytes) -> WrappedShare:
    """Wrap a 32-byte *share* to *key*, as its algorithm wants it; *iv* is 12 fresh random bytes.

    Raises:
        UnsupportedAlgorithmError: A key that nothing is wrapped to.
    """
    kind = key_access_type(algorithm_of_key(key))
    if isinstance(key, KemPublicKey):
        return WrappedShare(kind, wrap_kem(share, key, iv=iv), None)
    if isinstance(key, rsa.RSAPublicKey):
        return WrappedShare(kind, wrap_rsa(share, key), None)
    made = ec.generate_private_key(key.curve)
    wrapped = wrap_ec(share, key, ephemeral=made, iv=iv)
    return WrappedShare(kind, wrapped, public_pem(made.public_key()))


def algorithm_of_key(key: PublicKey) -> str:
    """The algorithm that wraps to *key*.

    Raises:
        UnsupportedAlgorithmError: A curve or a length that is not used here.
    """
    return key.algorithm if isinstance(key, KemPublicKey) else algorithm_of(key)


def der_of_key(key: PublicKey) -> bytes:
    """*key* as DER SubjectPublicKeyInfo; EC points uncompressed."""
    if isinstance(key, KemPublicKey):
        return key.spki()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem_of_key(key: PublicKey) -> str:
    """*key* as PEM SubjectPublicKeyInfo, 64 characters in a line."""
    text = b64(der_of_key(key))
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join((_BEGIN, *lines, _END, ""))


def read_public_key(pem: str) -> PublicKey:
    """Read a PEM SubjectPublicKeyInfo.

    Raises:
        UnsupportedAlgorithmError: A kind, a curve or a length that nothing is wrapped to here.
        FormatError: Not the PEM text of one public key.
    """
    lines = pem.strip().splitlines()
    if len(lines) < 3 or (lines[0], lines[-1]) != (_BEGIN, _END):  # noqa: PLR2004 head, foot, key
        raise FormatError("not a PEM public key")
    try:
        return KemPublicKey.from_spki(from_b64("".join(lines[1:-1])))
    except UnsupportedAlgorithmError:
        key = client_key(pem)  # whose checks of RSA keys hold here, too
    algorithm_of(key)
    return key
