"""What is wrong with a manifest: every member that some reader would stumble over.

Nothing is verified, which would take the file's key; but where segment hashes are the tags of
segments, they are compared with the payload, so moved and missing segments are seen without a key.
"""

import json
from collections.abc import Callable, Iterator

from envelock.ailments import OF_SIZES, Findings
from envelock.examining_keys import examine_assertions, examine_keys, examine_policy
from envelock.shapes import (
    Members,
    ShapeError,
    decoded,
    list_of,
    object_of,
    optional_text,
    text_of,
    unknown_members,
)
from envelock_formats.canonical import parse
from envelock_formats.errors import FormatError
from envelock_formats.tdf.manifest import (
    LEGACY_VERSIONS,
    MAX_MANIFEST,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    OVERHEAD,
    SCHEMA_VERSION,
)

TagAt = Callable[[int], bytes]  # the 16 bytes that end at an offset in the payload
_JAVA_SEGMENT = 4 * 1024 * 1024
_HEX_SIZES = {32: 64, 16: 32}


def parse_patiently(raw: bytes, findings: Findings) -> Members | None:
    """The manifest's members; None when there are none, or they have more than one reading."""
    try:
        found = parse(raw, max_bytes=MAX_MANIFEST)
    except FormatError:
        findings.add("manifest-ambiguous" if _is_json(raw) else "manifest-not-json", "manifest")
        return None
    if not isinstance(found, dict):
        findings.add("manifest-shape", "manifest")
        return None
    return found


def examine_manifest(
    found: Members, findings: Findings, size: int | None, tag_at: TagAt | None
) -> None:
    """Note everything in a manifest that some reader refuses.

    Args:
        found: Its members.
        findings: Where to.
        size: Bytes of the payload; None when it was not found.
        tag_at: Reads the payload; None when that cannot be done.
    """
    try:
        encryption = object_of(found, "encryptionInformation")
        integrity = object_of(encryption, "integrityInformation")
        _examine_encryption(encryption, findings)
        legacy = _examine_version(found, findings)
        _examine_root(integrity, findings, legacy=legacy)
        _examine_segments(integrity, findings, size, tag_at)
        _examine_payload(object_of(found, "payload"), findings)
        examine_keys(list_of(encryption, "keyAccess"), findings)
        examine_policy(text_of(encryption, "policy"), findings)
        examine_assertions(found.get("assertions"), findings)
    except ShapeError as error:
        findings.add("manifest-shape", str(error))


def sizes_of(integrity: Members) -> Iterator[tuple[int, int]]:
    """Plain and sealed size of each segment, with defaults filled in.

    Raises:
        TypeError, KeyError: A size is missing where it is needed, or no number.
    """
    default, sealed_default = (
        integrity.get("segmentSizeDefault"),
        integrity.get("encryptedSegmentSizeDefault"),
    )
    for segment in integrity["segments"]:
        size = _or(segment.get("segmentSize"), default)
        follows = size + OVERHEAD
        if segment.get("segmentSize") is None and sealed_default is not None:
            follows = sealed_default
        sealed = _or(segment.get("encryptedSegmentSize"), follows)
        yield size, sealed


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _or(value: object, default: object) -> int:
    chosen = default if value is None else value
    if not isinstance(chosen, int) or isinstance(chosen, bool):
        raise TypeError("a size is no number")
    return chosen


def _examine_encryption(encryption: Members, findings: Findings) -> None:
    method = object_of(encryption, "method")
    unknown_members("method", method, "method", findings)
    if encryption.get("type") != "split" or method.get("algorithm") != "AES-256-GCM":
        findings.add("encryption-algorithm", "encryptionInformation")
    if "iv" not in method:
        findings.add("iv-missing", "method")


def _examine_version(found: Members, findings: Findings) -> bool:
    """Note the version; whether hashes are text, as this reader takes it."""
    version = optional_text(found, "schemaVersion")
    if version == SCHEMA_VERSION:
        return False
    if version not in LEGACY_VERSIONS:
        findings.add("schema-version", f"schemaVersion {version!r}")
        return False
    findings.add("legacy", f"schemaVersion {version!r}" if version else "no schemaVersion")
    if version:
        findings.add("legacy-named", f"schemaVersion {version!r}")
    return True


def _examine_root(integrity: Members, findings: Findings, *, legacy: bool) -> None:
    root = object_of(integrity, "rootSignature")
    unknown_members("rootSignature", root, "rootSignature", findings)
    algorithm, signature = text_of(root, "alg"), text_of(root, "sig")
    if algorithm.upper() == "GMAC":
        findings.add("root-gmac", "rootSignature")
    elif algorithm != "HS256":
        findings.add("root-algorithm", f"rootSignature {algorithm!r}")
    elif len(decoded(signature)) != (_HEX_SIZES[32] if legacy else 32):
        findings.add("root-size", "rootSignature")
    hashed = text_of(integrity, "segmentHashAlg")
    size = {"GMAC": 16, "HS256": 32}.get(hashed)
    if size is None:
        findings.add("hash-algorithm", f"segmentHashAlg {hashed!r}")
        return
    expected = _HEX_SIZES[size] if legacy else size
    for number, segment in enumerate(list_of(integrity, "segments")):
        if isinstance(segment, dict) and len(decoded(segment.get("hash"))) != expected:
            findings.add("hash-size", f"segment {number}")


def _examine_segments(
    integrity: Members, findings: Findings, size: int | None, tag_at: TagAt | None
) -> None:
    segments = list_of(integrity, "segments")
    if len(segments) > MAX_SEGMENTS:
        findings.add("segments-too-many", f"{len(segments)}")
        return
    if not segments:
        findings.add("segments-none", "segments")
    for number, segment in enumerate(segments):
        if not isinstance(segment, dict) or not isinstance(segment.get("hash"), str):
            raise ShapeError(f"segment {number}")
        unknown_members("segment", segment, f"segment {number}", findings)
        if segment.get("segmentSize") is None or segment.get("encryptedSegmentSize") is None:
            findings.add("sizes-omitted", f"segment {number}")
    _examine_defaults(integrity, findings)
    try:
        sizes = list(sizes_of(integrity))
    except (TypeError, KeyError):
        raise ShapeError("segmentSize") from None
    _examine_sizes(integrity, sizes, findings, size, tag_at)


def _examine_defaults(integrity: Members, findings: Findings) -> None:
    plain = integrity.get("segmentSizeDefault")
    sealed = integrity.get("encryptedSegmentSizeDefault")
    if not isinstance(plain, int | None) or not isinstance(sealed, int | None):
        raise ShapeError("segmentSizeDefault")
    if plain is None or sealed is None:
        findings.add("defaults-missing", "integrityInformation")
    elif sealed != plain + OVERHEAD:
        findings.add("defaults-differ", "integrityInformation")


def _examine_sizes(
    integrity: Members,
    sizes: list[tuple[int, int]],
    findings: Findings,
    payload: int | None,
    tag_at: TagAt | None,
) -> None:
    for number, (plain, sealed) in enumerate(sizes):
        if plain < 0 or sealed != plain + OVERHEAD:
            findings.add("sizes-differ", f"segment {number}")
        if plain > MAX_SEGMENT_SIZE:
            findings.add("segment-over-64-mib", f"segment {number}")
        elif sealed > _JAVA_SEGMENT:
            findings.add("segment-over-4-mib", f"segment {number}")
    total = sum(sealed for _, sealed in sizes)
    if total != payload or "sizes-differ" in findings:
        findings.give_up(*OF_SIZES)
    if payload is None:
        return
    if total != payload:
        code = "sizes-short" if total < payload else "sizes-long"
        findings.add(code, f"{total} bytes in segments, {payload} in the payload")
    elif tag_at is not None and integrity.get("segmentHashAlg") == "GMAC":
        _examine_tags(integrity["segments"], sizes, findings, tag_at)


def _examine_tags(
    segments: list[Members], sizes: list[tuple[int, int]], findings: Findings, tag_at: TagAt
) -> None:
    end = 0
    for number, (segment, (_, sealed)) in enumerate(zip(segments, sizes, strict=True)):
        end += sealed
        tag = tag_at(end)
        if decoded(segment["hash"]) not in {tag, tag.hex().encode()}:
            findings.add("segment-moved", f"segment {number}")


def _examine_payload(payload: Members, findings: Findings) -> None:
    unknown_members("payload", payload, "payload", findings)
    if payload.get("isEncrypted") is not True:
        findings.add("not-encrypted", "payload")
    if "mimeType" not in payload:
        findings.add("mime-type-missing", "payload")
    for name in ("type", "url", "protocol"):
        text_of(payload, name)
