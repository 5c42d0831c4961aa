"""The manifest: what is read, what is written, what is refused."""

import json
import sys
import uuid

import msgspec
import pytest
from formats.sealing import DEK, POLICY, edited, key_access, manifest_of, members, seal_pieces
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.errors import FormatError, IntegrityError, UnsupportedAlgorithmError
from envelock_formats.framing import b64
from envelock_formats.tdf import manifest as m
from envelock_formats.tdf.manifest import (
    Manifest,
    ManifestError,
    Segment,
    parse_manifest,
    rebind_manifest,
    write_manifest,
)
from envelock_formats.tdf.policy import PolicyError, write_policy

FOUND = members()
ENCRYPTION = "encryptionInformation"
INTEGRITY = f"{ENCRYPTION}.integrityInformation"
SEGMENT = f"{INTEGRITY}.segments.0"
KEY = f"{ENCRYPTION}.keyAccess.0"
SEGMENTS = st.lists(
    st.builds(Segment, st.binary(min_size=16, max_size=16), st.integers(0, m.MAX_SEGMENT_SIZE)),
    max_size=6,
)


@given(SEGMENTS, st.binary(min_size=32, max_size=32), st.integers(1, 1 << 22))
def test_reads_back_what_it_wrote(segments, root, default):
    """Writing then parsing is the identity."""
    made = Manifest(POLICY, (key_access(),), tuple(segments), root, segment_size=default)

    assert parse_manifest(write_manifest(made)) == made


def test_writes_what_every_client_reads():
    """Both sizes on every segment, `protocol` and `iv` in place, nothing extra in inner objects."""
    assert list(FOUND) == ["encryptionInformation", "payload", "schemaVersion"]
    assert FOUND["schemaVersion"] == "4.3.0"
    assert FOUND["payload"] == {
        "type": "reference", "url": "0.payload", "protocol": "zip",
        "mimeType": "application/octet-stream", "isEncrypted": True,
    }  # fmt: skip
    encryption = FOUND[ENCRYPTION]
    assert encryption["method"] == {"algorithm": "AES-256-GCM", "iv": "", "isStreamable": True}
    assert encryption["keyAccess"][0].keys() == {
        "type", "url", "protocol", "wrappedKey", "policyBinding", "kid", "schemaVersion",
    }  # fmt: skip
    assert encryption["keyAccess"][0]["policyBinding"].keys() == {"alg", "hash"}
    integrity = encryption["integrityInformation"]
    assert integrity["rootSignature"].keys() == {"alg", "sig"}
    assert integrity["encryptedSegmentSizeDefault"] == integrity["segmentSizeDefault"] + 28
    assert integrity["segments"][0].keys() == {"hash", "segmentSize", "encryptedSegmentSize"}


def test_what_is_written_fits_the_published_schema(vectors):
    """The members that the upstream schema requires are all there."""
    schema = json.loads((vectors / "opentdf" / "manifest.schema.json").read_bytes())

    for name, part in (
        (None, FOUND),
        ("payload", FOUND["payload"]),
        ("encryptionInformation", FOUND[ENCRYPTION]),
    ):
        rule = schema if name is None else schema["properties"][name]
        assert set(rule.get("required", ())) <= part.keys()


def test_carries_assertions_without_trusting_them():
    """Assertions come through as they are; nothing else of the manifest depends on them."""
    assertion = {"id": "a", "statement": {"value": {"deep": [1, None]}}, "binding": {"jwk": {}}}

    found = parse_manifest(edited(FOUND, "assertions", [assertion]))

    assert found.assertions == (assertion,)
    assert parse_manifest(write_manifest(found)) == found


def test_ignores_members_that_the_format_may_gain():
    """An unknown member changes nothing, wherever it stands."""
    for path in ("new", f"{ENCRYPTION}.new", f"{INTEGRITY}.new", f"{KEY}.new", "payload.new",
                 f"{SEGMENT}.new", f"{ENCRYPTION}.method.IsStreamable"):  # fmt: skip
        assert parse_manifest(edited(FOUND, path, {"x": 1})) == parse_manifest(
            edited(FOUND, "x", 1)
        )


def test_rebinding_changes_policy_and_keys_alone():
    """Unknown members, assertions, sizes and hashes come out as they went in."""
    text = json.dumps(
        FOUND
        | {"assertions": [{"id": "a", "weight": 1.5}], "later": {"x": None}}
        | {ENCRYPTION: FOUND[ENCRYPTION] | {"later": [1]}}
    ).encode()
    before, other = json.loads(text), write_policy(str(uuid.UUID(int=1)), ())
    key = msgspec.structs.replace(key_access(), kid="clinic:x:v2")
    made = rebind_manifest(text, other, (key,))
    after = json.loads(made)

    assert parse_manifest(made).policy == other
    assert parse_manifest(made).key_access == (key,)
    for name in ("policy", "keyAccess"):
        before[ENCRYPTION].pop(name)
        after[ENCRYPTION].pop(name)
    assert after == before


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"encryptionInformation":1}'])
def test_rebinds_manifests_alone(text):
    """What is no manifest does not become one."""
    with pytest.raises(ManifestError):
        rebind_manifest(text, POLICY, (key_access(),))


def test_sizes_left_out_are_the_defaults():
    """Web clients omit the sizes of full segments."""
    text = edited(FOUND, SEGMENT, {"hash": b64(bytes(16))})

    assert parse_manifest(text).segments == (Segment(bytes(16), 16384),)


@pytest.mark.parametrize("algorithm", ["GMAC", "none", "", "hs256", "HS512", "HS256 "])
def test_refuses_a_root_that_is_not_hs256(algorithm):
    """W1: a GMAC root is the last segment's tag, which needs no key."""
    with pytest.raises(UnsupportedAlgorithmError, match=r"^unsupported root"):
        parse_manifest(edited(FOUND, f"{INTEGRITY}.rootSignature.alg", algorithm))


@pytest.mark.parametrize("value", [False, None, ..., "true", 1, [], {}])
def test_refuses_a_payload_that_is_not_literally_encrypted(value):
    """W2: anything but `true` would select a path without a key."""
    with pytest.raises(IntegrityError, match=r"^tampered"):
        parse_manifest(edited(FOUND, "payload.isEncrypted", value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{SEGMENT}.segmentSize", 6),
        (f"{SEGMENT}.segmentSize", ...),
        (f"{SEGMENT}.segmentSize", -1),
        (f"{SEGMENT}.segmentSize", 5.0),
        (f"{SEGMENT}.encryptedSegmentSize", 34),
        (f"{SEGMENT}.encryptedSegmentSize", ...),
        (f"{SEGMENT}.encryptedSegmentSize", 5),
        (f"{INTEGRITY}.encryptedSegmentSizeDefault", 16384),
        (f"{INTEGRITY}.segmentSizeDefault", 16385),
        (f"{INTEGRITY}.segmentSizeDefault", ...),
    ],
)
def test_refuses_sizes_that_do_not_fit(path, value):
    """W4: a segment grows by IV and tag, exactly."""
    with pytest.raises(ManifestError, match=r"^manifest"):
        parse_manifest(edited(FOUND, path, value))


def test_refuses_a_segment_that_would_fill_memory():
    """W23: a reader allocates one segment; its size is bounded."""
    segment = {"hash": b64(bytes(16)), "segmentSize": m.MAX_SEGMENT_SIZE + 1,
               "encryptedSegmentSize": m.MAX_SEGMENT_SIZE + 29}  # fmt: skip

    with pytest.raises(ManifestError):
        parse_manifest(edited(FOUND, SEGMENT, segment))


@pytest.mark.parametrize("version", [..., "", "4.2.2"])
def test_reads_legacy_versions_only_when_asked(version):
    """W8: without a version the hashes change their form, so the caller must agree."""
    _, segments = seal_pieces([b"hello"])
    made = manifest_of(segments)
    text = edited(FOUND, "schemaVersion", version)
    for path, raw in ((f"{SEGMENT}.hash", made.segments[0].hash),
                      (f"{INTEGRITY}.rootSignature.sig", made.root)):  # fmt: skip
        text = edited(json.loads(text), path, b64(raw.hex().encode()))

    found = parse_manifest(text, legacy=True)

    assert (found.legacy, found.segments, found.root) == (True, made.segments, made.root)
    with pytest.raises(ManifestError, match="legacy"):
        parse_manifest(text)
    with pytest.raises(ManifestError, match="legacy"):
        write_manifest(found)


@pytest.mark.parametrize("version", ["4.3.1", "4.2.1", "5.0.0", "4.3.0 ", None, 4.3])
def test_refuses_versions_that_nobody_agreed_to(version):
    """W8: a version is known, or the file is not opened."""
    for legacy in (False, True):
        with pytest.raises(ManifestError):
            parse_manifest(edited(FOUND, "schemaVersion", version), legacy=legacy)


@pytest.mark.parametrize("raw", [b"", bytes(15), bytes(17), bytes(32), b"0" * 32])
@pytest.mark.parametrize("path", [f"{SEGMENT}.hash", f"{INTEGRITY}.rootSignature.sig"])
def test_refuses_hashes_of_another_length(path, raw):
    """A hash is as long as its algorithm makes it, and in the form of its version."""
    if path.endswith("sig") and len(raw) == 32:
        raw = raw.hex().encode()

    with pytest.raises(IntegrityError):
        parse_manifest(edited(FOUND, path, b64(raw)))


def test_refuses_legacy_hashes_in_other_hex():
    """Upper case and raw bytes are not the legacy form."""
    for raw in (b"AB" * 16, bytes(16), b"0" * 31, b" " * 32):
        text = edited(edited_legacy(), f"{SEGMENT}.hash", b64(raw))
        with pytest.raises(IntegrityError):
            parse_manifest(text, legacy=True)


def edited_legacy():
    """The members of a legacy manifest."""
    return json.loads(edited(FOUND, "schemaVersion", ...))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{INTEGRITY}.segmentHashAlg", "SHA256"),
        (f"{INTEGRITY}.segmentHashAlg", ""),
        (f"{ENCRYPTION}.type", "remote"),
        (f"{ENCRYPTION}.method.algorithm", "AES-256-CBC"),
    ],
)
def test_refuses_other_algorithms(path, value):
    """Only AES-256-GCM, split keys, and GMAC or HS256 segments are read."""
    with pytest.raises(UnsupportedAlgorithmError):
        parse_manifest(edited(FOUND, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{KEY}.policyBinding.alg", "GMAC"),
        (f"{KEY}.policyBinding.hash", b64(bytes(31))),
        (f"{KEY}.policyBinding.hash", b64(b"A" * 64)),
        (f"{KEY}.policyBinding", ...),
        (f"{KEY}.wrappedKey", "not base64"),
        (f"{KEY}.wrappedKey", ...),
        (f"{KEY}.kid", "k" * 5000),
        (f"{KEY}.url", "u" * 5000),
        (f"{KEY}.encryptedMetadata", "A" * 300_000),
        (f"{ENCRYPTION}.keyAccess", []),
        (f"{ENCRYPTION}.keyAccess", {}),
        (f"{SEGMENT}.hash", "not base64"),
        (ENCRYPTION, ...),
        ("payload", ...),
        ("payload", []),
        ("Payload", {}),
        (f"{ENCRYPTION}.Policy", ""),
        (f"{INTEGRITY}.rootSignature.Alg", "HS256"),
        (f"{KEY}.KID", "x"),
        (f"{SEGMENT}.segmentsize", 1),
    ],
)
def test_refuses_malformed_members(path, value):
    """W10, W15, W16, W23: bindings, wraps, lengths, case twins: refused before any request."""
    with pytest.raises(FormatError, match=r"^(manifest|tampered)"):
        parse_manifest(edited(FOUND, path, value))


def test_refuses_a_malformed_policy():
    """W16: the one parser of policies runs before anybody is asked for a key."""
    twins = b64(b'{"uuid":"0d21482b-5d80-466b-ae92-7b0d01b9e2ba","body":{},"Body":{}}')

    with pytest.raises(PolicyError):
        parse_manifest(edited(FOUND, f"{ENCRYPTION}.policy", twins))


def test_an_online_wrap_stands_alone():
    """An object never mixes an online wrap with others."""
    online = msgspec.structs.replace(key_access(), wrappedKey=b64(b"\xe2\x01" + bytes(76)))
    keys = [msgspec.to_builtins(online), msgspec.to_builtins(key_access())]

    assert parse_manifest(edited(FOUND, f"{ENCRYPTION}.keyAccess", keys[:1]))
    with pytest.raises(ManifestError, match="online"):
        parse_manifest(edited(FOUND, f"{ENCRYPTION}.keyAccess", keys))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf" + json.dumps(FOUND).encode(),
        json.dumps(FOUND).encode() + b"{}",
        json.dumps(FOUND).encode().replace(b'"policy":', b'"policy":"","policy":', 1),
        json.dumps(FOUND).encode().replace(b"16384", b"9007199254740993"),
        edited(FOUND, "assertions", json.loads("[" * 20 + "]" * 20)),
        b" " * (m.MAX_MANIFEST + 1),
    ],
    ids=range(8),
)
def test_refuses_json_with_two_readings_or_over_the_limits(text):
    """W23: duplicates, depth, wide integers and size are refused by the strict parser."""
    with pytest.raises(ManifestError):
        parse_manifest(text)


def test_refuses_too_many_segments_or_keys():
    """W23: the counts are bounded, for values made in memory too."""
    segment, key = Segment(bytes(16), 0), key_access(DEK)

    with pytest.raises(ManifestError):
        Manifest(POLICY, (key,), (segment,) * (m.MAX_SEGMENTS + 1), bytes(32))
    with pytest.raises(ManifestError):
        Manifest(POLICY, (key,) * 257, (segment,), bytes(32))
    with pytest.raises(ManifestError, match="larger segments"):
        write_manifest(Manifest(POLICY, (key,), (segment,) * 200_000, bytes(32)))
    with pytest.raises(IntegrityError):
        Manifest(POLICY, (key,), (segment,), bytes(31))


def test_a_large_manifest_is_read_in_reasonable_time():
    """Fifty thousand segments, as of a hundred gigabytes, parse in seconds at most."""
    segments = tuple(Segment(bytes(16), 16384) for _ in range(50_000))
    made = Manifest(POLICY, (key_access(),), segments, bytes(32), segment_size=16384)

    text = write_manifest(made)

    assert sys.getsizeof(text) < m.MAX_MANIFEST
    assert parse_manifest(text).payload_size == 50_000 * (16384 + 28)
