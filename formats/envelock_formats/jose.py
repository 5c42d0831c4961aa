"""Strict JWS: compact serialization, one spelling, one family of algorithms for each key.

The gate runs before any signature is checked: length, three canonical base64url parts, strict JSON
in header and payload, only the header names that the token's type may have, an exact `typ`. Nothing
inside a token chooses how it is verified: the caller brings the key, the key brings the algorithm.

RFC 7515, RFC 7518 section 3, RFC 7638, RFC 8037, RFC 8725. Not checked here: claims. `crit`, `jku`,
`x5u`, `x5c`, `zip` and `b64` are refused by their names alone.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from envelock_formats.canonical import Json, encode, parse
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url, from_b64url

SigningKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
VerifyingKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

MAX_HEADER = 4096
MAX_HEADER_TEXT = (MAX_HEADER * 4 + 2) // 3  # as it stands in a token
HEADER_NAMES = frozenset({"alg", "kid", "typ"})
PROOF_HEADER_NAMES = frozenset({"alg", "jwk", "typ"})
_MIN_RSA_BITS = 2048
_COORDINATE = 32
_PAYLOAD_DEPTH = 16
_HEADER_DEPTH = 8
_REMEMBERED = 1024  # headers: a server meets few, and the same ones again and again
_KID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_ED25519_PRIME = 2**255 - 19
_ORDER_EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset(  # y of the points whose order divides 8
    {0, 1, _ED25519_PRIME - 1, _ORDER_EIGHT, _ED25519_PRIME - _ORDER_EIGHT}
)
_ES256 = ec.ECDSA(hashes.SHA256())


class JoseError(FormatError):
    """A token or key that is malformed, or whose signature does not verify.

    One error for every cause: telling them apart would help only a forger.
    """


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a token; `key` is the public key that a proof brings, `jkt` its thumbprint."""

    alg: str
    typ: str | None
    kid: str | None
    key: VerifyingKey | None = None
    jkt: str | None = None


@dataclass(frozen=True, slots=True)
class Jws:
    """A parsed, *unverified* token."""

    header: Header
    claims: dict[str, Json]
    payload: bytes  # the very bytes that were signed, as decoded
    signing_input: bytes
    signature: bytes


def read(
    token: str, *, typ: frozenset[str | None], max_bytes: int, names: frozenset[str] = HEADER_NAMES
) -> Jws:
    """Parse *token* through the gate; the signature is not looked at.

    Args:
        token: Compact serialization, ASCII.
        typ: The accepted values of `typ`; None stands for its absence.
        max_bytes: Longest token of this type.
        names: The header names that this type may have.

    Raises:
        JoseError: Any rule is broken.
    """
    try:
        header_text, payload_text, signature_text = _split(token, max_bytes)
        if len(header_text) > MAX_HEADER_TEXT:
            raise JoseError("header is too long")
        header = _header(header_text, names)
        if header.typ not in typ:
            raise JoseError("token is of another type")
        payload = from_b64url(payload_text)
        return Jws(
            header=header,
            claims=_object(payload, max_bytes, _PAYLOAD_DEPTH),
            payload=payload,
            signing_input=token.rpartition(".")[0].encode("ascii"),
            signature=from_b64url(signature_text),
        )
    except FormatError as error:
        raise JoseError("malformed token") from error


def verify(jws: Jws, key: VerifyingKey) -> None:
    """Check the signature of *jws* under *key*; the key alone decides the algorithm.

    Raises:
        JoseError: Another algorithm, a wrong length, a value out of range, or no match.
    """
    if jws.header.alg != algorithm(key):
        raise JoseError("token is signed with another algorithm")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_der(jws.signature), jws.signing_input, _ES256)
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(jws.signature, jws.signing_input)
        else:
            key.verify(jws.signature, jws.signing_input, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as error:
        raise JoseError("signature does not verify") from error


def sign(key: SigningKey, claims: Json, *, typ: str, kid: str | None = None) -> str:
    """Sign *claims* as canonical JSON; ES256 or EdDSA, by the key."""
    header: dict[str, Json] = {"alg": algorithm(key.public_key()), "typ": typ}
    if kid is not None:
        header["kid"] = kid
    return sign_with_header(key, header, claims)


def sign_with_header(key: SigningKey, header: dict[str, Json], claims: Json) -> str:
    """Sign with a header of the caller's making, such as a DPoP proof's with its `jwk`."""
    signing_input = f"{b64url(encode(header))}.{b64url(encode(claims))}"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signing_input.encode(), _ES256))
        raw = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
    else:
        raw = key.sign(signing_input.encode())
    return f"{signing_input}.{b64url(raw)}"


def algorithm(key: VerifyingKey) -> str:
    """The one JWS algorithm of *key*: ES256, EdDSA (Ed25519) or RS256.

    Raises:
        JoseError: Another curve, or RSA below 2048 bits or with an exponent below 65537.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS or key.public_numbers().e < 0x10001:  # noqa: PLR2004 the usual exponent
            raise JoseError("RSA key is too weak")
        return "RS256"
    if not isinstance(key.curve, ec.SECP256R1):
        raise JoseError("only P-256 signs here")
    return "ES256"


def public_jwk(key: VerifyingKey) -> dict[str, Json]:
    """The key as a JWK with its required members only (RFC 7638 section 3.2)."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(key.public_bytes_raw())}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _unsigned(numbers.n), "e": _unsigned(numbers.e)}
    point = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": b64url(point.x.to_bytes(_COORDINATE, "big")),
        "y": b64url(point.y.to_bytes(_COORDINATE, "big")),
    }


def key_from_jwk(jwk: dict[str, Json]) -> VerifyingKey:
    """Load a public signature key.

    Raises:
        JoseError: A private or symmetric key, one that says it is for other use, a point off its
            curve, an unknown type, or a key too weak to sign with.
    """
    if "d" in jwk or "k" in jwk or jwk.get("use", "sig") != "sig":
        raise JoseError("not a public signature key")
    if (uses := jwk.get("key_ops")) is not None and uses != ["verify"]:
        raise JoseError("not a public signature key")
    try:
        key = _load(jwk)
    except (FormatError, ValueError) as error:
        raise JoseError("not a public signature key") from error
    if jwk.get("alg", algorithm(key)) != algorithm(key):
        raise JoseError("key is for another algorithm")
    return key


def thumbprint(jwk: dict[str, Json]) -> str:
    """RFC 7638 SHA-256 thumbprint, base64url; over the required members only.

    Raises:
        JoseError: A required member is missing or the type is unknown.
    """
    required = {
        "EC": ("crv", "kty", "x", "y"),
        "OKP": ("crv", "kty", "x"),
        "RSA": ("e", "kty", "n"),
    }
    names = required.get(str(jwk.get("kty")))
    if names is None or not all(isinstance(jwk.get(name), str) for name in names):
        raise JoseError("JWK lacks a required member")
    return b64url(hashlib.sha256(encode({name: jwk[name] for name in names})).digest())


def _split(token: str, max_bytes: int) -> tuple[str, str, str]:
    parts = token.split(".")
    if len(token) > max_bytes or len(parts) != 3 or not all(parts):  # noqa: PLR2004 header, payload, signature
        raise JoseError("not a compact JWS")
    return parts[0], parts[1], parts[2]


def _object(text: bytes, max_bytes: int, max_depth: int) -> dict[str, Json]:
    value = parse(text, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):
        raise JoseError("not a JSON object")
    return value


@lru_cache(maxsize=_REMEMBERED)
def _header(text: str, names: frozenset[str]) -> Header:
    """Read a header; what is remembered depends on nothing but its text."""
    header = _object(from_b64url(text), MAX_HEADER, _HEADER_DEPTH)
    match header:
        case {"alg": "ES256" | "EdDSA" | "RS256" as alg} if header.keys() <= names:
            typ, kid, jwk = header.get("typ"), header.get("kid"), header.get("jwk")
        case _:
            raise JoseError("token header has a name or algorithm that is not accepted")
    if None in header.values():
        raise JoseError("token header has a null")
    if not isinstance(typ, str | None):
        raise JoseError("token is of another type")
    if not isinstance(kid, str | None) or (kid is not None and not _KID.match(kid)):
        raise JoseError("token has a malformed kid")
    if jwk is None:
        return Header(alg, typ, kid)
    if not isinstance(jwk, dict):
        raise JoseError("token has a malformed jwk")
    return Header(alg, typ, kid, key_from_jwk(jwk), thumbprint(jwk))


def _der(signature: bytes) -> bytes:
    if len(signature) != 2 * _COORDINATE:
        raise JoseError("signature has another length")
    r, s = signature[:_COORDINATE], signature[_COORDINATE:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


def _load(jwk: dict[str, Json]) -> VerifyingKey:
    def number(name: str, size: int | None = None) -> bytes:
        raw = from_b64url(str(jwk.get(name, "")))
        if not raw or (size is not None and len(raw) != size):
            raise JoseError(f"JWK member {name} has another length")
        return raw

    match jwk.get("kty"), jwk.get("crv"):
        case "EC", "P-256":
            x, y = number("x", _COORDINATE), number("y", _COORDINATE)
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(_strong(number("x", _COORDINATE)))
        case "RSA", None:
            modulus, exponent = number("n"), number("e")
            return rsa.RSAPublicNumbers(
                int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")
            ).public_key()
        case _:
            raise JoseError("unknown type of key")


def _strong(point: bytes) -> bytes:
    """Refuse encodings of Ed25519 points of small order, and those that are not canonical.

    SECURITY: under a point of order 1 to 8 anybody makes signatures that verify, without a key.
    """
    y = int.from_bytes(point, "little") & (2**255 - 1)
    if y >= _ED25519_PRIME or y in _SMALL_ORDER:
        raise JoseError("Ed25519 key is of small order, or not canonical")
    return point


def _unsigned(number: int) -> str:
    return b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
