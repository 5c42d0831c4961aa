"""Write into a manifest what readers miss in it, and what is known without a key.

SECURITY: nothing that is signed or bound is touched: policy, hashes of bindings, wraps, segment
hashes, root signature, assertions. What is written here no signature covers, and readers verify
the rest of it against the payload.
"""

import copy
from typing import Any

from envelock.examining import sizes_of
from envelock.shapes import Members
from envelock_formats.tdf.manifest import OVERHEAD, SEGMENT_SIZE

MIME_TYPE = "application/octet-stream"


def mended(found: Members, payload: int) -> tuple[Members, list[str]]:
    """A copy of a manifest with what can be filled in, and what that was, in words.

    Args:
        found: Its members, which have exactly one reading, and the shape of a manifest.
        payload: Bytes of the payload.
    """
    made: Members = copy.deepcopy(found)
    encryption = _dict(made.get("encryptionInformation"))
    edits = _mended_sizes(_dict(encryption.get("integrityInformation")), payload)
    if (method := encryption.get("method")) and isinstance(method, dict) and "iv" not in method:
        method["iv"] = ""
        edits.append("an empty `iv` is written")
    if (about := made.get("payload")) and isinstance(about, dict) and "mimeType" not in about:
        about["mimeType"] = MIME_TYPE
        edits.append(f"`mimeType` is written: {MIME_TYPE}")
    keys = encryption.get("keyAccess")
    for key in keys if isinstance(keys, list) else ():
        if isinstance(key, dict) and (edit := _mended_binding(key)) and edit not in edits:
            edits.append(edit)
    return made, edits


def _mended_sizes(integrity: Members, payload: int) -> list[str]:
    """Write every size, where all of them follow and add up to the payload."""
    try:
        sizes = list(sizes_of(integrity))
    except (TypeError, KeyError, AttributeError):
        return []
    consistent = all(size >= 0 and sealed == size + OVERHEAD for size, sealed in sizes)
    if not consistent or sum(sealed for _, sealed in sizes) != payload:
        return []
    edits = []
    if _filled(integrity["segments"], sizes):
        edits.append("segment sizes are written that were left out")
    default = integrity.get("segmentSizeDefault")
    if default is None:
        default = sizes[0][0] if sizes and sizes[0][0] else SEGMENT_SIZE
    if (default, default + OVERHEAD) != (
        integrity.get("segmentSizeDefault"), integrity.get("encryptedSegmentSizeDefault"),
    ):  # fmt: skip
        integrity["segmentSizeDefault"] = default
        integrity["encryptedSegmentSizeDefault"] = default + OVERHEAD
        edits.append("the default segment sizes are written")
    return edits


def _filled(segments: list[Any], sizes: list[tuple[int, int]]) -> bool:
    changed = False
    for segment, (size, sealed) in zip(segments, sizes, strict=True):
        if segment.get("segmentSize") is None or segment.get("encryptedSegmentSize") is None:
            segment["segmentSize"], segment["encryptedSegmentSize"] = size, sealed
            changed = True
    return changed


def _mended_binding(key: Members) -> str | None:
    """A binding as an object that names its algorithm; its hash stays as it is."""
    binding = key.get("policyBinding")
    if isinstance(binding, str):
        key["policyBinding"] = {"alg": "HS256", "hash": binding}
        return "a bare policy binding is written as an object"
    if isinstance(binding, dict) and not binding.get("alg"):
        named = binding.pop("algorithm", None) or "HS256"
        key["policyBinding"] = {"alg": named, **{k: v for k, v in binding.items() if k != "alg"}}
        return "the algorithm of a policy binding is written"
    return None


def _dict(value: object) -> Members:
    return value if isinstance(value, dict) else {}
