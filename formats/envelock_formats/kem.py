"""Post-quantum key encapsulation: ML-KEM alone, and hybrids of ML-KEM with an elliptic curve.

| algorithm | public key | key of the wrap |
|---|---|---|
| `mlkem:768`, `mlkem:1024` | ML-KEM (FIPS 203) | the shared secret |
| `hpqt:xwing` | ML-KEM-768, then X25519 | HKDF of the combined secret |
| `hpqt:secp256r1-mlkem768` | ML-KEM-768, then a point of P-256 | the combined secret |
| `hpqt:secp384r1-mlkem1024` | ML-KEM-1024, then a point of P-384 | the combined secret |

The combined secret is `SHA3-256(ML-KEM secret, ECDH secret, ephemeral key, recipient key, label)`:
X-Wing as draft-connolly-cfrg-xwing-kem-10 section 5.3, the others as
draft-ietf-lamps-pq-composite-kem-14 section 3. HKDF is SHA-256 with salt `SHA-256("TDF")` and empty
info. Points are uncompressed. Private keys travel as PKCS#8: ML-KEM as its seed, X-Wing as its seed
of 32 bytes, the others as the ML-KEM seed of 64 bytes and then an ECPrivateKey (RFC 5915).

Randomness is drawn inside OpenSSL, but for the IV of the sealed share. ML-KEM never fails for a
wrong ciphertext of the right length: it gives another secret, and the share then does not open.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from envelock_formats import der
from envelock_formats.envelope import (
    CIPHERTEXT_SIZES,
    MLKEM_768,
    MLKEM_1024,
    P256_MLKEM_768,
    P384_MLKEM_1024,
    XWING,
    write_envelope,
)
from envelock_formats.errors import FormatError, UnsupportedAlgorithmError
from envelock_formats.wrap import UnwrapError, open_share, seal_share

SECRET_SIZE = 32
_SEED = 64
_XWING_SEED = 32
_UNCOMPRESSED = 4
_SALT = hashlib.sha256(b"TDF").digest()
_Lattice: TypeAlias = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
_Other: TypeAlias = x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class _Suite:
    """What an algorithm is made of."""

    oid: bytes  # content of the DER object identifier
    public: type[mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey]
    private: type[_Lattice]
    public_size: int  # of ML-KEM alone
    ciphertext_size: int  # of ML-KEM alone
    curve: ec.EllipticCurve | None = None
    label: bytes = b""  # empty: ML-KEM alone


_768 = (mlkem.MLKEM768PublicKey, mlkem.MLKEM768PrivateKey, 1184, 1088)
_1024 = (mlkem.MLKEM1024PublicKey, mlkem.MLKEM1024PrivateKey, 1568, 1568)
_SUITES: Mapping[str, _Suite] = {
    MLKEM_768: _Suite(bytes.fromhex("608648016503040402"), *_768),
    MLKEM_1024: _Suite(bytes.fromhex("608648016503040403"), *_1024),
    XWING: _Suite(bytes.fromhex("2b0601040183e62d81c87a"), *_768, None, b"\\.//^\\"),
    P256_MLKEM_768: _Suite(
        bytes.fromhex("2b0601050507063b"), *_768, ec.SECP256R1(), b"MLKEM768-P256"
    ),
    P384_MLKEM_1024: _Suite(
        bytes.fromhex("2b0601050507063f"), *_1024, ec.SECP384R1(), b"MLKEM1024-P384"
    ),
}
_OIDS = {suite.oid: name for name, suite in _SUITES.items()}
_OBJECT_IDENTIFIER = 0x06


@dataclass(frozen=True, slots=True)
class KemPublicKey:
    """A public key: ML-KEM, and after it the X25519 key or the point of a hybrid.

    Raises:
        UnsupportedAlgorithmError: No such algorithm.
        FormatError: Another length, an ML-KEM key out of range, or no point of the curve.
    """

    algorithm: str
    raw: bytes

    def __post_init__(self) -> None:
        suite = _suite(self.algorithm)
        try:
            suite.public.from_public_bytes(self.raw[: suite.public_size])
            rest = self.raw[suite.public_size :]
            if bool(rest) != bool(suite.label):
                raise FormatError("a public key of another length")
            if suite.label:
                _peer(suite, rest)
        except ValueError as error:
            raise FormatError(f"not a public key for {self.algorithm}") from error

    def spki(self) -> bytes:
        """The key as DER SubjectPublicKeyInfo, whose algorithm has no parameters."""
        bits = der.write(der.BIT_STRING, b"\0", self.raw)
        return der.write(der.SEQUENCE, _identifier(self.algorithm), bits)

    @staticmethod
    def from_spki(encoded: bytes) -> "KemPublicKey":
        """Read a DER SubjectPublicKeyInfo.

        Raises:
            UnsupportedAlgorithmError: Another algorithm.
            FormatError: Not the one encoding of such a key.
        """
        content = der.read_whole(encoded, der.SEQUENCE)
        algorithm, rest = _read_identifier(content)
        bits = der.read_whole(rest, der.BIT_STRING)
        if bits[:1] != b"\0":
            raise FormatError("a public key with a broken byte")
        return KemPublicKey(algorithm, bits[1:])


@dataclass(frozen=True, slots=True)
class KemPrivateKey:
    """A private key, loaded; made by `generate` or `from_pkcs8`."""

    algorithm: str
    _raw: bytes = field(repr=False)
    _lattice: _Lattice = field(repr=False, compare=False)
    _other: _Other | None = field(repr=False, compare=False)

    @staticmethod
    def generate(algorithm: str, entropy: Callable[[int], bytes]) -> "KemPrivateKey":
        """Make a key; *entropy* gives n random bytes for seeds.

        Raises:
            UnsupportedAlgorithmError: No such algorithm.
        """
        suite = _suite(algorithm)
        if algorithm == XWING:
            return _loaded(algorithm, entropy(_XWING_SEED))
        seed = entropy(_SEED)
        if suite.curve is None:
            return _loaded(algorithm, seed)
        form = (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return _loaded(algorithm, seed + ec.generate_private_key(suite.curve).private_bytes(*form))

    @staticmethod
    def from_pkcs8(encoded: bytes) -> "KemPrivateKey":
        """Read a PKCS#8 private key in DER, without a passphrase.

        Raises:
            UnsupportedAlgorithmError: Another algorithm.
            FormatError: Not the one encoding of such a key, or an ML-KEM key without its seed.
        """
        version, rest = der.read(der.read_whole(encoded, der.SEQUENCE), der.INTEGER)
        algorithm, rest = _read_identifier(rest)
        raw = der.read_whole(rest, der.OCTET_STRING)
        if version != b"\0":
            raise FormatError("a private key of another version")
        return _loaded(algorithm, raw if _SUITES[algorithm].label else _seed_of(raw))

    def pkcs8(self) -> bytes:
        """The key as PKCS#8 in DER, unencrypted."""
        raw = self._raw if _SUITES[self.algorithm].label else der.write(0x80, self._raw)
        return der.write(
            der.SEQUENCE,
            der.write(der.INTEGER, b"\0"),
            _identifier(self.algorithm),
            der.write(der.OCTET_STRING, raw),
        )

    def public_key(self) -> KemPublicKey:
        """The public half."""
        other = _public_bytes(self._other) if self._other is not None else b""
        return KemPublicKey(self.algorithm, self._lattice.public_key().public_bytes_raw() + other)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret in *ciphertext*: 32 bytes, for a hybrid the combined one.

        Raises:
            UnwrapError: Another length, or an ephemeral key that is no point of the curve. A wrong
                ciphertext of the right form gives another secret.
        """
        suite = _SUITES[self.algorithm]
        if len(ciphertext) != CIPHERTEXT_SIZES[self.algorithm]:
            raise UnwrapError
        inner, ephemeral = ciphertext[: suite.ciphertext_size], ciphertext[suite.ciphertext_size :]
        try:
            secret = self._lattice.decapsulate(inner)
            if self._other is None:
                return secret
            agreed = _exchange(self._other, _peer(suite, ephemeral))
        except ValueError as error:
            raise UnwrapError from error
        return combine(self.algorithm, secret, agreed, ephemeral, _public_bytes(self._other))


def combine(
    algorithm: str, secret: bytes, agreed: bytes, ephemeral: bytes, recipient: bytes
) -> bytes:
    """The combined secret of a hybrid: 32 bytes.

    Args:
        algorithm: The hybrid.
        secret: Of ML-KEM, 32 bytes.
        agreed: Of ECDH: the x-coordinate, as long as the curve's field.
        ephemeral: Public key of the sender: 32 bytes of X25519, or a point.
        recipient: Public key of the recipient, in the same form.
    """
    label = _suite(algorithm).label
    return hashlib.sha3_256(secret + agreed + ephemeral + recipient + label).digest()


def encapsulate(key: KemPublicKey) -> tuple[bytes, bytes]:
    """Make a secret for *key*: the shared secret of 32 bytes, and the ciphertext that carries it.

    Raises:
        UnsupportedAlgorithmError: The key's X25519 half agrees on nothing with anybody.
    """
    suite = _SUITES[key.algorithm]
    lattice = suite.public.from_public_bytes(key.raw[: suite.public_size])
    secret, ciphertext = lattice.encapsulate()
    if not suite.label:
        return secret, ciphertext
    recipient = key.raw[suite.public_size :]
    made: _Other = (
        x25519.X25519PrivateKey.generate()
        if suite.curve is None
        else ec.generate_private_key(suite.curve)
    )
    try:
        agreed = _exchange(made, _peer(suite, recipient))
    except ValueError as error:
        raise UnsupportedAlgorithmError("a public key that agrees on nothing") from error
    ephemeral = _public_bytes(made)
    return combine(key.algorithm, secret, agreed, ephemeral, recipient), ciphertext + ephemeral


def wrap_kem(share: bytes, key: KemPublicKey, *, iv: bytes) -> bytes:
    """Wrap a 32-byte *share* to *key*: an envelope around a fresh secret and the sealed share.

    Args:
        share: The key share.
        key: The key that opens it.
        iv: 12 fresh random bytes.

    Raises:
        UnsupportedAlgorithmError: As `encapsulate`.
    """
    secret, ciphertext = encapsulate(key)
    return write_envelope(ciphertext, seal_share(_cipher(key.algorithm, secret), share, iv))


def open_kem_share(algorithm: str, secret: bytes, sealed: bytes) -> bytes:
    """Undo `wrap_kem` where a custody decapsulated the *secret*: the 32-byte share.

    Raises:
        UnwrapError: For every cause.
    """
    if len(secret) != SECRET_SIZE:
        raise UnwrapError
    return open_share(_cipher(algorithm, secret), sealed)


def _cipher(algorithm: str, secret: bytes) -> AESGCM:
    if algorithm == XWING:
        return AESGCM(HKDF(hashes.SHA256(), SECRET_SIZE, salt=_SALT, info=b"").derive(secret))
    return AESGCM(secret)


def _suite(algorithm: str) -> _Suite:
    try:
        return _SUITES[algorithm]
    except KeyError as error:
        raise UnsupportedAlgorithmError(f"unsupported key algorithm {algorithm[:40]!r}") from error


def _identifier(algorithm: str) -> bytes:
    oid = der.write(_OBJECT_IDENTIFIER, _SUITES[algorithm].oid)
    return der.write(der.SEQUENCE, oid)


def _read_identifier(encoded: bytes) -> tuple[str, bytes]:
    """The algorithm at the front of *encoded*, which has no parameters; and what follows."""
    content, rest = der.read(encoded, der.SEQUENCE)
    oid, parameters = der.read(content, _OBJECT_IDENTIFIER)
    if (algorithm := _OIDS.get(oid)) is None or parameters:
        raise UnsupportedAlgorithmError("a key of an algorithm that is not used here")
    return algorithm, rest


def _seed_of(inner: bytes) -> bytes:
    """The seed of an ML-KEM private key, which may stand beside the expanded key (RFC 9935)."""
    try:
        return der.read_whole(inner, 0x80)
    except der.DerError:
        return der.read(der.read_whole(inner, der.SEQUENCE), der.OCTET_STRING)[0]


def _loaded(algorithm: str, raw: bytes) -> KemPrivateKey:
    suite = _suite(algorithm)
    seed, rest = raw[:_SEED], raw[_SEED:]
    try:
        if algorithm == XWING:
            if len(raw) != _XWING_SEED:
                raise FormatError("an X-Wing seed of another length")
            expanded = hashlib.shake_256(raw).digest(_SEED + 32)
            seed = expanded[:_SEED]
            other: _Other | None = x25519.X25519PrivateKey.from_private_bytes(expanded[_SEED:])
        else:
            other = _ec_key(suite, rest)
        return KemPrivateKey(algorithm, raw, suite.private.from_seed_bytes(seed), other)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(f"not a private key for {algorithm}") from error


def _ec_key(suite: _Suite, encoded: bytes) -> _Other | None:
    """The EC half of a private key; None for ML-KEM alone."""
    if suite.curve is None:
        if encoded:
            raise FormatError("a private key of another length")
        return None
    key = load_der_private_key(encoded, password=None)
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == suite.curve.name:
        return key
    raise FormatError("a private key on another curve")


def _peer(suite: _Suite, raw: bytes) -> x25519.X25519PublicKey | ec.EllipticCurvePublicKey:
    """The X25519 key or point in *raw*; `ValueError` when it is none."""
    if suite.curve is None:
        return x25519.X25519PublicKey.from_public_bytes(raw)
    if raw[:1] != bytes((_UNCOMPRESSED,)):
        raise ValueError("not an uncompressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(suite.curve, raw)


def _exchange(key: _Other, peer: x25519.X25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """The ECDH secret; `ValueError` for keys of two kinds, or a secret of zeros."""
    if isinstance(key, x25519.X25519PrivateKey) and isinstance(peer, x25519.X25519PublicKey):
        return key.exchange(peer)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(peer, ec.EllipticCurvePublicKey):
        return key.exchange(ec.ECDH(), peer)
    raise ValueError("keys of two kinds agree on nothing")


def _public_bytes(key: _Other) -> bytes:
    if isinstance(key, x25519.X25519PrivateKey):
        return key.public_key().public_bytes_raw()
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
