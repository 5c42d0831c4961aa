"""What is asked, as values and digests: the object, the caller, the request.

`keys_sha256` names the wrapped keys of one object at one KAS, `policy_sha256` its policy,
`key_sha256` the public key that shares are sealed to, and the request digest binds all of them to
the caller. A decision is spent on one request digest; every record of a release carries it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from envelock_formats.canonical import Json, encode
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url, digest, from_b64

ClientKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MAX_PEM = 4096
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 4096
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as verified from the access token and its proof; nothing from a header or body."""

    issuer: str
    subject: str
    tenant: str  # home tenant
    jkt: str  # thumbprint of the key that the token is bound to; empty when unbound


@dataclass(frozen=True, slots=True)
class RequestedObject:
    """One object of a request; digests are 32 bytes."""

    id: str
    policy_sha256: bytes
    keys_sha256: bytes
    new_policy_sha256: bytes | None = None  # only when rebinding

    def as_json(self) -> list[Json]:
        """The object's row in the request digest."""
        row: list[Json] = [self.id, b64url(self.policy_sha256), b64url(self.keys_sha256)]
        if self.new_policy_sha256 is not None:
            row.append(b64url(self.new_policy_sha256))
        return row


def policy_sha256(policy: str) -> bytes:
    """Digest of a policy: over its base64 text, the bytes that the policy binding covers.

    Raises:
        FormatError: The text is not canonical base64.
    """
    from_b64(policy)
    return digest("envelock/policy/v1", policy.encode())


def key_sha256(der: bytes) -> bytes:
    """Digest of a public key given as DER SubjectPublicKeyInfo.

    Of no bytes where nothing is sealed to anybody: to rebind.
    """
    return digest("envelock/client-key/v1", der)


def client_key(pem: str) -> ClientKey:
    """Read the PEM public key that shares are sealed to: EC, or RSA of 2048 to 4096 bits.

    EC keys are on P-256, P-384 or P-521.

    Raises:
        FormatError: Not such a key.
    """
    if len(pem) > MAX_PEM:
        raise FormatError("not a PEM public key")
    try:
        key = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("not a PEM public key") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and _usable(key):
        return key
    raise FormatError("public key must be P-256, P-384, P-521, or RSA of 2048 to 4096 bits")


def spki(key: ClientKey) -> bytes:
    """A public key as DER SubjectPublicKeyInfo: one spelling, however its PEM text spelled it."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_from_pem(pem: str) -> bytes:
    """Read a PEM public key as `client_key` does, as DER SubjectPublicKeyInfo.

    Raises:
        FormatError: Not such a key.
    """
    return spki(client_key(pem))


def _usable(key: rsa.RSAPublicKey) -> bool:
    """Whether shares can be sealed to an RSA key at a bounded cost."""
    numbers = key.public_numbers()
    ordinary = numbers.n % 2 == 1 and numbers.e in range(65537, 2**32, 2)
    return ordinary and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS


def request_digest(
    *,
    kas_id: str,
    owner: str,
    caller: Caller,
    act: str,
    key_digest: bytes,
    objects: Sequence[RequestedObject],
) -> bytes:
    """Digest of a request about objects: 32 bytes.

    Args:
        kas_id: The KAS asked.
        owner: Tenant that owns the objects.
        caller: Who asks.
        act: `open` or `rebind`.
        key_digest: `key_sha256` of the key that shares are sealed to; of no bytes to rebind.
        objects: In the order of the request.
    """
    rows: list[Json] = [asked.as_json() for asked in objects]
    return _digest(kas_id, owner, caller, [act, b64url(key_digest), rows])


def seal_digest(
    *,
    kas_id: str,
    owner: str,
    caller: Caller,
    key_digest: bytes,
    scope: str,
    count: int,
    nonce: bytes,
) -> bytes:
    """Digest of a request for *count* data keys under the key path *scope*.

    The client's 16-byte *nonce* makes two equal wishes two requests.
    """
    asked: list[Json] = ["seal", b64url(key_digest), [scope, count, b64url(nonce)]]
    return _digest(kas_id, owner, caller, asked)


def _digest(kas_id: str, owner: str, caller: Caller, asked: list[Json]) -> bytes:
    texts = (kas_id, owner, caller.issuer, caller.tenant, caller.subject, caller.jkt)
    return digest("envelock/request/v1", *(text.encode() for text in texts), encode(asked))
