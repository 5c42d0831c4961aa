"""Sealing: what comes out opens, in memory that does not grow, with IVs that never repeat."""

import io
import json
import multiprocessing
import os
import threading
import zipfile

import pytest
from formats.sealing import DEK, POLICY, key_access
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk.sealing_plans import SEGMENT, noise, plan

from envelock.errors import ConfigError
from envelock.reader import SealedFile
from envelock.writer import Sealed, SealPlan, seal, seal_bytes
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.policy import write_policy

SIZES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 5 * SEGMENT, 5 * SEGMENT + 7]


def opened(raw, dek=DEK):
    """The plaintext of a sealed file."""
    with SealedFile.open(raw).unlock(dek) as reader:
        return reader.read()


@pytest.mark.parametrize("segment_hash", ["GMAC", "HS256"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_opens(size, segment_hash):
    """Around and across segment borders, the plaintext comes back."""
    data = noise(size)

    raw = seal_bytes(data, plan(segment_hash=segment_hash))

    assert opened(raw) == data
    assert len(SealedFile.open(raw).manifest.segments) == max(1, -(-size // SEGMENT))


@settings(max_examples=30)
@given(st.integers(0, 3 * SEGMENT), st.integers(SEGMENT, 2 * SEGMENT))
def test_any_size_in_any_segments_opens(size, segment_size):
    """Round trip over sizes and segment sizes."""
    data = noise(size)

    assert opened(seal_bytes(data, plan(segment_size=segment_size))) == data


def test_the_result_tells_what_was_written(tmp_path):
    """Sizes and manifest of the result are those of the file; progress counts plaintext."""
    done, target = [], tmp_path / "t.tdf"

    result = seal(noise(2 * SEGMENT + 1), target, plan(), progress=done.append)

    assert isinstance(result, Sealed)
    assert (result.size, result.sealed_size) == (2 * SEGMENT + 1, target.stat().st_size)
    with SealedFile.open(target) as sealed:
        assert result.manifest == sealed.manifest
    assert done == [SEGMENT, 2 * SEGMENT, 2 * SEGMENT + 1]


def test_seals_from_a_pipe_into_a_pipe():
    """Neither end can seek or tells a size."""
    data = noise(3 * SEGMENT)
    source_end, feed = os.pipe()
    drain, target_end = os.pipe()
    collected = []

    def feeding():
        with os.fdopen(feed, "wb") as stream:
            stream.write(data)

    def draining():
        with os.fdopen(drain, "rb") as stream:
            collected.append(stream.read())

    threads = [threading.Thread(target=feeding), threading.Thread(target=draining)]
    for thread in threads:
        thread.start()
    with os.fdopen(source_end, "rb") as source, os.fdopen(target_end, "wb") as target:
        seal(source, target, plan())
    for thread in threads:
        thread.join()

    assert opened(collected[0]) == data


def test_other_software_finds_what_it_expects():
    """A stock zip reader sees two entries; the manifest says what the strictest client needs."""
    raw = seal_bytes(noise(SEGMENT + 1), plan())
    with zipfile.ZipFile(io.BytesIO(raw)) as found:
        assert found.testzip() is None
        manifest = json.loads(found.read("0.manifest.json"))
    integrity = manifest["encryptionInformation"]["integrityInformation"]

    assert integrity["segmentHashAlg"] == "GMAC"
    assert integrity["rootSignature"]["alg"] == "HS256"
    assert [one["encryptedSegmentSize"] for one in integrity["segments"]] == [SEGMENT + 28, 29]


def ivs_of(raw):
    """The IV of every segment of a sealed file."""
    with SealedFile.open(raw) as sealed:
        offset = sealed.payload_offset
        for segment in sealed.manifest.segments:
            yield raw[offset : offset + 12]
            offset += segment.sealed_size


def sealed_in_child(number):
    """Seal in another process; *number* only tells the calls apart."""
    return number, seal_bytes(bytes(20 * SEGMENT), plan())


def test_no_iv_repeats_over_segments_files_and_forks():
    """W21: forked children that share every state of their parent draw other IVs."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        files = [raw for _, raw in pool.map(sealed_in_child, range(20), chunksize=1)]
    files += [seal_bytes(bytes(20 * SEGMENT), plan()) for _ in range(20)]
    found = [iv for raw in files for iv in ivs_of(raw)]

    assert len(found) == 40 * 20
    assert len(set(found)) == len(found)


class IvCollector(io.RawIOBase):
    """A target that keeps the IV of each full segment and forgets the rest."""

    def __init__(self):
        """Nothing seen yet."""
        self.seen = []

    def writable(self):
        """Always."""
        return True

    def write(self, data):
        """Take everything."""
        if len(data) == SEGMENT + 28:
            self.seen.append(bytes(data[:12]))
        return len(data)


@pytest.mark.slow
def test_no_iv_repeats_over_a_million_segments():
    """W21: a million segments under one key, in as many files as their manifests need."""
    target = IvCollector()
    for _ in range(13):
        seal(Zeros(80_000 * SEGMENT), target, plan())

    assert len(target.seen) == 13 * 80_000
    assert len(set(target.seen)) == len(target.seen)


class Failing(io.RawIOBase):
    """A source that fails after one segment."""

    def __init__(self):
        """One segment is left."""
        self.left = 1

    def readinto(self, buffer):
        """Give one segment of zeros, then fail."""
        if not self.left:
            raise OSError("source is gone")
        self.left = 0
        return len(buffer)


def test_a_failed_seal_leaves_nothing(tmp_path):
    """W24: an error of the source removes the temporary file and keeps an old target."""
    target = tmp_path / "t.tdf"
    target.write_bytes(b"old")

    with pytest.raises(OSError, match="gone"):
        seal(Failing(), target, plan(), force=True)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(ConfigError, match="exists"):
        seal(b"x", target, plan())


@pytest.mark.parametrize(
    "changes",
    [{"dek": bytes(32)}, {"dek": bytes(31)}, {"segment_size": SEGMENT - 1},
     {"segment_size": 4 * 1024 * 1024 + 1}, {"policy": "x"},
     {"policy": write_policy("0d21482b-5d80-466b-ae92-7b0d01b9e2ba", ())},
     {"key_access": (key_access(b"o" * 32),)}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_refuses_a_plan_whose_file_nobody_could_open(changes):
    """Weak or foreign keys, sizes other clients refuse, bindings that do not hold."""
    parts = {"dek": DEK, "key_access": (key_access(),), "policy": POLICY} | changes

    with pytest.raises(ConfigError):
        SealPlan(**parts)


def test_split_keys_are_not_checked_against_the_data_key():
    """With several splits each binding is under its own share."""
    one, other = b"1" * 32, bytes(a ^ b for a, b in zip(b"1" * 32, DEK, strict=True))
    keys = (key_access(one, sid="1"), key_access(other, sid="2"))

    raw = seal_bytes(b"split", plan(key_access=keys))

    with SealedFile.open(raw) as sealed:
        assert sealed.join({0: one, 1: other}) == DEK


def test_a_plan_shows_no_key():
    """Neither its text nor an error about it holds the data key."""
    assert DEK.hex() not in repr(plan())
    assert repr(DEK) not in repr(plan())


def test_refuses_a_source_that_no_manifest_could_list(tmp_path):
    """Too many segments are refused before the first is written, when the size is known."""
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(2 << 30)

    with pytest.raises(ConfigError, match="too large"):
        seal(path, tmp_path / "t.tdf", plan())
    assert list(tmp_path.iterdir()) == [path]


def peak_growth(size):
    """Bytes by which a fresh process grows at its peak while it seals and opens *size* bytes."""
    seal(io.BytesIO(b"x"), io.BytesIO(), plan())  # everything is imported now
    with open("/proc/self/clear_refs", "w") as clear:  # noqa: PTH123 a kernel file
        clear.write("5")
    before = resident_peak()
    source = Zeros(size)
    reading, writing = os.pipe()
    thread = threading.Thread(target=drained, args=(reading,))
    thread.start()
    with os.fdopen(writing, "wb") as target:
        seal(source, target, plan(segment_size=2 << 20))
    thread.join()
    return resident_peak() - before


def resident_peak():
    """The highest resident size so far, bytes."""
    with open("/proc/self/status") as status:  # noqa: PTH123 a kernel file
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def drained(descriptor):
    """Read a pipe to its end and forget it."""
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass


class Zeros(io.RawIOBase):
    """Zero bytes, so many of them."""

    def __init__(self, size):
        """All are left."""
        self.left = size

    def readinto(self, buffer):
        """Give as many as fit."""
        count = min(len(buffer), self.left)
        self.left -= count
        return count


def test_memory_does_not_grow_with_the_source():
    """A quarter of a gigabyte passes through less than 64 MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        growth = pool.apply(peak_growth, (256 << 20,))

    assert growth < 64 << 20


def test_the_container_is_the_strict_one():
    """Our own reader, which accepts no slack, reads what is written."""
    raw = seal_bytes(noise(10), plan())
    found = read_container(lambda offset, count: raw[offset : offset + count], len(raw))

    assert found.payload_size == 38
