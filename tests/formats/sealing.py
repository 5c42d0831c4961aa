"""Sealed files made for tests, piece by piece, so that each piece can be wrong on purpose."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from isal.isal_zlib import crc32

from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64
from envelock_formats.tdf import container
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy
from envelock_formats.tdf.manifest import OVERHEAD, Manifest, Segment, write_manifest
from envelock_formats.tdf.policy import write_policy
from envelock_formats.tdf.segments import SegmentCipher, root_signature

DEK = bytes(range(1, 33))
UUID = "0d21482b-5d80-466b-ae92-7b0d01b9e2ba"
POLICY = write_policy(UUID, [AttributeValue("clinic.example", "clearance", "secret")])


def key_access(share: bytes = DEK, *, policy: str = POLICY, sid: str | None = None) -> KeyAccess:
    """One key access object that binds *policy* to *share*; its wrap opens nowhere."""
    return KeyAccess(
        type="wrapped",
        url="http://127.0.0.1:8080/kas",
        wrappedKey=b64(bytes(256)),
        policyBinding=bind_policy(share, policy),
        kid="clinic:records:v1",
        sid=sid,
        schemaVersion="1.0",
    )


def seal_pieces(pieces: Sequence[bytes], dek: bytes = DEK) -> tuple[bytes, tuple[Segment, ...]]:
    """The payload and its segments; IVs count up."""
    cipher, segments, payload = SegmentCipher(dek), [], []
    for number, piece in enumerate(pieces):
        out = bytearray(len(piece) + OVERHEAD)
        segments.append(cipher.seal_into(number.to_bytes(12, "big"), piece, memoryview(out)))
        payload.append(bytes(out))
    return b"".join(payload), tuple(segments)


def manifest_of(segments: Sequence[Segment], dek: bytes = DEK) -> Manifest:
    """A manifest over *segments* whose root signature holds."""
    root = root_signature(dek, (segment.hash for segment in segments))
    return Manifest(POLICY, (key_access(dek),), tuple(segments), root, segment_size=16384)


def pack(payload: bytes, manifest: bytes) -> bytes:
    """The container around both."""
    head = container.payload_header(len(payload))
    crc = crc32(payload)
    tail = container.trailer(start=len(head), size=len(payload), crc=crc, manifest=manifest)
    return head + payload + tail


def sealed(pieces: Sequence[bytes] = (b"hello",), dek: bytes = DEK) -> bytes:
    """A whole sealed file with one segment for each piece."""
    payload, segments = seal_pieces(pieces, dek)
    return pack(payload, write_manifest(manifest_of(segments, dek)))


def members(pieces: Sequence[bytes] = (b"hello",)) -> dict[str, Any]:
    """A manifest's JSON members, to be edited."""
    _, segments = seal_pieces(pieces)
    return json.loads(write_manifest(manifest_of(segments)))


def edited(found: dict[str, Any], path: str, value: object) -> bytes:
    """*found* with the member at the dotted *path* replaced, or removed when *value* is `...`."""
    changed = copy.deepcopy(found)
    *parents, last = path.split(".")
    place: Any = changed
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return json.dumps(changed).encode()
