"""Sealed files with one fault each, and how each is refused.

`python tests/negative/kit.py DIR` writes them, a good file beside them, the key that opens their
wraps, and `index.json`, so that other readers can be pointed at them.
"""

import json
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from formats.sealing import edited, pack
from negative.collision import colliding_segment

from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64, b64url
from envelock_formats.tdf.assertions import Assertion, Statement, aggregate, write_assertion
from envelock_formats.tdf.keyaccess import bind_policy
from envelock_formats.tdf.manifest import OVERHEAD, Segment
from envelock_formats.tdf.metadata import seal_metadata
from envelock_formats.tdf.policy import write_policy
from envelock_formats.tdf.segments import SegmentCipher, root_signature
from envelock_formats.wrap import public_pem, wrap_ec

SEGMENT = 16 * 1024
PIECES = (b"a" * SEGMENT, b"b" * SEGMENT, b"the end")
PLAINTEXT = b"".join(PIECES)
DEK, OTHER_DEK = bytes(range(1, 33)), bytes(range(101, 133))
UUID = "0d21482b-5d80-466b-ae92-7b0d01b9e2ba"
SECRET = AttributeValue("clinic.example", "clearance", "secret")
REQUIRED = "marking"  # the id of an assertion
FORMAT, TAMPERED, FOREIGN, DENIED = (
    "FormatError", "TamperedError", "KasNotAllowedError", "DeniedError")  # fmt: skip
ENC = "encryptionInformation"
INT = f"{ENC}.integrityInformation"
KEY = f"{ENC}.keyAccess.0"
BINDING = f"{KEY}.policyBinding"
NOT_FILES = {  # faults that no file can have
    "W18": "obligations that a caller claims are of the request: tests/kas",
    "W19": "ids that are repeated in a batch are of the request: tests/kas",
    "W21": "an IV that is used twice is of the writer: tests/sdk/test_writer.py",
}


@dataclass(frozen=True)
class Fault:
    """A file with one fault.

    `asked` tells whether a reader asks the KAS before it refuses, and `delivered` how many bytes of
    plaintext a reader that streams has given out by then.
    """

    name: str
    weakness: str  # W1 to W24
    data: bytes = field(repr=False)
    error: str  # class of the SDK's error
    words: str  # a regular expression for its message
    asked: bool = False
    delivered: int = 0
    required: tuple[str, ...] = ()  # assertions that the caller requires
    seen_by: str = "reader"  # or `kas`, to which such a file looks like any other


@dataclass(frozen=True)
class Base:
    """What a good file is made of: the KAS that it names, and the key that wraps its share."""

    url: str
    kid: str
    public: ec.EllipticCurvePublicKey

    def wrap(self, share: bytes) -> dict[str, str]:
        """The members of a key access object that hold a share of any length."""
        made = ec.generate_private_key(ec.SECP256R1())
        wrapped = wrap_ec(share[:32].ljust(32, b"\0"), self.public, ephemeral=made, iv=bytes(12))
        return {"wrappedKey": b64(wrapped), "ephemeralPublicKey": public_pem(made.public_key())}

    def key(self, policy: str, share: bytes = DEK, **changes: Any) -> dict[str, Any]:
        """One key access object."""
        binding = bind_policy(share, policy)
        return {
            "type": "ec-wrapped",
            "url": self.url,
            "protocol": "kas",
            "kid": self.kid,
            "policyBinding": {"alg": "HS256", "hash": binding.hash},
            **self.wrap(share),
            **changes,
        }

    def manifest(self, segments: list[Segment], *, dek: bytes = DEK) -> dict[str, Any]:
        """The members of a manifest over these segments."""
        policy = write_policy(UUID, [SECRET])
        root = root_signature(dek, (segment.hash for segment in segments))
        assertion = Assertion(REQUIRED, Statement("text", "urn:x", "cosmic"))
        return {
            ENC: {
                "type": "split",
                "policy": policy,
                "keyAccess": [self.key(policy, dek)],
                "method": {"algorithm": "AES-256-GCM", "iv": "", "isStreamable": True},
                "integrityInformation": {
                    "rootSignature": {"alg": "HS256", "sig": b64(root)},
                    "segmentHashAlg": "GMAC",
                    "segmentSizeDefault": SEGMENT,
                    "encryptedSegmentSizeDefault": SEGMENT + OVERHEAD,
                    "segments": [_stated(segment) for segment in segments],
                },
            },
            "payload": {
                "type": "reference", "url": "0.payload", "protocol": "zip",
                "mimeType": "text/plain", "isEncrypted": True,
            },
            "assertions": [write_assertion(assertion, aggregate(segments), dek)],
            "schemaVersion": "4.3.0",
        }  # fmt: skip


def _stated(segment: Segment) -> dict[str, Any]:
    return {
        "hash": b64(segment.hash),
        "segmentSize": segment.size,
        "encryptedSegmentSize": segment.sealed_size,
    }


def sealed_pieces(pieces: tuple[bytes, ...] = PIECES) -> tuple[list[bytes], list[Segment]]:
    """Sealed segments and what a manifest says of them."""
    cipher, sealed, segments = SegmentCipher(DEK), [], []
    for number, piece in enumerate(pieces):
        out = bytearray(len(piece) + OVERHEAD)
        segments.append(cipher.seal_into(number.to_bytes(12, "big"), piece, memoryview(out)))
        sealed.append(bytes(out))
    return sealed, segments


class Kit:
    """Makes the files."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.sealed, self.segments = sealed_pieces()
        self.payload = b"".join(self.sealed)
        self.found = base.manifest(self.segments)
        self.text = json.dumps(self.found).encode()
        self.policy: str = self.found[ENC]["policy"]
        self.good = pack(self.payload, self.text)

    def faults(self) -> Iterator[Fault]:
        """All of them."""
        for part in (self._algorithms, self._order, self._sizes, self._segments, self._servers,
                     self._shares, self._bindings, self._policies, self._assertions, self._zip,
                     self._bombs):  # fmt: skip
            yield from part()

    def with_member(self, path: str, value: object) -> bytes:
        """The file with one member of its manifest replaced, or removed (`...`)."""
        return pack(self.payload, edited(self.found, path, value))

    def with_text(self, change: Callable[[str], str]) -> bytes:
        """The file with the text of its manifest changed."""
        return pack(self.payload, change(self.text.decode()).encode())

    def with_payload(self, payload: bytes) -> bytes:
        """The file with another payload under the same manifest."""
        return pack(payload, self.text)

    def with_segments(self, *order: int, both: bool = True) -> bytes:
        """The file with these segments in this order, in the manifest alone unless *both*."""
        listed = [_stated(self.segments[n]) for n in order]
        payload = b"".join(self.sealed[n] for n in order) if both else self.payload
        return pack(payload, edited(self.found, f"{INT}.segments", listed))

    def with_keys(self, *keys: dict[str, Any]) -> bytes:
        """The file with other key access objects."""
        return self.with_member(f"{ENC}.keyAccess", list(keys))

    def with_policy(self, text: bytes | str) -> bytes:
        """The file with another policy, bound as whoever has the key can bind it."""
        policy = text if isinstance(text, str) else b64(text)
        changed = json.loads(edited(self.found, f"{ENC}.policy", policy))
        changed[ENC]["keyAccess"] = [self.base.key(policy)]
        return pack(self.payload, json.dumps(changed).encode())

    def _algorithms(self) -> Iterator[Fault]:
        for name in ("GMAC", "none", "hs256", "HS384", "", "SHA-256"):
            data = self.with_member(f"{INT}.rootSignature.alg", name)
            yield Fault(f"root-alg-{name or 'empty'}", "W1", data, FORMAT, "unsupported root")
        forged = self.sealed[0][-16:]  # what a GMAC root over one segment would be
        found = json.loads(edited(self.found, f"{INT}.rootSignature",
                                  {"alg": "GMAC", "sig": b64(forged)}))  # fmt: skip
        found[ENC]["integrityInformation"]["segments"] = [_stated(self.segments[0])]
        data = pack(self.sealed[0], json.dumps(found).encode())
        yield Fault("root-gmac-forged-over-the-first-segment", "W1", data, FORMAT, "unsupported")
        for name, value in (("false", False), ("text", "true"), ("one", 1), ("absent", ...)):
            data = self.with_member("payload.isEncrypted", value)
            yield Fault(
                f"is-encrypted-{name}", "W2", data, TAMPERED, "not say that it is encrypted"
            )
        for path, name in ((f"{ENC}.method.algorithm", "AES-256-CTR"), (f"{ENC}.type", "remote")):
            data = self.with_member(path, name)
            yield Fault(f"encryption-{name}", "W1", data, FORMAT, "unsupported encryption")
        data = self.with_member(f"{INT}.segmentHashAlg", "CRC32")
        yield Fault("segment-hash-CRC32", "W5", data, FORMAT, "unsupported segment hash")
        for name, value in (("absent", ...), ("4.2.2", "4.2.2"), ("5.0.0", "5.0.0")):
            data = self.with_member("schemaVersion", value)
            yield Fault(f"schema-version-{name}", "W8", data, FORMAT, "schema version")

    def _order(self) -> Iterator[Fault]:
        orders = {"first-dropped": (1, 2), "middle-dropped": (0, 2), "last-dropped": (0, 1),
                  "swapped": (1, 0, 2), "repeated": (0, 1, 1, 2), "only-last": (2,)}  # fmt: skip
        for name, order in orders.items():
            yield Fault(f"segments-{name}", "W3", self.with_segments(*order), TAMPERED,
                        "root signature", asked=True)  # fmt: skip
        yield Fault("segments-none", "W3", self.with_segments(), TAMPERED, "root", asked=True)
        swapped = self.with_payload(self.sealed[1] + self.sealed[0] + self.sealed[2])
        yield Fault("payload-swapped", "W3", swapped, TAMPERED, "match its hash", asked=True)
        data = self.with_member(f"{INT}.rootSignature.sig", b64(bytes(32)))
        yield Fault("root-zero", "W3", data, TAMPERED, "root signature", asked=True)
        data = self.with_member(f"{INT}.rootSignature.sig", b64(bytes(31)))
        yield Fault("root-short", "W3", data, TAMPERED, "not 32 bytes")

    def _sizes(self) -> Iterator[Fault]:
        sums = "do not add up"
        yield Fault("segment-unlisted", "W4", self.with_segments(0, 1, both=False), TAMPERED, sums)
        yield Fault("payload-longer", "W4", self.with_payload(self.payload + b"x"), TAMPERED, sums)
        yield Fault("payload-shorter", "W4", self.with_payload(self.payload[:-1]), TAMPERED, sums)
        listed = [_stated(segment) for segment in self.segments]
        for number, by in ((0, -100), (1, 100)):
            listed[number]["segmentSize"] += by
            listed[number]["encryptedSegmentSize"] += by
        data = self.with_member(f"{INT}.segments", listed)
        yield Fault("sizes-moved-to-a-neighbour", "W4", data, TAMPERED, "its hash", asked=True)
        for name, value in (("encryptedSegmentSize", SEGMENT), ("segmentSize", -1),
                            ("segmentSize", SEGMENT + 1), ("segmentSize", 1 << 40)):  # fmt: skip
            data = self.with_member(f"{INT}.segments.0.{name}", value)
            yield Fault(f"{name}-{value}", "W4", data, FORMAT, "sizes do not fit")
        data = self.with_member(f"{INT}.encryptedSegmentSizeDefault", SEGMENT)
        yield Fault("default-sizes-equal", "W4", data, FORMAT, "do not differ by IV and tag")

    def _segments(self) -> Iterator[Fault]:
        def flipped(at: int) -> bytes:
            payload = bytearray(self.payload)
            payload[at] ^= 1
            return self.with_payload(bytes(payload))

        words = "match its hash"
        first, last = len(self.sealed[0]), len(self.payload)
        yield Fault("tag-flipped", "W5", flipped(first - 1), TAMPERED, words, asked=True)
        yield Fault("byte-flipped", "W5", flipped(20), TAMPERED, "not open", asked=True)
        yield Fault("iv-flipped", "W5", flipped(0), TAMPERED, "not open", asked=True)
        yield Fault("last-byte-flipped", "W24", flipped(last - 17), TAMPERED, "not open",
                    asked=True, delivered=2 * SEGMENT)  # fmt: skip
        data = self.with_member(f"{INT}.segments.0.hash", b64(bytes(16)))
        yield Fault("hash-changed", "W5", data, TAMPERED, "root signature", asked=True)
        data = self.with_member(f"{INT}.segments.0.hash", b64(bytes(15)))
        yield Fault("hash-short", "W5", data, TAMPERED, "not 16 bytes")
        yield self._two_keys()
        sealed = seal_metadata(OTHER_DEK, b"x", bytes(12))
        data = self.with_member(f"{KEY}.encryptedMetadata", sealed)
        yield Fault("metadata-under-another-key", "W8", data, TAMPERED, "metadata", asked=True)

    def _two_keys(self) -> Fault:
        """Signed under one key; its KAS gives the other, under which the segment opens as well."""
        segment = colliding_segment(OTHER_DEK, DEK, bytes(12))
        found = self.base.manifest([Segment(segment[-16:], 32)], dek=OTHER_DEK)
        found[ENC]["keyAccess"] = [self.base.key(self.policy)]
        data = pack(segment, json.dumps(found).encode())
        return Fault("two-keys", "W6", data, TAMPERED, "root signature", asked=True)

    def _servers(self) -> Iterator[Fault]:
        urls = {"other": "https://evil.example", "user": "{}@evil.example",
                "suffix": "{}.evil.example",
                "fragment": "http://evil.example#@127.0.0.1", "backslash": "{}\\@evil.example",
                "other-port": "http://127.0.0.1:1", "decimal": "http://2130706433",
                "mapped": "http://[::ffff:127.0.0.1]", "unicode": "http://\uff1127.0.0.1",
                "trailing-dot": "http://localhost.", "metadata-service": "http://169.254.169.254",
                "file": "file:///etc/passwd", "empty": ""}  # fmt: skip
        for name, url in urls.items():
            data = self.with_member(f"{KEY}.url", url.format(self.base.url))
            yield Fault(f"url-{name}", "W9", data, FOREIGN, "not allowed")

    def _shares(self) -> Iterator[Fault]:
        other = bytes(a ^ b for a, b in zip(DEK, OTHER_DEK, strict=True))
        one = self.base.key(self.policy, OTHER_DEK, sid="a")
        two = self.base.key(self.policy, other, sid="b")
        yield Fault("split-one-removed", "W10", self.with_keys(one), TAMPERED, "root", asked=True)
        merged = self.with_keys(one, two | {"sid": "a"})
        yield Fault("splits-merged", "W10", merged, TAMPERED, "different shares", asked=True)
        twice = self.with_keys(self.base.key(self.policy, sid="a"),
                               self.base.key(self.policy, sid="b"))  # fmt: skip
        yield Fault("shares-cancel-out", "W10", twice, TAMPERED, "cancel out", asked=True)
        yield Fault("no-key-access", "W10", self.with_keys(), FORMAT, "1 to 256 key access")
        wrapped = self.base.wrap(OTHER_DEK)
        data = self.with_keys(self.base.key(self.policy) | wrapped)
        yield Fault("wrap-of-another-file", "W11", data, TAMPERED, "does not fit", asked=True)
        data = self.with_keys(self.base.key(self.policy, wrappedKey="AAAA====A"))
        yield Fault("wrap-not-base64", "W12", data, FORMAT, "base64")
        data = self.with_keys(self.base.key(self.policy, wrappedKey=b64(b"garbage" * 20)))
        yield Fault("wrap-garbage", "W12", data, TAMPERED, "altered", asked=True, seen_by="kas")
        data = self.with_keys(self.base.key(self.policy, type="wrapped"))
        yield Fault("wrap-of-another-type", "W12", data, TAMPERED, "altered", asked=True,
                    seen_by="kas")  # fmt: skip
        kids = {"absent": None, "unknown": "clinic:none:v1", "malformed": "../x",
                "of-another-tenant": "police:records:v1"}  # fmt: skip
        for name, kid in kids.items():
            weakness = "W14" if "tenant" in name else "W13"
            data = self.with_keys(self.base.key(self.policy, kid=kid))
            yield Fault(f"kid-{name}", weakness, data, TAMPERED, "", asked=True, seen_by="kas")

    def _bindings(self) -> Iterator[Fault]:
        for name in ("none", "RS256", "HS512", "hs256"):
            data = self.with_member(f"{BINDING}.alg", name)
            yield Fault(f"binding-alg-{name}", "W15", data, FORMAT, "other than HS256")
        for name, size in (("short", 31), ("long", 33), ("empty", 0)):
            data = self.with_member(f"{BINDING}.hash", b64(bytes(size)))
            yield Fault(f"binding-{name}", "W15", data, FORMAT, "size of an HMAC")
        upper = b64(bind_policy(DEK, self.policy).hash.encode())[:88].upper()
        data = self.with_member(f"{BINDING}.hash", upper)
        yield Fault("binding-upper-case", "W15", data, FORMAT, "binding|base64")
        zero = self.with_member(f"{BINDING}.hash", b64(b"0" * 64))
        yield Fault("binding-zero", "W15", zero, TAMPERED, "not fit", asked=True)
        friendlier = write_policy(UUID, [AttributeValue("clinic.example", "clearance", "public")])
        data = self.with_member(f"{ENC}.policy", friendlier)
        yield Fault("policy-exchanged", "W15", data, TAMPERED, "not fit", asked=True)

    def _policies(self) -> Iterator[Fault]:
        good = {"uuid": UUID, "body": {"dataAttributes": [{"attribute": SECRET.fqn}], "dissem": []}}
        text = json.dumps(good)
        cases = {
            "repeated-name": text[:-1] + ', "body": {}}',
            "case-twin": text[:-1] + ', "Body": {}}',
            "unknown-member": text[:-1] + ', "obligations": []}',
            "not-normal": text.replace('"dissem": []', '"dissem": ["Zoe\u0308"]'),
            "attribute-twice": json.dumps(
                {**good, "body": {"dataAttributes": good["body"]["dataAttributes"] * 2}}),
            "no-uuid": text.replace(UUID, "x"),
            "byte-order-mark": "\ufeff" + text,
            "not-json": "{",
        }  # fmt: skip
        for name, policy in cases.items():
            yield Fault(
                f"policy-{name}", "W16", self.with_policy(policy.encode()), FORMAT, "policy"
            )
        data = self.with_policy(self.policy[:-4] + " " + self.policy[-4:])
        yield Fault("policy-two-spellings", "W16", data, FORMAT, "policy")
        data = self.with_text(lambda found: found.replace('"policy":', '"Policy": "x", "policy":'))
        yield Fault("manifest-case-twin", "W16", data, FORMAT, "by case alone")
        data = self.with_text(lambda found: found.replace('"policy":', '"policy": "x", "policy":'))
        yield Fault("manifest-repeated-name", "W16", data, FORMAT, "repeats a name")
        empty = {"uuid": UUID, "body": {"dataAttributes": [], "dissem": []}}
        data = self.with_policy(json.dumps(empty).encode())
        yield Fault("policy-empty", "W17", data, DENIED, "", asked=True, seen_by="pdp")
        nobody = {"uuid": UUID, "body": {**good["body"], "dissem": ["nobody@clinic"]}}
        data = self.with_policy(json.dumps(nobody).encode())
        yield Fault("dissem-of-others", "W17", data, DENIED, "", asked=True, seen_by="pdp")
        raw = json.loads(text)
        raw["body"]["dataAttributes"] = [
            {"attribute": "https://clinic.example/attr/clearance/value/public"}]  # fmt: skip
        yield Fault("policy-forged-by-a-reader", "W7", self.with_policy(json.dumps(raw).encode()),
                    "DeniedError", "", asked=True, seen_by="online")  # fmt: skip

    def _assertions(self) -> Iterator[Fault]:
        [signed] = self.found["assertions"]
        header = b64url(b'{"alg":"ES256","jwk":{"kty":"EC","crv":"P-256"}}')
        alien = signed["binding"]["signature"].split(".", 1)[1]
        nothing = b64url(b'{"alg":"none"}')
        _, foreign = sealed_pieces((b"another file",))
        said = Statement("text", "urn:x", "cosmic")
        cases = {
            "removed": [],
            "altered": [signed | {"statement": {**signed["statement"], "value": "public"}}],
            "unsigned": [{name: signed[name] for name in signed if name != "binding"}],
            "alg-none": [signed | {"binding": {"signature": f"{nothing}.{alien}"}}],
            "key-in-header": [signed | {"binding": {"signature": f"{header}.{alien}"}}],
            "of-another-file": [
                write_assertion(Assertion(REQUIRED, said), aggregate(foreign), DEK)],
            "under-another-key": [
                write_assertion(Assertion(REQUIRED, said), aggregate(self.segments), OTHER_DEK)],
            "twice": [signed, signed],
        }  # fmt: skip
        for name, value in cases.items():
            data = self.with_member("assertions", value)
            yield Fault(f"assertion-{name}", "W20", data, TAMPERED, f"assertion '{REQUIRED}'",
                        asked=name != "removed", required=(REQUIRED,))  # fmt: skip
        for name, found in (("list", []), ("object", {}), ("number", 5), ("null", None)):
            data = self.with_member("assertions", [signed | {"id": found}])
            yield Fault(f"assertion-id-{name}", "W20", data, TAMPERED, "'marking': is missing",
                        required=(REQUIRED,))  # fmt: skip
            data = self.with_member("assertions", [signed, signed | {"id": found}])
            yield Fault(f"assertion-more-with-id-{name}", "W20", data, TAMPERED,
                        "assertion '': .*id", asked=True)  # fmt: skip

    def _zip(self) -> Iterator[Fault]:
        good, both = self.good, [("0.payload", self.payload), ("0.manifest.json", self.text)]
        manifest, directory = good.index(b"PK\3\4", 4), good.index(b"PK\1\2")
        second, end = good.index(b"PK\1\2", directory + 4), good.rindex(b"PK\5\6")

        def patched(at: int, data: bytes) -> bytes:
            return good[:at] + data + good[at + len(data) :]

        cases = {
            "payload-twice": zipped([*both, both[0]]),
            "manifest-twice": zipped([*both, both[1]]),
            "case-twin": zipped([*both, ("0.PAYLOAD", b"x")]),
            "extra-entry": zipped([*both, ("note.txt", b"x")]),
            "parent-folder": zipped([*both, ("../../etc/passwd", b"x")]),
            "no-manifest": zipped(both[:1]),
            "deflated": zipped(both, zipfile.ZIP_DEFLATED),
            "local-name-differs": patched(manifest + 30, b"1"),
            "local-size-lies": patched(manifest + 22, struct.pack("<L", 5)),
            "directory-size-lies": patched(second + 24, struct.pack("<L", 5)),
            "directory-crc-lies": patched(second + 16, bytes(4)),
            "overlap": patched(second + 42, struct.pack("<L", 10)),
            "encrypted-flag": patched(directory + 8, struct.pack("<H", 9)),
            "count-one": patched(end + 8, struct.pack("<2H", 1, 1)),
            "other-disk": patched(end + 4, struct.pack("<2H", 1, 1)),
            "comment": good[:-2] + b"\x05\0hello",
            "comment-with-another-end": good[:-2] + struct.pack("<H", 22) + good[end:],
            "in-front": b"MZ" + good,
            "behind": good + b"junk",
            "two-archives": good + good,
            "cut": good[:-30],
            "cut-in-the-payload": good[:20_000],
            "zip64-lies": good[:end] + struct.pack(
                "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, 7, 7) + struct.pack(
                "<4sLQL", b"PK\6\7", 0, end, 1) + good[end:],
            "descriptor-lies": patched(manifest - 8, bytes(4)),
        }  # fmt: skip
        for name, data in cases.items():
            yield Fault(f"zip-{name}", "W22", data, FORMAT, "container")
        yield Fault("zip-nothing", "W22", b"", FORMAT, "no bytes")

    def _bombs(self) -> Iterator[Fault]:
        deep: object = 5
        for _ in range(20):
            deep = [deep]
        cases: dict[str, tuple[bytes, str]] = {
            "depth": (self.with_member("more", deep), "deep"),
            "integer": (self.with_member("more", 1 << 53), "integer"),
            "digits": (self.with_text(lambda found: '{"more": ' + "9" * 5000 + "," + found[1:]),
                       "strict JSON|integer"),
            "not-a-number": (self.with_text(lambda found: '{"more": NaN,' + found[1:]),
                             "NaN|strict"),
            "long-url": (self.with_member(f"{KEY}.url", "http://" + "a" * 5000), "too long"),
            "long-wrap": (self.with_member(f"{KEY}.wrappedKey", "A" * 300_000), "too long"),
            "many-keys": (self.with_keys(*[self.found[ENC]["keyAccess"][0]] * 257), "1 to 256"),
            "many-assertions": (self.with_member("assertions", self.found["assertions"] * 257),
                                "more than 256 assertions"),
            "surrogate": (self.with_text(lambda found: '{"more": "\\ud800",' + found[1:]),
                          "strict"),
            "segment-of-65-mib": (self.with_member(f"{INT}.segments.0", {
                "hash": b64(bytes(16)), "segmentSize": 65 << 20,
                "encryptedSegmentSize": (65 << 20) + 28}), "too large"),
            "size": (self.with_member("more", "x" * (10 << 20)), "at most"),
        }  # fmt: skip
        for name, (data, words) in cases.items():
            yield Fault(f"manifest-{name}", "W23", data, FORMAT, words)


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with any entries, as Python writes it."""
    out = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", compression) as made:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for name, data in entries:
            made.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def write_kit(folder: Path) -> int:
    """Write every file and `index.json` into *folder*; the number of faults."""
    private = ec.generate_private_key(ec.SECP256R1())
    kit = Kit(Base("http://127.0.0.1:8080", "e1", private.public_key()))
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "kas-e1.pem").write_bytes(private.private_bytes(*form))
    (folder / "good.tdf").write_bytes(kit.good)
    (folder / "good.txt").write_bytes(PLAINTEXT)
    listed = []
    for fault in kit.faults():
        (folder / f"{fault.name}.tdf").write_bytes(fault.data)
        listed.append({name: value for name, value in vars(fault).items() if name != "data"})
    index = {"good": "good.tdf", "plaintext": "good.txt", "kas": kit.base.url, "kid": "e1",
             "key": "kas-e1.pem", "faults": listed, "not_files": NOT_FILES}  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    return len(listed)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{write_kit(target)} faults in {target}\n")
