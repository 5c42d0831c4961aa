"""The doctor: every ailment is found and told, and mended where no key is needed."""

import contextlib
import dataclasses
import io
import json
import struct
import warnings
import zipfile

import pytest
from formats.sealing import DEK, POLICY, edited, members, pack, seal_pieces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sdk.test_cli import envelock  # noqa: F401 a fixture

from envelock import Assertion, ConfigError, Demands, FormatError, Statement
from envelock.ailments import AILMENTS, READERS, Findings
from envelock.anatomy import dissect
from envelock.doctor import examine, repair
from envelock.reader import SealedFile
from envelock.repairing import mended
from envelock_formats.framing import b64, from_b64
from envelock_formats.tdf import container
from envelock_formats.tdf.assertions import aggregate, write_assertion
from envelock_formats.tdf.container import read_container

PIECES = (b"a" * 16384, b"b" * 16384, b"end")
DATA = b"".join(PIECES)
PAYLOAD, SEGMENTS = seal_pieces(PIECES)
FOUND = members(PIECES)
FOUND["encryptionInformation"]["integrityInformation"]["segmentSizeDefault"] = 16384
FOUND["encryptionInformation"]["integrityInformation"]["encryptedSegmentSizeDefault"] = 16412
RSA = b64(bytes(256))
ENCRYPTION = "encryptionInformation"
INTEGRITY = f"{ENCRYPTION}.integrityInformation"
KEY = f"{ENCRYPTION}.keyAccess.0"
SIGNED = write_assertion(Assertion("a", Statement("f", "s", "v")), aggregate(SEGMENTS), DEK)


def file_of(path=None, value=None):
    """A whole file whose manifest has one member changed."""
    return pack(PAYLOAD, edited(FOUND, path, value) if path else json.dumps(FOUND).encode())


def asserting(*assertions):
    """A whole file with assertions."""
    return file_of("assertions", list(assertions))


def zipped(*entries, comment=b"", compression=zipfile.ZIP_STORED):
    """A zip as Python writes it; manifest and payload unless *entries* say otherwise."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, data in entries or BOTH:
            made.writestr(name, data)
        made.comment = comment
    return out.getvalue()


TEXT = json.dumps(FOUND).encode()
BOTH = (("0.payload", PAYLOAD), ("0.manifest.json", TEXT))
SPECIFIED = (BOTH[0], ("manifest.json", TEXT))
GOOD = file_of()
DIRECTORY = GOOD.rindex(b"PK\1\2", 0, GOOD.rindex(b"PK\1\2"))
MANIFEST = GOOD.index(b"PK\3\4", 4)


def large(size):
    """What comes before and after a payload of *size* bytes, and that as a source."""
    head = container.payload_header(size)
    tail = container.trailer(start=len(head), size=size, crc=0, manifest=TEXT)
    return head, tail


@dataclasses.dataclass
class Sparse:
    """A file with a large hole in it."""

    head: bytes
    hole: int
    tail: bytes

    @property
    def size(self):
        """Bytes in all."""
        return len(self.head) + self.hole + len(self.tail)

    def read_into(self, offset, buffer):
        """Zeros, but for both ends."""
        count = max(0, min(len(buffer), self.size - offset))
        for at in range(count):
            place = offset + at - len(self.head)
            if place < 0:
                buffer[at] = self.head[place]
            else:
                buffer[at] = self.tail[place - self.hole] if place >= self.hole else 0
        return count

    def close(self):
        """Nothing to close."""


def in_part(tail):
    """The end as Python writes it between 2 and 4 GiB: zip64 entries, but no zip64 end."""
    end = tail.index(b"PK\6\6")
    length, offset = struct.unpack_from("<2Q", tail, end + 40)
    return tail[:end] + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, length, offset, 0)


def policy(**members):
    """A policy as base64."""
    found = {"uuid": "0d21482b-5d80-466b-ae92-7b0d01b9e2ba", "body": {"dataAttributes": []}}
    return b64(json.dumps(found | members).encode())


def bare():
    """Segments without sizes, but for the last."""
    found = json.loads(TEXT)
    for segment in found[ENCRYPTION]["integrityInformation"]["segments"][:-1]:
        del segment["segmentSize"], segment["encryptedSegmentSize"]
    return found


def keys(*changes):
    """A key access object for each change."""
    key = FOUND[ENCRYPTION]["keyAccess"][0]
    return file_of(f"{ENCRYPTION}.keyAccess", [{**key, **change} for change in changes])


def shuffled():
    """Two segments of one size that changed places."""
    return pack(PAYLOAD[16412:32824] + PAYLOAD[:16412] + PAYLOAD[32824:], TEXT)


def patched(at, data):
    """The good file with bytes replaced."""
    return GOOD[:at] + data + GOOD[at + len(data) :]


CASES = {
    "not-a-sealed-file": b"hello" * 100,
    "zip-directory-lost": GOOD[:DIRECTORY],
    "payload-truncated": GOOD[:20_000],
    "zip-comment": zipped(comment=b"hi"),
    "zip-trailing": GOOD + b"junk",
    "zip-shifted": b"MZ" * 50 + GOOD,
    "zip-gap": zipped(*BOTH),
    "zip-extra-entry": zipped(*BOTH, ("more", b"x")),
    "zip-missing-entry": zipped(BOTH[0]),
    "zip-manifest-name": zipped(*SPECIFIED),
    "zip-compressed": zipped(compression=zipfile.ZIP_DEFLATED),
    "zip-compressed-rarely": zipped(compression=zipfile.ZIP_BZIP2),
    "zip-encrypted": patched(DIRECTORY + 8, b"\x09"),
    "zip-directory-far": zipped(*BOTH, *((f"{n:090}", b"") for n in range(9))),
    "zip-descriptor": patched(MANIFEST - 8, b"\0\0\0\0"),
    "zip-local-header": patched(MANIFEST + 8, b"\x08\0"),
    "zip-order": zipped(*reversed(BOTH)),
    "zip-manifest-crc": patched(MANIFEST + 60, b"X"),
    "zip-payload-crc": patched(60, b"XXXX"),
    "manifest-not-json": pack(PAYLOAD, b"{"),
    "manifest-ambiguous": pack(PAYLOAD, TEXT[:-1] + b',"payload":{}}'),
    "manifest-shape": file_of("payload", 5),
    "unknown-member": file_of(f"{KEY}.more", 1),
    "iv-missing": file_of(f"{ENCRYPTION}.method.iv", ...),
    "mime-type-missing": file_of("payload.mimeType", ...),
    "sizes-omitted": pack(PAYLOAD, json.dumps(bare()).encode()),
    "defaults-missing": file_of(f"{INTEGRITY}.encryptedSegmentSizeDefault", ...),
    "defaults-differ": file_of(f"{INTEGRITY}.encryptedSegmentSizeDefault", 16384),
    "sizes-differ": file_of(f"{INTEGRITY}.segments.0.encryptedSegmentSize", 16413),
    "sizes-short": file_of(f"{INTEGRITY}.segments", FOUND[ENCRYPTION]["integrityInformation"]
                           ["segments"][:-1]),
    "sizes-long": file_of(f"{INTEGRITY}.segments", FOUND[ENCRYPTION]["integrityInformation"]
                          ["segments"] * 2),
    "segment-moved": shuffled(),
    "segments-none": pack(b"", edited(FOUND, f"{INTEGRITY}.segments", [])),
    "root-gmac": file_of(f"{INTEGRITY}.rootSignature.alg", "GMAC"),
    "root-algorithm": file_of(f"{INTEGRITY}.rootSignature.alg", "none"),
    "root-size": file_of(f"{INTEGRITY}.rootSignature.sig", "AAAA"),
    "hash-algorithm": file_of(f"{INTEGRITY}.segmentHashAlg", "CRC"),
    "hash-size": file_of(f"{INTEGRITY}.segments.0.hash", "AAAA"),
    "encryption-algorithm": file_of(f"{ENCRYPTION}.method.algorithm", "AES-128-CBC"),
    "not-encrypted": file_of("payload.isEncrypted", 0),
    "legacy": file_of("schemaVersion", ...),
    "legacy-named": file_of("schemaVersion", "4.2.2"),
    "schema-version": file_of("schemaVersion", "5.0"),
    "binding-bare": file_of(f"{KEY}.policyBinding",
                            FOUND[ENCRYPTION]["keyAccess"][0]["policyBinding"]["hash"]),
    "binding-without-alg": file_of(f"{KEY}.policyBinding.alg", ...),
    "binding-raw": file_of(f"{KEY}.policyBinding.hash", b64(bytes(32))),
    "binding-malformed": file_of(f"{KEY}.policyBinding.alg", "RS256"),
    "key-access-none": file_of(f"{ENCRYPTION}.keyAccess", []),
    "key-access-twice": keys({}, {}),
    "key-access-type": file_of(f"{KEY}.type", "remote"),
    "key-access-post-quantum": file_of(f"{KEY}.type", "mlkem-wrapped"),
    "key-access-kid": file_of(f"{KEY}.kid", ""),
    "key-access-url": file_of(f"{KEY}.url", "http://good@evil.example"),
    "key-access-wrap": file_of(f"{KEY}.wrappedKey", "AAAA"),
    "key-access-wrap-of-several": keys({"url": "http://a"}, {"wrappedKey": "AAAA"}),
    "key-split": keys({"sid": "a"}, {"sid": "b", "url": "http://a"}),
    "policy-unreadable": file_of(f"{ENCRYPTION}.policy", "AAAA"),
    "policy-strict": file_of(f"{ENCRYPTION}.policy", policy(more=1)),
    "policy-uuid": file_of(f"{ENCRYPTION}.policy",
                           policy(uuid="00000000-0000-0000-0000-000000000000")),
    "policy-empty": file_of(f"{ENCRYPTION}.policy", policy()),
    "assertion-malformed": asserting(5),
    "assertion-incomplete": asserting({"id": "a"}),
    "assertion-unbound": asserting({"id": "a"}),
    "assertion-twice": asserting(SIGNED, SIGNED),
    "assertion-author": asserting(
        SIGNED | {"binding": {"signature": "eyJhbGciOiJSUzI1NiJ9.e30.A"}}),
    "assertion-key-inside": asserting(
        SIGNED | {"binding": {"signature": "eyJhbGciOiJSUzI1NiIsImp3ayI6e319.e30.A"}}),
    "assertion-object": asserting(SIGNED | {"statement": {"value": {"a": 1}}}),
    "assertions-too-many": asserting(*[SIGNED] * 257),
}  # fmt: skip
MENDED = ["zip-comment", "zip-trailing", "zip-shifted", "zip-extra-entry", "zip-compressed",
          "zip-manifest-name", "zip-directory-far", "zip-descriptor", "zip-directory-lost",
          "iv-missing", "mime-type-missing", "sizes-omitted", "defaults-missing",
          "defaults-differ", "binding-bare", "binding-without-alg"]  # fmt: skip


def codes(raw):
    """What is found, by code."""
    return {finding.code: finding for finding in examine(raw).findings}


def test_nothing_is_wrong_with_what_is_written_here():
    """No finding at all."""
    report = examine(GOOD)

    assert (report.findings, report.refused_by, report.healthy) == ((), (), True)
    assert codes(asserting(SIGNED)) == {}


@pytest.mark.parametrize("code", [code for code in CASES if code != "zip-gap"])
def test_each_ailment_is_found(code):
    """With the readers that refuse it; what our own reader refuses is never healthy."""
    found = codes(CASES[code])

    assert code in found, sorted(found)
    assert found[code].refused_by == AILMENTS[code].refused_by
    assert found[code].where
    report = examine(CASES[code])
    with contextlib.suppress(Exception):
        SealedFile.open(CASES[code])
        return
    assert "envelock" in report.refused_by


def test_a_gap_between_entries_is_found():
    """Bytes that belong to nothing."""
    raw = zipped()
    second = raw.index(b"PK\3\4", 4)
    found = codes(raw[:second] + b"gap" + raw[second:])

    assert "zip-shifted" in found or "zip-gap" in found


class TestLarge:
    """Numbers from 2 GiB on, which readers take in different ways; nobody reads the payload."""

    def odd(self, head, size, tail):
        """What is odd about the container."""
        findings = Findings()
        anatomy = dissect(Sparse(head, size, tail), findings)
        assert (anatomy.payload.size, anatomy.payload.start) == (size, len(head))
        return {finding.code for finding in findings}

    @pytest.mark.parametrize("size", [(1 << 31) - 300, (1 << 31) - 1, 3 << 30, 5 << 30])
    def test_what_is_written_here_is_read_by_all(self, size):
        """Zip64 in full from 2 GiB on."""
        assert self.odd(large(size)[0], size, large(size)[1]) <= {"zip-directory-far"}

    def test_what_python_writes_is_not_for_go(self):
        """Zip64 entries, but a plain end record."""
        head, tail = large(3 << 30)
        assert "zip64-in-part" in self.odd(head, 3 << 30, in_part(tail))

    @pytest.mark.parametrize("size", [(1 << 31) - 1, 3 << 30])
    def test_plain_numbers_are_not_for_java(self, monkeypatch, size):
        """It takes the highest bit for a sign."""
        monkeypatch.setattr(container, "_WIDE", 0xFFFFFFFF)
        head, tail = large(size)

        assert "zip32-large" in self.odd(head, size, tail)


def test_rarer_containers():
    """Bytes in front that the offsets count, an entry that is repeated, an unknown extra field."""
    out = io.BytesIO(b"#!/bin/sh\n")
    with warnings.catch_warnings(), zipfile.ZipFile(out, "a") as made:
        warnings.simplefilter("ignore")
        for name, data in (*BOTH, BOTH[0]):
            entry = zipfile.ZipInfo(name)
            entry.extra = b"\x99\x99\0\0"
            made.writestr(entry, data)

    assert {"zip-leading", "zip-duplicate-entry", "zip-extra-field"} <= codes(out.getvalue()).keys()


def test_segments_that_are_too_large_or_too_many():
    """Java stops at 4 MiB, this reader at 64."""
    for size, code in ((5 << 20, "segment-over-4-mib"), (65 << 20, "segment-over-64-mib")):
        stated = {"hash": b64(bytes(16)), "segmentSize": size, "encryptedSegmentSize": size + 28}
        assert code in codes(file_of(f"{INTEGRITY}.segments.0", stated))
    many = file_of(f"{INTEGRITY}.more", "x" * (11 << 20))
    assert codes(many).keys() == {"manifest-too-large"}


def test_every_ailment_is_told_of_known_readers():
    """The table names nobody else, and all of it is tried, here or above."""
    assert all(set(ailment.refused_by) <= set(READERS) for ailment in AILMENTS.values())
    untried = AILMENTS.keys() - CASES.keys()
    assert untried == {
        "zip-leading", "zip-duplicate-entry", "zip-extra-field", "zip64-in-part", "zip32-large",
        "manifest-too-large", "segment-over-4-mib", "segment-over-64-mib", "segments-too-many",
        "refused",
    }  # fmt: skip


@pytest.mark.parametrize("code", MENDED)
def test_is_repaired_without_a_key(tmp_path, code):
    """The file opens, nothing signed or bound is changed, and the ailment is gone."""
    sick, well = tmp_path / "sick.tdf", tmp_path / "well.tdf"
    sick.write_bytes(CASES[code])
    assert codes(sick)[code].repairable

    done = repair(sick, well)

    assert done.changed
    assert done.report == examine(well)
    assert code not in codes(well)
    assert done.report.healthy
    assert sick.read_bytes() == CASES[code]
    with SealedFile.open(well).unlock(DEK) as reader:
        assert reader.read() == DATA
    assert signed_of(well.read_bytes()) == signed_of(GOOD)


def signed_of(raw):
    """Everything in a file that a key vouches for."""
    place = read_container(lambda start, count: raw[start : start + count], len(raw))
    found = json.loads(place.manifest)
    encryption = found["encryptionInformation"]
    integrity = encryption["integrityInformation"]
    bindings = [key["policyBinding"] for key in encryption["keyAccess"]]
    return (
        encryption["policy"],
        [key["wrappedKey"] for key in encryption["keyAccess"]],
        [binding["hash"] for binding in bindings],
        integrity["rootSignature"],
        [segment["hash"] for segment in integrity["segments"]],
        found.get("assertions"),
        raw[place.payload_offset : place.payload_offset + place.payload_size],
    )


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("name", [b"0.manifest.json", b"manifest.json"])
def test_the_name_that_the_specification_gives(tmp_path, name, lost):
    """It is found with the zip's directory and without, and repaired to the one that all know."""
    raw = zipped(BOTH[0], (name.decode(), TEXT))
    end = raw.index(b"PK\1\2") if lost else len(raw)
    (tmp_path / "a").write_bytes(raw[:end] + b"junk")

    found = codes(tmp_path / "a")
    repair(tmp_path / "a", tmp_path / "b")

    assert ("zip-manifest-name" in found, "zip-directory-lost" in found) == (name[0] == 109, lost)
    with zipfile.ZipFile(tmp_path / "b") as made:
        assert made.namelist() == ["0.payload", "0.manifest.json"]
        assert json.loads(made.read("0.manifest.json")) == FOUND
    assert codes(tmp_path / "b") == {}


def test_two_manifests_by_two_names(tmp_path):
    """Readers differ in which they take, so neither is kept: nothing is repaired."""
    (tmp_path / "a").write_bytes(zipped(*BOTH, SPECIFIED[1]))

    found = codes(tmp_path / "a")

    assert found["zip-duplicate-entry"].where == "0.manifest.json, manifest.json"
    assert "envelock" in examine(tmp_path / "a").refused_by
    with pytest.raises(FormatError, match="nothing of it can be repaired"):
        repair(tmp_path / "a", tmp_path / "b")


def test_repair_leaves_other_members_as_they_are(tmp_path):
    """Unknown ones too, and assertions."""
    found = bare() | {"assertions": [SIGNED], "later": {"weight": 1.5}}
    (tmp_path / "a").write_bytes(pack(PAYLOAD, json.dumps(found).encode()))

    repair(tmp_path / "a", tmp_path / "b")
    with SealedFile.open(tmp_path / "b", demands=Demands(["a"])).unlock(DEK) as reader:
        raw = (tmp_path / "b").read_bytes()
        assert reader.read() == DATA
    place = read_container(lambda start, count: raw[start : start + count], len(raw))
    assert json.loads(place.manifest) == FOUND | {"assertions": [SIGNED], "later": {"weight": 1.5}}


@pytest.mark.parametrize("code", ["segment-moved", "root-gmac", "policy-strict", "zip-manifest-crc",
                                  "manifest-ambiguous", "payload-truncated"])  # fmt: skip
def test_what_needs_a_key_is_not_repaired(tmp_path, code):
    """Nothing is written."""
    (tmp_path / "a").write_bytes(CASES[code])

    with pytest.raises(FormatError, match="nothing of it can be repaired"):
        repair(tmp_path / "a", tmp_path / "b")

    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_sizes_that_do_not_add_up_are_not_made_up(tmp_path):
    """The zip is repaired, the sizes stay as they are, and the report says so."""
    found = bare()
    found[ENCRYPTION]["integrityInformation"]["segments"].pop()
    (tmp_path / "a").write_bytes(pack(PAYLOAD, json.dumps(found).encode()) + b"junk")

    done = repair(tmp_path / "a", tmp_path / "b")

    assert done.changed == (AILMENTS["zip-trailing"].what,)
    assert {"sizes-short", "sizes-omitted"} <= codes(tmp_path / "b").keys()
    assert not codes(tmp_path / "a")["sizes-omitted"].repairable


def test_never_in_its_place(tmp_path):
    """Not by another name of the same file either, and not over another without force."""
    (tmp_path / "a").write_bytes(CASES["iv-missing"])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "other").write_bytes(b"x")

    for target in ("a", "link"):
        with pytest.raises(ConfigError, match="in its place"):
            repair(tmp_path / "a", tmp_path / target, force=True)
    with pytest.raises(ConfigError, match="exists"):
        repair(tmp_path / "a", tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"x"


def test_a_payload_that_unpacks_to_something_else_leaves_no_file(tmp_path):
    """A bomb, or a lie about the size."""
    raw = zipped(("0.payload", bytes(5 << 20)), BOTH[1], compression=zipfile.ZIP_DEFLATED)
    at = raw.index(b"PK\1\2")
    lie = raw[: at + 24] + (100).to_bytes(4, "little") + raw[at + 28 :]
    (tmp_path / "a").write_bytes(lie)

    with pytest.raises(FormatError, match="unpacks to more"):
        repair(tmp_path / "a", tmp_path / "b")

    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_places_are_counted_not_listed():
    """A million segments do not make a million lines."""
    found = bare()
    segments = found[ENCRYPTION]["integrityInformation"]["segments"]
    found[ENCRYPTION]["integrityInformation"]["segments"] = segments[:1] * 5000

    where = codes(pack(PAYLOAD, json.dumps(found).encode()))["sizes-omitted"].where

    assert where == "segment 0, segment 1, segment 2, … (5000 in all)"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_nothing_makes_it_stumble(data):
    """Whatever bytes come, there is a report; and it is never kinder than our reader."""
    raw = bytearray(data.draw(st.sampled_from([*CASES.values(), zipped()])))
    for _ in range(data.draw(st.integers(1, 8))):
        last = len(raw) - 1
        near_the_end = st.integers(max(0, last - 2500), last)
        at = data.draw(st.one_of(st.integers(0, last), near_the_end))
        raw[at] = data.draw(st.integers(0, 255))
    raw = bytes(raw)[: data.draw(st.sampled_from([len(raw), len(raw) - 1, len(raw) // 2]))]

    report = examine(raw)

    try:
        SealedFile.open(raw)
    except Exception:  # noqa: BLE001 whatever our reader says
        assert "envelock" in report.refused_by


def test_other_types_of_members_are_told():
    """Each member of the manifest replaced by each type of JSON."""

    def paths(value, before=()):
        yield before
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in pairs:
            if isinstance(member, (dict, list)):
                yield from paths(member, (*before, str(name)))
            else:
                yield (*before, str(name))

    for path in paths(FOUND):
        for value in (None, 5, "x", [], {}, 1.5, True, [None], ...):
            if path and not (value is ... and path[-1].isdigit()):
                text = edited(FOUND, ".".join(path), value)
                if "manifest-shape" not in codes(pack(PAYLOAD, text)):
                    assert mended(json.loads(text), len(PAYLOAD)) is not None


class TestCommand:
    def test_as_a_table(self, envelock, tmp_path):  # noqa: F811 the fixture
        """Finding, readers, whether it can be repaired, where and what."""
        (tmp_path / "f.tdf").write_bytes(CASES["sizes-omitted"])

        done = envelock("doctor f.tdf")
        what = "segments leave out sizes that equal the default"

        assert done.code == 4
        assert done.out.splitlines() == [
            "f.tdf: refused by go, java, python",
            "finding        refused by        repair  where and what",
            f"sizes-omitted  go, java, python  yes     segment 0, segment 1: {what}",
        ]

    def test_a_healthy_file_is_exit_0(self, envelock, tmp_path):  # noqa: F811 the fixture
        """And says that nothing is verified."""
        (tmp_path / "f.tdf").write_bytes(GOOD)

        done = envelock("doctor f.tdf")

        assert done.code == 0
        assert "NOT VERIFIED" in done.out

    def test_repair_says_what_it_changed(self, envelock, tmp_path):  # noqa: F811 the fixture
        """And ends as the repaired file is."""
        (tmp_path / "f.tdf").write_bytes(CASES["sizes-omitted"] + b"junk")

        done = envelock("doctor f.tdf --repair -o g.tdf")
        again = envelock("doctor f.tdf --repair -o g.tdf")

        assert (done.code, again.code) == (0, 2)
        assert done.out.splitlines()[:2] == [
            "repaired: bytes follow the zip's end",
            "repaired: segment sizes are written that were left out",
        ]

    def test_as_json(self, envelock, tmp_path):  # noqa: F811 the fixture
        """For programs, with names made safe."""
        (tmp_path / "f.tdf").write_bytes(file_of(f"{KEY}.type", "a\x1b[2J"))

        done = envelock("doctor f.tdf --json")
        value = json.loads(done.out)

        assert done.code == 4
        assert "\x1b" not in done.out
        assert value["findings"][0]["code"] == "key-access-type"
        assert "\x1b" not in envelock("doctor f.tdf").out

    @pytest.mark.parametrize("line", ["f.tdf --repair", "f.tdf -o g", "- --repair -o g",
                                      "f.tdf --repair -o f.tdf --force", "none.tdf"])  # fmt: skip
    def test_usage(self, envelock, tmp_path, line):  # noqa: F811 the fixture
        """Exit 2, and nothing is written."""
        (tmp_path / "f.tdf").write_bytes(GOOD)

        assert envelock(f"doctor {line}").code == 2
        assert [file.name for file in tmp_path.glob("*")] == ["f.tdf"]


def test_the_policy_is_what_was_bound():
    """The file under test is a real one."""
    assert json.loads(from_b64(POLICY))["uuid"].startswith("0d21")
