"""`0.manifest.json`: read strictly, written as every client expects it.

Reading refuses what could make a reader act on unauthenticated text: a root algorithm other than
HS256, a payload that says it is not encrypted, sizes that do not fit, a schema version that nobody
agreed to. Other members that this format may gain are ignored, and so are names and types that the
file states about itself: nothing here ever follows `url`, `mimeType` or `method.iv`.

Segment hashes are under the root signature, segment sizes are not: `payload_size` must equal the
length of the payload (checked by the reader of the file). Assertions are carried here as they stand
(`assertions` reads and verifies them).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from envelock_formats.canonical import Json, convert, parse, plain
from envelock_formats.errors import FormatError, IntegrityError, UnsupportedAlgorithmError
from envelock_formats.framing import b64, from_b64
from envelock_formats.online import is_online
from envelock_formats.tdf.keyaccess import KeyAccess, PolicyBinding, binding_mac
from envelock_formats.tdf.policy import Policy, parse_policy

SCHEMA_VERSION: Final = "4.3.0"
LEGACY_VERSIONS: Final = frozenset({"", "4.2.2"})  # hashes are base64 of their lower-case hex
MAX_MANIFEST = 10 * 1024 * 1024  # bytes
MAX_SEGMENTS = 1 << 20
MAX_KEY_ACCESS = 256
MAX_SEGMENT_SIZE = 64 * 1024 * 1024  # bytes of plaintext; bounds what a reader allocates
SEGMENT_SIZE = 2 * 1024 * 1024  # what is written unless asked otherwise
OVERHEAD = 28  # bytes a segment grows by: IV 12, tag 16
ROOT_SIZE = 32
HASH_SIZES = {"GMAC": 16, "HS256": 32}
_MAX_TEXT = 4096  # characters of a url, kid, sid, type or version
_MAX_BLOB = 1 << 18  # characters of a wrapped key or of encrypted metadata

SegmentHash = Literal["GMAC", "HS256"]


class ManifestError(FormatError):
    """A manifest that is malformed or contradicts itself; the message starts with `manifest`."""


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One segment: its hash as raw bytes, and the bytes of plaintext in it."""

    hash: bytes
    size: int

    @property
    def sealed_size(self) -> int:
        """Bytes in the payload."""
        return self.size + OVERHEAD


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says, checked for shape; true only once the root signature holds."""

    policy: str  # base64, as the policy bindings cover it
    key_access: tuple[KeyAccess, ...]
    segments: tuple[Segment, ...]
    root: bytes  # 32
    segment_hash: SegmentHash = "GMAC"
    segment_size: int = SEGMENT_SIZE  # the default of segments that state none
    legacy: bool = False  # hashes enter the root signature as hex text
    mime_type: str = "application/octet-stream"
    assertions: tuple[object, ...] = ()  # JSON values

    def __post_init__(self) -> None:
        if not 1 <= len(self.key_access) <= MAX_KEY_ACCESS:
            raise ManifestError(f"manifest: has 1 to {MAX_KEY_ACCESS} key access objects")
        if len(self.segments) > MAX_SEGMENTS:
            raise ManifestError(f"manifest: has more than {MAX_SEGMENTS} segments")
        if len(self.root) != ROOT_SIZE:
            raise IntegrityError("tampered: root signature is not 32 bytes")
        for key in self.key_access:
            _check_key_access(key, alone=len(self.key_access) == 1)

    @property
    def size(self) -> int:
        """Bytes of plaintext, as stated."""
        return sum(segment.size for segment in self.segments)

    @property
    def payload_size(self) -> int:
        """Bytes that the payload must have."""
        return self.size + OVERHEAD * len(self.segments)

    @property
    def asks(self) -> Policy:
        """The policy, parsed by the one parser; `PolicyError` when it is malformed."""
        return parse_policy(self.policy)


class _Segment(msgspec.Struct, frozen=True, gc=False):
    hash: str
    segmentSize: int | None = None  # noqa: N815 the format's own name
    encryptedSegmentSize: int | None = None  # noqa: N815 the format's own name


class _RootSignature(msgspec.Struct, frozen=True):
    alg: str
    sig: str


class _Integrity(msgspec.Struct, frozen=True):
    rootSignature: _RootSignature  # noqa: N815 the format's own name
    segmentHashAlg: str  # noqa: N815 the format's own name
    segmentSizeDefault: int  # noqa: N815 the format's own name
    encryptedSegmentSizeDefault: int  # noqa: N815 the format's own name
    segments: tuple[_Segment, ...]


class _Method(msgspec.Struct, frozen=True):
    algorithm: str


class _Encryption(msgspec.Struct, frozen=True):
    type: str
    policy: str
    keyAccess: tuple[KeyAccess, ...]  # noqa: N815 the format's own name
    method: _Method
    integrityInformation: _Integrity  # noqa: N815 the format's own name


class _Payload(msgspec.Struct, frozen=True):
    isEncrypted: object = None  # noqa: N815 the format's own name
    mimeType: str = ""  # noqa: N815 the format's own name


class _Wire(msgspec.Struct, frozen=True):
    encryptionInformation: _Encryption  # noqa: N815 the format's own name
    payload: _Payload
    assertions: tuple[object, ...] | None = None
    schemaVersion: str = ""  # noqa: N815 the format's own name


_KNOWN = (
    _Wire,
    _Encryption,
    _Integrity,
    _RootSignature,
    _Segment,
    _Payload,
    KeyAccess,
    PolicyBinding,
)
_NAMES = {name.lower(): name for shape in _KNOWN for name in shape.__struct_fields__}


def parse_manifest(text: bytes, *, legacy: bool = False) -> Manifest:
    """Read a manifest, written by any client.

    Args:
        text: JSON, at most 10 MiB.
        legacy: Accept version 4.2.2 and files without a version, whose hashes are hex text.

    Raises:
        ManifestError: Malformed, contradictory, over a limit, or of another version.
        UnsupportedAlgorithmError: An algorithm other than AES-256-GCM, an HS256 root, GMAC or
            HS256 segments, HS256 policy bindings.
        IntegrityError: The payload says that it is not encrypted, or a hash has another length.
        PolicyError: The policy is malformed.
    """
    try:
        found = parse(text, max_bytes=MAX_MANIFEST)
        _refuse_twins(found)
        wire = convert(found, _Wire)
    except FormatError as error:
        raise ManifestError(f"manifest: {error}") from error
    hexed = _is_legacy(wire.schemaVersion, allowed=legacy)
    encryption, integrity = (
        wire.encryptionInformation,
        wire.encryptionInformation.integrityInformation,
    )
    _refuse_unauthenticated(wire)
    manifest = Manifest(
        policy=encryption.policy,
        key_access=encryption.keyAccess,
        segments=_segments(integrity, hexed=hexed),
        root=_hash(integrity.rootSignature.sig, ROOT_SIZE, hexed=hexed),
        segment_hash=_segment_hash(integrity.segmentHashAlg),
        segment_size=integrity.segmentSizeDefault,
        legacy=hexed,
        mime_type=wire.payload.mimeType,
        assertions=wire.assertions or (),
    )
    parse_policy(manifest.policy)
    return manifest


def write_manifest(manifest: Manifest) -> bytes:
    """Write version 4.3.0 as JSON; both sizes on every segment, no member that a reader refuses.

    Raises:
        ManifestError: It is a legacy manifest, or becomes larger than any reader accepts.
    """
    if manifest.legacy:
        raise ManifestError("manifest: legacy versions are read, never written")
    text = msgspec.json.encode(_wire(manifest))
    if len(text) > MAX_MANIFEST:
        raise ManifestError(f"manifest: {len(text)} bytes, at most {MAX_MANIFEST}; larger segments")
    return text


def rebind_manifest(text: bytes, policy: str, key_access: Sequence[KeyAccess]) -> bytes:
    """The manifest *text* with another policy and other wrapped keys; all else as it stands.

    Segments and root signature are of the data key, which stays, so they hold as they did.

    Raises:
        FormatError: What comes out is not a manifest that `parse_manifest` accepts.
    """
    found = parse(text, max_bytes=MAX_MANIFEST)
    match found:
        case {"encryptionInformation": dict(encryption)}:
            encryption["policy"] = policy
            encryption["keyAccess"] = [plain(_key_access(key)) for key in key_access]
        case _:
            raise ManifestError("manifest: says nothing of its encryption")
    made = msgspec.json.encode(found)
    parse_manifest(made)
    return made


def _wire(manifest: Manifest) -> dict[str, object]:
    size = manifest.segment_size
    members: dict[str, object] = {
        "encryptionInformation": {
            "type": "split",
            "policy": manifest.policy,
            "keyAccess": [_key_access(key) for key in manifest.key_access],
            "method": {"algorithm": "AES-256-GCM", "iv": "", "isStreamable": True},
            "integrityInformation": {
                "rootSignature": {"alg": "HS256", "sig": b64(manifest.root)},
                "segmentHashAlg": manifest.segment_hash,
                "segmentSizeDefault": size,
                "encryptedSegmentSizeDefault": size + OVERHEAD,
                "segments": [
                    _Segment(b64(segment.hash), segment.size, segment.sealed_size)
                    for segment in manifest.segments
                ],
            },
        },
        "payload": {
            "type": "reference",
            "url": "0.payload",
            "protocol": "zip",
            "mimeType": manifest.mime_type,
            "isEncrypted": True,
        },
    }
    if manifest.assertions:
        members["assertions"] = manifest.assertions
    members["schemaVersion"] = SCHEMA_VERSION
    return members


def _key_access(key: KeyAccess) -> dict[str, object]:
    members: dict[str, object] = msgspec.to_builtins(key)
    return {**members, "protocol": key.protocol}  # its default is omitted, and readers want it


def _refuse_twins(value: Json) -> None:
    """Refuse `Policy` for `policy`: some readers fold case, so they would see another manifest."""
    if isinstance(value, list):
        for item in value:
            _refuse_twins(item)
    elif isinstance(value, dict):
        for name, member in value.items():
            if _NAMES.get(name.lower(), name) != name:
                raise ManifestError(f"{name[:40]!r} differs from a known member by case alone")
            if name != "assertions":
                _refuse_twins(member)


def _refuse_unauthenticated(wire: _Wire) -> None:
    """Refuse algorithms and flags that no signature covers, before anything else is looked at."""
    encryption = wire.encryptionInformation
    # SECURITY: a GMAC root is the last segment's tag, which anybody can copy from the payload.
    if (root := encryption.integrityInformation.rootSignature.alg) != "HS256":
        raise UnsupportedAlgorithmError(f"unsupported root signature algorithm {root[:40]!r}")
    if wire.payload.isEncrypted is not True:
        raise IntegrityError("tampered: payload does not say that it is encrypted")
    if encryption.type != "split" or encryption.method.algorithm != "AES-256-GCM":
        raise UnsupportedAlgorithmError("unsupported encryption type or algorithm")


def _is_legacy(version: str, *, allowed: bool) -> bool:
    if version == SCHEMA_VERSION:
        return False
    if version not in LEGACY_VERSIONS:
        raise ManifestError(f"manifest: schema version {version[:40]!r} is not known")
    if not allowed:
        raise ManifestError("manifest: legacy schema version; opened only when legacy is asked for")
    return True


def _segment_hash(name: str) -> SegmentHash:
    if name == "GMAC":
        return "GMAC"
    if name == "HS256":
        return "HS256"
    raise UnsupportedAlgorithmError(f"unsupported segment hash algorithm {name[:40]!r}")


def _segments(integrity: _Integrity, *, hexed: bool) -> tuple[Segment, ...]:
    hash_size = HASH_SIZES[_segment_hash(integrity.segmentHashAlg)]
    default = integrity.segmentSizeDefault
    if len(integrity.segments) > MAX_SEGMENTS:
        raise ManifestError(f"manifest: has more than {MAX_SEGMENTS} segments")
    if integrity.encryptedSegmentSizeDefault != default + OVERHEAD:
        raise ManifestError("manifest: default segment sizes do not differ by IV and tag")
    return tuple(
        Segment(_hash(found.hash, hash_size, hexed=hexed), _size(found, default))
        for found in integrity.segments
    )


def _size(found: _Segment, default: int) -> int:
    size = default if found.segmentSize is None else found.segmentSize
    sealed = (
        default + OVERHEAD if found.encryptedSegmentSize is None else found.encryptedSegmentSize
    )
    if not 0 <= size <= MAX_SEGMENT_SIZE or sealed != size + OVERHEAD:
        raise ManifestError("manifest: a segment's two sizes do not fit, or it is too large")
    return size


def _hash(text: str, size: int, *, hexed: bool) -> bytes:
    try:
        raw = from_b64(text)
    except FormatError as error:
        raise ManifestError("manifest: a hash is not base64") from error
    if not hexed:
        found = raw
    elif len(raw) == 2 * size and not raw.strip(b"0123456789abcdef"):
        found = bytes.fromhex(raw.decode())
    else:
        found = b""
    if len(found) != size:
        raise IntegrityError(f"tampered: a hash is not {size} bytes")
    return found


def _check_key_access(key: KeyAccess, *, alone: bool) -> None:
    short: Sequence[str | None] = (key.type, key.url, key.protocol, key.kid, key.sid)
    if any(
        len(text or "") > _MAX_TEXT for text in (*short, key.schemaVersion, key.ephemeralPublicKey)
    ):
        raise ManifestError("manifest: a text of a key access object is too long")
    if max(len(key.wrappedKey), len(key.encryptedMetadata or "")) > _MAX_BLOB:
        raise ManifestError("manifest: a wrapped key is too long")
    try:
        wrapped = from_b64(key.wrappedKey)
        binding_mac(key.policyBinding)
    except FormatError as error:
        raise ManifestError(f"manifest: {error}") from error
    if not alone and key.type == "wrapped" and is_online(wrapped):
        raise ManifestError("manifest: an online wrap stands beside another key access object")
