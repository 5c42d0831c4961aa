"""Assertions: statements that travel beside the payload, each bound to it by a JWS.

The JWS signs two claims: `assertionHash`, lower-case hex of SHA-256 over the RFC 8785 form of the
assertion without its `binding`; and `assertionSig`, base64 of all raw segment hashes in order
followed by the 32 bytes of that hash. So a statement cannot be altered, and cannot be moved to
another payload. In legacy files the segment hashes and the assertion's hash enter as hex text.

What the signature proves depends on its key. Under the data key (HS256, the usual case) anybody who
could ever open the file can make it. Under a key of a person (RS256, ES256), only that person can.

SECURITY: a `jwk` or `x5c` in a header is never looked at: whoever verifies brings the key, and the
key alone decides the algorithm. That an assertion is *missing* nothing in a file can tell.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from envelock_formats import jose
from envelock_formats.canonical import Json, convert, encode, parse_object
from envelock_formats.errors import FormatError, IntegrityError
from envelock_formats.framing import b64, b64url, from_b64, from_b64url
from envelock_formats.tdf.manifest import MAX_MANIFEST, Segment
from envelock_formats.tdf.shared_secret import Secret

MAX_ASSERTIONS = 256  # in one file
_DATA_KEY_SIZE = 32
_MAX_TEXT = 4096  # characters of an id, format or schema
_HEADER_NAMES = frozenset({"alg", "typ", "cty", "kid", "jwk", "x5c", "x5t", "x5t#S256"})
_KEYS = frozenset({"jwk", "x5c"})
_HS256: Final = "HS256"

SigningKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Secret
VerifyingKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Secret


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said: *value* is text, in a *format* (such as `json`) that follows a *schema*."""

    format: str
    schema: str
    value: str


@dataclass(frozen=True, slots=True)
class Assertion:
    """One assertion to be written.

    Raises:
        ValueError: A member is empty or too long, or has a value that readers do not know.
    """

    id: str
    statement: Statement
    type: str = "other"  # or `handling`
    scope: str = "payload"  # or `tdo`
    applies_to: str = "unencrypted"  # or `encrypted`
    key: SigningKey | None = field(default=None, repr=False)  # None: the data key

    def __post_init__(self) -> None:
        texts = (self.id, self.statement.format, self.statement.schema)
        if not all(0 < len(text) <= _MAX_TEXT for text in texts) or not self.statement.value:
            raise ValueError("an assertion needs an id, and a statement's format, schema and value")
        if self.type not in {"handling", "other"} or self.scope not in {"tdo", "payload"}:
            raise ValueError("an assertion is `handling` or `other`, of scope `tdo` or `payload`")
        if self.applies_to not in {"encrypted", "unencrypted"}:
            raise ValueError("an assertion applies to the state `encrypted` or `unencrypted`")


class _Statement(msgspec.Struct, frozen=True):
    format: str = ""
    schema: str = ""
    value: str | dict[str, object] = ""


class _Binding(msgspec.Struct, frozen=True):
    signature: str
    method: str = ""


class _Wire(msgspec.Struct, frozen=True):
    id: str
    type: str = ""
    scope: str = ""
    appliesToState: str = ""  # noqa: N815 the format's own name
    statement: _Statement = _Statement()
    binding: _Binding | None = None


@dataclass(frozen=True, slots=True)
class StatedAssertion:
    """One assertion as a file states it; nothing is verified.

    Where old files hold a JSON object as the statement's value, `statement.value` is its text.
    """

    id: str
    type: str
    scope: str
    applies_to: str
    statement: Statement
    algorithm: str  # of its signature, as the header states it; empty when that cannot be read
    members: Mapping[str, Json] = field(repr=False)  # all but the binding
    signature: str | None = field(repr=False)  # compact JWS; None when it is bound by nothing
    brings_key: bool = False  # in its header, where nobody should look for one

    @property
    def value_is_object(self) -> bool:
        """Whether the statement's value is a JSON object, as in old files."""
        statement = self.members.get("statement")
        return isinstance(statement, dict) and isinstance(statement.get("value"), dict)


class _Claims(msgspec.Struct, frozen=True):
    assertionHash: str  # noqa: N815 the format's own name
    assertionSig: str  # noqa: N815 the format's own name


@dataclass(frozen=True, slots=True)
class _Token:
    header: dict[str, Json]
    claims: _Claims
    signing_input: bytes
    signature: bytes


def aggregate(segments: Iterable[Segment], *, legacy: bool = False) -> bytes:
    """All segment hashes in order; as lower-case hex in legacy files."""
    raw = b"".join(segment.hash for segment in segments)
    return raw.hex().encode() if legacy else raw


def write_assertion(assertion: Assertion, hashes_of_segments: bytes, dek: bytes) -> dict[str, Json]:
    """Write *assertion* as it stands in a manifest, signed.

    Args:
        assertion: What is asserted, and by whose key.
        hashes_of_segments: `aggregate` of the file.
        dek: The data key, which signs where the assertion brings no key.
    """
    members: dict[str, Json] = {
        "id": assertion.id,
        "type": assertion.type,
        "scope": assertion.scope,
        "appliesToState": assertion.applies_to,
        "statement": {
            "format": assertion.statement.format,
            "schema": assertion.statement.schema,
            "value": assertion.statement.value,
        },
    }
    hashed = hashlib.sha256(encode(members)).digest()
    claims: dict[str, Json] = {
        "assertionHash": hashed.hex(),
        "assertionSig": b64(hashes_of_segments + hashed),
    }
    signature = _signed(claims, assertion.key, dek)
    return members | {"binding": {"method": "jws", "signature": signature}}


def read_assertion(value: object) -> StatedAssertion:
    """Read one member of a manifest's `assertions`.

    Raises:
        FormatError: It is no assertion.
    """
    if not isinstance(value, dict):
        raise FormatError("assertion is not a JSON object")
    wire = convert(value, _Wire)
    if not wire.id or len(wire.id) > _MAX_TEXT:
        raise FormatError("assertion has no id, or one that is too long")
    if wire.binding is not None and wire.binding.method.lower() not in {"", "jws"}:
        raise FormatError("assertion is bound by another method than a JWS")
    said, header = wire.statement.value, _stated_header(wire.binding)
    signature = wire.binding.signature if wire.binding is not None else None
    return StatedAssertion(
        id=wire.id,
        type=wire.type,
        scope=wire.scope,
        applies_to=wire.appliesToState,
        statement=Statement(
            wire.statement.format,
            wire.statement.schema,
            said if isinstance(said, str) else _compact(said),
        ),
        algorithm=str(header.get("alg", "")),
        brings_key=not _KEYS.isdisjoint(header),
        members={name: member for name, member in value.items() if name != "binding"},
        signature=signature,
    )


def verify_assertion(
    stated: StatedAssertion,
    hashes_of_segments: bytes,
    key: VerifyingKey | bytes,
    *,
    legacy: bool = False,
) -> None:
    """Check that *key* signed this assertion, for a payload with these segment hashes.

    Args:
        stated: The assertion.
        hashes_of_segments: `aggregate` of the file, whose root signature holds.
        key: A public key of RSA or P-256, a secret for HS256, or the data key, which alone is given
            as bytes.
        legacy: Version 4.2.2 and older.

    Raises:
        IntegrityError: It did not, or the assertion was altered, or is of another payload.
    """
    if not stated.signature:
        raise IntegrityError("tampered: assertion is bound by nothing")
    try:
        token = _token(stated.signature)
        _verify_signature(token, key)
        signed_hash, signed_sum = token.claims.assertionHash, from_b64(token.claims.assertionSig)
        found = next(made for made in _hashes(stated.members) if made.hex() == signed_hash)
    except (FormatError, StopIteration) as error:
        raise IntegrityError("tampered: assertion does not verify") from error
    own = found.hex().encode() if legacy else found
    if not hmac.compare_digest(signed_sum, hashes_of_segments + own):
        raise IntegrityError("tampered: assertion is of another payload")


def _hashes(members: Mapping[str, Json]) -> Iterable[bytes]:
    """The hashes that released clients make of an assertion.

    A JSON object as the statement's value is hashed as it is, or as its compact text: in its own
    order (Java) or sorted (Go).
    """
    plain = dict(members)
    yield hashlib.sha256(encode(plain)).digest()
    statement = plain.get("statement")
    if isinstance(statement, dict) and isinstance(value := statement.get("value"), dict):
        for text in (_compact(value), _compact(value, ordered=True)):
            yield hashlib.sha256(
                encode(plain | {"statement": statement | {"value": text}})
            ).digest()


def _compact(value: Mapping[str, object], *, ordered: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=ordered)


def _token(text: str) -> _Token:
    """Read a compact JWS.

    Raises:
        FormatError: It is malformed, or has a header name that is not accepted.
    """
    parts = text.split(".")
    if len(parts) != 3 or not all(parts) or not text.isascii():  # noqa: PLR2004 header, payload, signature
        raise FormatError("not a compact JWS")
    header = _header(parts[0])
    payload = parse_object(from_b64url(parts[1]), max_bytes=MAX_MANIFEST)
    signing_input = f"{parts[0]}.{parts[1]}".encode()
    return _Token(header, convert(payload, _Claims), signing_input, from_b64url(parts[2]))


def _header(text: str) -> dict[str, Json]:
    header = parse_object(from_b64url(text[: 4 * jose.MAX_HEADER]), max_bytes=jose.MAX_HEADER)
    if not header.keys() <= _HEADER_NAMES or not isinstance(header.get("alg"), str):
        raise FormatError("header has a name that is not accepted")
    return header


def _stated_header(binding: _Binding | None) -> dict[str, Json]:
    """The header of a signature; empty when it cannot be read."""
    try:
        return _header(binding.signature.partition(".")[0]) if binding is not None else {}
    except FormatError:
        return {}


def _verify_signature(token: _Token, key: VerifyingKey | bytes) -> None:
    if isinstance(key, (Secret, bytes)):
        # SECURITY: bytes are the data key alone, which no public key can be, by its size.
        secret = key.value if isinstance(key, Secret) else key
        made = hmac.digest(secret, token.signing_input, hashlib.sha256)
        same = hmac.compare_digest(made, token.signature)
        sized = isinstance(key, Secret) or len(key) == _DATA_KEY_SIZE
        if not sized or token.header["alg"] != _HS256 or not same:
            raise FormatError("signature does not verify")
        return
    header = jose.Header(str(token.header["alg"]), None, None)
    jose.verify(jose.Jws(header, {}, b"", token.signing_input, token.signature), key)


def _signed(claims: dict[str, Json], key: SigningKey | None, dek: bytes) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        header: dict[str, Json] = {"alg": jose.algorithm(key.public_key())}
        return jose.sign_with_header(key, header, claims)
    name = jose.algorithm(key.public_key()) if isinstance(key, rsa.RSAPrivateKey) else _HS256
    signing_input = f"{b64url(encode({'alg': name}))}.{b64url(encode(claims))}"
    if isinstance(key, rsa.RSAPrivateKey):
        made = key.sign(signing_input.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        secret = dek if key is None else key.value
        made = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
    return f"{signing_input}.{b64url(made)}"
