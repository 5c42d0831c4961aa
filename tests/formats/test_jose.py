"""The gate in front of signatures, and the signatures."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats import jose
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url, from_b64url

EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
TYP = frozenset({"t+jwt"})
HEADER = {"alg": "ES256", "typ": "t+jwt"}


def read(token, **changes):
    """Parse as a token of the test's own type."""
    return jose.read(token, **{"typ": TYP, "max_bytes": 4096} | changes)


def token_of(header, payload=b"{}", signature=b"s" * 64):
    """A compact JWS of arbitrary parts; *header* is a dict or bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return ".".join(map(b64url, (raw, payload, signature)))


@pytest.mark.parametrize("key", [EC, ED], ids=["ES256", "EdDSA"])
@given(claims=st.dictionaries(st.text("abc"), st.integers(0, 9)))
def test_verifies_what_it_signed(key, claims):
    """A signed token reads back with its claims and verifies under the public half."""
    jws = read(jose.sign(key, claims, typ="t+jwt", kid="k1"))

    jose.verify(jws, key.public_key())
    assert (jws.claims, jws.header.kid) == (claims, "k1")


@pytest.mark.parametrize("key", [EC, ED], ids=["ES256", "EdDSA"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_refuses_a_token_with_one_bit_flipped(key, part):
    """Header, payload and signature are all covered."""
    parts = [from_b64url(text) for text in jose.sign(key, {"a": 7}, typ="t+jwt").split(".")]
    flipped = bytearray(parts[part])
    flipped[-3 if part == 0 else len(flipped) // 2] ^= 1
    parts[part] = bytes(flipped)

    with pytest.raises(jose.JoseError):
        jose.verify(read(".".join(map(b64url, parts))), key.public_key())


def test_the_key_decides_the_algorithm():
    """A token that names another algorithm than the key's is refused, whatever its signature."""
    jws = read(jose.sign(EC, {}, typ="t+jwt"))

    for other in (ED, RSA, ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(jose.JoseError):
            jose.verify(jws, other.public_key())


def test_a_right_signature_under_another_name_is_refused():
    """A token signed with its key, that names the algorithm of another kind of key."""
    jws = read(jose.sign_with_header(EC, {"alg": "EdDSA", "typ": "t+jwt"}, {}))

    with pytest.raises(jose.JoseError, match="another algorithm"):
        jose.verify(jws, EC.public_key())


@pytest.mark.parametrize(
    "header",
    [
        HEADER | {"alg": "none"},
        HEADER | {"alg": "HS256"},
        HEADER | {"alg": "PS256"},
        HEADER | {"alg": ["ES256"]},
        {"typ": "t+jwt"},
        HEADER | {"typ": "JWT"},
        {"alg": "ES256"},
        HEADER | {"typ": None},
        HEADER | {"crit": ["x"]},
        HEADER | {"jwk": {}},
        HEADER | {"jku": "https://evil"},
        HEADER | {"x5c": []},
        HEADER | {"b64": False},
        HEADER | {"zip": "DEF"},
        HEADER | {"kid": "../x"},
        HEADER | {"kid": 1},
        HEADER | {"kid": ""},
        b'{"alg":"none","alg":"ES256","typ":"t+jwt"}',
        b"[]",
        b"\xff",
        b"{" * 5000,
    ],
    ids=repr,
)
def test_refuses_other_headers(header):
    """Other algorithms, types and names, duplicates and non-objects do not pass the gate."""
    with pytest.raises(jose.JoseError):
        read(token_of(header))


@pytest.mark.parametrize("payload", [b"[]", b'{"exp":1,"exp":2}', b"", b"text", b'{"a":NaN}'])
def test_refuses_other_payloads(payload):
    """Claims are one strict JSON object."""
    with pytest.raises(jose.JoseError):
        read(token_of(HEADER, payload))


def test_refuses_other_serializations():
    """Padding, blanks, two or four parts, and length over the limit are errors."""
    token = jose.sign(EC, {"a": 1}, typ="t+jwt")
    head, payload, signature = token.split(".")

    for other in (
        f"{head}.{payload}",
        f"{token}.x",
        f"{head}.{payload}.",
        f"{head}=.{payload}.{signature}",
        f"{token}\n",
        f" {token}",
        token.replace(".", ". ", 1),
        "é" + token,
        json.dumps({"payload": payload, "protected": head, "signature": signature}),
    ):
        with pytest.raises(jose.JoseError):
            read(other)
    with pytest.raises(jose.JoseError):
        read(token, max_bytes=len(token) - 1)


def test_a_signature_has_one_encoding():
    """DER, and r and s of other lengths or values, are refused."""
    jws = read(jose.sign(EC, {}, typ="t+jwt"))

    for signature in (b"", bytes(64), b"\0" + jws.signature, jws.signature[:-1], b"\xff" * 64):
        forged = jose.Jws(jws.header, {}, b"{}", jws.signing_input, signature)
        with pytest.raises(jose.JoseError):
            jose.verify(forged, EC.public_key())


@pytest.mark.parametrize("key", [EC, ED, RSA], ids=["EC", "OKP", "RSA"])
def test_keys_survive_a_round_trip(key):
    """A public key read from its JWK is the key, under the same thumbprint."""
    jwk = jose.public_jwk(key.public_key())

    assert jose.public_jwk(jose.key_from_jwk(jwk)) == jwk
    assert jose.thumbprint(jwk | {"kid": "x", "use": "sig"}) == jose.thumbprint(jwk)


def test_thumbprint_is_the_one_of_the_rfc():
    """RFC 7638 section 3.1."""
    modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"  # noqa: E501 one word

    found = jose.thumbprint({"kty": "RSA", "n": modulus, "e": "AQAB"})

    assert found == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    "changes",
    [{"d": "AA"}, {"k": "AA"}, {"use": "enc"}, {"key_ops": ["sign"]}, {"alg": "RS256"}, {"x": "AA"},
     {"x": None}, {"crv": "P-384"}, {"kty": "oct"}, {"y": b64url(bytes(32))}, {"x": "A" * 44}],
    ids=repr,
)  # fmt: skip
def test_refuses_other_keys(changes):
    """Private, foreign, malformed and off-curve keys are not loaded."""
    with pytest.raises(jose.JoseError):
        jose.key_from_jwk(jose.public_jwk(EC.public_key()) | changes)


def test_refuses_weak_rsa():
    """Below 2048 bits, and with a small exponent, RSA signs nothing here."""
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 too short on purpose
    jwk = jose.public_jwk(RSA.public_key()) | {"e": "Aw"}

    with pytest.raises(jose.JoseError):
        jose.key_from_jwk(jose.public_jwk(short.public_key()))
    with pytest.raises(jose.JoseError):
        jose.key_from_jwk(jwk)


def test_refuses_a_thumbprint_of_half_a_key():
    """A missing required member or an unknown type has no thumbprint."""
    for jwk in ({"kty": "EC", "crv": "P-256", "x": "AA"}, {"kty": "oct", "k": "AA"}, {}):
        with pytest.raises(jose.JoseError):
            jose.thumbprint(jwk)


def wycheproof(vectors):
    """Every JWS case that has a public key: key members, case."""
    path = vectors / "wycheproof" / "json_web_signature_test.json"
    for group in json.loads(path.read_bytes())["testGroups"]:
        for case in group["tests"] if "public" in group else ():
            yield group["public"], case


def accepted(jwk, case):
    """Whether our gate and verifier accept the case."""
    token = case["jws"] if isinstance(case["jws"], str) else json.dumps(case["jws"])
    try:
        key = jose.key_from_jwk(jwk)
        jose.verify(jose.read(token, typ=frozenset({None, "JWT"}), max_bytes=1 << 16), key)
    except FormatError:
        return False
    return True


def test_accepts_no_invalid_wycheproof_signature(vectors):
    """None of the cases that must fail passes, padding and embedded keys among them."""
    wrong = [case for _, case in wycheproof(vectors) if case["result"] != "valid"]

    assert len(wrong) > 250
    assert [c["tcId"] for j, c in wycheproof(vectors) if c in wrong and accepted(j, c)] == []


def test_verifies_valid_wycheproof_signatures(vectors):
    """Valid ES256 and RS256 signatures verify; their payloads are no JSON, so no gate."""
    count = 0
    for jwk, case in wycheproof(vectors):
        if case["result"] != "valid" or jwk.get("alg") not in {"ES256", "RS256"}:
            continue
        if "Figure" in case["comment"] or not isinstance(case["jws"], str):
            continue
        signing_input, _, signature = case["jws"].rpartition(".")
        if signature.strip("=") != signature or case["tcId"] in {372, 373}:
            continue
        jws = jose.Jws(
            jose.Header(jwk["alg"], None, None, None), {}, b"",
            signing_input.encode(), from_b64url(signature),
        )  # fmt: skip
        jose.verify(jws, jose.key_from_jwk(jwk))
        count += 1

    assert count >= 8


def proof_of(jwk):
    """A token whose header brings a key."""
    header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk}
    text = jose.sign_with_header(EC, header, {})
    return jose.read(
        text, typ=frozenset({"dpop+jwt"}), max_bytes=5000, names=jose.PROOF_HEADER_NAMES
    )


def test_a_proof_brings_its_key():
    """The key in the header is loaded, and named by its thumbprint."""
    jwk = jose.public_jwk(EC.public_key())
    jws = proof_of(jwk)

    jose.verify(jws, jws.header.key)
    assert jose.public_jwk(jws.header.key) == jwk
    assert jws.header.jkt == jose.thumbprint(jwk)


@pytest.mark.parametrize(
    "jwk",
    [
        [],
        "key",
        {},
        jose.public_jwk(EC.public_key()) | {"x": "AA"},
        jose.public_jwk(EC.public_key()) | {"y": b64url(b"\x00" * 33)},
        jose.public_jwk(EC.public_key()) | {"d": "AA"},
    ],
    ids=repr,
)
def test_refuses_a_proof_without_a_proper_key(jwk):
    """Whatever stands in `jwk` is a public key of the right size, or the token is malformed."""
    with pytest.raises(jose.JoseError, match="malformed token"):
        proof_of(jwk)


def test_verifies_rs256():
    """What an issuer with an RSA key signed; PKCS #1 v1.5 with SHA-256 (RFC 7518 section 3.3)."""
    header = b64url(b'{"alg":"RS256","typ":"t+jwt"}')
    signing_input = f"{header}.{b64url(b'{}')}"
    signature = RSA.sign(signing_input.encode(), padding.PKCS1v15(), hashes.SHA256())
    jws = read(f"{signing_input}.{b64url(signature)}")

    jose.verify(jws, RSA.public_key())
    with pytest.raises(jose.JoseError):
        jose.verify(replace(jws, signing_input=b"x"), RSA.public_key())


def test_writes_an_rsa_key_without_leading_zeros():
    """RFC 7518 section 6.3.1: the modulus in as many octets as it needs."""
    numbers = RSA.public_key().public_numbers()

    jwk = jose.public_jwk(RSA.public_key())

    assert jwk == {"kty": "RSA", "n": b64url(numbers.n.to_bytes(256, "big")), "e": "AQAB"}


def test_other_curves_sign_nothing():
    """P-384 is a good curve that no token here is signed with."""
    with pytest.raises(jose.JoseError, match="only P-256"):
        jose.algorithm(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.mark.parametrize("extra", [{"kid": None}, {"typ": 1}, {"kid": ["k"]}], ids=repr)
def test_header_members_have_their_types(extra):
    """A null, a number and a list are no names."""
    with pytest.raises(jose.JoseError):
        jose.read(
            jose.sign_with_header(EC, {"alg": "ES256", "typ": "t+jwt"} | extra, {}),
            typ=frozenset({None, "t+jwt", 1}),
            max_bytes=5000,
        )


def nested(depth):
    """Arrays in arrays."""
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(("depth", "accepted"), [(15, True), (16, False)])
def test_payloads_nest_to_a_limit(depth, accepted):
    """Sixteen deep with the object around; one more is refused before anything is verified."""
    token = token_of(HEADER, b'{"a":' + nested(depth) + b"}")

    if accepted:
        assert read(token).claims
        return
    with pytest.raises(jose.JoseError):
        read(token)


@pytest.mark.parametrize(("size", "accepted"), [(4096, True), (4097, False)])
def test_headers_have_a_limit(size, accepted):
    """A header of 4,096 bytes is read, a longer one is not even decoded."""
    plain = b'{"alg":"ES256","kid":"k","typ":"t+jwt"}'
    header = plain[:-1] + b" " * (size - len(plain)) + b"}"
    token = f"{b64url(header)}.{b64url(b'{}')}.{b64url(b's' * 64)}"

    if accepted:
        assert jose.read(token, typ=frozenset({"t+jwt"}), max_bytes=9000).header.kid == "k"
        return
    with pytest.raises(jose.JoseError):
        jose.read(token, typ=frozenset({"t+jwt"}), max_bytes=9000)


def test_tokens_have_a_limit():
    """As long as the caller allows, to the character."""
    token = token_of(HEADER)

    assert read(token, max_bytes=len(token))
    with pytest.raises(jose.JoseError):
        read(token, max_bytes=len(token) - 1)
