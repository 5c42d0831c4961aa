"""A container taken apart with patience: whatever is wrong with the zip, where are its two entries?

`envelock_formats.tdf.container` reads what is right, and refuses the rest without saying what was
meant. Here everything is looked at that still makes sense, and each oddity is noted. Memory is
bounded whatever a file says of itself; every number from it is checked before it is used.
"""

import struct
import zlib
from dataclasses import dataclass, replace

from isal.isal_zlib import crc32

from envelock.ailments import Findings
from envelock.files import Progress, RandomAccess, read_at
from envelock_formats.tdf.manifest import MAX_MANIFEST

PAYLOAD, MANIFEST = "0.payload", "0.manifest.json"
SPECIFIED = "manifest.json"  # the specification's name for it, which some write
_MANIFESTS = (MANIFEST, SPECIFIED)
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_EXTRA = struct.Struct("<2H")
_ZIP64, _KNOWN_EXTRAS = 0x0001, frozenset({0x0001, 0x5455, 0x7875})
_STREAMED, _UTF8, _ENCRYPTED, _DEFLATED = 0x0008, 0x0800, 0x0001, 8
_MAX16, _MAX32, _SIGNED = 0xFFFF, 0xFFFFFFFF, 1 << 31
_NEAR = 1000  # bytes from the end, in which web clients look for the directory
_MAX_DIRECTORY = 1 << 20  # bytes
_MAX_ENTRIES = 1000
_STEP = 1 << 20
_TAIL = _END.size + _MAX16


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the bytes of an entry lie, and what the directory says of them."""

    name: str
    offset: int  # of the local header
    start: int  # of the data
    packed: int  # bytes in the file
    size: int  # bytes when unpacked
    crc: int | None  # None: nobody says
    method: int = 0  # of compression; 0: none
    flags: int = 0
    extra: bytes = b""
    stated: tuple[int, int, int] = (0, 0, 0)  # the 32-bit fields: size, packed, offset

    @property
    def deflated(self) -> bool:
        """Whether the data is compressed in the usual way."""
        return self.method == _DEFLATED


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The two entries, as far as they were found."""

    payload: Entry | None
    manifest: Entry | None


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    end: int
    offset: int  # as stated; the difference to *start* is what was put before the zip
    wide: bool  # the end record points to a zip64 one, as readers expect it


def dissect(source: RandomAccess, findings: Findings) -> Anatomy:
    """Find payload and manifest in *source*; what is odd about the container goes to *findings*."""
    directory = _directory(source, findings)
    entries = None if directory is None else _entries(source, directory, findings)
    if directory is None or entries is None:
        return _without_directory(source, findings)
    if source.size - directory.start > _NEAR:
        findings.add("zip-directory-far", f"{source.size - directory.start} bytes from the end")
    if (shift := directory.start - directory.offset) != 0:
        findings.add("zip-shifted", f"{shift} bytes")
    payload = _chosen((PAYLOAD,), entries, findings)
    manifest = _chosen(_MANIFESTS, entries, findings)
    for entry in entries:
        if entry.name not in {PAYLOAD, *_MANIFESTS}:
            findings.add("zip-extra-entry", entry.name)
    _layout(source, entries, directory, findings)
    return _named(payload, manifest, findings)


def manifest_bytes(source: RandomAccess, entry: Entry, findings: Findings) -> bytes | None:
    """The manifest, unpacked where it is compressed; None when it is too large or broken."""
    if max(entry.packed, entry.size) > MAX_MANIFEST:
        findings.add("manifest-too-large", f"{max(entry.packed, entry.size)} bytes")
        return None
    raw = read_at(source, entry.start, entry.packed)
    if entry.deflated:
        try:
            raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, MAX_MANIFEST + 1)
        except zlib.error:
            findings.add("zip-manifest-crc", entry.name)
            return None
    if len(raw) > MAX_MANIFEST:
        findings.add("manifest-too-large", f"more than {MAX_MANIFEST} bytes")
        return None
    if entry.crc is not None and crc32(raw) != entry.crc:
        findings.add("zip-manifest-crc", entry.name)
    return raw


def check_payload(
    source: RandomAccess, entry: Entry, findings: Findings, progress: Progress | None
) -> None:
    """Compare the payload with its checksum: reads all of it."""
    if entry.deflated or entry.crc is None:
        return
    crc = done = 0
    while done < entry.packed:
        piece = read_at(source, entry.start + done, min(_STEP, entry.packed - done))
        if not piece:
            return
        crc, done = crc32(piece, crc), done + len(piece)
        if progress is not None:
            progress(done)
    if crc != entry.crc:
        findings.add("zip-payload-crc", PAYLOAD)


def _directory(source: RandomAccess, findings: Findings) -> _Directory | None:
    """Find the end record, from the end; None when there is none."""
    base = max(0, source.size - _TAIL)
    tail = read_at(source, base, source.size - base)
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and at + _END.size > len(tail):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        return None
    _, _, _, _, _, length, offset, comment = _END.unpack_from(tail, at)
    over = len(tail) - at - _END.size
    if over:
        findings.add("zip-comment" if comment == over else "zip-trailing", f"{over} bytes")
    end, narrow = base + at, offset
    if _SIGNED <= narrow < _MAX32:
        findings.add("zip32-large", "the end of the zip")
    if (found := _end64(source, base + at)) is not None:
        end, length, offset = found
    elif _MAX32 in (length, offset):
        return None
    start = end - length
    if start < 0 or length > _MAX_DIRECTORY:
        return None
    return _Directory(start, end, offset, wide=narrow == _MAX32)


def _end64(source: RandomAccess, end: int) -> tuple[int, int, int] | None:
    """Where the zip64 end record begins, and the size and offset that it states."""
    locator = read_at(source, end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if not locator.startswith(b"PK\6\7"):
        return None
    beside = end - _LOCATOR.size - _END64.size
    for at in (_LOCATOR.unpack(locator)[2], beside):
        raw = read_at(source, at, _END64.size) if 0 <= at <= beside else b""
        if len(raw) == _END64.size and raw.startswith(b"PK\6\6"):
            *_, length, offset = _END64.unpack(raw)
            return at, length, offset
    return None


def _entries(source: RandomAccess, directory: _Directory, findings: Findings) -> list[Entry] | None:
    """The entries of the directory; None when it is broken."""
    raw = read_at(source, directory.start, directory.end - directory.start)
    shift = directory.start - directory.offset
    found: list[Entry] = []
    position = 0
    while position < len(raw):
        if not raw.startswith(b"PK\1\2", position) or len(raw) - position < _CENTRAL.size:
            return None
        *_, names, extras, comments, _, _, _, _ = _CENTRAL.unpack_from(raw, position)
        length = _CENTRAL.size + names + extras + comments
        entry = _central(raw[position : position + length], shift)
        if len(found) >= _MAX_ENTRIES or position + length > len(raw):
            return None
        found.append(_located(source, entry))
        if comments:
            findings.add("zip-comment", entry.name)
        position += length
    for entry in found:
        _numbers(entry, directory, findings)
    return found or None


def _central(raw: bytes, shift: int) -> Entry:
    fields = _CENTRAL.unpack_from(raw)
    _, _, _, flags, method, _, _, crc, packed, size, names, extras, _, _, _, _, offset = fields
    name = raw[_CENTRAL.size : _CENTRAL.size + names]
    extra = raw[_CENTRAL.size + names : _CENTRAL.size + names + extras]
    stated = (size, packed, offset)
    wide = iter(_zip64(extra))
    size, packed, offset = (next(wide, value) if value == _MAX32 else value for value in stated)
    return Entry(
        name=name.decode("utf-8", "backslashreplace"),
        offset=offset + shift,
        start=-1,
        packed=packed,
        size=size,
        crc=crc,
        method=method,
        flags=flags,
        extra=extra,
        stated=stated,
    )


def _zip64(extra: bytes) -> tuple[int, ...]:
    """The values of a zip64 field; empty without one."""
    position = 0
    while position + _EXTRA.size <= len(extra):
        tag, length = _EXTRA.unpack_from(extra, position)
        data = extra[position + _EXTRA.size : position + _EXTRA.size + length]
        if tag == _ZIP64:
            return struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
        position += _EXTRA.size + length
    return ()


def _located(source: RandomAccess, entry: Entry) -> Entry:
    """The entry with the place of its data; `start` stays -1 where there is no local header."""
    raw = read_at(source, entry.offset, _LOCAL.size) if entry.offset >= 0 else b""
    if len(raw) < _LOCAL.size or not raw.startswith(b"PK\3\4"):
        return entry
    *_, names, extras = _LOCAL.unpack(raw)
    return replace(entry, start=entry.offset + _LOCAL.size + names + extras)


def _numbers(entry: Entry, directory: _Directory, findings: Findings) -> None:
    """How the directory writes sizes and offsets, which readers take in different ways."""
    if _MAX32 in entry.stated and not directory.wide:
        findings.add("zip64-in-part", entry.name)
    if any(_SIGNED <= value < _MAX32 for value in entry.stated):
        findings.add("zip32-large", entry.name)
    tags, position = set(), 0
    while position + _EXTRA.size <= len(entry.extra):
        tag, length = _EXTRA.unpack_from(entry.extra, position)
        tags.add(tag)
        position += _EXTRA.size + length
    if tags - _KNOWN_EXTRAS:
        findings.add("zip-extra-field", entry.name)


def _named(payload: Entry | None, manifest: Entry | None, findings: Findings) -> Anatomy:
    if manifest is not None and manifest.name == SPECIFIED:
        findings.add("zip-manifest-name", SPECIFIED)
    return Anatomy(payload, manifest)


def _chosen(names: tuple[str, ...], entries: list[Entry], findings: Findings) -> Entry | None:
    """The one entry that has one of *names*, if its data can be had."""
    named = [entry for entry in entries if entry.name in names]
    if not named:
        findings.add("zip-missing-entry", names[0])
        return None
    if len(named) > 1:
        # SECURITY: readers differ in which of two manifests they take, so none is chosen here.
        findings.add("zip-duplicate-entry", ", ".join(sorted({entry.name for entry in named})))
        return None
    [entry] = named
    name = entry.name
    if entry.flags & _ENCRYPTED:
        findings.add("zip-encrypted", name)
        return None
    if entry.method not in {0, _DEFLATED}:
        findings.add("zip-compressed-rarely", name)
        return None
    if entry.deflated:
        findings.add("zip-compressed", name)
    if entry.start < 0:
        findings.add("zip-local-header", name, incurable=True)
        return None
    return entry


def _layout(
    source: RandomAccess, entries: list[Entry], directory: _Directory, findings: Findings
) -> None:
    """Whether the entries follow each other, and each agrees with its own local header."""
    ordered = sorted(entries, key=lambda entry: entry.offset)
    if ordered[0].offset > 0 and "zip-shifted" not in findings:
        findings.add("zip-leading", f"{ordered[0].offset} bytes")
    first, *others = [entry.name for entry in ordered]
    if first in _MANIFESTS and others == [PAYLOAD]:
        findings.add("zip-order", first)
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        boundary = directory.start if following is None else following.offset
        if entry.start < 0:
            continue
        if entry.start + entry.packed > boundary:
            findings.add("payload-truncated", entry.name)
            continue
        _local(source, entry, boundary - entry.start - entry.packed, findings)


def _local(source: RandomAccess, entry: Entry, after: int, findings: Findings) -> None:
    raw = read_at(source, entry.offset, _LOCAL.size)
    _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(raw)
    rest = read_at(source, entry.offset + _LOCAL.size, names + extras)
    name = rest[:names].decode("utf-8", "backslashreplace")
    differs = name != entry.name or (flags ^ entry.flags) & (_STREAMED | _ENCRYPTED)
    true = (_MAX32, 0, min(entry.size, _MAX32), min(entry.packed, _MAX32))
    if differs or method != entry.method or {packed, size} - set(true):
        findings.add("zip-local-header", entry.name)
    if not flags & _STREAMED:
        if crc != entry.crc:
            findings.add("zip-local-header", entry.name)
        if after:
            findings.add("zip-gap", f"after {entry.name}")
        return
    descriptor = read_at(source, entry.start + entry.packed, min(after, 24))
    numbers = struct.pack("<4sL", b"PK\7\10", entry.crc)
    forms = {numbers + struct.pack("<2Q", entry.packed, entry.size)}
    if max(entry.packed, entry.size) <= _MAX32:
        forms.add(numbers + struct.pack("<2L", entry.packed, entry.size))
    if descriptor not in forms or after not in {16, 24}:
        findings.add("zip-descriptor", entry.name)


def _without_directory(source: RandomAccess, findings: Findings) -> Anatomy:
    """Find the entries by their local headers: payload first, as it is written everywhere today."""
    first = _located(source, Entry(PAYLOAD, 0, -1, 0, 0, None))
    name = read_at(source, _LOCAL.size, len(PAYLOAD))
    base = max(0, source.size - MAX_MANIFEST - _TAIL)
    tail = read_at(source, base, source.size - base)
    names = tuple(name.encode() for name in _MANIFESTS)
    at = tail.rfind(b"PK\3\4", 0, tail.rfind(SPECIFIED.encode()) + 1)
    while at > 0 and not tail.startswith(names, at + _LOCAL.size):
        at = tail.rfind(b"PK\3\4", 0, at)
    if first.start < 0 or name != PAYLOAD.encode():
        findings.add("not-a-sealed-file", "the file as a whole")
        return Anatomy(None, None)
    manifest = _loose(source, tail, base, at) if at > 0 else None
    if manifest is None:
        findings.add("payload-truncated", f"{source.size} bytes are left")
        return Anatomy(None, None)
    findings.add("zip-directory-lost", f"after byte {manifest.start + manifest.packed}")
    end = manifest.offset
    for size in (24, 16):
        if end - base >= size and tail.startswith(b"PK\7\10", end - base - size):
            end -= size
            break
    size = max(0, end - first.start)
    return _named(replace(first, packed=size, size=size), manifest, findings)


def _loose(source: RandomAccess, tail: bytes, base: int, at: int) -> Entry | None:
    """The manifest by its local header; None when the file ends before it does."""
    *_, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack_from(tail, at)
    start = at + _LOCAL.size + names + extras
    if method:
        return None
    if not packed:
        stop = max(tail.find(b"PK\7\10", start), tail.find(b"PK\1\2", start))
        packed = size = (stop if stop > 0 else len(tail)) - start
        crc = -1
    if packed in (0, _MAX32) or packed != size or base + start + packed > source.size:
        return None
    stated = None if crc < 0 else crc
    name = MANIFEST if tail.startswith(MANIFEST.encode(), at + _LOCAL.size) else SPECIFIED
    return Entry(name, base + at, base + start, packed, size, stated)
