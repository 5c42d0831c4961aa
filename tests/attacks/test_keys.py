"""J4, J5, J12, J13, J27, J28: what a key set of somebody else may bring in."""

import hmac
import json

import pytest
from attacks.forging import ED, RSA, STRANGER
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from envelock_formats import jose
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url, from_b64url
from envelock_kas.pdp_keys import PinnedKeys
from envelock_service.oidc import read_jwks

EC_JWK = jose.public_jwk(STRANGER.public_key())
ED_JWK = jose.public_jwk(ED.public_key())
RSA_JWK = jose.public_jwk(RSA.public_key())
PRIME = 2**255 - 19
EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
WEAK = [y + sign * 2**255 for y in (0, 1, PRIME - 1, EIGHT, PRIME - EIGHT, PRIME, PRIME + 1)
        for sign in (0, 1)]  # fmt: skip
REFUSED = {
    "J4 alg of a MAC": EC_JWK | {"alg": "HS256"},
    "J4 alg none": EC_JWK | {"alg": "none"},
    "J4 alg of another curve": EC_JWK | {"alg": "ES384"},
    "J4 alg of another family": RSA_JWK | {"alg": "ES256"},
    "J4 padding that is not used": RSA_JWK | {"alg": "PS256"},
    "J4 alg not a string": EC_JWK | {"alg": 7},
    "J5 for encryption": EC_JWK | {"use": "enc"},
    "J5 use null": EC_JWK | {"use": None},
    "J5 to sign": EC_JWK | {"key_ops": ["sign"]},
    "J5 to sign and verify": EC_JWK | {"key_ops": ["sign", "verify"]},
    "J5 to derive": EC_JWK | {"key_ops": ["deriveKey"]},
    "J5 for nothing": EC_JWK | {"key_ops": []},
    "J5 private": EC_JWK | {"d": b64url(bytes(31) + b"\1")},
    "J5 private RSA": RSA_JWK | {"d": "AQ"},
    "J5 symmetric": {"kty": "oct", "k": b64url(bytes(32))},
    "J12 modulus of 1024 bits": RSA_JWK | {"n": b64url((2**1023 + 1).to_bytes(128, "big"))},
    "J12 exponent 1": RSA_JWK | {"e": "AQ"},
    "J12 exponent 3": RSA_JWK | {"e": "Aw"},
    "J12 exponent 17": RSA_JWK | {"e": "EQ"},
    "J12 exponent 0": RSA_JWK | {"e": "AA"},
    "J12 exponent empty": RSA_JWK | {"e": ""},
    "J12 no modulus": {"kty": "RSA", "e": "AQAB"},
    "J12 even exponent": RSA_JWK | {"e": b64url((65538).to_bytes(3, "big"))},
    "J13 too short": ED_JWK | {"x": b64url(bytes(31))},
    "J13 another curve": ED_JWK | {"crv": "Ed448"},
    "J13 for agreement": ED_JWK | {"crv": "X25519"},
    "J11 a point off its curve": EC_JWK | {"y": EC_JWK["x"]},
    "J11 the point at infinity": EC_JWK | {"x": b64url(bytes(32)), "y": b64url(bytes(32))},
    "J10 padded": EC_JWK | {"x": str(EC_JWK["x"]) + "="},
}  # fmt: skip


@pytest.mark.parametrize("jwk", REFUSED.values(), ids=REFUSED)
def test_no_key_set_brings_in_such_a_key(jwk):
    """Alone it is refused; in a set it is passed over, and its neighbour counts."""
    with pytest.raises(jose.JoseError):
        jose.key_from_jwk(jwk)

    found = read_jwks({"keys": [jwk | {"kid": "bad"}, EC_JWK | {"kid": "good"}]})
    assert list(found) == ["good"]


@pytest.mark.parametrize("y", WEAK, ids=hex)
def test_no_point_of_small_order_is_a_key(y: int):
    """J13: under such a point anybody signs; other spellings of a point are refused too."""
    with pytest.raises(jose.JoseError):
        jose.key_from_jwk(ED_JWK | {"x": b64url(y.to_bytes(32, "little"))})


def test_a_point_of_small_order_would_verify_anything():
    """J13: the library alone accepts it, so the refusal is ours."""
    key = ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))

    key.verify(b"\1" + bytes(63), b"any text")


@pytest.mark.parametrize(
    "document",
    [{}, {"keys": None}, {"keys": {}}, {"keys": "x"},
     {"keys": [EC_JWK | {"kid": "a"}, ED_JWK | {"kid": "a"}]}],
    ids=str,
)  # fmt: skip
def test_what_is_no_key_set_is_refused(document):
    """J27: and one that gives a name to two keys, which would leave a choice."""
    with pytest.raises(FormatError):
        read_jwks(document)


@pytest.mark.parametrize("entry", [7, None, [], "x", {}, {"kid": 7}, {"kid": None}, EC_JWK])
def test_entries_without_a_name_are_passed_over(entry):
    """J27: a key that nothing can name verifies nothing."""
    assert read_jwks({"keys": [entry]}) == {}


def test_pinned_keys_stay_when_the_file_turns_bad(tmp_path):
    """J28: a key set that is cut off, huge or hostile leaves the last good one in force."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [EC_JWK | {"kid": "good"}]}))
    pinned = PinnedKeys(file)
    first = dict(pinned.current())
    for text in (b"{", b"[]", b'{"keys":[' + b" " * 300_000 + b"]}", b"[" * 100_000):
        file.write_bytes(text)
        assert list(pinned.current()) == ["good"]

    file.write_text(json.dumps({"keys": [ED_JWK | {"kid": "next"}]}))
    assert list(first) == ["good"]
    assert list(pinned.current()) == ["next"]


def cases(vectors, name: str):
    """Every case of a Wycheproof file with its group."""
    path = vectors / "wycheproof" / f"{name}_test.json"
    for group in json.loads(path.read_bytes())["testGroups"]:
        for case in group["tests"]:
            yield group, case


def verified(key: jose.VerifyingKey, alg: str, message: bytes, signature: bytes) -> bool:
    """Whether a signature over bytes of any kind verifies, as over a token's."""
    try:
        jose.verify(jose.Jws(jose.Header(alg, None, None), {}, b"", message, signature), key)
    except jose.JoseError:
        return False
    return True


def test_verifies_exactly_the_valid_wycheproof_ed25519_signatures(vectors):
    """J13: 151 cases; malleable, truncated and extended signatures among them."""
    wrong, count = [], 0
    for group, case in cases(vectors, "ed25519"):
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes.fromhex(group["publicKey"]["pk"]))}
        message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
        accepted = verified(jose.key_from_jwk(jwk), "EdDSA", message, signature)
        count += 1
        if accepted != (case["result"] == "valid"):
            wrong.append(case["tcId"])

    assert count > 100
    assert wrong == []


def test_verifies_exactly_the_valid_wycheproof_ecdsa_signatures(vectors):
    """J11: P-256 with raw signatures; r and s at and beyond every border."""
    wrong, count = [], 0
    for group, case in cases(vectors, "ecdsa_secp256r1_sha256_p1363"):
        point = bytes.fromhex(group["publicKey"]["uncompressed"])
        jwk = {"kty": "EC", "crv": "P-256", "x": b64url(point[1:33]), "y": b64url(point[33:])}
        message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
        accepted = verified(jose.key_from_jwk(jwk), "ES256", message, signature)
        count += 1
        if accepted != (case["result"] == "valid"):
            wrong.append(case["tcId"])

    assert count > 200
    assert wrong == []


def test_accepts_nothing_under_the_wycheproof_key_sets_that_is_invalid(vectors):
    """J4, J5: mixed, repeated, private, symmetric, weak and confused keys, each with a token."""
    wrong, count = [], 0
    for group, case in cases(vectors, "json_web_key"):
        document = group.get("public") or group["private"]
        count += 1
        try:
            keys = read_jwks(document if "keys" in document else {"keys": [document]})
            jws = jose.read(case["jws"], typ=frozenset({None, "JWT"}), max_bytes=1 << 16)
            jose.verify(jws, keys[jws.header.kid or ""])
        except (FormatError, KeyError):
            continue
        if case["result"] == "invalid":
            wrong.append(case["tcId"])

    assert count > 20
    assert wrong == []


def test_the_primitives_answer_the_wycheproof_cases(vectors):
    """HMAC, HKDF and AES-GCM with associated data, as the formats call them."""
    wrong = []
    for group, case in cases(vectors, "hmac_sha256"):
        made = hmac.digest(bytes.fromhex(case["key"]), bytes.fromhex(case["msg"]), "sha256")
        holds = made[: group["tagSize"] // 8].hex() == case["tag"]
        wrong += [("hmac", case["tcId"])] if holds != (case["result"] == "valid") else []
    for _, case in cases(vectors, "hkdf_sha256"):
        if case["result"] == "valid":
            salt, info, ikm = (bytes.fromhex(case[name]) for name in ("salt", "info", "ikm"))
            derived = HKDF(SHA256(), case["size"], salt, info).derive(ikm)
            wrong += [("hkdf", case["tcId"])] if derived.hex() != case["okm"] else []
    for group, case in cases(vectors, "aes_gcm"):
        if (group["keySize"], group["ivSize"]) == (256, 96):
            wrong += [("gcm", case["tcId"])] if opens(case) != (case["result"] == "valid") else []

    assert wrong == []


def opens(case: dict[str, str]) -> bool:
    """Whether an AES-GCM case opens to its message."""
    key, nonce, aad = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad"))
    try:
        plain = AESGCM(key).decrypt(nonce, bytes.fromhex(case["ct"] + case["tag"]), aad)
    except InvalidTag:
        return False
    return plain.hex() == case["msg"]


def test_keys_of_ours_are_none_of_those():
    """What is refused above is not refused by accident."""
    for key in (STRANGER, ED, RSA):
        assert jose.key_from_jwk(jose.public_jwk(key.public_key()))
    assert isinstance(from_b64url(str(ED_JWK["x"])), bytes)
    assert isinstance(STRANGER, ec.EllipticCurvePrivateKey)
    assert isinstance(RSA, rsa.RSAPrivateKey)
