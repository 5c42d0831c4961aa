"""What our code makes of the inputs of the golden vectors: one function for each file.

A function takes the `in` of a case and returns its `out`; `None` stands for "refused".
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from isal.isal_zlib import crc32

from envelock_formats import canonical, decision, framing, jose, online, request, wire, wrap
from envelock_formats.envelope import read_envelope
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64, from_b64
from envelock_formats.kem import KemPrivateKey, open_kem_share
from envelock_formats.keyid import KeyId, KeyPath
from envelock_formats.publickey import pem_of_key
from envelock_formats.tdf import container
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy, binding_mac, keys_sha256
from envelock_formats.tdf.keyaccess import object_id as offline_id
from envelock_formats.tdf.manifest import OVERHEAD, Manifest, write_manifest
from envelock_formats.tdf.policy import parse_policy, write_policy
from envelock_formats.tdf.segments import SegmentCipher, root_signature
from envelock_kas.context import Context
from envelock_kas.keys.template import render
from envelock_kas.recorder import bound_to
from envelock_kas.records import Origin, decision_name, subject_fence, uuid7
from envelock_ledger import merkle, record
from envelock_ledger.anchor import Anchor, create_anchor
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.commitments import commit
from envelock_ledger.erasing import mark
from envelock_ledger.errors import LedgerError
from envelock_ledger.exporting import write_export
from envelock_ledger.note import Signer
from envelock_ledger.proof import Consistency, Receipt
from envelock_ledger.store import Row
from envelock_ledger.store.disclosure import PLAIN
from envelock_pdp.bundle import bundle_digest
from envelock_service import dpop
from envelock_service.callers import Authenticated
from envelock_service.oidc import AccessToken

Value: TypeAlias = dict[str, Any]


def p256(scalar: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key from the hex of its secret number."""
    return ec.derive_private_key(int(scalar, 16), ec.SECP256R1())


def curve_key(algorithm: str, scalar: str) -> ec.EllipticCurvePrivateKey:
    """A key on the curve of *algorithm* from the hex of its secret number."""
    return ec.derive_private_key(int(scalar, 16), wrap.curve_of(algorithm))


def signer(given: Value) -> Signer:
    """The log key of a case."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["log_key_seed"]))
    return Signer(given["origin"], key)


def framing_(given: Value) -> Value:
    """A label and fields, as bytes and as a digest."""
    fields = [bytes.fromhex(field) for field in given["fields"]]
    return {
        "bytes": framing.framed(given["label"], *fields).hex(),
        "sha256": framing.digest(given["label"], *fields).hex(),
    }


def base64_(given: Value) -> Value:
    """One of the two alphabets, canonical spellings only."""
    if "url" in given:
        return {"bytes": framing.from_b64url(given["url"]).hex()}
    return {"bytes": from_b64(given["standard"]).hex()}


def json_(given: Value) -> Value:
    """A text read strictly and written canonically."""
    return {"canonical": canonical.encode(canonical.parse(given["text"].encode())).decode()}


def keyid(given: Value) -> Value:
    """A key path or key id, taken apart."""
    if "path" in given:
        path, version = KeyPath(given["path"]), None
    else:
        found = KeyId.parse(given["key_id"])
        path, version = found.path, found.version
    above = [str(ancestor) for ancestor in path.ancestors]
    return {"path": path.text, "version": version, "tenant": path.tenant, "ancestors": above}


def attribute(given: Value) -> Value:
    """An attribute value in both spellings."""
    if "fqn" in given:
        value = AttributeValue.parse_fqn(given["fqn"])
    else:
        value = AttributeValue.parse_short(given["short"])
    return {"fqn": value.fqn, "short": value.short, "definition": value.definition}


def policy(given: Value) -> Value:
    """A policy written from its parts, or read from its text."""
    text = given.get("text")
    if text is None:
        values = [AttributeValue.parse_short(short) for short in given["attributes"]]
        text = write_policy(given["uuid"], values, given["dissem"])
    read = parse_policy(text)
    return {
        "text": text,
        "policy_sha256": request.policy_sha256(text).hex(),
        "uuid": read.uuid,
        "attributes": [value.short for value in read.attributes],
        "dissem": list(read.dissem),
    }


def client_key(given: Value) -> Value:
    """A client's public key, and its digest."""
    der = request.spki_from_pem(given["pem"])
    return {"der": der.hex(), "key_sha256": request.key_sha256(der).hex()}


def binding(given: Value) -> Value:
    """A policy bound to a share."""
    bound = bind_policy(bytes.fromhex(given["share"]), given["policy"])
    return {"alg": bound.alg, "hash": bound.hash, "mac": binding_mac(bound).hex()}


def keyaccess(given: Value) -> Value:
    """The digest of key access objects."""
    objects = canonical.convert(given["objects"], tuple[KeyAccess, ...])
    return {"keys_sha256": keys_sha256(objects).hex(), "object_id": object_id(objects)}


def object_id(objects: tuple[KeyAccess, ...]) -> str:
    """The id by which the ledger knows an object."""
    [wrapped, *_] = [from_b64(key.wrappedKey) for key in objects]
    if online.is_online(wrapped):
        return online.OnlineWrap.parse(wrapped).id
    return offline_id(objects)


def request_(given: Value) -> Value:
    """The digest of a request, about objects or for data keys."""
    caller = request.Caller(given["issuer"], given["subject"], given["tenant"], given["jkt"])
    shared = {"kas_id": given["kas_id"], "owner": given["owner"], "caller": caller}
    key = bytes.fromhex(given["key_sha256"])
    if given["act"] == "seal":
        nonce = bytes.fromhex(given["nonce"])
        asked = {"scope": given["scope"], "count": given["count"], "nonce": nonce}
        return {"digest": request.seal_digest(**shared, key_digest=key, **asked).hex()}
    objects = [
        request.RequestedObject(one["id"], *(bytes.fromhex(one[name]) for name in names(one)))
        for one in given["objects"]
    ]
    digest = request.request_digest(
        **shared, act=given["act"], key_digest=key, objects=objects
    )  # fmt: skip
    return {"digest": digest.hex()}


def names(one: Value) -> list[str]:
    """The digests that an object of a request has, in order."""
    every = ["policy_sha256", "keys_sha256", "new_policy_sha256"]
    return [name for name in every if name in one]


def release(given: Value) -> Value:
    """What a decision and a request token are spent on."""
    caller = request.Caller("", "", "", "")
    token = AccessToken(caller, {}, frozenset(), 0, b"")
    context = Context(Authenticated(token, None, ""), Origin("r"), "open", "clinic")
    context.digest = bytes.fromhex(given["request_digest"])
    return {"spent_on": bound_to(context, given["ids"])}


def scope(given: Value) -> Value:
    """What the PDP is asked about when data keys are wanted."""
    count = given["count"].to_bytes(4, "big")
    nonce = bytes.fromhex(given["nonce"])
    digest = framing.digest("envelock/seal/v1", given["path"].encode(), count, nonce)
    return {"id": f"seal:{given['path']}", "keys_sha256": digest.hex()}


def wrap_ec(given: Value) -> Value:
    """A share wrapped to a P-256 key."""
    return wrapped_to(p256(given["recipient"]), p256(given["ephemeral"]), given)


def wrap_curve(given: Value) -> Value:
    """A share wrapped to a key on another curve, whose algorithm the wrap shows."""
    keys = (
        curve_key(given[f"{name}_algorithm"], given[name]) for name in ("recipient", "ephemeral")
    )
    made = wrapped_to(*keys, given)
    access = KeyAccess(
        type=wrap.key_access_type(given["recipient_algorithm"]),
        url="",
        wrappedKey=b64(bytes.fromhex(made["wrapped"])),
        policyBinding="",
        ephemeralPublicKey=made["ephemeral_pem"],
    )
    return made | {"algorithm": wrap.algorithm_of_wrap(access)}


def wrap_kem(given: Value) -> Value:
    """A share opened with a post-quantum key; its algorithm shows in the wrap and in the key."""
    key = KemPrivateKey.from_pkcs8(from_b64(given["private"]))
    access = KeyAccess(type=given["type"], url="", wrappedKey=given["wrapped"], policyBinding="")
    if wrap.algorithm_of_wrap(access) != key.algorithm:
        raise wrap.UnwrapError
    ciphertext, sealed = read_envelope(from_b64(given["wrapped"]))
    secret = key.decapsulate(ciphertext)
    return {
        "algorithm": key.algorithm,
        "public_pem": pem_of_key(key.public_key()),
        "secret": secret.hex(),
        "share": open_kem_share(key.algorithm, secret, sealed).hex(),
    }


def join(given: Value) -> Value:
    """The data key that shares join to."""
    objects = [
        KeyAccess(type="wrapped", url="", wrappedKey="", policyBinding="", sid=sid)
        for sid in given["sids"]
    ]
    shares = {int(place): bytes.fromhex(share) for place, share in given["shares"].items()}
    return {"dek": wrap.combine(objects, shares).hex()}


def wrapped_to(
    recipient: ec.EllipticCurvePrivateKey, ephemeral: ec.EllipticCurvePrivateKey, given: Value
) -> Value:
    """The share of a case, wrapped to *recipient*."""
    share, iv = bytes.fromhex(given["share"]), bytes.fromhex(given["iv"])
    wrapped = wrap.wrap_ec(share, recipient.public_key(), ephemeral=ephemeral, iv=iv)
    secret = ephemeral.exchange(ec.ECDH(), recipient.public_key())
    if wrap.unwrap_ec(wrapped, ephemeral.public_key(), recipient) != share:
        raise FormatError("does not open again")
    return {
        "ephemeral_pem": wrap.public_pem(ephemeral.public_key()),
        "secret": secret.hex(),
        "wrapped": wrapped.hex(),
    }


def wrap_rsa(given: Value) -> Value:
    """A share unwrapped by RSA-OAEP."""
    key = load_pem_private_key(given["private_pem"].encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise FormatError("not RSA")
    return {"share": wrap.unwrap_rsa(bytes.fromhex(given["wrapped"]), key).hex()}


def online_wrap(given: Value) -> Value:
    """A data key wrapped online."""
    identifier, digest = bytes.fromhex(given["object_id"]), bytes.fromhex(given["policy_sha256"])
    aad = online.online_aad(given["tenant"], given["key_id"], identifier, digest)
    cipher, nonce = AESGCM(bytes.fromhex(given["kek"])), bytes.fromhex(given["nonce"])
    share = bytes.fromhex(given["share"])
    made = online.wrap_online(share, cipher, object_id=identifier, nonce=nonce, aad=aad)
    if online.unwrap_online(online.OnlineWrap.parse(bytes(made)), cipher, aad) != share:
        raise FormatError("does not open again")
    return {"aad": aad.hex(), "wrapped": bytes(made).hex(), "object": made.id}


def datakey(given: Value) -> Value:
    """A sealed data key, opened."""
    parts = (given["request_digest"], given["object_id"], given["wrapped"])
    info = online.hpke_info(*map(bytes.fromhex, parts))
    sealed = bytes.fromhex(given["sealed"])
    return {
        "info": info.hex(),
        "dek": online.open_data_key(sealed, p256(given["recipient"]), info).hex(),
    }


def sealed_file(given: Value) -> Value:
    """A whole sealed file."""
    dek = bytes.fromhex(given["dek"])
    cipher, payload, segments = SegmentCipher(dek), b"", []
    for iv, piece in zip(given["ivs"], given["pieces"], strict=True):
        plain = piece.encode()
        out = bytearray(len(plain) + OVERHEAD)
        segments.append(cipher.seal_into(bytes.fromhex(iv), plain, memoryview(out)))
        payload += bytes(out)
    keys = canonical.convert(given["key_access"], tuple[KeyAccess, ...])
    root = root_signature(dek, (segment.hash for segment in segments))
    size = given["segment_size"]
    manifest = write_manifest(
        Manifest(given["policy"], keys, tuple(segments), root, segment_size=size)
    )
    head = container.payload_header(len(payload))
    tail = container.trailer(
        start=len(head), size=len(payload), crc=crc32(payload), manifest=manifest
    )
    return {
        "root": root.hex(),
        "payload": payload.hex(),
        "manifest": manifest.decode(),
        "file": b64(head + payload + tail),
    }


def thumbprint(given: Value) -> Value:
    """The thumbprint of a key."""
    return {"jkt": jose.thumbprint(given["jwk"])}


def decision_(given: Value) -> Value:
    """A decision, verified."""
    keys = {kid: jose.key_from_jwk(jwk) for kid, jwk in given["keys"].items()}
    read = decision.verify(
        given["token"], keys, issuer=given["issuer"], kas_id=given["kas_id"], now=given["now"]
    )
    return {"claims": canonical.plain(read)}


def decision_signing(given: Value) -> Value:
    """A decision, signed with a key whose signatures are always the same."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["key_seed"]))
    claims = canonical.convert(given["claims"], decision.Decision)
    return {"token": decision.sign(claims, key, given["kid"])}


def request_token(given: Value) -> Value:
    """A request token, read."""
    key = jose.key_from_jwk(given["jwk"]) if given["jwk"] else None
    read = wire.read_request_token(given["token"], key, given["now"])
    return {"body": read.body.decode(), "name": read.name, "expires": read.expires}


def dpop_(given: Value) -> Value:
    """A proof of possession, verified."""
    proof = dpop.require_proof(
        [given["proof"]],
        method=given["method"],
        urls=frozenset(map(dpop.normal_url, given["urls"])),
        token=given["access_token"],
        jkt=given["jkt"],
        now=given["now"],
    )
    return {"name": proof.name, "expires": proof.expires}


def names_(given: Value) -> Value:
    """Names that the KAS spends and fences."""
    if "jti" in given:
        return {"once": decision_name(given["iss"], given["tenant"], given["jti"])}
    secret = bytes.fromhex(given["secret"])
    return {"fence": subject_fence(secret, given["tenant"], given["issuer"], given["subject"])}


def path_template(given: Value) -> Value:
    """The key path that a template renders."""
    secret = bytes.fromhex(given["secret"])
    tenant_key = framing.digest("envelock/pseudonym/v1", secret, given["tenant"].encode())
    values = {name: given[name] for name in ("tenant", "dataset", "subject") if name in given}
    return {
        "path": render(given["template"], values, now=given["now"], pseudonym_key=tenant_key).text
    }


def uuid_(given: Value) -> Value:
    """A record id."""
    return {"id": uuid7(given["milliseconds"], bytes.fromhex(given["entropy"]))}


def commitment(given: Value) -> Value:
    """A commitment."""
    return {"commitment": commit(given["field"], given["value"], bytes.fromhex(given["salt"]))}


def record_(given: Value) -> Value:
    """A record: body, serial fields in front, leaf hash, and the stored openings."""
    salts = iter([bytes.fromhex(salt) for _, salt, _ in given["personal"]])
    personal = {field: value for field, _, value in given["personal"]}
    body, openings = record.encode_body(given["fields"], personal, partial(next, salts))
    serial = dict(given["serial"])
    for name in ("previous", "tenant_previous"):
        serial[name] = bytes.fromhex(serial[name])
    raw = record.splice(body, **serial)
    record.parse(raw)
    stored = record.seal_openings(record.read_body(body), openings)
    return {
        "body": body.decode(),
        "record": raw.decode(),
        "leaf": merkle.leaf_hash(raw).hex(),
        "disclosure": "" if stored is None else (bytes([PLAIN]) + stored).hex(),
    }


def genesis(given: Value) -> Value:
    """The first record of a log."""
    key = signer(given).verifier
    raw = record.genesis(key.name, str(key), given["time_us"])
    return {"record": raw.decode(), "leaf": merkle.leaf_hash(raw).hex()}


def checkpoint(given: Value) -> Value:
    """A verifier key, and a signed checkpoint."""
    log = signer(given)
    made = Checkpoint(log.verifier.name, given["size"], bytes.fromhex(given["root"]))
    return {"verifier_key": str(log.verifier), "text": str(made), "note": made.sign(log)}


def receipt(given: Value) -> Value:
    """The receipt of one record of a log."""
    log, leaves = signer(given), [merkle.leaf_hash(raw.encode()) for raw in given["records"]]
    growth = merkle.Growth.of(merkle.Frontier())
    for leaf in leaves:
        growth.append(leaf)
    prover = merkle.Prover(len(leaves), growth.node)
    note = Checkpoint(log.verifier.name, len(leaves), prover.root).sign(log)
    seen, earlier = given["seen"], None
    if seen:
        earlier = Consistency(seen, prover.consistency(seen))
    made = Receipt(
        index=given["index"],
        record=given["records"][given["index"]].encode(),
        openings={
            name: (bytes.fromhex(salt), value) for name, (salt, value) in given["openings"].items()
        },
        path=prover.inclusion(given["index"]),
        checkpoint=note,
        consistency=earlier,
    )
    verified = Receipt.parse(made.text()).verify(log.verifier)
    if seen:
        spine = merkle.Spine()
        for leaf in leaves[:seen]:
            spine.append(leaf)
        verified.check_extends(seen, spine.root)
    return {"root": prover.root.hex(), "receipt": made.text()}


def erased(given: Value) -> Value:
    """What an erasure calls a record."""
    return {"mark": mark(given["index"], bytes.fromhex(given["salt"]))}


def export(given: Value) -> Value:
    """A log as lines of text."""
    log, spine = signer(given), merkle.Spine()
    rows = []
    for number, body in enumerate(one.encode() for one in given["records"]):
        spine.append(merkle.leaf_hash(body))
        record_id = record.parse(body).envelope.id
        rows.append(Row(number, merkle.leaf_hash(body), record_id, body))
    note = Checkpoint(log.verifier.name, spine.size, spine.root).sign(log)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export")
        write_export(Stored(rows), note, path)
        return {"file": path.read_text("utf-8")}


@dataclass(frozen=True)
class Stored:
    """Records that are at hand."""

    kept: list[Row]

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Records with `start <= index < stop`, in order."""
        return iter(self.kept[start:stop])


def anchor(given: Value) -> Value:
    """The anchor file after some batches."""
    log = signer(given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "anchor")
        notes = [
            Checkpoint(log.verifier.name, size, bytes.fromhex(root))
            for size, root in given["checkpoints"]
        ]
        create_anchor(path, log, notes[0])
        opened = Anchor(path)
        for note in notes[1:]:
            opened.append(note.sign(log))
        opened.close()
        return {"file": path.read_text("ascii")}


def rebind(given: Value) -> Value:
    """What takes the place of an online object, the fences that move, and who gets no share."""
    former = given["former"]
    made = online.rebound_id(former, bytes.fromhex(given["new_policy_sha256"])).hex()
    return {
        "id": made,
        "moves": {f"object:{former}": 1, f"rebound:{made}": 1},
        "key_sha256": request.key_sha256(b"").hex(),
    }


def bundle(given: Value) -> Value:
    """The digest of a bundle."""
    files = {path: text.encode() for path, text in given["files"].items()}
    return {"digest": bundle_digest(files).hex()}


OURS: dict[str, Callable[[Value], Value]] = {
    "anchor": anchor,
    "attribute": attribute,
    "base64": base64_,
    "binding": binding,
    "bundle": bundle,
    "checkpoint": checkpoint,
    "client_key": client_key,
    "client_key_curve": client_key,
    "commitment": commitment,
    "data_key": datakey,
    "decision": decision_,
    "decision_signing": decision_signing,
    "dpop": dpop_,
    "erased": erased,
    "export": export,
    "framing": framing_,
    "genesis": genesis,
    "join": join,
    "json": json_,
    "key_access": keyaccess,
    "key_id": keyid,
    "names": names_,
    "online_wrap": online_wrap,
    "path_template": path_template,
    "policy": policy,
    "rebind": rebind,
    "rebind_record": record_,
    "receipt": receipt,
    "record": record_,
    "record_id": uuid_,
    "release": release,
    "request": request_,
    "request_token": request_token,
    "seal_scope": scope,
    "sealed_file": sealed_file,
    "thumbprint": thumbprint,
    "wrap_curve": wrap_curve,
    "wrap_kem": wrap_kem,
    "wrap_ec": wrap_ec,
    "wrap_rsa": wrap_rsa,
    "wrap_rsa_4096": wrap_rsa,
}


def made_of(name: str, given: Value) -> Value | None:
    """The `out` of a case; None when our code refuses its `in`."""
    try:
        made = OURS[name](given)
    except (FormatError, LedgerError):
        return None
    plain: Value = orjson.loads(orjson.dumps(made))  # tuples become lists
    return plain


VECTORS = Path(__file__).resolve().parent
