"""The inputs of the golden vectors: for each file its cases, by name."""

import asyncio
from typing import Any, TypeAlias

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from vectors import encapsulated, randomised, story
from vectors.ours import made_of, p256

from envelock_formats import jose
from envelock_formats.canonical import Json, encode
from envelock_formats.envelope import KEM_TYPES
from envelock_formats.framing import b64, b64url, from_b64
from envelock_formats.wrap import public_pem
from envelock_ledger.merkle import Spine, leaf_hash
from envelock_ledger.record import parse

Cases: TypeAlias = dict[str, dict[str, Any]]
NOW = story.NOW
SHARE = bytes(range(1, 33)).hex()
P, K, C = (bytes([byte]).hex() * 32 for byte in b"pkc")
UUID = "0d21482b-5d80-466b-ae92-7b0d01b9e2ba"
RECIPIENT, EPHEMERAL, HOLDER, SERVER = "05", "06", "07", "08"  # secret numbers of P-256 keys
POLICY = {"uuid": UUID, "attributes": ["clinic.example/clearance=secret"], "dissem": []}


def es256(scalar: str, header: dict[str, Json], claims: Json) -> str:
    """A token whose signature is always the same (RFC 6979)."""
    signing_input = f"{b64url(encode(header))}.{b64url(encode(claims))}"
    fixed = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(p256(scalar).sign(signing_input.encode(), fixed))
    return f"{signing_input}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def jwk(scalar: str) -> dict[str, Json]:
    """The public half of a P-256 key."""
    return jose.public_jwk(p256(scalar).public_key())


def pem(scalar: str) -> str:
    """The same, as clients send it."""
    return public_pem(p256(scalar).public_key())


def texts(name: str, members: list[str]) -> Cases:
    """One case for each text."""
    return {text or "(empty)": {name: text} for text in members}


def encodings() -> dict[str, Cases]:
    """Framing, base64, JSON, names."""
    good_json = [
        '{"b":[1,true,null],"a":"x"}',
        '"\\u00e9\\n"',
        "-9007199254740991",
        '{"é":1,"z":2}',
    ]
    bad_json = [
        '{"a":1,"a":2}',
        '"\\ud800"',
        "9007199254740992",
        "NaN",
        "1.5",
        "[1,]",
        "[" * 17 + "]" * 17,
    ]
    return {
        "framing": {
            "two fields": {"label": "envelock/example/v1", "fields": ["61", "6263"]},
            "the same bytes, cut elsewhere": {
                "label": "envelock/example/v1",
                "fields": ["6162", "63"],
            },
            "no field": {"label": "envelock/example/v1", "fields": []},
        },
        "base64": texts("url", ["", "AA", "_-8", "AB", "AA==", "A", "+/8"])
        | {f"standard {one}": {"standard": one} for one in ["AA==", "+/8=", "AA", "AB==", "_-8="]},
        "json": texts("text", good_json + bad_json),
        "key_id": texts(
            "key_id",
            [
                "clinic:records:2026-11:v1",
                "clinic:v12",
                "a.b-c:v9999999999",
                "clinic:records",
                "clinic:v01",
                "clinic:v0",
                "clinic:v1:v2",
                "clinic::v1",
                "clinic:re cords:v1",
                "clinic:records:V1",
            ],
        )
        | texts(
            "path",
            [
                "clinic",
                "clinic:records:2026-11",
                "",
                "clinic:",
                "clinic:v1",
                "-a",
                "cli_nic",
                "cl%69nic",
                "klinik\u00e4",
                "a" * 201,
            ],
        ),
        "attribute": texts(
            "short",
            [
                "clinic.example/clearance=secret",
                "clearance=secret",
                "Clinic.example/clearance=secret",
                "clinic.example/a=b/c",
            ],
        )
        | texts(
            "fqn",
            [
                "https://clinic.example/attr/clearance/value/secret",
                "https://Clinic.Example/attr/Clearance/value/Secret",
                "http://clinic.example/attr/clearance/value/secret",
                "https://clinic.example/attr/clearance",
            ],
        ),
        "record_id": {
            "one": {"milliseconds": 1_795_000_000_000, "entropy": "00112233445566778899"}
        },
    }


def policies() -> dict[str, Cases]:
    """Policies, and bundles of rules."""
    body = {"dataAttributes": [], "dissem": ["doctor", "doctor"]}
    unknown: dict[str, Json] = {"uuid": UUID, "body": body | {"expires": 1}}
    attribute: Json = {"attribute": "https://clinic.example/attr/clearance/value/secret"}
    twice: dict[str, Json] = {"uuid": UUID, "body": {"dataAttributes": [attribute, attribute]}}
    rule = '{"uid":"treatment","effect":"allow","targets":{"action_id":"open"}}'
    files = {
        "bundle.toml": 'tenant = "clinic"\n',
        "attributes.json": "[]",
        "mappings.json": "[]",
        "rules/treatment.json": rule,
    }
    uncovered = {"people.json": "{}", "cases/a.json": "[]", "rules/.a.json": "", "README": ""}
    return {
        "policy": {
            "one attribute": POLICY,
            "names alone": POLICY | {"attributes": [], "dissem": ["doctor"]},
            "nothing": POLICY | {"attributes": []},
            "read": {"text": b64(encode({"uuid": UUID, "body": body}))},
            "an unknown member": {"text": b64(encode(unknown))},
            "an attribute twice": {"text": b64(encode(twice))},
            "not canonical base64": {
                "text": b64(encode({"uuid": UUID, "body": {}})).rstrip("=") + "\n"
            },
        },
        "bundle": {
            "files that decide": {"files": files},
            "others change nothing": {"files": files | uncovered},
        },
    }


def kem_wraps() -> Cases:
    """Wraps to post-quantum keys; and what is refused of them."""
    cases = {
        name: {"type": KEM_TYPES[name], "private": private, "wrapped": wrapped}
        for name, (private, wrapped) in encapsulated.WRAPPED.items()
    }
    one = cases["mlkem:768"]
    raw = from_b64(one["wrapped"])
    altered = {
        "a byte behind": raw + b"\0",
        "a ciphertext that was altered": raw[:100] + bytes((raw[100] ^ 1,)) + raw[101:],
        "a length in more bytes than it needs": b"\x30\x83\0" + raw[2:],
    }
    cases |= {name: one | {"wrapped": b64(found)} for name, found in altered.items()}
    cases["a type of others"] = one | {"type": "hybrid-wrapped"}
    cases["a key of another algorithm"] = one | {"private": cases["mlkem:1024"]["private"]}
    return cases


def keys() -> dict[str, Cases]:
    """Wraps, bindings, key access objects."""
    policy = (made_of("policy", POLICY) or {})["text"]
    agreed = {"share": SHARE, "recipient": RECIPIENT, "ephemeral": EPHEMERAL, "iv": "0b" * 12}
    p384, p521, p256_ = (
        {"recipient_algorithm": name, "ephemeral_algorithm": name}
        for name in ("ec:secp384r1", "ec:secp521r1", "ec:secp256r1")
    )
    other = bytes(range(32, 64)).hex()
    wrapped = made_of("wrap_ec", agreed) or {}
    bound = made_of("binding", {"share": SHARE, "policy": policy}) or {}
    access = {
        "type": "ec-wrapped",
        "url": "https://kas.example",
        "kid": "clinic:records:2026-11:v1",
        "wrappedKey": b64(bytes.fromhex(wrapped["wrapped"])),
        "policyBinding": {"alg": "HS256", "hash": bound["hash"]},
        "schemaVersion": "1.0",
        "ephemeralPublicKey": wrapped["ephemeral_pem"],
    }
    oaep = b64(bytes.fromhex(randomised.RSA_WRAPPED))
    rsa = {name: access[name] for name in ("url", "kid", "policyBinding")}
    rsa |= {"type": "wrapped", "wrappedKey": oaep, "sid": "s-1"}
    wrap = {
        "kek": "4b" * 32,
        "share": SHARE,
        "object_id": bytes(range(16)).hex(),
        "nonce": "6e" * 12,
        "tenant": "clinic",
        "key_id": "clinic:vault:2026-11:v1",
        "policy_sha256": P,
    }
    online = made_of("online_wrap", wrap) or {}
    inside = rsa | {"wrappedKey": b64(bytes.fromhex(online["wrapped"])), "kid": wrap["key_id"]}
    data_key = {
        "recipient": "0b",
        "request_digest": "72" * 32,
        "object_id": wrap["object_id"],
        "wrapped": online["wrapped"],
        "sealed": randomised.DATA_KEY_SEALED,
    }
    return {
        "binding": {"a share and a policy": {"share": SHARE, "policy": policy}},
        "wrap_ec": {"one": agreed},
        "wrap_curve": {
            "P-384": agreed | p384,
            "P-521": agreed | p521,
            "P-256": agreed | p256_,
            "on two curves": agreed | p384 | {"ephemeral_algorithm": "ec:secp256r1"},
        },
        "wrap_rsa": {"one": {"private_pem": randomised.RSA_PEM, "wrapped": randomised.RSA_WRAPPED}},
        "wrap_kem": kem_wraps(),
        "wrap_rsa_4096": {
            "one": {
                "private_pem": randomised.RSA_4096_PEM,
                "wrapped": randomised.RSA_4096_WRAPPED,
            }
        },
        "join": {
            "one split": {"sids": [None], "shares": {"0": SHARE}},
            "two splits": {"sids": ["a", "b"], "shares": {"0": SHARE, "1": other}},
            "an alternative": {"sids": ["a", "b", "b"], "shares": {"0": SHARE, "2": other}},
            "absent and empty are one": {"sids": [None, ""], "shares": {"1": SHARE}},
            "a split without a share": {"sids": ["a", "b"], "shares": {"0": SHARE}},
            "alternatives that differ": {"sids": ["a", "a"], "shares": {"0": SHARE, "1": other}},
            "shares that cancel out": {"sids": ["a", "b"], "shares": {"0": SHARE, "1": SHARE}},
            "a share of another length": {"sids": [None], "shares": {"0": SHARE[2:]}},
        },
        "online_wrap": {"one": wrap},
        "data_key": {"one": data_key, "of another object": data_key | {"object_id": "ff" * 16}},
        "key_access": {
            "one share": {"objects": [access]},
            "two shares": {"objects": [access | {"sid": "s-0"}, rsa]},
            "the url is not covered": {"objects": [access | {"url": "https://other.example"}]},
            "online": {"objects": [inside]},
        },
        "sealed_file": {
            "two segments": {
                "dek": SHARE,
                "ivs": ["00" * 12, "00" * 11 + "01"],
                "pieces": ["nega", "tive"],
                "policy": policy,
                "key_access": [access],
                "segment_size": 16384,
            }
        },
    }


def requests() -> dict[str, Cases]:
    """Client keys, request digests, and what they are spent on."""
    compressed = (
        "-----BEGIN PUBLIC KEY-----\nMDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgAC"
        + b64(p256(RECIPIENT).public_key().public_numbers().x.to_bytes(32, "big"))
        + "\n-----END PUBLIC KEY-----\n"
    )
    shared = {
        "kas_id": "envelock-kas",
        "owner": "clinic",
        "issuer": story.ISSUER,
        "tenant": "clinic",
        "subject": "doctor",
        "jkt": jose.thumbprint(jwk(HOLDER)),
        "key_sha256": C,
    }
    one = {"id": "sha256:" + K, "policy_sha256": P, "keys_sha256": K}
    wish = {"act": "seal", "scope": "clinic:vault:2026-11", "count": 2, "nonce": "6e" * 16}
    opened = made_of("request", shared | {"act": "open", "objects": [one]}) or {}
    return {
        "client_key_curve": {
            name: {"pem": public_pem(ec.derive_private_key(5, curve).public_key())}
            for name, curve in (
                ("P-384", ec.SECP384R1()),
                ("P-521", ec.SECP521R1()),
                ("secp256k1", ec.SECP256K1()),
            )
        },
        "client_key": {
            "P-256": {"pem": pem(RECIPIENT)},
            "the same, compressed": {"pem": compressed},
            "not a key": {"pem": "hello"},
        },
        "request": {
            "open": shared | {"act": "open", "objects": [one]},
            "open, token not bound": shared | {"act": "open", "objects": [one], "jkt": ""},
            "rebind": shared | {"act": "rebind", "objects": [one | {"new_policy_sha256": C}]},
            "seal": shared | wish,
        },
        "release": {
            "one object": {"request_digest": opened["digest"], "ids": [one["id"]]},
            "nothing of it": {"request_digest": opened["digest"], "ids": []},
        },
        "rebind": {
            "once": {"former": "00" * 16, "new_policy_sha256": P},
            "the same policy for another object": {"former": "01" * 16, "new_policy_sha256": P},
            "another policy for the same object": {"former": "00" * 16, "new_policy_sha256": C},
        },
        "seal_scope": {"two keys": {"path": wish["scope"], "count": 2, "nonce": wish["nonce"]}},
    }


def decided() -> dict[str, Json]:
    """The claims of a decision."""
    one: Json = {
        "id": "sha256:" + K,
        "policy_sha256": b64url(bytes.fromhex(P)),
        "keys_sha256": b64url(bytes.fromhex(K)),
        "permit": True,
    }
    policy: Json = {"bundle": b64url(b"b" * 32), "epoch": 1, "rules": ["treatment"]}
    return {
        "iss": "envelock-pdp",
        "aud": "envelock-kas",
        "sub": "doctor",
        "sub_iss": story.ISSUER,
        "sub_tenant": "clinic",
        "tenant": "clinic",
        "act": "open",
        "objs": [one],
        "key_sha256": b64url(bytes.fromhex(C)),
        "policy": policy,
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 30,
        "jti": "Zb9xO1mVQm2rJ2m4mJp0fQ",
        "cnf": {"jkt": jose.thumbprint(jwk(HOLDER))},
    }


def tokens() -> dict[str, Cases]:
    """Decisions, request tokens, proofs."""
    header: dict[str, Json] = {"alg": "ES256", "kid": "pdp-1", "typ": "kas-decision+jwt"}
    claims = decided()
    whose = {"issuer": "envelock-pdp", "kas_id": "envelock-kas", "keys": {"pdp-1": jwk(SERVER)}}
    verified = whose | {"now": NOW + 3, "token": es256(SERVER, header, claims)}
    long = es256(SERVER, header, claims | {"exp": NOW + 61})
    extra = es256(SERVER, header, claims | {"note": "hello"})
    body = '{"clientPublicKey":"...","requests":[]}'
    asking: dict[str, Json] = {"requestBody": body, "iat": NOW, "exp": NOW + 60}
    asked = es256(HOLDER, {"alg": "ES256", "typ": "JWT"}, asking)
    return {
        "thumbprint": {
            "P-256": {"jwk": jwk(HOLDER)},
            "with more members": {"jwk": jwk(HOLDER) | {"use": "sig"}},
            "Ed25519": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes(32))}},
        },
        "decision": {
            "verified": verified,
            "for another KAS": verified | {"kas_id": "other"},
            "expired": verified | {"now": NOW + 30},
            "of an unknown key": verified | {"keys": {"pdp-2": jwk(SERVER)}},
            "of another key": verified | {"keys": {"pdp-1": jwk(HOLDER)}},
            "good for too long": verified | {"token": long},
            "an unknown claim": verified | {"token": extra},
        },
        "decision_signing": {"EdDSA": {"key_seed": "2a" * 32, "kid": "pdp-2", "claims": claims}},
        "request_token": {
            "bound": {"token": asked, "jwk": jwk(HOLDER), "now": NOW},
            "unbound": {"token": asked, "jwk": None, "now": NOW},
            "of another key": {"token": asked, "jwk": jwk(SERVER), "now": NOW},
            "expired": {"token": asked, "jwk": jwk(HOLDER), "now": NOW + 120},
        },
        "dpop": proofs(),
    }


def proofs() -> Cases:
    """Proofs of possession."""
    claims: dict[str, Json] = {
        "htm": "POST",
        "htu": "https://kas.example/kas.AccessService/Rewrap",
        "iat": NOW,
        "jti": "kP3mJ6sV9yQ2tW5x",
    }
    token = "an.access.token"
    claims["ath"] = _ath(token)
    header: dict[str, Json] = {"alg": "ES256", "jwk": jwk(HOLDER), "typ": "dpop+jwt"}
    good = {
        "proof": es256(HOLDER, header, claims),
        "method": "POST",
        "urls": ["https://kas.example:443/kas.AccessService/Rewrap"],
        "access_token": token,
        "jkt": jose.thumbprint(jwk(HOLDER)),
        "now": NOW + 2,
    }
    return {
        "good": good,
        "too old": good | {"now": NOW + 61},
        "for another URL": good | {"urls": ["https://other.example/kas.AccessService/Rewrap"]},
        "for another method": good | {"method": "GET"},
        "for another token": good | {"access_token": "another"},
    }


def _ath(token: str) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(token.encode())
    return b64url(digest.finalize())


def naming() -> dict[str, Cases]:
    """Names in the ledger, and key paths by template."""
    secret = story.SUBJECT_SECRET.hex()
    template = {
        "template": "{tenant}:{dataset}:{epoch:%Y-%m}",
        "tenant": "clinic",
        "dataset": "records",
        "now": NOW,
        "secret": secret,
    }
    return {
        "names": {
            "a decision": {
                "iss": "envelock-pdp",
                "tenant": "clinic",
                "jti": "Zb9xO1mVQm2rJ2m4mJp0fQ",
            },
            "a subject": {
                "secret": secret,
                "tenant": "clinic",
                "issuer": story.ISSUER,
                "subject": "doctor",
            },
        },
        "path_template": {
            "by month": template,
            "by subject": template | {"template": "{tenant}:{subject}", "subject": "patient-42"},
            "a dataset of two parts": template | {"dataset": "a:b"},
        },
    }


def logged() -> dict[str, Cases]:
    """Everything of a ledger: the story's records, receipts, checkpoints, anchor."""
    log = asyncio.run(story.told(randomised.RSA_PEM))
    key = {"log_key_seed": log.seed.hex(), "origin": log.origin}
    roots = [[size, _root(log, size)] for size in (0, 1, 3, 5)]
    seen = {"records": [raw.decode() for raw in log.records[:5]], "index": 3, "openings": {}}
    opened = log.openings[str(parse(log.records[3]).fields["id"])]
    told = {one.field: [one.salt.hex(), one.value] for one in opened}
    return {
        "genesis": {"record 0": key | {"time_us": NOW * 1_000_000}},
        "record": {
            f"record {number}": _taken_apart(log, number) for number in range(1, len(log.records))
        },
        "commitment": {
            one.field: {"field": one.field, "value": one.value, "salt": one.salt.hex()}
            for one in opened
        },
        "checkpoint": {
            "of the empty log": key | {"size": 0, "root": roots[0][1]},
            "of five records": key | {"size": 5, "root": roots[-1][1]},
        },
        "anchor": {"of three batches": key | {"checkpoints": roots}},
        "erased": {
            "record 3": {"index": 3, "salt": told["sub"][0]},
            "record 2^32": {"index": 2**32, "salt": told["sub"][0]},
        },
        "export": {"of five records": key | {"records": seen["records"]}},
        "receipt": {
            "opened": key | seen | {"seen": 0, "openings": told},
            "not opened": key | seen | {"seen": 0},
            "from the size 2 on": key | seen | {"seen": 2, "openings": told},
        },
    }


def rebound() -> dict[str, Cases]:
    """The record of a rebinding, as the KAS writes it of an online wrap."""
    made = made_of("rebind", {"former": "00" * 16, "new_policy_sha256": C}) or {}
    kid = "clinic:vault:2026-11:v1"
    fields: dict[str, Json] = {
        "act": "rebind",
        "bundle": "62" * 32,
        "dec": "decision-to-rebind",
        "epoch": 1,
        "home": "clinic",
        "id": "01a1ee56-5e00-7011-a233-445566778899",
        "kas": "envelock-kas",
        "moves": made["moves"],
        "new": [{"id": made["id"], "kid": kid, "pol": C}],
        "objs": [{"id": "00" * 16, "kid": kid, "pol": P}],
        "req": "r-0123456789ab",
        "rh": K,
        "rules": ["records"],
        "tn": "clinic",
        "ts": NOW * 1_000_000,
        "typ": "rebind",
        "v": 1,
    }
    serial = {
        "index": 7,
        "previous": "11" * 32,
        "sequenced_us": NOW * 1_000_000 + 12,
        "tenant_previous": "22" * 32,
        "tenant_position": 6,
        "repeats": None,
    }
    personal = [["sub", "63" * 16, [story.ISSUER, "archivist"]]]
    return {"rebind_record": {"online": {"fields": fields, "personal": personal, "serial": serial}}}


def _root(log: story.Log, size: int) -> str:
    spine = Spine()
    for raw in log.records[:size]:
        spine.append(leaf_hash(raw))
    return spine.root.hex()


def _taken_apart(log: story.Log, number: int) -> dict[str, Any]:
    """The parts of a record: what was said, what was hidden, and what the writer put in front."""
    record = parse(log.records[number])
    envelope = record.envelope
    openings = log.openings[envelope.id]
    serial = {
        "index": envelope.index,
        "previous": envelope.previous,
        "sequenced_us": envelope.sequenced_us,
        "tenant_previous": envelope.tenant_previous,
        "tenant_position": envelope.tenant_position,
        "repeats": envelope.repeats,
    }
    fields = {
        name: value
        for name, value in record.fields.items()
        if not name.startswith("_") and name != "c"
    }
    personal = [[one.field, one.salt.hex(), one.value] for one in openings]
    return {"fields": fields, "personal": personal, "serial": serial}


def inputs() -> dict[str, Cases]:
    """Every case of every file."""
    parts = (encodings, policies, keys, requests, tokens, naming, logged, rebound)
    found: dict[str, Cases] = {}
    for part in parts:
        found |= part()
    return found


def as_json(value: object) -> bytes:
    """How a file of vectors is written."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
