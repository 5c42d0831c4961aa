"""The container: a zip with exactly `0.payload` and `0.manifest.json`, both stored.

Written as a stream, payload first: its sizes and CRC follow in a data descriptor. Zip64 appears
only where a number reaches 2 GiB: Java clients read 32 bits with a sign, and Go clients take zip64
entries only when the end record is zip64 too, which it then is. No extra fields below that, no
comment, one fixed timestamp (a clock would only tell on people).

Read without any search and without any slack: every byte belongs to one structure, and local
headers agree with the central directory. So no two readers can see two different files in one
container. Accepted beyond what is written here: both orders, data descriptors on either entry,
zip64 structures at any size when they agree, the timestamp fields of Info-ZIP, and `manifest.json`,
the name that the specification gives and some clients write.

APPNOTE 6.3.10. Not compared: versions, times, attributes. Not recomputed: the payload's CRC, which
the root signature makes needless.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isal.isal_zlib import crc32

from envelock_formats.errors import FormatError
from envelock_formats.tdf.manifest import MAX_MANIFEST

PAYLOAD: Final = b"0.payload"
MANIFEST: Final = b"0.manifest.json"
_SPECIFIED: Final = b"manifest.json"
_NAMES = ([MANIFEST, PAYLOAD], [PAYLOAD, _SPECIFIED])  # sorted
_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END = struct.Struct("<4s4H2LH")  # 4.3.16
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_DESCRIPTOR = struct.Struct("<4s3L")  # 4.3.9, with the signature that everybody writes
_DESCRIPTOR64 = struct.Struct("<4sL2Q")
_EXTRA = struct.Struct("<2H")
_VERSION = 45
_STREAMED = 0x0008  # sizes and CRC follow in a descriptor
_UTF8 = 0x0800
_DATE = 0x0021  # 1980-01-01
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_WIDE = 1 << 31  # numbers from here on are written as zip64
_ZIP64 = 0x0001
_TIMES = frozenset({0x5455, 0x7875})  # Info-ZIP: timestamps, owner
_MAX_DIRECTORY = 1024  # bytes; two entries with their names and accepted extra fields need less
_ENTRIES = 2

ReadAt = Callable[[int, int], bytes]


class ContainerError(FormatError):
    """A container that is malformed or ambiguous; the message starts with `container`."""


@dataclass(frozen=True, slots=True)
class Container:
    """Where the payload lies, and the manifest's bytes."""

    payload_offset: int  # bytes from the start
    payload_size: int  # bytes
    payload_crc: int  # CRC-32 as stated; not recomputed
    manifest: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    flags: int
    crc: int
    size: int
    offset: int


def payload_header(size: int | None = None) -> bytes:
    """The first bytes of a container, in front of the payload.

    Args:
        size: Bytes of payload when known; from 2 GiB on the header announces zip64.
    """
    large = size is not None and size >= _WIDE
    extra = _EXTRA.pack(_ZIP64, 16) + bytes(16) if large else b""
    sizes = _MAX32 if large else 0
    flags = (_VERSION, _STREAMED, 0, 0, _DATE)
    head = _LOCAL.pack(b"PK\3\4", *flags, 0, sizes, sizes, len(PAYLOAD), len(extra))
    return head + PAYLOAD + extra


def trailer(*, start: int, size: int, crc: int, manifest: bytes) -> bytes:
    """Everything after the payload: its descriptor, the manifest, the directory.

    Args:
        start: Bytes of `payload_header`.
        size: Bytes of payload.
        crc: CRC-32 of the payload.
        manifest: The manifest's bytes.
    """
    wide = size >= _WIDE
    descriptor = (_DESCRIPTOR64 if wide else _DESCRIPTOR).pack(b"PK\7\10", crc, size, size)
    offset = start + size + len(descriptor)
    payload = _Entry(PAYLOAD, _STREAMED, crc, size, 0)
    second = _Entry(MANIFEST, 0, crc32(manifest), len(manifest), offset)
    local = _LOCAL.pack(
        b"PK\3\4", _VERSION, 0, 0, 0, _DATE, second.crc, second.size, second.size, len(MANIFEST), 0
    )
    directory = _directory_entry(payload) + _directory_entry(second)
    directory_offset = offset + len(local) + len(MANIFEST) + len(manifest)
    return b"".join(
        (descriptor, local, MANIFEST, manifest, directory, _end(directory_offset, len(directory)))
    )


def read_container(read_at: ReadAt, size: int) -> Container:
    """Check a container from end to start and locate its entries.

    Args:
        read_at: `read_at(offset, count)` returns exactly *count* bytes, fewer only at the end.
        size: Bytes of the container.

    Raises:
        ContainerError: Anything that `0.payload` and `0.manifest.json`, stored once each without a
            gap, do not need.
    """
    offset, end = _directory_place(read_at, size)
    entries = _directory(read_at(offset, end - offset))
    data: dict[bytes, int] = {}
    position = 0
    for index, entry in enumerate(sorted(entries, key=lambda found: found.offset)):
        if entry.offset != position:
            raise ContainerError("container: bytes before or between its entries")
        boundary = offset if index else max(found.offset for found in entries)
        data[entry.name] = _local(read_at, entry, boundary)
        position = boundary
    by_name = {entry.name: entry for entry in entries}
    name = MANIFEST if MANIFEST in by_name else _SPECIFIED
    return Container(
        payload_offset=data[PAYLOAD],
        payload_size=by_name[PAYLOAD].size,
        payload_crc=by_name[PAYLOAD].crc,
        manifest=_manifest(read_at, by_name[name], data[name]),
    )


def _directory_entry(entry: _Entry) -> bytes:
    wide = [entry.size, entry.size] if entry.size >= _WIDE else []
    wide += [entry.offset] if entry.offset >= _WIDE else []
    extra = _EXTRA.pack(_ZIP64, 8 * len(wide)) + struct.pack(f"<{len(wide)}Q", *wide)
    extra = extra if wide else b""
    size, offset = _narrow(entry.size), _narrow(entry.offset)
    head = _CENTRAL.pack(
        *(b"PK\1\2", _VERSION, _VERSION, entry.flags, 0, 0, _DATE, entry.crc, size, size),
        *(len(entry.name), len(extra), 0, 0, 0, 0, offset),
    )
    return head + entry.name + extra


def _end(offset: int, size: int) -> bytes:
    wide = b""
    if offset >= _WIDE:
        wide = _END64.pack(
            b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, _ENTRIES, _ENTRIES, size, offset
        ) + _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1)
    count = (_ENTRIES, _ENTRIES)
    return wide + _END.pack(b"PK\5\6", 0, 0, *count, size, _narrow(offset), 0)


def _narrow(number: int) -> int:
    """A number in 32 bits; all ones where it stands in a zip64 field."""
    return number if number < _WIDE else _MAX32


def _directory_place(read_at: ReadAt, size: int) -> tuple[int, int]:
    """Offsets where the central directory starts and ends."""
    end = size - _END.size
    if end < 0:
        raise ContainerError("container: too short")
    mark, disk, start_disk, here, total, length, offset, comment = _END.unpack(
        _exactly(read_at, end, _END.size)
    )
    if mark != b"PK\5\6" or comment:
        raise ContainerError("container: does not end with an end record")
    stated = (here, total, length, offset)
    locator = end - _LOCATOR.size
    if locator >= 0 and _exactly(read_at, locator, 4) == b"PK\6\7":
        end, full = _directory_place64(read_at, locator)
        limits = (_MAX16, _MAX16, _MAX32, _MAX32)
        if any(
            seen not in (true, limit)
            for seen, true, limit in zip(stated, full, limits, strict=True)
        ):
            raise ContainerError("container: its two end records differ")
        stated = full
    here, total, length, offset = stated
    if (disk, start_disk, here, total) != (0, 0, _ENTRIES, _ENTRIES):
        raise ContainerError("container: does not hold exactly two entries")
    if offset + length != end or length > _MAX_DIRECTORY:
        raise ContainerError("container: bytes around its directory")
    return offset, end


def _directory_place64(read_at: ReadAt, locator: int) -> tuple[int, tuple[int, int, int, int]]:
    """Where the zip64 end record starts, and its counts, size and offset."""
    end = locator - _END64.size
    if end < 0:
        raise ContainerError("container: too short")
    _, disk, offset, disks = _LOCATOR.unpack(_exactly(read_at, locator, _LOCATOR.size))
    mark, size, _, _, number, start, here, total, length, directory = _END64.unpack(
        _exactly(read_at, end, _END64.size)
    )
    if (disk, offset, disks) != (0, end, 1):
        raise ContainerError("container: zip64 locator points elsewhere")
    if (mark, size, number, start) != (b"PK\6\6", _END64.size - 12, 0, 0):
        raise ContainerError("container: malformed zip64 end record")
    return end, (here, total, length, directory)


def _directory(raw: bytes) -> list[_Entry]:
    entries: list[_Entry] = []
    position = 0
    while position < len(raw):
        if len(raw) - position < _CENTRAL.size:
            raise ContainerError("container: malformed directory")
        length, entry = _central(raw[position:])
        entries.append(entry)
        position += length
    if position != len(raw) or sorted(entry.name for entry in entries) not in _NAMES:
        raise ContainerError("container: does not hold exactly 0.payload and 0.manifest.json")
    return entries


def _central(raw: bytes) -> tuple[int, _Entry]:
    fields = _CENTRAL.unpack_from(raw)
    mark, _, _, flags, method, _, _, crc, packed, size, names, extras, comment, disk, *rest = fields
    _, _, offset = rest
    if mark != b"PK\1\2" or comment or disk:
        raise ContainerError("container: malformed directory")
    if method or flags & ~(_STREAMED | _UTF8):
        raise ContainerError("container: an entry is compressed or encrypted")
    name_end = _CENTRAL.size + names
    end = name_end + extras
    if end > len(raw):
        raise ContainerError("container: malformed directory")
    size, packed, offset = _widened(raw[name_end:end], (size, packed, offset))
    if size != packed:
        raise ContainerError("container: an entry's two sizes differ")
    return end, _Entry(raw[_CENTRAL.size : name_end], flags, crc, size, offset)


def _widened(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset, with those that overflowed taken from the zip64 field."""
    found = _zip64_values(extra)
    overflowed = sum(value == _MAX32 for value in values)
    if found is None:
        if overflowed:
            raise ContainerError("container: a zip64 field is missing")
        return values
    if len(found) == overflowed:
        wide = iter(found)
        size, packed, offset = (next(wide) if value == _MAX32 else value for value in values)
        return size, packed, offset
    pairs = zip(values, found, strict=False)
    if len(found) != len(values) or any(seen not in (true, _MAX32) for seen, true in pairs):
        raise ContainerError("container: a zip64 field contradicts its entry")
    return found[0], found[1], found[2]


def _zip64_values(extra: bytes) -> tuple[int, ...] | None:
    """The values of the zip64 field, None without one; refuses fields of other meaning."""
    found: tuple[int, ...] | None = None
    position = 0
    while position < len(extra):
        if len(extra) - position < _EXTRA.size:
            raise ContainerError("container: malformed extra field")
        tag, length = _EXTRA.unpack_from(extra, position)
        start, position = position + _EXTRA.size, position + _EXTRA.size + length
        if position > len(extra) or (tag != _ZIP64 and tag not in _TIMES):
            raise ContainerError("container: extra field is malformed or not accepted")
        if tag == _ZIP64:
            if found is not None or length % 8 or length > 3 * 8:
                raise ContainerError("container: malformed zip64 field")
            found = struct.unpack_from(f"<{length // 8}Q", extra, start)
    return found


def _local(read_at: ReadAt, entry: _Entry, boundary: int) -> int:
    """Check the local header and descriptor against the directory; where the data starts."""
    raw = _exactly(read_at, entry.offset, _LOCAL.size)
    mark, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(raw)
    rest = _exactly(read_at, entry.offset + _LOCAL.size, names + extras)
    if mark != b"PK\3\4" or method or rest[:names] != entry.name or (flags ^ entry.flags) & ~_UTF8:
        raise ContainerError("container: a local header differs from the directory")
    wide = _zip64_values(rest[names:])
    start = entry.offset + _LOCAL.size + len(rest)
    after = boundary - start - entry.size
    if flags & _STREAMED:
        _check_streamed(entry, (crc, packed, size), wide)
        _check_descriptor(read_at, entry, start + entry.size, after)
    elif after or crc != entry.crc or not _sizes_agree(entry, (packed, size), wide):
        raise ContainerError("container: a local header differs from the directory")
    return start


def _sizes_agree(entry: _Entry, local: tuple[int, int], wide: tuple[int, ...] | None) -> bool:
    true = (entry.size, entry.size)
    if wide is None:
        return local == true
    return wide == true and local in (true, (_MAX32, _MAX32))


def _check_streamed(
    entry: _Entry, local: tuple[int, int, int], wide: tuple[int, ...] | None
) -> None:
    crc, packed, size = local
    if crc or packed != size or size not in (0, _MAX32):
        raise ContainerError("container: a streamed entry states sizes in front")
    if any(value not in (0, entry.size, entry.offset) for value in wide or ()):
        raise ContainerError("container: a zip64 field contradicts its entry")


def _check_descriptor(read_at: ReadAt, entry: _Entry, offset: int, size: int) -> None:
    shape = {_DESCRIPTOR.size: _DESCRIPTOR, _DESCRIPTOR64.size: _DESCRIPTOR64}.get(size)
    if shape is None:
        raise ContainerError("container: a data descriptor has another length")
    expected = (b"PK\7\10", entry.crc, entry.size, entry.size)
    if shape.unpack(_exactly(read_at, offset, size)) != expected:
        raise ContainerError("container: a data descriptor differs from the directory")


def _manifest(read_at: ReadAt, entry: _Entry, start: int) -> bytes:
    if entry.size > MAX_MANIFEST:
        raise ContainerError(f"container: manifest of {entry.size} bytes, at most {MAX_MANIFEST}")
    raw = _exactly(read_at, start, entry.size)
    if crc32(raw) != entry.crc:
        raise ContainerError("container: manifest does not match its CRC")
    return raw


def _exactly(read_at: ReadAt, offset: int, count: int) -> bytes:
    """Read *count* bytes; a place outside the container, or too much of it, is refused."""
    if offset < 0 or count < 0:
        raise ContainerError("container: points outside itself")
    raw = read_at(offset, count)
    if len(raw) != count:
        raise ContainerError("container: points outside itself")
    return raw
