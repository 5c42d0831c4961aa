"""Opening: nothing before the root is verified, nothing after a segment failed."""

import base64
import dataclasses
import io
import json
import os
import threading

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key
from formats.sealing import DEK, edited, manifest_of, members, pack, seal_pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk.sealing_plans import SEGMENT, noise, plan

from envelock.errors import ConfigError, FormatError, SealedFileError, TamperedError
from envelock.reader import SealedFile
from envelock.writer import seal_bytes
from envelock_formats.framing import from_b64
from envelock_formats.tdf.manifest import Segment, write_manifest
from envelock_formats.wrap import UnwrapError, ec_from_pem, unwrap_ec, unwrap_rsa

DATA = noise(5 * SEGMENT + 100)
RAW = seal_bytes(DATA, plan())
PIECES = [b"first", b"second", b"third"]
ENCRYPTION = "encryptionInformation"
SEGMENTS = f"{ENCRYPTION}.integrityInformation.segments"


class Counting(io.BytesIO):
    """A file in memory that counts the bytes read from it."""

    count = 0

    def readinto(self, buffer):
        """Count, then read."""
        self.count += len(buffer)
        return super().readinto(buffer)


def reader_of(raw=RAW, dek=DEK):
    """A reader over a sealed file."""
    return SealedFile.open(raw).unlock(dek)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(DATA) + 10), st.integers(0, 3 * SEGMENT)), max_size=8))
def test_reads_like_a_file_at_any_place(steps):
    """Seek and read give what a file of the plaintext would give."""
    plain = io.BytesIO(DATA)
    with reader_of() as reader:
        for offset, count in steps:
            assert reader.seek(offset) == plain.seek(offset)
            assert reader.read(count) == plain.read(count)
            assert reader.tell() == plain.tell()


def test_is_a_file_for_other_software():
    """Buffered and text layers, lines and `readinto` work on top."""
    text = "".join(f"line {n}\n" for n in range(5000))
    raw = seal_bytes(text.encode(), plan())

    with io.TextIOWrapper(io.BufferedReader(reader_of(raw))) as lines:
        assert list(lines) == text.splitlines(keepends=True)
    with reader_of() as reader:
        buffer = bytearray(10)
        assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
        assert reader.readinto(buffer) == 10
        assert reader.seek(-10, os.SEEK_END) == len(DATA) - 10
        assert reader.seek(-10, os.SEEK_CUR) == len(DATA) - 20
        assert reader.read() == DATA[-20:]
        assert (reader.read(), reader.read(5), reader.readall()) == (b"", b"", b"")
        for offset, whence in ((-1, 0), (0, 9)):
            with pytest.raises(ValueError, match="seek"):
                reader.seek(offset, whence)


def test_a_range_touches_only_its_segments():
    """Four kilobytes cost two segments at most, and none again while one is kept."""
    source = Counting(RAW)
    reader = SealedFile.open(source).unlock(DEK)
    source.count = 0

    reader.seek(2 * SEGMENT - 2048)
    assert reader.read(4096) == DATA[2 * SEGMENT - 2048 :][:4096]
    assert source.count == 2 * (SEGMENT + 28)
    assert reader.read(100) == DATA[2 * SEGMENT + 2048 :][:100]
    assert source.count == 2 * (SEGMENT + 28)


def test_a_closed_reader_reads_nothing(tmp_path):
    """Closing closes the path, leaves the caller's file open, and may be done twice."""
    path = tmp_path / "x.tdf"
    path.write_bytes(RAW)
    with path.open("rb") as stream:
        for source in (path, stream):
            reader = reader_of(source)
            reader.close()
            reader.close()
            for use in (reader.read, reader.tell, lambda: reader.seek(0)):  # noqa: B023 used at once
                with pytest.raises(ValueError, match="closed"):
                    use()
        assert not stream.closed


def test_copies_everything_or_leaves_no_file(tmp_path):
    """A path is complete or absent; progress counts bytes."""
    done = []
    with reader_of() as reader:
        assert reader.copy_to(tmp_path / "plain", progress=done.append) == len(DATA)
    assert (tmp_path / "plain").read_bytes() == DATA
    assert done == [*range(SEGMENT, 5 * SEGMENT + 1, SEGMENT), len(DATA)]

    with reader_of() as reader, pytest.raises(ConfigError, match="exists"):
        reader.copy_to(tmp_path / "plain")
    bad = bytearray(RAW)
    bad[3 * SEGMENT] ^= 1
    with reader_of(bad) as reader, pytest.raises(TamperedError):
        reader.copy_to(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_copies_from_the_position_on():
    """A copy that starts inside a segment is the rest."""
    target = io.BytesIO()
    with reader_of() as reader:
        reader.seek(SEGMENT + 5)
        reader.copy_to(target)

    assert target.getvalue() == DATA[SEGMENT + 5 :]


def test_nothing_follows_the_first_bad_segment():
    """I10: good segments before it are delivered, no byte of it, and none of those behind it."""
    bad = bytearray(RAW)
    bad[RAW.index(b"0.payload") + 9 + 2 * (SEGMENT + 28) + 50] ^= 1
    target = io.BytesIO()
    with reader_of(bad) as reader:
        with pytest.raises(TamperedError, match=r"^tampered"):
            reader.copy_to(target)
        assert target.getvalue() == DATA[: 2 * SEGMENT]
        for offset in (2 * SEGMENT, 3 * SEGMENT, 0, len(DATA) - 1):
            reader.seek(offset)
            with pytest.raises(TamperedError):
                reader.read(1)


def test_a_bad_segment_leaves_nothing_in_the_buffer():
    """I10: neither the whole-segment path nor the kept one hands out unverified bytes."""
    bad = bytearray(RAW)
    bad[RAW.index(b"0.payload") + 9 + 50] ^= 1
    for count in (SEGMENT, 10):
        buffer = bytearray(b"x" * count)
        with reader_of(bad) as reader, pytest.raises(TamperedError):
            reader.readinto(buffer)

        assert set(buffer) <= {0, ord("x")}


def forged(payload, segments):
    """A file with another list of segments under the root of the real one."""
    _, real = seal_pieces(PIECES)
    made = dataclasses.replace(manifest_of(real), segments=tuple(segments))
    return pack(payload, write_manifest(made))


CHANGES = {
    "dropped first": (1, 2), "dropped last": (0, 1), "dropped middle": (0, 2), "empty": (),
    "swapped": (1, 0, 2), "doubled": (0, 1, 2, 2), "another for one": (0, 0, 2),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_segments_dropped_swapped_or_doubled_never_open(change):
    """W3: with payload and sizes made to fit, the root signature still tells."""
    _, segments = seal_pieces(PIECES)
    pieces = []
    for index in CHANGES[change]:
        whole, _ = seal_pieces(PIECES)
        start = sum(one.sealed_size for one in segments[:index])
        pieces.append(whole[start : start + segments[index].sealed_size])
    raw = forged(b"".join(pieces), [segments[index] for index in CHANGES[change]])

    with SealedFile.open(raw) as sealed, pytest.raises(TamperedError, match="root"):
        sealed.unlock(DEK)


@pytest.mark.parametrize("extra", [b"", b"x", bytes(28)], ids=len)
def test_sizes_that_do_not_add_up_are_refused(extra):
    """W4: the payload is as long as its segments together, no byte more or less."""
    payload, segments = seal_pieces(PIECES)
    text = write_manifest(manifest_of(segments))

    with pytest.raises(TamperedError, match="add up"):
        SealedFile.open(pack((payload + extra) if extra else payload[:-1], text))


def test_sizes_moved_between_segments_are_refused():
    """W4: sizes are not signed; a shifted border opens nothing."""
    payload, (one, two, three) = seal_pieces(PIECES)
    shifted = [Segment(one.hash, one.size + 1), Segment(two.hash, two.size - 1), three]

    with reader_of(forged(payload, shifted)) as reader, pytest.raises(TamperedError):
        reader.read()


def test_a_tag_in_the_list_must_be_in_the_file():
    """W5: a payload sealed anew under the same key does not pass for the listed one."""
    _, segments = seal_pieces([b"hello"])
    payload, _ = seal_pieces([b"jello"])
    raw = pack(payload, write_manifest(manifest_of(segments)))

    with reader_of(raw) as reader, pytest.raises(TamperedError, match="hash"):
        reader.read()


@pytest.mark.parametrize("dek", [DEK[::-1], bytes(32), DEK[:31], b""], ids=len)
def test_no_other_key_unlocks(dek):
    """W11: a wrong key and a changed list look the same, before any byte."""
    with SealedFile.open(RAW) as sealed, pytest.raises(TamperedError, match=r"^tampered"):
        sealed.unlock(dek)


def test_refuses_algorithms_before_anybody_is_asked():
    """W1, W2: a file is refused when it is opened, long before a key is requested."""
    payload, _ = seal_pieces([b"hello"])
    root = f"{ENCRYPTION}.integrityInformation.rootSignature.alg"

    with pytest.raises(FormatError, match="root") as caught:
        SealedFile.open(pack(payload, edited(members(), root, "GMAC")))
    assert caught.value.code == "unsupported_algorithm"
    with pytest.raises(TamperedError, match="encrypted"):
        SealedFile.open(pack(payload, edited(members(), "payload.isEncrypted", value=False)))


def test_shares_are_joined_or_refused():
    """W10: a missing or short share is a tampered file."""
    with SealedFile.open(RAW) as sealed:
        assert sealed.join({0: DEK}) == DEK
        for shares in ({}, {0: DEK[1:]}, {0: bytes(32)}):
            with pytest.raises(TamperedError):
                sealed.join(shares)


def test_says_what_a_key_server_must_be_asked_for():
    """Policy text and key access are those of the file; nothing is verified yet."""
    with SealedFile.open(RAW) as sealed:
        assert sealed.policy_text == plan().policy
        assert sealed.key_access == plan().key_access
        assert [value.short for value in sealed.policy.attributes] == [
            "clinic.example/clearance=secret"
        ]
        assert sealed.size == len(DATA)
    with SealedFile.open(RAW).unlock(DEK, receipts=("r",)) as reader:
        assert (reader.attrs, reader.receipt, reader.size) == (
            ("https://clinic.example/attr/clearance/value/secret",), "r", len(DATA),
        )  # fmt: skip


@pytest.mark.parametrize("raw", [b"", b"x", b"x" * 100, RAW[:-1], RAW + b"x"], ids=len)
def test_what_is_no_sealed_file_is_an_error_with_an_exit_code(raw):
    """Nothing, junk, and a file cut or grown are format errors."""
    with pytest.raises(FormatError) as caught:
        SealedFile.open(raw)
    assert caught.value.exit_code == 4
    assert isinstance(caught.value, SealedFileError)


def test_opens_from_a_pipe():
    """What cannot seek is spooled, and then read at any offset."""
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as stream:
            stream.write(RAW)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as stream, reader_of(stream) as reader:
        reader.seek(-5, os.SEEK_END)
        assert reader.read() == DATA[-5:]
    thread.join()


def test_a_file_that_shrinks_while_open_is_tampered(tmp_path):
    """Bytes that were there at the start and are gone do not become zeros."""
    path = tmp_path / "x.tdf"
    path.write_bytes(RAW)
    with reader_of(path) as reader:
        os.truncate(path, SEGMENT)
        reader.seek(3 * SEGMENT)

        with pytest.raises(TamperedError, match="shorter"):
            reader.read(1)


def test_an_empty_file_of_either_kind_opens():
    """One empty segment, as we write, or none, as another client writes."""
    for pieces in ([], [b""]):
        payload, segments = seal_pieces(pieces)
        raw = pack(payload, write_manifest(manifest_of(segments)))
        with reader_of(raw) as reader:
            assert (reader.read(), reader.size) == (b"", 0)
            assert reader.copy_to(io.BytesIO()) == 0


def test_segments_of_mixed_and_zero_sizes_open():
    """Sizes need not be equal; empty segments between others do no harm."""
    pieces = [b"", b"abc", b"", b"", b"d" * 50, b"e", b""]
    payload, segments = seal_pieces(pieces)
    raw = pack(payload, write_manifest(manifest_of(segments)))
    plain = b"".join(pieces)

    with reader_of(raw) as reader:
        for start in range(len(plain)):
            reader.seek(start)
            assert reader.read() == plain[start:]


LEGACY = {"no-splitids-java", "small-java-4.3.0", "go-422", "js-422"}


def test_opens_what_other_clients_wrote(vectors):
    """Every published file opens with the published keys; legacy ones only when asked."""
    root, keys = vectors / "opentdf", {}
    for path in (root / "golden-keys.json", root / "clients" / "keys.json"):
        for kid, der in json.loads(path.read_bytes())["keys"].items():
            keys[kid] = load_der_private_key(base64.b64decode(der), None)
    opened = 0
    for path in sorted(root.glob("**/*.tdf")):
        legacy = path.stem in LEGACY
        if legacy:
            with pytest.raises(FormatError, match="legacy"):
                SealedFile.open(path)
        with SealedFile.open(path, legacy=legacy) as sealed:
            shares = dict(shares_of(sealed, keys))
            with sealed.unlock(sealed.join(shares)) as reader:
                plain = reader.read()
        if path.parent.name == "clients":
            assert plain == (root / "clients" / "plaintext.txt").read_bytes()
        opened += 1

    assert opened == 12


def shares_of(sealed, keys):
    """Position and share of each key access object that opens."""
    for position, key in enumerate(sealed.key_access):
        wrapped = from_b64(key.wrappedKey)
        try:
            if key.type == "wrapped":
                yield position, unwrap_rsa(wrapped, keys[key.kid])
            else:
                ephemeral = ec_from_pem(key.ephemeralPublicKey)
                yield position, unwrap_ec(wrapped, ephemeral, keys[key.kid])
        except UnwrapError:
            continue
