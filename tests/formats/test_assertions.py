"""Assertions and encrypted metadata: what other clients wrote, what is written, what is refused."""

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)
from formats.sealing import DEK, seal_pieces
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats import wrap
from envelock_formats.errors import FormatError, IntegrityError
from envelock_formats.framing import b64url, from_b64, from_b64url
from envelock_formats.tdf import assertions as a
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.manifest import parse_manifest
from envelock_formats.tdf.metadata import MAX_METADATA, open_metadata, seal_metadata
from envelock_formats.tdf.shared_secret import Secret

_, SEGMENTS = seal_pieces([b"nega", b"tive"])
SUMS = a.aggregate(SEGMENTS)
SAID = a.Statement("json", "urn:nato:stanag:5636:A:1:elements:json", '{"ocl":"2024"}')
ASSERTION = a.Assertion("a1", SAID, type="handling", scope="tdo")
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SHARED = Secret(bytes(range(64)))
WRITTEN = {  # by released clients: how many assertions
    "clients/go-as": 2,
    "clients/go-422": 1,
    "clients/js-422": 1,
    "small-java-4.3.0": 1,
    "no-splitids-java": 1,
}


def opened(vectors, name):
    """A published file: its manifest, the first share, and the data key."""
    root = vectors / "opentdf"
    keys = {}
    for path in ("golden-keys.json", "clients/keys.json"):
        keys |= json.loads((root / path).read_bytes())["keys"]
    raw = (root / f"{name}.tdf").read_bytes()
    place = read_container(lambda offset, count: raw[offset : offset + count], len(raw))
    manifest = parse_manifest(place.manifest, legacy=True)
    shares = {}
    for n, key in enumerate(manifest.key_access):
        private = load_der_private_key(base64.b64decode(keys[key.kid]), None)
        try:
            wrapped = from_b64(key.wrappedKey)
            shares[n] = (
                wrap.unwrap_rsa(wrapped, private)
                if key.type == "wrapped"
                else wrap.unwrap_ec(wrapped, wrap.ec_from_pem(key.ephemeralPublicKey), private)
            )
        except wrap.UnwrapError:
            continue
    return manifest, shares, wrap.combine(manifest.key_access, shares)


def token(header, claims, key=DEK):
    """A compact JWS with whatever header and claims, under an HMAC."""
    signing_input = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{signing_input}.{b64url(hmac.digest(key, signing_input.encode(), hashlib.sha256))}"


def claims_of(members, sums=SUMS):
    """The claims that bind *members* to a payload."""
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    hashed = hashlib.sha256(text.encode()).digest()
    return {"assertionHash": hashed.hex(),
            "assertionSig": base64.b64encode(sums + hashed).decode()}  # fmt: skip


def bound(members, header=None, sums=SUMS, *, method="jws"):
    """*members* as an assertion that is signed under the data key, made without our writer."""
    signature = token(header or {"alg": "HS256"}, claims_of(members, sums))
    return {**members, "binding": {"method": method, "signature": signature}}


def members_of(assertion=ASSERTION):
    """The members that a signature covers."""
    made = a.write_assertion(assertion, SUMS, DEK)
    return {name: value for name, value in made.items() if name != "binding"}


def verify(value, key=DEK, **more):
    """Read and verify one assertion."""
    a.verify_assertion(a.read_assertion(value), SUMS, key, **more)


@pytest.mark.parametrize("name", WRITTEN)
def test_verifies_what_other_clients_signed(vectors, name):
    """Assertions of Go, JavaScript and Java, current and legacy, under the data key."""
    manifest, _, dek = opened(vectors, name)
    sums = a.aggregate(manifest.segments, legacy=manifest.legacy)

    assert len(manifest.assertions) == WRITTEN[name]
    for value in manifest.assertions:
        a.verify_assertion(a.read_assertion(value), sums, dek, legacy=manifest.legacy)
        with pytest.raises(IntegrityError):
            a.verify_assertion(a.read_assertion(value), sums, bytes(32), legacy=manifest.legacy)
        with pytest.raises(IntegrityError, match="another payload"):
            a.verify_assertion(a.read_assertion(value), sums + b"x", dek, legacy=manifest.legacy)


@pytest.mark.parametrize("name", [
    "clients/go-as", "clients/js-small", "clients/js-at", "clients/js-422", "clients/js-ec",
    "java-0.7.8-legacy",
])  # fmt: skip
def test_opens_metadata_that_other_clients_encrypted(vectors, name):
    """Under the share beside which it stands."""
    manifest, shares, _ = opened(vectors, name)

    for position, share in shares.items():
        text = manifest.key_access[position].encryptedMetadata
        assert open_metadata(share, text).isascii()
        with pytest.raises(IntegrityError, match="metadata"):
            open_metadata(bytes(32), text)


@pytest.mark.parametrize("key", [None, EC, RSA, SHARED], ids=["dek", "ec", "rsa", "hmac"])
def test_verifies_what_it_wrote_under_that_key_alone(key):
    """Every kind of key; no other key of any kind."""
    made = a.write_assertion(a.Assertion("a", SAID, key=key), SUMS, DEK)
    public = key.public_key() if isinstance(key, (type(EC), type(RSA))) else key or DEK

    verify(made, public)
    others = [
        DEK,
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        RSA.public_key(),
        Secret(bytes(64)),
        bytes(64),
    ]
    for other in others:
        if other != public:
            with pytest.raises(IntegrityError, match="does not verify"):
                verify(made, other)


def test_writes_what_other_clients_read():
    """The members, their order, the header and the claims."""
    made = a.write_assertion(ASSERTION, SUMS, DEK)

    assert list(made) == ["id", "type", "scope", "appliesToState", "statement", "binding"]
    assert made["binding"]["method"] == "jws"
    header, claims, _ = made["binding"]["signature"].split(".")
    assert json.loads(from_b64url(header)) == {"alg": "HS256"}
    assert json.loads(from_b64url(claims)) == claims_of(members_of())


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=20), st.binary(max_size=96))
def test_any_text_comes_back(value, name, sums):
    """A statement of any text, for a payload of any hashes."""
    made = json.loads(
        json.dumps(a.write_assertion(a.Assertion(name, a.Statement("f", "s", value)), sums, DEK))
    )
    stated = a.read_assertion(made)

    a.verify_assertion(stated, sums, DEK)
    assert (stated.id, stated.statement.value, stated.algorithm) == (name, value, "HS256")


def test_legacy_hashes_are_text():
    """Version 4.2.2: the hex of each hash enters, not the hash."""
    members = members_of()
    hexed = a.aggregate(SEGMENTS, legacy=True)
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    hashed = hashlib.sha256(text.encode()).hexdigest()
    claims = {"assertionHash": hashed,
              "assertionSig": base64.b64encode(hexed + hashed.encode()).decode()}  # fmt: skip
    made = {**members, "binding": {"method": "jws", "signature": token({"alg": "HS256"}, claims)}}

    a.verify_assertion(a.read_assertion(made), hexed, DEK, legacy=True)
    with pytest.raises(IntegrityError, match="another payload"):
        a.verify_assertion(a.read_assertion(made), hexed, DEK)


OBJECT = {"z": 1, "a": {"b": "ü"}}


@pytest.mark.parametrize("said", [
    OBJECT,
    json.dumps(OBJECT, separators=(",", ":"), ensure_ascii=False),
    json.dumps(OBJECT, separators=(",", ":"), ensure_ascii=False, sort_keys=True),
])  # fmt: skip
def test_a_json_object_as_value_is_hashed_as_any_client_does(said):
    """As it is, as its compact text, or as that sorted; and read as text."""
    members = members_of()
    signed = {**members, "statement": {**members["statement"], "value": said}}
    made = bound(signed)
    made["statement"] = {**members["statement"], "value": OBJECT}

    verify(made)
    assert json.loads(a.read_assertion(made).statement.value) == OBJECT


@pytest.mark.parametrize("header", [
    {"alg": "HS256", "typ": "JWT"},
    {"alg": "HS256", "kid": "k", "x5c": ["AA=="], "jwk": {"kty": "EC"}},
])  # fmt: skip
def test_a_key_in_the_header_is_not_looked_at(header):
    """It neither helps nor hurts: the caller's key decides."""
    verify(bound(members_of(), header))
    with pytest.raises(IntegrityError):
        verify(bound(members_of(), header), bytes(32))


@pytest.mark.parametrize("header", [
    {"alg": "none"}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": "HS256", "crit": ["b64"]},
    {"alg": "HS256", "b64": False}, {"typ": "JWT"}, {"alg": None}, {"alg": "HS256", "jku": "x"},
])  # fmt: skip
def test_other_headers_are_refused(header):
    """No algorithm but the key's own, and no name that could change what a signature means."""
    with pytest.raises(IntegrityError, match="does not verify"):
        verify(bound(members_of(), header))


def test_a_public_key_is_not_a_secret():
    """An HMAC made with the text of a public key does not pass for that key's signature."""
    pem = wrap.public_pem(RSA.public_key()).encode()
    signature = token({"alg": "HS256"}, claims_of(members_of()), pem)

    with pytest.raises(IntegrityError, match="does not verify"):
        verify({**members_of(), "binding": {"method": "jws", "signature": signature}},
               RSA.public_key())  # fmt: skip


@pytest.mark.parametrize("change", [
    {"id": "other"}, {"type": "other"}, {"scope": "payload"}, {"appliesToState": "encrypted"},
    {"more": 1}, {"statement": {"format": "json", "schema": "s", "value": "x"}},
])  # fmt: skip
def test_no_member_can_be_changed(change):
    """Nor added."""
    with pytest.raises(IntegrityError, match="does not verify"):
        verify({**a.write_assertion(ASSERTION, SUMS, DEK), **change})


@pytest.mark.parametrize("claims", [
    {}, {"assertionHash": 1, "assertionSig": ""}, {"assertionHash": "", "assertionSig": "*"},
    {**claims_of(members_of()), "assertionSig": ""},
])  # fmt: skip
def test_claims_are_both_needed(claims):
    """A signature over something else is worth nothing."""
    signature = token({"alg": "HS256"}, claims)
    with pytest.raises(IntegrityError):
        verify({**members_of(), "binding": {"method": "jws", "signature": signature}})


@pytest.mark.parametrize("signature", ["", "a", "a.b", "a.b.c", "..", "é.b.c", "e30.e30.AA"])
def test_garbage_signs_nothing(signature):
    """What is no JWS."""
    with pytest.raises(IntegrityError):
        verify({**members_of(), "binding": {"method": "jws", "signature": signature}})


@pytest.mark.parametrize("value", [
    None, 7, "a", [], {}, {"id": ""}, {"id": 5}, {"id": "x" * 5000},
    {"id": "a", "statement": []}, {"id": "a", "statement": {"value": 5}},
    {"id": "a", "binding": 5}, {"id": "a", "binding": {"method": "cose", "signature": "x"}},
])  # fmt: skip
def test_what_is_no_assertion_is_not_read(value):
    """With an error of the formats."""
    with pytest.raises(FormatError):
        a.read_assertion(value)


def test_what_is_not_bound_does_not_verify():
    """A statement that anybody could have put there; also one whose method is in upper case."""
    with pytest.raises(IntegrityError, match="bound by nothing"):
        verify(members_of())
    verify(bound(members_of(), method="JWS"))


@pytest.mark.parametrize("changes", [
    {"id": ""}, {"type": "x"}, {"scope": "x"}, {"applies_to": "x"}, {"id": "x" * 5000},
    {"statement": a.Statement("", "s", "v")}, {"statement": a.Statement("f", "s", "")},
])  # fmt: skip
def test_only_what_readers_know_is_written(changes):
    """Members that a reader could refuse or drop."""
    with pytest.raises(ValueError, match="assertion"):
        a.Assertion(**{"id": "a", "statement": SAID} | changes)


def test_bytes_are_the_data_key_alone():
    """A secret has a type of its own; bytes of another size verify nothing, whoever signed."""
    public = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key in (b"k", bytes(31), public):
        signature = token({"alg": "HS256"}, claims_of(members_of()), key)
        with pytest.raises(IntegrityError, match="does not verify"):
            verify({**members_of(), "binding": {"signature": signature}}, key)


@given(st.binary(max_size=300), st.binary(min_size=12, max_size=12))
def test_metadata_comes_back(text, iv):
    """Any bytes, under their share."""
    assert open_metadata(DEK, seal_metadata(DEK, text, iv)) == text


def test_metadata_is_bounded_and_strict():
    """Neither too much, nor in another form."""
    with pytest.raises(FormatError, match="at most"):
        seal_metadata(DEK, bytes(MAX_METADATA + 1), bytes(12))
    for text in ("", "*", base64.b64encode(b"{}").decode(),
                 base64.b64encode(b'{"ciphertext":"AA=="}').decode(),
                 base64.b64encode(b'{"ciphertext":"' + b"A" * 40 + b'"}').decode()):  # fmt: skip
        with pytest.raises(IntegrityError, match="metadata"):
            open_metadata(DEK, text)
