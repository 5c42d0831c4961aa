"""One key, wrapped and unwrapped, by algorithm.

| algorithm | type of key access | wrapped key |
|---|---|---|
| `rsa:2048`, `rsa:3072`, `rsa:4096` | `wrapped` | RSA-OAEP, SHA-1, MGF1-SHA-1, no label |
| `ec:secp256r1`, `ec:secp384r1`, `ec:secp521r1` | `ec-wrapped` | IV 12, AES-256-GCM 32, tag 16 |
| `mlkem:768`, `mlkem:1024` | `mlkem-wrapped` | module `kem` |
| `hpqt:` and a curve with ML-KEM | `hybrid-wrapped` | module `kem` |
| `aes:256` | `wrapped` | an online wrap, module `online` |

The EC key is `HKDF-SHA256(Z, salt = SHA-256("TDF"), info = "")` over the ECDH secret of a fresh
ephemeral key on the curve of the wrapping key; Z is the x-coordinate, as long as the curve's field:
32, 48 or 66 bytes. A share is always 32 bytes. Keys come in loaded: loading an RSA private key
costs more than a hundred unwraps. Randomness is an argument, except for what OAEP draws inside
OpenSSL. Not here: policy bindings (`tdf.keyaccess`), and where a key lives.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from envelock_formats.envelope import KEM_TYPES, kem_of_envelope
from envelock_formats.errors import FormatError, IntegrityError, UnsupportedAlgorithmError
from envelock_formats.framing import from_b64
from envelock_formats.tdf.keyaccess import SHARE_SIZE, KeyAccess

RSA_2048: Final = "rsa:2048"
RSA_4096: Final = "rsa:4096"
EC_P256: Final = "ec:secp256r1"
EC_P384: Final = "ec:secp384r1"
EC_P521: Final = "ec:secp521r1"
AES_256: Final = "aes:256"  # held by the KAS alone: online wraps
WRAPPED: Final = "wrapped"
EC_WRAPPED: Final = "ec-wrapped"

IV_SIZE = 12
TAG_SIZE = 16
EC_WRAPPED_SIZE = IV_SIZE + SHARE_SIZE + TAG_SIZE
MIN_RSA_BITS = 2048
_SALT = hashlib.sha256(b"TDF").digest()
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), label=None)  # noqa: S303 the format's own; OAEP needs no collision resistance
_CURVES: Mapping[str, ec.EllipticCurve] = {
    EC_P256: ec.SECP256R1(),
    EC_P384: ec.SECP384R1(),
    EC_P521: ec.SECP521R1(),
}
_RSA_ALGORITHMS = {256: RSA_2048, 384: "rsa:3072", 512: RSA_4096}  # by bytes of the modulus
_TYPES = dict.fromkeys(_RSA_ALGORITHMS.values(), WRAPPED) | dict.fromkeys(_CURVES, EC_WRAPPED)
_TYPES |= {AES_256: WRAPPED, **KEM_TYPES}
_SECRET_SIZES = {(curve.key_size + 7) // 8 for curve in _CURVES.values()}


class UnwrapError(FormatError):
    """A wrapped key that does not open.

    Another key, altered bytes, another policy or object, a share of another length: one error and
    one text for all, since telling them apart helps only an attacker.
    """

    def __init__(self, message: str = "wrapped key does not open") -> None:
        super().__init__(message)


def key_access_type(algorithm: str) -> str:
    """The `type` of a key access object whose key is wrapped under *algorithm*.

    Raises:
        UnsupportedAlgorithmError: No such algorithm is written or read here.
    """
    try:
        return _TYPES[algorithm]
    except KeyError as error:
        raise UnsupportedAlgorithmError(f"unsupported key algorithm {algorithm[:40]!r}") from error


def curve_of(algorithm: str) -> ec.EllipticCurve:
    """The curve of an EC *algorithm*, such as `ec:secp384r1`.

    Raises:
        UnsupportedAlgorithmError: Not an EC algorithm, or not one that is used here.
    """
    try:
        return _CURVES[algorithm]
    except KeyError as error:
        raise UnsupportedAlgorithmError(f"unsupported key algorithm {algorithm[:40]!r}") from error


def algorithm_of(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    """The algorithm that wraps to *key*.

    Raises:
        UnsupportedAlgorithmError: A curve or a length that is not used here.
    """
    if isinstance(key, rsa.RSAPublicKey):
        found = _RSA_ALGORITHMS.get(key.key_size // 8) if key.key_size % 8 == 0 else None
    else:
        found = f"ec:{key.curve.name}" if f"ec:{key.curve.name}" in _CURVES else None
    if found is None:
        raise UnsupportedAlgorithmError("unsupported length or curve of a wrapping key")
    return found


def algorithm_of_wrap(access: KeyAccess) -> str:
    """The algorithm of the key that an offline wrap was made for, as far as the wrap shows it.

    Raises:
        UnsupportedAlgorithmError: A type or a size that nothing here opens.
        FormatError: The wrapped key is not base64.
        UnwrapError: An `ec-wrapped` key without a usable ephemeral key.
    """
    if access.type in KEM_TYPES.values():
        return kem_of_envelope(access.type, from_b64(access.wrappedKey))
    if access.type == EC_WRAPPED:
        return algorithm_of(ec_from_pem(access.ephemeralPublicKey or ""))
    found = _RSA_ALGORITHMS.get(len(from_b64(access.wrappedKey)))
    if access.type != WRAPPED or found is None:
        raise UnsupportedAlgorithmError(f"unsupported kind of wrap {access.type[:40]!r}")
    return found


def wrap_rsa(share: bytes, key: rsa.RSAPublicKey) -> bytes:
    """Wrap a 32-byte *share*; the result is as long as the modulus.

    Raises:
        UnsupportedAlgorithmError: The key is shorter than 2048 bits.
    """
    if key.key_size < MIN_RSA_BITS:
        raise UnsupportedAlgorithmError(f"unsupported RSA key of {key.key_size} bits")
    return key.encrypt(checked_share(share), _OAEP)


def unwrap_rsa(wrapped: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """Undo `wrap_rsa`: the 32-byte share.

    Raises:
        UnwrapError: For every cause, a key shorter than 2048 bits among them.
    """
    if key.key_size < MIN_RSA_BITS:
        raise UnwrapError
    try:
        share = key.decrypt(wrapped, _OAEP)
    except ValueError as error:
        raise UnwrapError from error
    return _opened(share)


def wrap_ec(
    share: bytes,
    key: ec.EllipticCurvePublicKey,
    *,
    ephemeral: ec.EllipticCurvePrivateKey,
    iv: bytes,
) -> bytes:
    """Wrap a 32-byte *share* to an EC key: 60 bytes.

    Args:
        share: The key share.
        key: The key that opens it.
        ephemeral: A key on the same curve, made for this one wrap; its public half travels beside
            the wrap.
        iv: 12 fresh random bytes.

    Raises:
        UnsupportedAlgorithmError: The keys are on two curves, or on one that is not used here.
    """
    return seal_share(agree(ephemeral, key), share, iv)


def unwrap_ec(
    wrapped: bytes, ephemeral: ec.EllipticCurvePublicKey, key: ec.EllipticCurvePrivateKey
) -> bytes:
    """Undo `wrap_ec`: the 32-byte share.

    Raises:
        UnwrapError: For every cause, another curve among them.
    """
    try:
        cipher = agree(key, ephemeral)
    except (UnsupportedAlgorithmError, ValueError) as error:
        raise UnwrapError from error
    return open_share(cipher, wrapped)


def unwrap_with_secret(secret: bytes, wrapped: bytes) -> bytes:
    """Undo `wrap_ec` where a hardware module made the ECDH secret: the 32-byte share.

    Args:
        secret: The x-coordinate Z, big-endian, as long as the curve's field.
        wrapped: IV, ciphertext, tag: 60 bytes.

    Raises:
        UnwrapError: For every cause.
    """
    return open_share(cipher_from_secret(secret), wrapped)


def agree(key: ec.EllipticCurvePrivateKey, peer: ec.EllipticCurvePublicKey) -> AESGCM:
    """The cipher that two keys agree on; one agreement may seal many shares to one client.

    Raises:
        UnsupportedAlgorithmError: The keys are on two curves, or on one that is not used here.
    """
    if algorithm_of(peer) != algorithm_of(key.public_key()):
        raise UnsupportedAlgorithmError("keys on two curves agree on nothing")
    return cipher_from_secret(key.exchange(ec.ECDH(), peer))


def cipher_from_secret(secret: bytes) -> AESGCM:
    """The cipher under the key that the ECDH secret Z yields: 32, 48 or 66 bytes.

    Raises:
        UnwrapError: The secret has another length, or is zero, which no honest key yields.
    """
    if len(secret) not in _SECRET_SIZES or not any(secret):
        raise UnwrapError
    return AESGCM(HKDF(hashes.SHA256(), SHARE_SIZE, salt=_SALT, info=b"").derive(secret))


def seal_share(cipher: AESGCM, share: bytes, iv: bytes) -> bytes:
    """Encrypt a 32-byte *share*: IV 12, ciphertext 32, tag 16; *iv* is fresh for each share."""
    return iv + cipher.encrypt(iv, checked_share(share), None)


def open_share(cipher: AESGCM, sealed: bytes) -> bytes:
    """Undo `seal_share`: the 32-byte share.

    Raises:
        UnwrapError: Another length, or the tag does not match.
    """
    if len(sealed) != EC_WRAPPED_SIZE:
        raise UnwrapError
    try:
        return cipher.decrypt(sealed[:IV_SIZE], sealed[IV_SIZE:], None)
    except InvalidTag as error:
        raise UnwrapError from error


def open_answer(
    sealed: bytes,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    session: ec.EllipticCurvePublicKey | None,
) -> bytes:
    """Open one share of a rewrap answer at the client: 32 bytes.

    The KAS seals with `wrap_rsa`, or with `agree` and `seal_share` under its session key.

    Args:
        sealed: `kasWrappedKey`, decoded.
        key: The client's ephemeral key.
        session: `sessionPublicKey` of the answer; needed for an EC key, ignored for RSA.

    Raises:
        UnwrapError: For every cause. The share is not authenticated: only the root signature of
            the file tells whether it is the right one.
    """
    if isinstance(key, rsa.RSAPrivateKey):
        return unwrap_rsa(sealed, key)
    if session is None:
        raise UnwrapError
    return unwrap_ec(sealed, session, key)


def ec_from_pem(pem: str) -> ec.EllipticCurvePublicKey:
    """Load an ephemeral or session public key.

    Raises:
        UnwrapError: Not the PEM text of a point on a curve that is used here; such a key opens
            nothing.
    """
    try:
        key = load_pem_public_key(pem.encode("ascii"))
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm_of(key):
            return key
    except (ValueError, UnsupportedAlgorithm, UnsupportedAlgorithmError) as error:
        raise UnwrapError from error
    raise UnwrapError


def public_pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    """A public key as PEM SubjectPublicKeyInfo; EC points uncompressed."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def combine(objects: Sequence[KeyAccess], shares: Mapping[int, bytes]) -> bytes:
    """Join shares to the data key: the XOR of one share for each split id.

    Several key access objects of one split are alternatives; absent and empty split ids are one.

    Args:
        objects: All key access objects of the manifest.
        shares: What was obtained, by position in *objects*.

    Raises:
        IntegrityError: A share that is not 32 bytes, a split without a share, alternatives that
            disagree, or a sum of zero.
    """
    found: dict[str, bytes] = {}
    for position, share in shares.items():
        if len(share) != SHARE_SIZE:
            raise IntegrityError("tampered: a key share is not 32 bytes")
        first = found.setdefault(objects[position].split, share)
        if not hmac.compare_digest(first, share):
            raise IntegrityError("tampered: alternatives of one split give different shares")
    if not found or found.keys() != {key.split for key in objects}:
        raise IntegrityError("tampered: a split has no key share")
    total = 0
    for share in found.values():
        total ^= int.from_bytes(share, "big")
    if not total:
        raise IntegrityError("tampered: key shares cancel out")
    return total.to_bytes(SHARE_SIZE, "big")


def checked_share(share: bytes) -> bytes:
    """Return *share*; `ValueError` when it is not 32 bytes, which only a caller's mistake makes."""
    if len(share) != SHARE_SIZE:
        raise ValueError(f"a key share is {SHARE_SIZE} bytes, not {len(share)}")
    return share


def refuse_other_curves(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> None:
    """Accept P-256 alone; `UnsupportedAlgorithmError` otherwise."""
    if not isinstance(key.curve, ec.SECP256R1):
        raise UnsupportedAlgorithmError("unsupported curve of a wrapping key")


def _opened(share: bytes) -> bytes:
    if len(share) != SHARE_SIZE:
        raise UnwrapError
    return share
