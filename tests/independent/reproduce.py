"""A second reading of docs/formats.md: computes every golden vector from its inputs.

Uses the standard library and `cryptography`, and nothing of this project. Prints one line for each
difference; the exit code is 1 when there is any.

    python reproduce.py FOLDER_WITH_VECTORS
"""

import base64
import hashlib
import hmac
import json
import re
import struct
import sys
import time
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, padding, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

LARGEST = 2**53 - 1
DER = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class RefusedError(Exception):
    """The input is not what the page allows."""


def require(condition: object, why: str = "") -> None:
    """Refuse unless *condition* holds."""
    if not condition:
        raise RefusedError(why)


# Section 1: encodings.


def b64(raw: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(raw).decode()


def unb64(text: str) -> bytes:
    """Standard base64, canonical only."""
    require(re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", text) and len(text) % 4 == 0, "base64")
    raw = base64.b64decode(text)
    require(b64(raw) == text, "canonical base64")
    return raw


def url64(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unurl64(text: str) -> bytes:
    """Base64url without padding, canonical only."""
    require(re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1, "base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    require(url64(raw) == text, "canonical base64url")
    return raw


def framed(label: str, *fields: bytes) -> bytes:
    """A label, then length-prefixed fields."""
    return label.encode() + b"".join(struct.pack(">I", len(field)) + field for field in fields)


def digest(label: str, *fields: bytes) -> bytes:
    """SHA-256 over that."""
    return hashlib.sha256(framed(label, *fields)).digest()


def strict(text: str, depth: int = 16) -> object:
    """JSON with one reading."""

    def members(pairs: list) -> dict:
        require(len(dict(pairs)) == len(pairs), "a name twice")
        return dict(pairs)

    def integer(digits: str) -> int:
        require(abs(int(digits)) <= LARGEST, "a large integer")
        return int(digits)

    def constant(name: str) -> None:
        raise RefusedError(name)

    try:
        value = json.loads(
            text, object_pairs_hook=members, parse_int=integer, parse_constant=constant
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise RefusedError("JSON") from error
    require(levels(value) <= depth, "too deep")
    return value


def levels(value: object) -> int:
    """How deep arrays and objects are nested."""
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(levels, value), default=0)
    return 0


def canonical(value: object) -> str:
    """RFC 8785 without fractions."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    require(not isinstance(value, float), "a fraction")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def base64_case(given: dict) -> dict:
    """Either alphabet."""
    raw = unurl64(given["url"]) if "url" in given else unb64(given["standard"])
    return {"bytes": raw.hex()}


def framing(given: dict) -> dict:
    """Framing itself."""
    fields = [bytes.fromhex(field) for field in given["fields"]]
    return {
        "bytes": framed(given["label"], *fields).hex(),
        "sha256": digest(given["label"], *fields).hex(),
    }


# Section 2: names.


def key_path(text: str) -> list[str]:
    """The parts of a path."""
    parts = text.split(":")
    require(len(text) <= 200, "length")
    for part in parts:
        require(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", part, re.ASCII), "a part")
        require(not re.fullmatch(r"v[0-9]+", part), "a version")
    return parts


def key_id(given: dict) -> dict:
    """Paths and key ids."""
    version, path = None, given.get("path")
    if path is None:
        found = re.fullmatch(r"(.+):v([1-9][0-9]{0,9})", given["key_id"])
        require(found, "key id")
        path, version = found[1], int(found[2])
    parts = key_path(path)
    above = [":".join(parts[:count]) for count in range(1, len(parts))]
    return {"path": path, "version": version, "tenant": parts[0], "ancestors": above}


def attribute(given: dict) -> dict:
    """Both spellings of a value."""
    if "fqn" in given:
        found = re.fullmatch(r"https://([^/]+)/attr/([^/]+)/value/([^/]+)", given["fqn"].lower())
    else:
        found = re.fullmatch(r"([^/]+)/([^=/]+)=(.+)", given["short"])
    require(found, "attribute")
    namespace, name, value = found.groups()
    label = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    require(re.fullmatch(rf"{label}(\.{label})*", namespace), "namespace")
    for token in (name, value):
        require(re.fullmatch(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", token), "name or value")
    definition = f"https://{namespace}/attr/{name}"
    return {
        "fqn": f"{definition}/value/{value}",
        "short": f"{namespace}/{name}={value}",
        "definition": definition,
    }


def path_template(given: dict) -> dict:
    """The fields that the vectors use."""
    key = digest("envelock/pseudonym/v1", bytes.fromhex(given["secret"]), given["tenant"].encode())

    def field(found: re.Match) -> str:
        name, _, form = found[1].partition(":")
        if name == "epoch":
            return time.strftime(form or "%Y-%m", time.gmtime(given["now"]))
        value = given[name]
        if name in {"subject", "object"}:
            return hmac.digest(key, value.encode(), "sha256").hex()[:24]
        require(":" not in value, "two parts")
        return value

    path = re.sub(r"\{([^}]*)\}", field, given["template"])
    key_path(path)
    return {"path": path}


def record_id(given: dict) -> dict:
    """UUID version 7."""
    raw = bytearray(struct.pack(">Q", given["milliseconds"])[2:] + bytes.fromhex(given["entropy"]))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    text = raw.hex()
    return {"id": f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"}


def names(given: dict) -> dict:
    """A name to spend, or a fence."""
    if "jti" in given:
        parts = (given[name].encode() for name in ("iss", "tenant", "jti"))
        return {"once": "dec:" + digest("envelock/decision-id/v1", *parts).hex()}
    parts = (given[name].encode() for name in ("tenant", "issuer", "subject"))
    who = framed("envelock/subject/v1", *parts)
    mac = hmac.digest(bytes.fromhex(given["secret"]), who, "sha256")
    return {"fence": "subject:" + mac.hex()[:32]}


# Section 3: policies.


def policy(given: dict) -> dict:
    """A policy, written or read."""
    text = given.get("text")
    if text is None:
        wanted = [
            {"attribute": attribute({"short": short})["fqn"]} for short in given["attributes"]
        ]
        body = {"dataAttributes": wanted, "dissem": given["dissem"]}
        text = b64(canonical({"uuid": given["uuid"], "body": body}).encode())
    read = strict(unb64(text).decode())
    require(isinstance(read, dict) and read.keys() == {"uuid", "body"}, "members")
    require(read["body"].keys() <= {"dataAttributes", "dissem"}, "members")
    known = {"attribute", "displayName", "isDefault", "pubKey", "kasURL", "kasUrl"}
    asked = read["body"].get("dataAttributes") or []
    require(all(item.keys() <= known for item in asked), "members")
    values = [attribute({"fqn": item["attribute"]})["short"] for item in asked]
    dissem = read["body"].get("dissem") or []
    require(len(set(values)) == len(values) <= 100, "attributes")
    require(all(name and unicodedata.is_normalized("NFC", name) for name in dissem), "dissem")
    require(re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", read["uuid"]))
    return {
        "text": text,
        "policy_sha256": digest("envelock/policy/v1", text.encode()).hex(),
        "uuid": read["uuid"].lower(),
        "attributes": values,
        "dissem": dissem,
    }


def binding(given: dict) -> dict:
    """A policy bound to a share."""
    mac = hmac.digest(bytes.fromhex(given["share"]), given["policy"].encode(), "sha256")
    return {"alg": "HS256", "hash": b64(mac.hex().encode()), "mac": mac.hex()}


def bundle(given: dict) -> dict:
    """The digest of the files that decide."""
    single = {"bundle.toml", "attributes.json", "mappings.json"}
    fields = []
    for path in sorted(given["files"]):
        if path in single or re.fullmatch(r"rules/[^./][^/]*\.json", path):
            fields += [path.encode(), given["files"][path].encode()]
    return {"digest": digest("envelock/bundle/v1", *fields).hex()}


# Section 4: wrapped keys.


def p256(scalar: str) -> ec.EllipticCurvePrivateKey:
    """A key from its secret number."""
    return ec.derive_private_key(int(scalar, 16), ec.SECP256R1())


def bound_mac(stated: object) -> bytes:
    """The MAC that a binding states."""
    text = stated if isinstance(stated, str) else stated["hash"]
    raw = unb64(text)
    return raw if len(raw) == 32 else bytes.fromhex(raw.decode())


def key_access(given: dict) -> dict:
    """The digest of key access objects, and the id of their object."""
    fields = [struct.pack(">I", len(given["objects"]))]
    online = None
    for item in given["objects"]:
        wrapped = unb64(item["wrappedKey"])
        pem = item.get("ephemeralPublicKey")
        ephemeral = load_pem_public_key(pem.encode()).public_bytes(*DER) if pem else b""
        texts = (item["type"], item.get("kid") or "", item.get("sid") or "")
        mac = bound_mac(item["policyBinding"])
        fields += [*(text.encode() for text in texts), wrapped, ephemeral, mac]
        rsa_sized = len(wrapped) in {256, 384, 512}
        if item["type"] == "wrapped" and not rsa_sized and len(wrapped) > 18 and wrapped[0] == 0xE2:
            online = wrapped[2:18].hex()
    found = digest("envelock/keys/v1", *fields).hex()
    return {"keys_sha256": found, "object_id": online or f"sha256:{found}"}


def share_cipher(secret: bytes) -> AESGCM:
    """The cipher that an ECDH secret yields."""
    salt = hashlib.sha256(b"TDF").digest()
    return AESGCM(HKDF(hashes.SHA256(), 32, salt=salt, info=b"").derive(secret))


def wrap_ec(given: dict) -> dict:
    """A share wrapped to a P-256 key."""
    return wrap_between(p256(given["recipient"]), p256(given["ephemeral"]), given)


CURVES = {
    "ec:secp256r1": ec.SECP256R1(),
    "ec:secp384r1": ec.SECP384R1(),
    "ec:secp521r1": ec.SECP521R1(),
}


def wrap_curve(given: dict) -> dict:
    """The same on a curve that the case names; both keys are on it."""
    named = given["recipient_algorithm"]
    if given["ephemeral_algorithm"] != named or named not in CURVES:
        raise RefusedError("curves")
    recipient, ephemeral = (
        ec.derive_private_key(int(given[name], 16), CURVES[named])
        for name in ("recipient", "ephemeral")
    )
    return wrap_between(recipient, ephemeral, given) | {"algorithm": named}


# By the last bytes of the object identifier: ML-KEM, its lengths, the curve and the label.
KEMS = {
    "608648016503040402": ("mlkem:768", 1184, 1088, None, b""),
    "608648016503040403": ("mlkem:1024", 1568, 1568, None, b""),
    "2b0601040183e62d81c87a": ("hpqt:xwing", 1184, 1088, "x25519", b"\\.//^\\"),
    "2b0601050507063b": (
        "hpqt:secp256r1-mlkem768",
        1184,
        1088,
        ec.SECP256R1(),
        b"MLKEM768-P256",
    ),
    "2b0601050507063f": (
        "hpqt:secp384r1-mlkem1024",
        1568,
        1568,
        ec.SECP384R1(),
        b"MLKEM1024-P384",
    ),
}


def der_of(tag: int, content: bytes) -> bytes:
    """One DER value."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    long = size.to_bytes(2 if size > 255 else 1, "big")
    return bytes([tag, 128 + len(long)]) + long + content


def der_parts(encoded: bytes) -> list[tuple[int, bytes]]:
    """The DER values that bytes consist of."""
    found = []
    while encoded:
        require(len(encoded) > 1, "DER")
        size, start = encoded[1], 2
        if size >= 128:
            start += size - 128
            size = int.from_bytes(encoded[2:start], "big")
        content = encoded[start : start + size]
        value = der_of(encoded[0], content)
        if not encoded.startswith(value):
            raise RefusedError("DER")
        found.append((encoded[0], content))
        encoded = encoded[len(value) :]
    return found


def wrap_kem(given: dict) -> dict:
    """A share opened with a post-quantum key."""
    [(_, key)] = der_parts(unb64(given["private"]))
    [_, (_, identifier), (_, private)] = der_parts(key)
    [(_, oid)] = der_parts(identifier)
    name, _, lattice_size, curve, label = KEMS[oid.hex()]
    [(tag, envelope)] = der_parts(unb64(given["wrapped"]))
    [(first, ciphertext), (second, sealed)] = der_parts(envelope)
    kind = "hybrid-wrapped" if curve else "mlkem-wrapped"
    point = {"x25519": 32, "mlkem:768": 0, "mlkem:1024": 0}.get(curve or name, 65)
    point = 97 if name.endswith("1024") and curve else point
    fits = (tag, first, second, len(ciphertext)) == (0x30, 0x80, 0x81, lattice_size + point)
    if given["type"] != kind or not fits or len(sealed) != 60:
        raise RefusedError("envelope")
    if curve is None:
        [(_, private)] = der_parts(private)
    if curve == "x25519":
        expanded = hashlib.shake_256(private).digest(96)
        other = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
        mine = other.public_key().public_bytes_raw()
        private = expanded[:64]
    elif curve is not None:
        other = load_der_private_key(private[64:], None)
        mine = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    kinds = {1088: mlkem.MLKEM768PrivateKey, 1568: mlkem.MLKEM1024PrivateKey}
    lattice = kinds[lattice_size].from_seed_bytes(private[:64])
    secret = lattice.decapsulate(ciphertext[:lattice_size])
    public = lattice.public_key().public_bytes_raw()
    if curve is not None:
        theirs = ciphertext[lattice_size:]
        if curve == "x25519":
            agreed = other.exchange(x25519.X25519PublicKey.from_public_bytes(theirs))
        else:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(curve, theirs)
            agreed = other.exchange(ec.ECDH(), peer)
        secret = hashlib.sha3_256(secret + agreed + theirs + mine + label).digest()
        public += mine
    cipher = share_cipher(secret) if curve == "x25519" else AESGCM(secret)
    try:
        share = cipher.decrypt(sealed[:12], sealed[12:], None)
    except InvalidTag as error:
        raise RefusedError("share") from error
    spki = der_of(0x30, der_of(0x30, der_of(6, oid)) + der_of(3, b"\0" + public))
    text = base64.b64encode(spki).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return {
        "algorithm": name,
        "public_pem": "\n".join(
            ("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", "")
        ),
        "secret": secret.hex(),
        "share": share.hex(),
    }


def join(given: dict) -> dict:
    """The XOR of one share for each split."""
    splits = [sid or "" for sid in given["sids"]]
    found: dict[str, bytes] = {}
    for place, text in given["shares"].items():
        share = bytes.fromhex(text)
        if len(share) != 32 or found.setdefault(splits[int(place)], share) != share:
            raise RefusedError("share")
    if set(found) != set(splits):
        raise RefusedError("a split without a share")
    dek = bytes(32)
    for share in found.values():
        dek = bytes(one ^ other for one, other in zip(dek, share, strict=True))
    if not any(dek):
        raise RefusedError("zero")
    return {"dek": dek.hex()}


def wrap_between(
    recipient: ec.EllipticCurvePrivateKey, ephemeral: ec.EllipticCurvePrivateKey, given: dict
) -> dict:
    """The share of a case, wrapped to *recipient*."""
    iv = bytes.fromhex(given["iv"])
    secret = ephemeral.exchange(ec.ECDH(), recipient.public_key())
    sealed = share_cipher(secret).encrypt(iv, bytes.fromhex(given["share"]), None)
    return {
        "ephemeral_pem": ephemeral.public_key().public_bytes(*PEM).decode(),
        "secret": secret.hex(),
        "wrapped": (iv + sealed).hex(),
    }


def wrap_rsa(given: dict) -> dict:
    """A share unwrapped."""
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 the format's own
    key = load_pem_private_key(given["private_pem"].encode(), None)
    return {"share": key.decrypt(bytes.fromhex(given["wrapped"]), oaep).hex()}


def online_wrap(given: dict) -> dict:
    """A data key wrapped online."""
    identifier, nonce = bytes.fromhex(given["object_id"]), bytes.fromhex(given["nonce"])
    whose = (given["tenant"].encode(), given["key_id"].encode())
    policy_digest = bytes.fromhex(given["policy_sha256"])
    aad = framed("envelock/online-wrap/v1", *whose, identifier, policy_digest)
    cipher = AESGCM(bytes.fromhex(given["kek"]))
    sealed = cipher.encrypt(nonce, bytes.fromhex(given["share"]), aad)
    wrapped = bytes([0xE2, 1]) + identifier + nonce + sealed
    return {"aad": aad.hex(), "wrapped": wrapped.hex(), "object": given["object_id"]}


def data_key(given: dict) -> dict:
    """A sealed data key, opened."""
    wrapped = digest("envelock/wrapped-key/v1", bytes.fromhex(given["wrapped"]))
    parts = (bytes.fromhex(given[name]) for name in ("request_digest", "object_id"))
    info = framed("envelock/datakey/v1", *parts, wrapped)
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        dek = suite.decrypt(bytes.fromhex(given["sealed"]), p256(given["recipient"]), info)
    except InvalidTag as error:
        raise RefusedError("does not open") from error
    return {"info": info.hex(), "dek": dek.hex()}


# Section 5: sealed files.


def sealed_file(given: dict) -> dict:
    """A whole file."""
    dek = bytes.fromhex(given["dek"])
    segments, payload, tags = [], b"", b""
    for iv_text, piece in zip(given["ivs"], given["pieces"], strict=True):
        iv = bytes.fromhex(iv_text)
        sealed = iv + AESGCM(dek).encrypt(iv, piece.encode(), None)
        payload, tags = payload + sealed, tags + sealed[-16:]
        sizes = {"segmentSize": len(piece.encode()), "encryptedSegmentSize": len(sealed)}
        segments.append({"hash": b64(sealed[-16:])} | sizes)
    root = hmac.digest(dek, tags, "sha256")
    manifest = json.dumps(manifest_of(given, segments, root), separators=(",", ":"))
    return {
        "root": root.hex(),
        "payload": payload.hex(),
        "manifest": manifest,
        "file": b64(container(payload, manifest.encode())),
    }


def manifest_of(given: dict, segments: list[dict], root: bytes) -> dict:
    """The members of a manifest, in their order."""
    order = ("type", "url", "wrappedKey", "policyBinding", "protocol", "kid", "sid",
             "encryptedMetadata", "schemaVersion", "ephemeralPublicKey")  # fmt: skip
    keys = []
    for item in given["key_access"]:
        known = {name: item[name] for name in order if name in item and name != "protocol"}
        bound = item["policyBinding"]
        known["policyBinding"] = {"hash": bound["hash"], "alg": bound["alg"]}
        keys.append(known | {"protocol": "kas"})
    size = given["segment_size"]
    integrity = {
        "rootSignature": {"alg": "HS256", "sig": b64(root)},
        "segmentHashAlg": "GMAC",
        "segmentSizeDefault": size,
        "encryptedSegmentSizeDefault": size + 28,
        "segments": segments,
    }
    return {
        "encryptionInformation": {
            "type": "split",
            "policy": given["policy"],
            "keyAccess": keys,
            "method": {"algorithm": "AES-256-GCM", "iv": "", "isStreamable": True},
            "integrityInformation": integrity,
        },
        "payload": {
            "type": "reference",
            "url": "0.payload",
            "protocol": "zip",
            "mimeType": "application/octet-stream",
            "isEncrypted": True,
        },
        "schemaVersion": "4.3.0",
    }


def container(payload: bytes, manifest: bytes) -> bytes:
    """The zip around both."""
    first, second = b"0.payload", b"0.manifest.json"
    crcs = zlib.crc32(payload), zlib.crc32(manifest)

    def local(name: bytes, flags: int, crc: int, size: int) -> bytes:
        numbers = (45, flags, 0, 0, 0x0021, crc, size, size, len(name), 0)
        return b"PK\3\4" + struct.pack("<5H3L2H", *numbers) + name

    def central(name: bytes, flags: int, crc: int, size: int, offset: int) -> bytes:
        numbers = (45, 45, flags, 0, 0, 0x0021, crc, size, size, len(name), 0, 0, 0, 0, 0, offset)
        return b"PK\1\2" + struct.pack("<6H3L5H2L", *numbers) + name

    front = local(first, 8, 0, 0) + payload
    front += b"PK\7\10" + struct.pack("<3L", crcs[0], len(payload), len(payload))
    offset = len(front)
    front += local(second, 0, crcs[1], len(manifest)) + manifest
    directory = central(first, 8, crcs[0], len(payload), 0)
    directory += central(second, 0, crcs[1], len(manifest), offset)
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 2, 2, len(directory), len(front), 0)
    return front + directory + end


# Section 6: requests.


def client_key(given: dict) -> dict:
    """A client's key and its digest."""
    try:
        key = load_pem_public_key(given["pem"].encode())
    except ValueError as error:
        raise RefusedError("PEM") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and f"ec:{key.curve.name}" not in CURVES:
        raise RefusedError("curve")
    der = key.public_bytes(*DER)
    return {"der": der.hex(), "key_sha256": digest("envelock/client-key/v1", der).hex()}


def request(given: dict) -> dict:
    """A request digest."""

    def url(name: str, of: dict = given) -> str:
        return url64(bytes.fromhex(of[name]))

    if given["act"] == "seal":
        what = [given["scope"], given["count"], url("nonce")]
    else:
        digests = ("policy_sha256", "keys_sha256", "new_policy_sha256")
        what = [
            [item["id"], *(url(name, item) for name in digests if name in item)]
            for item in given["objects"]
        ]
    asked = canonical([given["act"], url("key_sha256"), what]).encode()
    order = ("kas_id", "owner", "issuer", "tenant", "subject", "jkt")
    whose = (given[name].encode() for name in order)
    return {"digest": digest("envelock/request/v1", *whose, asked).hex()}


def release(given: dict) -> dict:
    """A release digest."""
    ids = (one.encode() for one in given["ids"])
    asked = bytes.fromhex(given["request_digest"])
    return {"spent_on": digest("envelock/release/v1", asked, *ids).hex()}


def seal_scope(given: dict) -> dict:
    """What stands for data keys to be made."""
    count, nonce = struct.pack(">I", given["count"]), bytes.fromhex(given["nonce"])
    found = digest("envelock/seal/v1", given["path"].encode(), count, nonce)
    return {"id": "seal:" + given["path"], "keys_sha256": found.hex()}


def rebind(given: dict) -> dict:
    """What takes the place of an online wrap whose policy is replaced."""
    policy_digest = bytes.fromhex(given["new_policy_sha256"])
    found = digest("envelock/rebind/v1", given["former"].encode(), policy_digest)[:16].hex()
    return {
        "id": found,
        "moves": {"object:" + given["former"]: 1, "rebound:" + found: 1},
        "key_sha256": digest("envelock/client-key/v1", b"").hex(),
    }


# Section 7: tokens.


def verifying(jwk: dict) -> object:
    """A public key of a JWK."""
    if jwk["kty"] == "OKP":
        return ed25519.Ed25519PublicKey.from_public_bytes(unurl64(jwk["x"]))
    point = b"\4" + unurl64(jwk["x"]) + unurl64(jwk["y"])
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def jws(token: str, typ: set, header_names: set, jwk: dict | None) -> tuple[dict, dict]:
    """Header and claims of a token; its signature is verified under *jwk*, or the header's own."""
    parts = token.split(".")
    require(len(parts) == 3, "three parts")
    header = strict(unurl64(parts[0]).decode(), 8)
    claims = strict(unurl64(parts[1]).decode())
    signature = unurl64(parts[2])
    require(header.keys() <= header_names and header.get("typ") in typ, "header")
    if (own := header.get("jwk")) is not None:
        jwk = own
    if jwk is not None:
        check_signature(verifying(jwk), header["alg"], token.rpartition(".")[0], signature)
    return header, claims


def check_signature(key: object, alg: str, text: str, signature: bytes) -> None:
    """Verify under the algorithm of the key."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            require(alg == "EdDSA", "algorithm")
            key.verify(signature, text.encode())
        else:
            require(alg == "ES256" and len(signature) == 64, "algorithm")
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            der = encode_dss_signature(r, s)
            key.verify(der, text.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise RefusedError("signature") from error


def jwk_thumbprint(jwk: dict) -> str:
    """RFC 7638."""
    members = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    text = canonical({name: jwk[name] for name in members})
    return url64(hashlib.sha256(text.encode()).digest())


def decision(given: dict) -> dict:
    """A decision, verified."""
    header = strict(unurl64(given["token"].split(".")[0]).decode(), 8)
    jwk = given["keys"].get(header.get("kid"))
    require(jwk is not None, "an unknown key")
    _, claims = jws(given["token"], {"kas-decision+jwt"}, {"alg", "kid", "typ"}, jwk)
    known = {"iss", "aud", "sub", "sub_iss", "sub_tenant", "tenant", "act", "objs", "key_sha256",
             "policy", "iat", "nbf", "exp", "jti", "cnf"}  # fmt: skip
    require(claims.keys() <= known and claims.keys() >= known - {"cnf"}, "claims")
    require(claims["iss"] == given["issuer"] and claims["aud"] == given["kas_id"], "for whom")
    require(0 < claims["exp"] - claims["iat"] <= 60, "how long")
    require(given["now"] < claims["exp"], "expired")
    require(max(claims["iat"], claims["nbf"]) <= given["now"] + 5, "not yet")
    require(1 <= len(claims["objs"]) <= 100 and claims["jti"], "objects")
    return {"claims": claims}


def decision_signing(given: dict) -> dict:
    """A decision signed with Ed25519."""
    header = {"alg": "EdDSA", "kid": given["kid"], "typ": "kas-decision+jwt"}
    text = ".".join(url64(canonical(part).encode()) for part in (header, given["claims"]))
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["key_seed"]))
    return {"token": f"{text}.{url64(key.sign(text.encode()))}"}


def request_token(given: dict) -> dict:
    """A request token, read."""
    _, claims = jws(given["token"], {"JWT", None}, {"alg", "kid", "typ"}, given["jwk"])
    require(given["now"] - 60 < claims["exp"] <= given["now"] + 3 * 3600, "exp")
    signing_input = given["token"].rpartition(".")[0].encode()
    name = "srt:" + digest("envelock/request-token/v1", signing_input).hex()
    return {"body": claims["requestBody"], "name": name, "expires": claims["exp"] + 60}


def dpop(given: dict) -> dict:
    """A proof of possession."""
    header, claims = jws(given["proof"], {"dpop+jwt"}, {"alg", "jwk", "typ"}, None)
    require(jwk_thumbprint(header["jwk"]) == given["jkt"], "key")
    require(claims["htm"] == given["method"], "htm")
    require(resource(claims["htu"]) in map(resource, given["urls"]), "htu")
    require(given["now"] - 60 <= claims["iat"] <= given["now"] + 5, "iat")
    require(1 <= len(claims["jti"]) <= 256, "jti")
    ath = url64(hashlib.sha256(given["access_token"].encode()).digest())
    require(claims["ath"] == ath, "ath")
    name = "dpop:" + digest("envelock/dpop/v1", given["jkt"].encode(), claims["jti"].encode()).hex()
    return {"name": name, "expires": claims["iat"] + 65}


def resource(url: str) -> tuple:
    """Scheme, host, port and path."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, parts.hostname, port, parts.path or "/"


# Section 8: records.


def hidden(field: str, salt: str, value: object) -> str:
    """A commitment."""
    parts = (field.encode(), bytes.fromhex(salt), canonical(value).encode())
    return digest("envelock/commitment/v1", *parts).hex()


def erased(given: dict) -> dict:
    """The mark of a record whose openings were erased."""
    fields = given["index"].to_bytes(8, "big"), bytes.fromhex(given["salt"])
    return {"mark": digest("envelock/erased/v1", *fields).hex()[:32]}


def leaf_hash(record: str) -> bytes:
    """RFC 9162."""
    return hashlib.sha256(b"\0" + record.encode()).digest()


def record(given: dict) -> dict:
    """A record from its parts."""
    body = dict(given["fields"])
    if given["personal"]:
        body["c"] = {field: hidden(field, salt, value) for field, salt, value in given["personal"]}
    serial = given["serial"]
    front = {
        "_i": serial["index"],
        "_p": serial["previous"],
        "_t": serial["sequenced_us"],
        "_tp": serial["tenant_previous"],
        "_tq": serial["tenant_position"],
    }
    if serial["repeats"] is not None:
        front["_of"] = serial["repeats"]
    whole = canonical(front | body)
    return {
        "body": canonical(body),
        "record": whole,
        "leaf": leaf_hash(whole).hex(),
        "disclosure": disclosure(given["personal"]),
    }


def disclosure(personal: list) -> str:
    """Scheme 0 and MessagePack."""
    if not personal:
        return ""
    packed = bytes([0, 0x90 | len(personal)])
    for field, salt, value in personal:
        parts = (bytes.fromhex(salt), canonical(value).encode())
        name = field.encode()
        packed += bytes([0x93, 0xA0 | len(name)]) + name
        packed += b"".join(bytes([0xC4, len(part)]) + part for part in parts)
    return packed.hex()


def log_key(given: dict) -> tuple[ed25519.Ed25519PrivateKey, bytes, str]:
    """Key, key id and verifier key of a log."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["log_key_seed"]))
    public = b"\1" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(given["origin"].encode() + b"\n" + public).digest()[:4]
    return key, key_id, f"{given['origin']}+{key_id.hex()}+{b64(public)}"


def genesis(given: dict) -> dict:
    """Record 0."""
    zeros = "0" * 64
    front = {"_i": 0, "_p": zeros, "_t": given["time_us"], "_tp": zeros, "_tq": 0}
    body = {
        "id": "genesis",
        "ledger_key": log_key(given)[2],
        "origin": given["origin"],
        "schema": 1,
        "tn": "-",
        "ts": given["time_us"],
        "typ": "ledger.genesis",
        "v": 1,
    }
    text = canonical(front | body)
    return {"record": text, "leaf": leaf_hash(text).hex()}


# Section 9: checkpoints and receipts.


def signed(given: dict, size: int, root: bytes) -> tuple[str, str, str]:
    """Text, note and signature blob of a checkpoint."""
    key, key_id, _ = log_key(given)
    text = f"{given['origin']}\n{size}\n{b64(root)}\n"
    blob = b64(key_id + key.sign(text.encode()))
    return text, f"{text}\n\N{EM DASH} {given['origin']} {blob}\n", blob


def checkpoint(given: dict) -> dict:
    """A verifier key and a signed checkpoint."""
    text, note, _ = signed(given, given["size"], bytes.fromhex(given["root"]))
    return {"verifier_key": log_key(given)[2], "text": text, "note": note}


def root_of(leaves: list[bytes]) -> bytes:
    """The recursive definition of RFC 9162 section 2.1.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = largest_power(len(leaves))
    inner = b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])
    return hashlib.sha256(inner).digest()


def largest_power(size: int) -> int:
    """The largest power of two below *size*."""
    return 1 << (size - 1).bit_length() - 1


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    half = largest_power(len(leaves))
    if index < half:
        return [*inclusion(index, leaves[:half]), root_of(leaves[half:])]
    return [*inclusion(index - half, leaves[half:]), root_of(leaves[:half])]


def consistency(size: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """PROOF of RFC 9162 section 2.1.4.1."""
    if size == len(leaves):
        return [] if whole else [root_of(leaves)]
    half = largest_power(len(leaves))
    if size <= half:
        return [*consistency(size, leaves[:half], whole=whole), root_of(leaves[half:])]
    return [*consistency(size - half, leaves[half:], whole=False), root_of(leaves[:half])]


def receipt(given: dict) -> dict:
    """A receipt."""
    leaves, index = [leaf_hash(one) for one in given["records"]], given["index"]
    root = root_of(leaves)
    openings = {
        name: [b64(bytes.fromhex(salt)), value] for name, (salt, value) in given["openings"].items()
    }
    extra = {"openings": openings, "record": b64(given["records"][index].encode()), "v": 1}
    if given["seen"]:
        hashes_ = [b64(node) for node in consistency(given["seen"], leaves)]
        extra["consistency"] = {"from": given["seen"], "hashes": hashes_}
    path = "".join(b64(node) + "\n" for node in inclusion(index, leaves))
    note = signed(given, len(leaves), root)[1]
    head = f"c2sp.org/tlog-proof@v1\nextra {b64(canonical(extra).encode())}\nindex {index}\n"
    return {"root": root.hex(), "receipt": f"{head}{path}\n{note}"}


def export(given: dict) -> dict:
    """A log as lines of text."""
    leaves = [leaf_hash(one) for one in given["records"]]
    note = signed(given, len(leaves), root_of(leaves))[1]
    lines = [canonical({"checkpoint": note, "format": "envelock-export/1"})]
    for index, (leaf, record) in enumerate(zip(leaves, given["records"], strict=True)):
        lines.append(f'{{"index":{index},"leaf":"{leaf.hex()}","record":{record}}}')
    return {"file": "".join(f"{line}\n" for line in lines)}


# Section 10: files on disk.


def anchor(given: dict) -> dict:
    """The anchor file."""
    text = f"envelock-anchor/1 {log_key(given)[2]}\n"
    for size, root in given["checkpoints"]:
        raw = bytes.fromhex(root)
        text += f"{size} {b64(raw)} {signed(given, size, raw)[2]}\n"
    return {"file": text}


READINGS: dict[str, Callable[[dict], dict]] = {
    "anchor": anchor,
    "attribute": attribute,
    "base64": base64_case,
    "binding": binding,
    "bundle": bundle,
    "checkpoint": checkpoint,
    "client_key": client_key,
    "client_key_curve": client_key,
    "commitment": lambda given: {
        "commitment": hidden(given["field"], given["salt"], given["value"])
    },
    "data_key": data_key,
    "decision": decision,
    "decision_signing": decision_signing,
    "dpop": dpop,
    "erased": erased,
    "export": export,
    "framing": framing,
    "genesis": genesis,
    "join": join,
    "json": lambda given: {"canonical": canonical(strict(given["text"]))},
    "key_access": key_access,
    "key_id": key_id,
    "names": names,
    "online_wrap": online_wrap,
    "path_template": path_template,
    "policy": policy,
    "rebind": rebind,
    "rebind_record": record,
    "receipt": receipt,
    "record": record,
    "record_id": record_id,
    "release": release,
    "request": request,
    "request_token": request_token,
    "seal_scope": seal_scope,
    "sealed_file": sealed_file,
    "thumbprint": lambda given: {"jkt": jwk_thumbprint(given["jwk"])},
    "wrap_curve": wrap_curve,
    "wrap_kem": wrap_kem,
    "wrap_ec": wrap_ec,
    "wrap_rsa": wrap_rsa,
    "wrap_rsa_4096": wrap_rsa,
}


def read(name: str, given: dict) -> dict | None:
    """What this reading makes of an input; None when it refuses."""
    try:
        return READINGS[name](given)
    except RefusedError:
        return None


def main(folder: Path) -> int:
    """Compare everything; the number of differences is at most 1 as an exit code."""
    checked = differing = 0
    for path in sorted(folder.glob("*.json")):
        for case in json.loads(path.read_bytes())["cases"]:
            checked += 1
            made = read(path.stem, case["in"])
            if made != case["out"]:
                differing += 1
                sys.stdout.write(f"{path.name}, {case['name']}: {made!r}\n")
    sys.stdout.write(f"{checked} cases, {differing} differ\n")
    return 1 if differing or not checked else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
