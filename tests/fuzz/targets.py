"""Every parser that meets bytes of somebody else: what it may raise, and inputs that it accepts."""

import atexit
import base64
import binascii
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from google.protobuf import json_format

import envelock_policies
from envelock_formats import decision, jose
from envelock_formats.canonical import decode, encode, parse, parse_object
from envelock_formats.envelope import XWING, read_envelope, write_envelope
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64url
from envelock_formats.kem import KemPrivateKey, KemPublicKey
from envelock_formats.keyid import KeyId
from envelock_formats.online import OnlineWrap, open_data_key, seal_data_key
from envelock_formats.privatekey import pkcs8_of, read_private_key
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy, decode_access, keys_digest
from envelock_formats.tdf.manifest import parse_manifest, write_manifest
from envelock_formats.tdf.policy import parse_policy, write_policy
from envelock_formats.wire import (
    KeyAccessEntry,
    KeyResult,
    ObjectEntry,
    PolicyEntry,
    PolicyResult,
    RebindBody,
    RewrapAnswer,
    RewrapBody,
    SealAnswer,
    SealBody,
    read_answer,
    read_rebind,
    read_request_token,
    read_seal,
)
from envelock_formats.wrap import (
    open_answer,
    public_pem,
    unwrap_ec,
    unwrap_rsa,
    wrap_ec,
    wrap_rsa,
)
from envelock_kas.admin import Announcement
from envelock_kas.asked import read_asked
from envelock_kas.opentdf.access import PUBLIC_KEY, REWRAP
from envelock_kas.opentdf.attributes import ATTRIBUTE_VALUES
from envelock_kas.opentdf.authorization import GET_BULK, GET_DECISION, GET_ENTITLEMENTS
from envelock_kas.opentdf.connect import JSON, PROTO
from envelock_kas.opentdf.discovery import CHECK, WELL_KNOWN
from envelock_kas.settings import KasSettings
from envelock_ledger import record, wire
from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.errors import LedgerError, LedgerUnavailableError
from envelock_ledger.merkle import check_consistency, check_inclusion
from envelock_ledger.note import Note, VerifierKey
from envelock_ledger.proof import Receipt
from envelock_pdp import BundleError, QuestionError
from envelock_pdp.bundle import read_bundle
from envelock_pdp.question import read_each, read_questions
from envelock_service.dpop import require_proof
from envelock_service.oidc import CallerSettings, read_jwks
from envelock_service.settings import DeploymentSettings, SettingsError, section

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
SEEDS = 40  # of our vectors, for each parser
NOW = 1_800_000_000
PROCEDURES = (
    REWRAP,
    PUBLIC_KEY,
    WELL_KNOWN,
    CHECK,
    ATTRIBUTE_VALUES,
    GET_DECISION,
    GET_BULK,
    GET_ENTITLEMENTS,
)
KEY = ec.derive_private_key(7, ec.SECP256R1())
JKT = jose.thumbprint(jose.public_jwk(KEY.public_key()))
RSA = rsa.generate_private_key(65537, 2048)
XWING_KEY = KemPrivateKey.generate(XWING, bytes)
LOG = VerifierKey("log.example", bytes(range(32)))
REQUESTS = msgspec.msgpack.Decoder(wire.Requests)
ANSWERS = msgspec.msgpack.Decoder(wire.Answers)


@dataclass(frozen=True)
class Target:
    """One parser."""

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = (FormatError,)
    seeds: Callable[[], Sequence[bytes]] = tuple
    max_bytes: int = 1 << 16

    def accepts(self, data: bytes) -> bool:
        """Whether *data* parses; raises what no parser may raise."""
        try:
            self.parse(data)
        except self.errors:
            return False
        return True

    @lru_cache(maxsize=64)  # noqa: B019 there are few, for as long as the process lives
    def corpus(self) -> list[bytes]:
        """What is accepted of its own seeds and of all values in our vectors."""
        own = list(self.seeds())
        small = (data for data in values() if len(data) <= self.max_bytes)
        found = list(islice(filter(self.accepts, small), SEEDS))
        return own + found


def text(data: bytes) -> str:
    """Bytes as a parser of text gets them from a header or a file."""
    return data.decode("utf-8", "surrogateescape")


def container(data: bytes) -> None:
    """A sealed file, from its end record to its manifest."""
    stream = io.BytesIO(data)

    def read_at(offset: int, size: int) -> bytes:
        stream.seek(offset)
        return stream.read(size)

    found = read_container(read_at, len(data))
    parse_manifest(found.manifest, legacy=True)


def manifest(data: bytes) -> None:
    """A manifest, of now and of long ago; what is accepted can be written and read again."""
    parse_manifest(data, legacy=True)
    parse_manifest(write_manifest(parse_manifest(data)))


def policy(data: bytes) -> None:
    """A policy: the JSON in it, or else its base64."""
    try:
        parse_policy(base64.b64encode(data).decode())
    except FormatError:
        parse_policy(text(data))


def token(data: bytes) -> None:
    """A JWS of any kind, with the key that its header may bring."""
    words = text(data)
    for typ in ("at+jwt", "dpop+jwt", decision.TYPE, "JWT"):
        try:
            read = jose.read(
                words, typ=frozenset({typ, None}), max_bytes=1 << 16, names=jose.PROOF_HEADER_NAMES
            )
        except FormatError:
            continue
        jose.verify(read, read.header.key or KEY.public_key())
        return
    raise jose.JoseError("of no kind")


def claims(data: bytes) -> None:
    """Claims that are signed as they should be: only what they say can be wrong."""
    parts = f"{b64url(compact(alg='ES256', typ=decision.TYPE, kid='k'))}.{b64url(data)}"
    signed = f"{parts}.{b64url(raw_signature(parts))}"
    keys = {"k": KEY.public_key()}
    decision.verify(signed, keys, issuer="envelock-pdp", kas_id="envelock-kas", now=NOW)


def request_token(data: bytes) -> None:
    """A request token whose claims are another's."""
    parts = f"{b64url(compact(alg='ES256', typ='JWT'))}.{b64url(data)}"
    read = read_request_token(f"{parts}.{b64url(raw_signature(parts))}", KEY.public_key(), NOW)
    read_asked(read.body)


def proof(data: bytes) -> None:
    """A DPoP proof whose claims are another's."""
    header = compact(alg="ES256", typ="dpop+jwt", jwk=jose.public_jwk(KEY.public_key()))
    parts = f"{b64url(header)}.{b64url(data)}"
    signed = f"{parts}.{b64url(raw_signature(parts))}"
    urls = frozenset({"http://127.0.0.1:80/x"})
    require_proof([signed], method="POST", urls=urls, token="t", jkt=JKT, now=NOW)


def compact(**members: object) -> bytes:
    """JSON."""
    return json.dumps(members, separators=(",", ":")).encode()


def raw_signature(parts: str) -> bytes:
    """An ES256 signature that verifies, over any text."""
    r, s = decode_dss_signature(KEY.sign(parts.encode(), ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def note(data: bytes) -> None:
    """A verifier's key, a checkpoint, or a signed note with one in it."""
    words = text(data)
    for read in (VerifierKey.parse, Checkpoint.parse):
        try:
            read(words)
        except LedgerError:
            continue
        return
    read_note = Note.parse(words)
    Checkpoint.parse(read_note.text)
    try:
        open_checkpoint(words, LOG)
    except LedgerError:
        return


def receipt(data: bytes) -> None:
    """A receipt; what is accepted reads back as it was written."""
    read = Receipt.parse(text(data))
    Receipt.parse(read.text())
    try:
        read.verify(LOG)
    except LedgerError:
        return


def proofs(data: bytes) -> None:
    """Inclusion and consistency: 32 bytes each for leaf and roots, two numbers, then a path."""
    if len(data) < 112:
        raise LedgerError("too short")
    leaf, root, other = data[:32], data[32:64], data[64:96]
    index, size = (int.from_bytes(data[n : n + 8], "big") for n in (96, 104))
    path = [data[n : n + 32] for n in range(112, len(data), 32)]
    try:
        check_inclusion(leaf, index, size, path, root)
    except LedgerError:
        check_consistency(index, size, root, other, path)


def records(data: bytes) -> None:
    """A record as it is stored, and a body as it is proposed."""
    try:
        record.read_body(data)
    except LedgerError:
        record.parse(data)


def key_access(data: bytes) -> None:
    """A key access object of a manifest."""
    decoded = decode_access(decode(data, KeyAccess))
    keys_digest([decoded])
    KeyId.parse(decoded.access.kid or "")


def blobs(data: bytes) -> None:
    """Wrapped keys, shares and post-quantum keys: one of several, by the first byte."""
    kind, rest = data[:1], data[1:]
    if kind == b"\0":
        OnlineWrap.parse(rest)
    elif kind == b"\1":
        unwrap_ec(rest, KEY.public_key(), KEY)
    elif kind == b"\2":
        open_answer(rest, KEY, KEY.public_key())
    elif kind == b"\3":
        open_data_key(rest, KEY, b"info")
    elif kind == b"\5":
        assert write_envelope(*read_envelope(rest)) == rest
    elif kind == b"\6":
        assert KemPublicKey.from_spki(rest).spki() == rest
    elif kind == b"\7":
        read_private_key(rest)
    else:
        unwrap_rsa(rest, RSA)


def frames(data: bytes) -> None:
    """What comes over the ledger's sockets, in pieces."""
    inbox = wire.Inbox()
    for start in range(0, len(data), 997):
        for frame in inbox.feed(data[start : start + 997]):
            try:
                REQUESTS.decode(frame)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                ANSWERS.decode(frame)


def bodies(data: bytes) -> None:
    """What is asked of the KAS: to release, to issue, to rebind."""
    for read in (read_asked, read_seal):
        try:
            read(data)
        except FormatError:
            continue
        else:
            return
    found: RebindBody = read_rebind(data)
    for access in found.keyAccess:
        decode_access(access)


def answers(data: bytes) -> None:
    """What a KAS answers a client."""
    try:
        read_answer(data, RewrapAnswer)
    except FormatError:
        read_answer(data, SealAnswer)


def bundle(data: bytes) -> None:
    """A policy bundle: a JSON object of paths and texts."""
    files = parse_object(data)
    for path, content in files.items():
        if not isinstance(content, str):
            raise FormatError(f"{path} is no text")
    read_bundle({path: str(content).encode() for path, content in files.items()})


def question(data: bytes) -> None:
    """What is asked of the PDP."""
    read_questions(data, several=False, max_bytes=1 << 20, max_evaluations=100)
    read_each(data, several=True, max_bytes=1 << 20, max_evaluations=100)


def connect(data: bytes) -> None:
    """What stock clients send: the first byte says to which procedure, and in which codec."""
    place = data[0] if data else 0
    PROCEDURES[place % len(PROCEDURES)].parse((JSON, PROTO)[place // 128], data[1:])


def _messages() -> list[bytes]:
    """A message of each procedure in each codec."""
    token = {"token": {"jwt": "a.b.c"}}
    claims = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": [1, {}]}}
    chain = {"entityChain": {"entities": [{"userName": "a", "claims": claims}]}}
    resource = {"attributeValues": {"fqns": ["https://n.example/attr/a/value/v"]}}
    asked = {"entityIdentifier": chain, "action": {"name": "read"}, "resources": [resource]}
    whole: list[dict[str, object]] = [
        {"signedRequestToken": "a.b.c"},
        {"algorithm": "rsa:2048", "v": "2"},
        {},
        {"service": "x"},
        {"fqns": ["https://n.example/attr/a/value/v"]},
        {"entityIdentifier": token, "action": {"name": "read"}, "resource": resource},
        {"decisionRequests": [asked]},
        {"entityIdentifier": {"withRequestToken": True}},
    ]
    found: list[bytes] = []
    for place, (method, message) in enumerate(zip(PROCEDURES, whole, strict=True)):
        wire = json_format.ParseDict(message, method.wire_takes()).SerializeToString()
        found += [bytes([place]) + json.dumps(message).encode()]
        found += [bytes([128 + place - 128 % len(PROCEDURES)]) + wire]
    return found


def key_sets(data: bytes) -> None:
    """Documents of an issuer, and what the PDP announces."""
    document = parse_object(data)
    for key in read_jwks(document).values():
        jose.thumbprint(jose.public_jwk(key))


def announcement(data: bytes) -> None:
    """What the PDP announces to the KAS."""
    decode(data, Announcement)


def settings(data: bytes) -> None:
    """A settings file, each section of it."""
    file = scratch()
    file.write_bytes(data)
    for name, shape in (
        ("deployment", DeploymentSettings),
        ("kas", KasSettings),
        ("callers", CallerSettings),
    ):
        section(file, name, shape)


@lru_cache(maxsize=1)
def scratch() -> Path:
    """A file for settings."""
    descriptor, name = tempfile.mkstemp(".toml", "envelock-fuzz-")
    os.close(descriptor)
    atexit.register(Path(name).unlink, missing_ok=True)
    return Path(name)


def names(data: bytes) -> None:
    """Key ids and names of attributes."""
    words = text(data)
    try:
        AttributeValue.parse_fqn(words)
    except FormatError:
        try:
            AttributeValue.parse_short(words)
        except FormatError:
            KeyId.parse(words)


def canonical(data: bytes) -> None:
    """JSON: what is written canonically reads back as itself."""
    value = parse(data)
    written = encode(value)
    if parse(written) != value or encode(parse(written)) != written:
        raise ArithmeticError("does not read back")


@lru_cache(maxsize=1)
def values() -> tuple[bytes, ...]:
    """Every text in our vectors: as it is, and what it is the hex or base64 of."""
    found: dict[bytes, None] = {}
    for file in sorted(VECTORS.glob("*.json")):
        for value in leaves(json.loads(file.read_bytes())):
            found[value.encode()] = None
            for unpack in (bytes.fromhex, _base64):
                try:
                    found[unpack(value)] = None
                except (ValueError, binascii.Error):
                    continue
    return tuple(found)


def _base64(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def leaves(value: object) -> Iterator[str]:
    """The texts in a JSON value; its objects, too, as JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield json.dumps(value, separators=(",", ":"))
        for member in value.values():
            yield from leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from leaves(member)


def _claims() -> list[bytes]:
    digest = b64url(bytes(32))
    decided = {"id": "o", "policy_sha256": digest, "keys_sha256": digest, "permit": True}
    return [
        compact(
            iss="envelock-pdp", aud="envelock-kas", sub="s", sub_iss="i", sub_tenant="t",
            tenant="t", act="open", objs=[decided], key_sha256=digest, jti="j",
            policy={"bundle": digest, "epoch": 1, "rules": []},
            iat=NOW, nbf=NOW, exp=NOW + 60, cnf={"jkt": "x"},
        )
    ]  # fmt: skip


def _proofs() -> list[bytes]:
    ath = b64url(hashlib.sha256(b"t").digest())
    return [compact(htm="POST", htu="http://127.0.0.1/x", iat=NOW, jti="j", ath=ath)]


def _merkle() -> list[bytes]:
    leaf = bytes(range(32))
    return [leaf + leaf + leaf + (0).to_bytes(8, "big") + (1).to_bytes(8, "big")]


def _frames() -> list[bytes]:
    some = [(1, wire.Head()), (2, wire.Find("x")), (3, wire.Prove(1, 0)), (4, wire.Copy())]
    return [wire.frame(some), wire.frame([(4, wire.Topic("key", 0))]), wire.frame([])]


def _bundles() -> list[bytes]:
    folder = Path(envelock_policies.__file__).parent
    found = []
    for head in folder.rglob("bundle.toml"):
        files = [path for path in head.parent.rglob("*") if path.suffix in {".json", ".toml"}]
        content = {str(path.relative_to(head.parent)): path.read_text() for path in files}
        found.append(json.dumps(content, separators=(",", ":")).encode())
    return found


def _questions() -> list[bytes]:
    digest = b64url(bytes(32))
    asked = {
        "subject": {"type": "user", "id": "token"},
        "action": {"name": "open"},
        "resource": {
            "type": "tdf",
            "id": "o",
            "properties": {"policy": base64.b64encode(b"{}").decode(), "keys_sha256": digest},
        },
        "context": {"kas_id": "k", "key_sha256": digest},
    }
    return [compact(**asked), compact(**asked, evaluations=[asked, {}])]


def _keys() -> list[bytes]:
    keys = [jose.public_jwk(key.public_key()) | {"kid": str(n)} for n, key in enumerate((KEY, RSA))]
    return [compact(keys=keys), compact(keys=[])]


def _settings() -> list[bytes]:
    lines = [
        "[deployment]",
        'environment = "development"',
        "[kas]",
        'url = "https://kas.example"',
        "[kas.guard]",
        "subject_burst = 5",
        "[callers]",
        'audience = "a"',
        "[[callers.issuers]]",
        'issuer = "https://i.example"',
        'tenant = "t"',
        'algorithms = ["ES256"]',
    ]
    return ["\n".join(lines).encode(), b""]


def _rewraps() -> list[bytes]:
    """A body of each kind."""
    share, client = bytes(range(32)), public_pem(KEY.public_key())
    asks = write_policy("00000000-0000-4000-8000-000000000000", ())
    wrapped = wrap_ec(share, KEY.public_key(), ephemeral=KEY, iv=bytes(12))
    key = KeyAccess(
        type="ec-wrapped",
        url="http://127.0.0.1:8080",
        wrappedKey=base64.b64encode(wrapped).decode(),
        policyBinding=bind_policy(share, asks),
        kid="clinic:records:v1",
        ephemeralPublicKey=client,
    )
    entry = ObjectEntry((KeyAccessEntry("k", key),), PolicyEntry("p", asks))
    other = write_policy("00000000-0000-4000-8000-000000000001", ())
    bodies_of_each = (
        RewrapBody(client, (entry,), seen=3),
        SealBody(client, asks, b64url(bytes(16))),
        RebindBody((key,), asks, other, b64url(bytes(16))),
    )
    return [msgspec.json.encode(body) for body in bodies_of_each]


def _requests() -> list[bytes]:
    return [compact(requestBody=_rewraps()[0].decode(), exp=NOW + 60, iat=NOW)]


LEDGER = (LedgerError,)
TARGETS = {
    "announcement": Target(announcement, seeds=lambda: [
        compact(tenant="t", bundle=b64url(bytes(32)), namespaces=["n"], sharing=[])]),
    "answers": Target(answers, seeds=lambda: [
        msgspec.json.encode(RewrapAnswer((PolicyResult("p", (
            KeyResult("k", "permit", {"receipt": "x"}, "AA"),)),), "pem")),
        msgspec.json.encode(SealAnswer("a:b:v1", "u", "d", ()))]),
    "blobs": Target(blobs, seeds=lambda: [
        b"\0\xe2\1" + bytes(16 + 60), b"\1" + wrap_ec(bytes(range(32)), KEY.public_key(),
                                                      ephemeral=KEY, iv=bytes(12)),
        b"\3" + seal_data_key(bytes(range(32)), KEY.public_key(), b"info"),
        b"\4" + wrap_rsa(bytes(range(32)), RSA.public_key()),
        b"\5" + write_envelope(bytes(1088), bytes(60)),
        b"\6" + XWING_KEY.public_key().spki(), b"\7" + XWING_KEY.pkcs8(), b"\7" + pkcs8_of(KEY)]),
    "bodies": Target(bodies, seeds=_rewraps, max_bytes=1 << 17),
    "bundle": Target(bundle, (FormatError, BundleError), _bundles),
    "canonical": Target(canonical),
    "claims": Target(claims, seeds=_claims),
    "connect": Target(connect, seeds=_messages),
    "container": Target(container, max_bytes=1 << 17),
    "frames": Target(
        frames, (LedgerUnavailableError, msgspec.MsgspecError, UnicodeDecodeError), _frames),
    "key_access": Target(key_access),
    "key_sets": Target(key_sets, seeds=_keys),
    "manifest": Target(manifest, max_bytes=1 << 17),
    "names": Target(names),
    "note": Target(note, LEDGER),
    "policy": Target(policy),
    "proof": Target(proof, seeds=_proofs),
    "proofs": Target(proofs, LEDGER, _merkle),
    "question": Target(question, (QuestionError,), _questions),
    "receipt": Target(receipt, LEDGER),
    "records": Target(records, LEDGER),
    "request_token": Target(request_token, seeds=_requests),
    "settings": Target(settings, (SettingsError,), _settings),
    "token": Target(token),
}  # fmt: skip
