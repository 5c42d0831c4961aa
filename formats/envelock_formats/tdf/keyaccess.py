"""Key access objects: one wrapped key share, as it stands in a manifest and travels to a KAS.

The policy binding is an HMAC under the *share*, so a policy cannot be exchanged without it. Every
released client writes base64 of the HMAC's lower-case hex; base64 of the raw HMAC is read too.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, count, digest, from_b64

SHARE_SIZE = 32
_MAC_SIZE = 32
_HEX_MAC = re.compile(rb"[0-9a-f]{64}\Z")


class PolicyBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """`{"alg": "HS256", "hash": base64}`; web clients leave `alg` out of a rewrap."""

    hash: str
    alg: str = ""
    algorithm: str = ""  # the protobuf spelling of `alg`


class KeyAccess(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key access object; unknown members are ignored, as other clients may add some.

    `type` is `wrapped` or `ec-wrapped`, `kid` the key id, `sid` the split that this share belongs
    to (absent and empty are one), `wrappedKey` base64. `url` names the KAS and is never followed.
    """

    type: str
    url: str
    wrappedKey: str  # noqa: N815 the format's own name
    policyBinding: PolicyBinding | str  # noqa: N815 the format's own name; a bare string is old
    protocol: str = "kas"
    kid: str | None = None
    sid: str | None = None
    encryptedMetadata: str | None = None  # noqa: N815 the format's own name
    schemaVersion: str | None = None  # noqa: N815 the format's own name
    ephemeralPublicKey: str | None = None  # noqa: N815 the format's own name

    @property
    def split(self) -> str:
        """The split id; empty when there is only one."""
        return self.sid or ""


def bind_policy(share: bytes, policy: str) -> PolicyBinding:
    """Bind the base64 text *policy* to the 32-byte *share*."""
    mac = hmac.digest(share, policy.encode(), hashlib.sha256)
    return PolicyBinding(hash=b64(mac.hex().encode()), alg="HS256")


def binding_mac(binding: PolicyBinding | str) -> bytes:
    """The 32-byte MAC that *binding* states, as hex or raw.

    Raises:
        FormatError: An algorithm other than HS256, or a hash of another form.
    """
    if isinstance(binding, str):
        binding = PolicyBinding(hash=binding)
    if {binding.alg, binding.algorithm} - {"", "HS256"}:
        raise FormatError("policy binding uses an algorithm other than HS256")
    stated = from_b64(binding.hash)
    if _HEX_MAC.match(stated):
        return bytes.fromhex(stated.decode())
    if len(stated) != _MAC_SIZE:
        raise FormatError("policy binding is not the size of an HMAC-SHA256")
    return stated


def binding_holds(share: bytes, policy: str, binding: PolicyBinding | str) -> bool:
    """Whether *binding* binds *policy* to *share*; compared in constant time.

    Raises:
        FormatError: The binding is malformed, which says nothing about the share.
    """
    return mac_holds(share, policy, binding_mac(binding))


def mac_holds(share: bytes, policy: str, stated: bytes) -> bool:
    """As `binding_holds`, for a binding that `binding_mac` read."""
    expected = hmac.digest(share, policy.encode(), hashlib.sha256)
    return hmac.compare_digest(expected, stated)


@dataclass(frozen=True, slots=True)
class DecodedAccess:
    """What a key access object holds, decoded once; `der` is the ephemeral key's, or empty."""

    access: KeyAccess
    wrapped: bytes
    ephemeral: ec.EllipticCurvePublicKey | None
    der: bytes
    mac: bytes


def decode_access(access: KeyAccess) -> DecodedAccess:
    """Decode the texts of a key access object.

    Raises:
        FormatError: The wrapped key, ephemeral key or binding is malformed.
    """
    ephemeral = ephemeral_key(access.ephemeralPublicKey)
    return DecodedAccess(
        access=access,
        wrapped=from_b64(access.wrappedKey),
        ephemeral=ephemeral,
        der=ephemeral_der(ephemeral),
        mac=binding_mac(access.policyBinding),
    )


def keys_digest(objects: Sequence[DecodedAccess]) -> bytes:
    """Digest of the key access objects that address one KAS, in manifest order: 32 bytes.

    Type, key id, split, wrapped key, ephemeral key and binding are covered; `url`, metadata and
    schema version are not, as clients rewrite them on the way.
    """
    fields = [count(objects)]
    for key in objects:
        access = key.access
        named = (access.type.encode(), (access.kid or "").encode(), access.split.encode())
        fields += [*named, key.wrapped, key.der, key.mac]
    return digest("envelock/keys/v1", *fields)


def keys_sha256(objects: Sequence[KeyAccess]) -> bytes:
    """As `keys_digest`, decoding the objects first.

    Raises:
        FormatError: A wrapped key, ephemeral key or binding is malformed.
    """
    return keys_digest([decode_access(key) for key in objects])


def object_id(objects: Sequence[KeyAccess]) -> str:
    """Id of an object whose keys were wrapped offline: `sha256:` and the hex of `keys_sha256`."""
    return "sha256:" + keys_sha256(objects).hex()


def ephemeral_key(pem: str | None) -> ec.EllipticCurvePublicKey | None:
    """Load an ephemeral public key; None when there is none. Its curve is not looked at.

    Raises:
        FormatError: Not the PEM text of an EC public key.
    """
    if not pem:
        return None
    try:
        key = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("ephemeral key is not a PEM public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise FormatError("ephemeral key is not an EC key")
    return key


def ephemeral_der(key: ec.EllipticCurvePublicKey | None) -> bytes:
    """An ephemeral public key as DER SubjectPublicKeyInfo; empty when there is none."""
    if key is None:
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
