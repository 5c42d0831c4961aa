"""Seal a stream: one segment at a time, into a path, a file object, a pipe or memory.

Nothing here knows a network. The caller brings the data key, already wrapped, and the policy.
Memory is two segments, whatever the size of the source.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from isal.isal_zlib import crc32

from envelock.assertions import Assertion
from envelock.errors import ConfigError
from envelock.files import (
    Progress,
    Sink,
    Source,
    Target,
    chunks,
    output,
    refuse_large,
    size_hint,
)
from envelock_formats import errors as formats
from envelock_formats.tdf import container
from envelock_formats.tdf.assertions import MAX_ASSERTIONS, aggregate, write_assertion
from envelock_formats.tdf.keyaccess import SHARE_SIZE, KeyAccess, binding_holds
from envelock_formats.tdf.manifest import (
    MAX_MANIFEST,
    OVERHEAD,
    SEGMENT_SIZE,
    Manifest,
    Segment,
    SegmentHash,
    write_manifest,
)
from envelock_formats.tdf.policy import parse_policy
from envelock_formats.tdf.segments import SegmentCipher, root_signature
from envelock_formats.wrap import IV_SIZE

MIN_SEGMENT_SIZE = 16 * 1024  # what the Go and Java clients read
MAX_SEGMENT_SIZE = 4 * 1024 * 1024
_ENTRY_SIZE = 128  # bytes that a segment takes in a manifest, at most


@dataclass(frozen=True, slots=True)
class SealPlan:
    """What a file is sealed with; one plan seals one file.

    SECURITY: a data key is fresh for each file. Sealing twice under one key is not forbidden by
    chance of an IV (they are random), but lets segments of one file be moved into the other's list
    by whoever holds the key.
    """

    dek: bytes = field(repr=False)  # 32 bytes: the XOR of all shares
    key_access: tuple[KeyAccess, ...]
    policy: str  # base64, as the bindings in *key_access* cover it
    segment_size: int = SEGMENT_SIZE  # bytes of plaintext, 16 KiB to 4 MiB
    segment_hash: SegmentHash = "GMAC"
    mime_type: str = "application/octet-stream"
    assertions: tuple[Assertion, ...] = ()

    def __post_init__(self) -> None:
        if len({item.id for item in self.assertions}) != len(self.assertions):
            raise ConfigError("two assertions have the same id")
        if len(self.assertions) > MAX_ASSERTIONS:
            raise ConfigError(f"more than {MAX_ASSERTIONS} assertions")
        if len(self.dek) != SHARE_SIZE or not any(self.dek):
            raise ConfigError("data key is not 32 bytes, or is zero")
        if not MIN_SEGMENT_SIZE <= self.segment_size <= MAX_SEGMENT_SIZE:
            raise ConfigError("segment size is 16 KiB to 4 MiB")
        try:
            parse_policy(self.policy)
            if len({key.split for key in self.key_access}) == 1:
                self._check_bindings()
        except formats.FormatError as error:
            raise ConfigError(str(error)) from error

    def _check_bindings(self) -> None:
        """With one split the share is the data key: a binding that fails would lock the file."""
        for key in self.key_access:
            if not binding_holds(self.dek, self.policy, key.policyBinding):
                raise ConfigError("a key access object binds another policy or data key")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What was written."""

    size: int  # bytes of plaintext
    sealed_size: int  # bytes of the container
    manifest: Manifest


def seal(
    source: Source,
    target: Target,
    plan: SealPlan,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Sealed:
    """Seal *source*, from its position to its end, into *target*.

    Args:
        source: Bytes, path or binary file object; a pipe will do.
        target: Path or binary file object; a pipe will do. A path appears complete or not at all.
        plan: Data key, its wraps, policy.
        force: Replace an existing path.
        progress: Called after each segment with the bytes of plaintext done.

    Raises:
        ConfigError: The target exists, or the source is too large for its segment size.
        TypeError: Source or target is a `str`, or a file in text mode.
        OSError: Reading or writing failed; a target path is then as it was.
    """
    hint = size_hint(source) if not isinstance(source, str) else None
    if hint is not None:
        _refuse_too_many(-(-hint // plan.segment_size), plan)
    pieces = chunks(source, plan.segment_size)
    with output(target, force=force) as sink:
        return _write(pieces, sink, plan, hint, progress)


def seal_bytes(source: Source, plan: SealPlan) -> bytes:
    """Seal into memory; otherwise as `seal`.

    Raises:
        ConfigError: The source has more bytes than are returned.
    """
    target = io.BytesIO()
    seal(source, target, plan, progress=refuse_large)
    return target.getvalue()


def _write(
    pieces: Iterator[memoryview],
    sink: Sink,
    plan: SealPlan,
    hint: int | None,
    progress: Progress | None,
) -> Sealed:
    head = container.payload_header(None if hint is None else _payload_size(hint, plan))
    sink.write(head)
    segments, crc = _write_payload(pieces, sink, plan, progress)
    manifest = Manifest(
        policy=plan.policy,
        key_access=plan.key_access,
        segments=segments,
        root=root_signature(plan.dek, (segment.hash for segment in segments)),
        segment_hash=plan.segment_hash,
        segment_size=plan.segment_size,
        mime_type=plan.mime_type,
        assertions=_asserted(segments, plan),
    )
    size = manifest.payload_size
    tail = container.trailer(start=len(head), size=size, crc=crc, manifest=write_manifest(manifest))
    sink.write(tail)
    return Sealed(manifest.size, len(head) + size + len(tail), manifest)


def _asserted(segments: tuple[Segment, ...], plan: SealPlan) -> tuple[object, ...]:
    """The assertions of *plan*, signed for these segments."""
    if not plan.assertions:
        return ()
    sums = aggregate(segments)
    return tuple(write_assertion(item, sums, plan.dek) for item in plan.assertions)


def _write_payload(
    pieces: Iterator[memoryview], sink: Sink, plan: SealPlan, progress: Progress | None
) -> tuple[tuple[Segment, ...], int]:
    cipher = SegmentCipher(plan.dek, plan.segment_hash)
    buffer = memoryview(bytearray(plan.segment_size + OVERHEAD))
    segments: list[Segment] = []
    crc = done = 0
    for piece in _at_least_one(pieces):
        sealed = buffer[: len(piece) + OVERHEAD]
        # SECURITY: one draw for each IV; a block drawn ahead would repeat in a forked child.
        segments.append(cipher.seal_into(os.urandom(IV_SIZE), piece, sealed))
        _refuse_too_many(len(segments), plan)
        crc = crc32(sealed, crc)
        sink.write(sealed)
        done += len(piece)
        if progress is not None:
            progress(done)
    return tuple(segments), crc


def _at_least_one(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    """An empty source is one empty segment, so that its end is under the root signature."""
    yield next(pieces, memoryview(b""))
    yield from pieces


def _payload_size(size: int, plan: SealPlan) -> int:
    return size + OVERHEAD * max(1, -(-size // plan.segment_size))


def _refuse_too_many(segments: int, plan: SealPlan) -> None:
    if segments * _ENTRY_SIZE > MAX_MANIFEST:
        raise ConfigError(
            f"source is too large for segments of {plan.segment_size} bytes",
            hint="choose larger segments, or several files",
        )
