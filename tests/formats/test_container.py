"""The container: what is written, every form that clients write, and one fault at a time."""

import io
import struct
import zipfile

import pytest
from formats.sealing import pack
from hypothesis import given
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from envelock_formats.tdf import container
from envelock_formats.tdf.container import ContainerError, read_container
from envelock_formats.tdf.manifest import MAX_MANIFEST

PAYLOAD, TEXT = b"sealed payload bytes", b'{"manifest":1}'
WIDE = 0xFFFFFFFF
LIMIT = 1 << 31  # from which on zip64 is written
GOOD = pack(PAYLOAD, TEXT)


def read(raw):
    """Read a container from memory."""
    return read_container(lambda offset, count: raw[offset : offset + count], len(raw))


class Entry:
    """One entry of an archive made by hand; every field may lie."""

    def __init__(self, name, data, **lies):
        """Take the entry's name and data, and what its headers say instead of the truth."""
        self.name, self.data, self.lies = name, data, lies

    def get(self, field, default):
        """A field of this entry, unless it lies."""
        return self.lies.get(field, default)

    def local(self):
        """Local header, data, descriptor."""
        crc, size = crc32(self.data), len(self.data)
        streamed = self.get("flags", 0) & 8
        extra = self.get("local_extra", b"")
        name = self.get("local_name", self.name)
        header = struct.pack(
            "<4s5H3L2H", self.get("local_mark", b"PK\3\4"), 45,
            self.get("local_flags", self.get("flags", 0)),
            self.get("local_method", self.get("method", 0)), 0, 33,
            self.get("local_crc", 0 if streamed else crc),
            self.get("local_packed", self.get("local_size", 0 if streamed else size)),
            self.get("local_size", 0 if streamed else size), len(name), len(extra),
        )  # fmt: skip
        tail = struct.pack("<4s3L", b"PK\7\10", crc, size, size) if streamed else b""
        return header + name + extra + self.data + self.get("descriptor", tail)

    def central(self, offset):
        """The directory's entry."""
        extra, comment = self.get("extra", b""), self.get("comment", b"")
        size = self.get("size", len(self.data))
        return struct.pack(
            "<4s6H3L5H2L", self.get("mark", b"PK\1\2"), 45, 45, self.get("flags", 0),
            self.get("method", 0), 0, 33, self.get("crc", crc32(self.data)),
            self.get("packed", size), size, len(self.name), len(extra), len(comment),
            self.get("disk", 0), 0, 0, self.get("offset", offset),
        ) + self.name + extra + comment  # fmt: skip


def archive(*entries, prefix=b"", gap=b"", before_end=b"", suffix=b"", directory=None, **end):
    """An archive of *entries*, with bytes in places where none belong."""
    body, offsets = prefix, []
    for entry in entries:
        offsets.append(len(body))
        body += entry.local() + gap
    listed = entries if directory is None else directory
    names = {id(entry): offset for entry, offset in zip(entries, offsets, strict=True)}
    central = b"".join(entry.central(names.get(id(entry), 0)) for entry in listed)
    start, size, count = len(body), len(central), end.get("count", len(listed))
    end64 = b""
    if end.get("zip64"):
        lies = end["zip64"]
        end64 = struct.pack(
            "<4sQ2H2L4Q", lies.get("mark", b"PK\6\6"), lies.get("length", 44), 45, 45, 0, 0,
            lies.get("count", 2), lies.get("total", 2), lies.get("size", size),
            lies.get("start", start),
        )  # fmt: skip
        place, disks = lies.get("place", start + size), lies.get("disks", 1)
        end64 += struct.pack("<4sLQL", b"PK\6\7", 0, place, disks)
    comment = end.get("comment", b"")
    return body + central + end64 + before_end + struct.pack(
        "<4s4H2LH", end.get("mark", b"PK\5\6"), end.get("disk", 0), 0, end.get("here", count),
        count, end.get("size", size), end.get("start", start), len(comment),
    ) + comment + suffix  # fmt: skip


def payload(**lies):
    """The payload's entry."""
    return Entry(b"0.payload", PAYLOAD, **lies)


def manifest(**lies):
    """The manifest's entry."""
    return Entry(b"0.manifest.json", TEXT, **lies)


def zip64(*values):
    """A zip64 extra field."""
    return struct.pack("<2H", 1, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


def wide_descriptor(data):
    """A data descriptor with 64-bit sizes."""
    return struct.pack("<4sL2Q", b"PK\7\10", crc32(data), len(data), len(data))


TIMES = struct.pack("<2HBL", 0x5455, 5, 1, 0) + struct.pack("<2H", 0x7875, 3) + b"\1\0\0"
P, M = len(PAYLOAD), len(TEXT)
STREAMED_WIDE = {"flags": 8, "local_size": WIDE, "descriptor": wide_descriptor(PAYLOAD)}

FORMS = {
    "plain, as Python writes": archive(payload(), manifest()),
    "manifest first": archive(manifest(), payload()),
    "manifest as the specification names it": archive(payload(), Entry(b"manifest.json", TEXT)),
    "payload streamed, as Go writes": archive(payload(flags=8), manifest()),
    "both streamed": archive(payload(flags=8), manifest(flags=8)),
    "as Java writes": archive(
        payload(**STREAMED_WIDE | {"flags": 0x808}, size=WIDE, offset=WIDE, extra=zip64(P, P, 0)),
        manifest(flags=0x800, local_flags=0),
        count=0xFFFF, size=WIDE, start=WIDE, zip64={"count": 2},
    ),
    "local zip64 of zeros, as web clients write": archive(
        payload(**STREAMED_WIDE, local_extra=zip64(0, 0, 0), size=WIDE, extra=zip64(P, P)),
        manifest(flags=8, local_size=WIDE, descriptor=wide_descriptor(TEXT),
                 local_extra=zip64(0, 0, 0)),
    ),
    "zip64 that was not needed": archive(payload(), manifest(), zip64={"count": 2}),
    "zip64 sizes in front": archive(
        payload(local_size=WIDE, local_extra=zip64(P, P)), manifest()
    ),
    "all three in the directory": archive(payload(extra=zip64(P, P, 0)), manifest()),
    "timestamps of Info-ZIP": archive(
        manifest(local_extra=TIMES, extra=TIMES), payload(local_extra=TIMES, extra=TIMES)
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_reads_every_form_that_clients_write(form):
    """W22: orders, descriptors and zip64 forms that agree are one and the same file."""
    raw = FORMS[form]
    found = read(raw)

    assert raw[found.payload_offset :][: found.payload_size] == PAYLOAD
    assert found.manifest == TEXT


UNICODE_PATH = struct.pack("<2HBL", 0x7075, 9, 1, 0) + b"evil"
FAULTS = {
    "empty": b"",
    "no archive": b"x" * 100,
    "end record alone": archive(),
    "prefix": archive(payload(), manifest(), prefix=b"x"),
    "prefix, offsets as if none": archive(payload(offset=0), manifest(), prefix=b"#!/bin/sh\n"),
    "suffix": archive(payload(), manifest(), suffix=b"x"),
    "suffix of zeros": archive(payload(), manifest(), suffix=bytes(10)),
    "gap": archive(payload(), manifest(), gap=b"x"),
    "gap before the end": archive(payload(), manifest(), before_end=b"x"),
    "comment": archive(payload(), manifest(), comment=b"x"),
    "comment that is not there": archive(payload(), manifest())[:-2] + b"\1\0",
    "end record in the comment": archive(payload(), manifest(), comment=GOOD[-22:]),
    "archive in the comment": archive(payload(), manifest(), comment=GOOD),
    "two archives": GOOD + GOOD,
    "one entry": archive(payload()),
    "manifest alone": archive(manifest()),
    "third entry": archive(payload(), manifest(), Entry(b"x", b"")),
    "duplicate manifest": archive(payload(), manifest(), manifest()),
    "duplicate payload": archive(payload(), payload()),
    "both names of the manifest": archive(manifest(), Entry(b"manifest.json", TEXT)),
    "both names beside the payload": archive(
        payload(), manifest(), Entry(b"manifest.json", TEXT)
    ),
    "two under the other name": archive(
        Entry(b"manifest.json", TEXT), Entry(b"manifest.json", TEXT)
    ),
    "case twin": archive(payload(), Entry(b"0.Manifest.json", TEXT)),
    "path": archive(payload(), Entry(b"../0.manifest.json", TEXT)),
    "absolute path": archive(payload(), Entry(b"/0.manifest.json", TEXT)),
    "name with NUL": archive(payload(), Entry(b"0.manifest.json\0", TEXT)),
    "one listed twice": archive(payload(), manifest(), directory=[manifest(), manifest()]),
    "unlisted entry": archive(payload(), manifest(), Entry(b"x", b"y"),
                              directory=[payload(), manifest(offset=59)]),
    "count 1": archive(payload(), manifest(), count=1),
    "count 3": archive(payload(), manifest(), count=3),
    "count 65535 without zip64": archive(payload(), manifest(), count=0xFFFF),
    "count here differs": archive(payload(), manifest(), here=1),
    "other disk": archive(payload(), manifest(), disk=1),
    "entry on another disk": archive(payload(disk=1), manifest()),
    "directory size lies": archive(payload(), manifest(), size=5),
    "directory starts elsewhere": archive(payload(), manifest(), start=0),
    "directory beyond the end": archive(payload(), manifest(), start=WIDE - 1),
    "sentinels without zip64": archive(payload(), manifest(), size=WIDE, start=WIDE),
    "local name differs": archive(payload(local_name=b"0.PAYLOAD"), manifest()),
    "local name longer": archive(payload(local_name=b"0.payload2"), manifest()),
    "local mark": archive(payload(local_mark=b"PK\3\5"), manifest()),
    "central mark": archive(payload(mark=b"PK\1\3"), manifest()),
    "end mark": archive(payload(), manifest(), mark=b"PK\5\7"),
    "entry comment": archive(payload(comment=b"x"), manifest()),
    "deflated": archive(payload(method=8), manifest()),
    "deflated locally": archive(payload(local_method=8), manifest()),
    "encrypted": archive(payload(flags=1), manifest()),
    "encrypted locally": archive(payload(local_flags=1), manifest()),
    "strong encryption": archive(payload(flags=0x40), manifest()),
    "masked headers": archive(payload(flags=0x2000), manifest()),
    "streamed only locally": archive(payload(local_flags=8), manifest()),
    "crc of the manifest": archive(payload(), manifest(crc=1, local_crc=1)),
    "crc differs": archive(payload(local_crc=1), manifest()),
    "size too small": archive(payload(size=P - 1), manifest()),
    "size too large": archive(payload(size=P + 1), manifest()),
    "size over all": archive(payload(size=len(GOOD)), manifest()),
    "packed differs": archive(payload(packed=P - 1), manifest()),
    "local size differs": archive(payload(local_size=P - 1), manifest()),
    "local packed differs": archive(payload(local_packed=P - 1), manifest()),
    "overlap": archive(payload(), manifest(offset=0)),
    "overlap inside": archive(payload(), manifest(offset=20)),
    "offset beyond": archive(payload(), manifest(offset=10**9)),
    "streamed with crc in front": archive(payload(flags=8, local_crc=1), manifest()),
    "streamed with sizes in front": archive(payload(flags=8, local_size=P), manifest()),
    "streamed sizes differ": archive(payload(flags=8, local_size=0, local_packed=WIDE), manifest()),
    "no descriptor": archive(payload(flags=8, descriptor=b""), manifest()),
    "descriptor without mark": archive(
        payload(flags=8, descriptor=struct.pack("<3L", crc32(PAYLOAD), P, P)), manifest()),
    "descriptor crc lies": archive(
        payload(flags=8, descriptor=struct.pack("<4s3L", b"PK\7\10", 1, P, P)), manifest()),
    "descriptor size lies": archive(
        payload(flags=8, descriptor=struct.pack("<4s3L", b"PK\7\10", crc32(PAYLOAD), P, 1)),
        manifest()),
    "zip64 locator elsewhere": archive(payload(), manifest(), zip64={"place": 0}),
    "zip64 disks": archive(payload(), manifest(), zip64={"disks": 2}),
    "zip64 count lies": archive(payload(), manifest(), zip64={"count": 3}),
    "zip64 total lies": archive(payload(), manifest(), zip64={"total": 1}),
    "zip64 start lies": archive(payload(), manifest(), zip64={"start": 1}),
    "zip64 start alone": archive(payload(), manifest(), start=WIDE, zip64={"start": 1 << 62}),
    "zip64 record length": archive(payload(), manifest(), zip64={"length": 45}),
    "zip64 mark": archive(payload(), manifest(), zip64={"mark": b"PK\6\5"}),
    "zip64 field missing": archive(payload(size=WIDE), manifest()),
    "zip64 field lies": archive(payload(extra=zip64(P, P, 1)), manifest()),
    "zip64 field right, sizes wrong": archive(
        payload(size=P - 1, local_size=P, extra=zip64(P, P, 0)), manifest()),
    "zip64 field of two without sentinels": archive(payload(extra=zip64(P, P)), manifest()),
    "zip64 field too long": archive(payload(extra=zip64(P, P, 0, 0)), manifest()),
    "zip64 field twice": archive(payload(extra=zip64(P, P, 0) * 2), manifest()),
    "zip64 field of odd length": archive(payload(extra=b"\1\0\4\0abcd"), manifest()),
    "zip64 size lies": archive(payload(size=WIDE, extra=zip64(P, P + 1)), manifest()),
    "zip64 huge": archive(payload(size=WIDE, extra=zip64(1 << 63, 1 << 63)), manifest()),
    "local zip64 lies": archive(
        payload(local_size=WIDE, local_extra=zip64(P, P + 1)), manifest()),
    "local zip64 contradicts": archive(payload(local_extra=zip64(1, 1)), manifest()),
    "local sentinel alone": archive(payload(local_size=WIDE), manifest()),
    "streamed local zip64 lies": archive(
        payload(**STREAMED_WIDE, local_extra=zip64(P, P + 1)), manifest()),
    "extra field of another name": archive(payload(extra=UNICODE_PATH), manifest()),
    "local extra of another name": archive(payload(local_extra=UNICODE_PATH), manifest()),
    "aes extra": archive(payload(extra=struct.pack("<2H", 0x9901, 0)), manifest()),
    "extra field cut": archive(payload(extra=b"\x55\x54\x05\0\1"), manifest()),
    "extra field of three bytes": archive(payload(extra=b"\x55\x54\x05"), manifest()),
    "directory too long": archive(payload(extra=TIMES * 100), manifest()),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses_every_single_fault(fault):
    """W22: no slack, no second reading, no lie between the places that state one thing."""
    with pytest.raises(ContainerError, match=r"^container"):
        read(FAULTS[fault])


def test_a_good_archive_of_the_same_making_is_read():
    """The faults above are refused for the fault and not for the maker."""
    assert read(archive(payload(), manifest())).manifest == TEXT


@given(st.data())
def test_no_truncation_is_read(data):
    """Any proper prefix of a container is refused."""
    with pytest.raises(ContainerError):
        read(GOOD[: data.draw(st.integers(0, len(GOOD) - 1))])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing_that_is_used(position, change):
    """Versions and times are not compared; any other change outside the payload is refused."""
    raw = bytearray(GOOD)
    raw[position] ^= change
    try:
        found = read(bytes(raw))
    except ContainerError:
        return

    assert found == read(GOOD)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_reads_back_what_it_wrote(data, text):
    """Payload and manifest come back, and nothing else is in the file."""
    raw = pack(data, text)
    found = read(raw)

    assert raw[found.payload_offset :][: found.payload_size] == data
    assert found.manifest == text


def test_other_software_reads_what_is_written():
    """Python's zipfile finds both entries intact, stored, without extra fields."""
    with zipfile.ZipFile(io.BytesIO(GOOD)) as found:
        assert found.testzip() is None
        assert found.namelist() == ["0.payload", "0.manifest.json"]
        assert [found.read(name) for name in found.namelist()] == [PAYLOAD, TEXT]
        assert {
            (one.compress_type, one.extra, one.extract_version) for one in found.infolist()
        } == {(0, b"", 45)}


def test_writes_as_the_strictest_readers_want_it():
    """Payload with a descriptor of 16 bytes, manifest without, no zip64, end record last."""
    assert GOOD[:8] == b"PK\3\4\x2d\0\x08\0"
    assert GOOD[14:30] == bytes(12) + b"\x09\0\0\0"
    descriptor = 30 + 9 + P
    assert GOOD[descriptor:][:16] == struct.pack("<4s3L", b"PK\7\10", crc32(PAYLOAD), P, P)
    assert GOOD[descriptor + 16 :][:8] == b"PK\3\4\x2d\0\0\0"
    assert b"PK\6\6" not in GOOD
    assert GOOD[-22:-18] == b"PK\5\6"


class Virtual:
    """A container with a payload that exists only as a number of zero bytes."""

    def __init__(self, size, *, announced):
        """Make head and tail for a payload of *size* bytes, known in advance or not."""
        self.head = container.payload_header(size if announced else None)
        self.start, self.size = len(self.head), size
        self.tail = container.trailer(start=self.start, size=size, crc=7, manifest=TEXT)
        self.read = 0

    def __call__(self, offset, count):
        """Read across head, virtual zeros and tail."""
        self.read += count
        parts, end = [], offset + count
        parts.append(self.head[offset:end])
        first, last = max(offset, self.start), min(end, self.start + self.size)
        parts.append(bytes(max(0, last - first)))
        skip = self.start + self.size
        parts.append(self.tail[max(0, offset - skip) : max(0, end - skip)])
        return b"".join(parts)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size", [
    LIMIT - 400, LIMIT - 200, LIMIT - 1, LIMIT, 3 << 30, WIDE - 1, WIDE, 1 << 32, 10 << 30, 1 << 45,
])  # fmt: skip
def test_zip64_appears_from_two_gibibytes_on(size, announced):
    """Sizes around and far beyond 31 bits read back, with a descriptor and zip64 where needed."""
    virtual = Virtual(size, announced=announced)
    total = virtual.start + size + len(virtual.tail)
    found = read_container(virtual, total)

    assert (found.payload_offset, found.payload_size) == (virtual.start, size)
    assert found.manifest == TEXT
    assert virtual.tail[:4] == b"PK\7\10"
    assert (virtual.tail[16:20] == b"PK\3\4") == (size < LIMIT)
    assert (b"PK\6\7" in virtual.tail) == (size > LIMIT - 150)
    assert (len(virtual.head) == 39 + 20) == (announced and size >= LIMIT)
    assert virtual.read < 2000


class VirtualStream(io.RawIOBase):
    """A virtual container as a file object."""

    def __init__(self, virtual):
        """Start at the first byte."""
        self.virtual, self.position = virtual, 0
        self.end = virtual.start + virtual.size + len(virtual.tail)

    def seekable(self):
        """Always."""
        return True

    def tell(self):
        """The position."""
        return self.position

    def seek(self, offset, whence=0):
        """Move."""
        self.position = offset + (0, self.position, self.end)[whence]
        return self.position

    def read(self, count=-1):
        """Read, all of a short rest when *count* is negative."""
        raw = self.virtual(self.position, 1 << 16 if count < 0 else count)
        self.position += len(raw)
        return raw


def test_python_reads_the_zip64_directory():
    """The stdlib sees the same size and offset behind a sparse file's worth of payload."""
    virtual = Virtual(5 << 30, announced=True)
    with zipfile.ZipFile(VirtualStream(virtual)) as found:
        assert found.getinfo("0.payload").file_size == 5 << 30
        assert found.read("0.manifest.json") == TEXT


def test_refuses_a_manifest_over_the_limit_before_reading_it():
    """W23: the size is looked at before the bytes are."""
    size = MAX_MANIFEST + 1
    raw = archive(payload(), Entry(b"0.manifest.json", bytes(size)))
    asked = []

    def read_at(offset, count):
        asked.append(count)
        return raw[offset : offset + count]

    with pytest.raises(ContainerError, match="at most"):
        read_container(read_at, len(raw))
    assert max(asked) < 1000
