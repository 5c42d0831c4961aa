"""Post-quantum keys and wraps: what others compute, what is refused, what round-trips."""

import hashlib
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from envelock_formats import der, envelope
from envelock_formats.envelope import (
    CIPHERTEXT_SIZES,
    KEM_TYPES,
    MLKEM_768,
    MLKEM_1024,
    P256_MLKEM_768,
    P384_MLKEM_1024,
    XWING,
    kem_of_envelope,
    read_envelope,
    write_envelope,
)
from envelock_formats.errors import FormatError, UnsupportedAlgorithmError
from envelock_formats.framing import b64
from envelock_formats.kem import (
    KemPrivateKey,
    KemPublicKey,
    combine,
    encapsulate,
    open_kem_share,
    wrap_kem,
)
from envelock_formats.publickey import pem_of_key, read_public_key
from envelock_formats.tdf.keyaccess import KeyAccess
from envelock_formats.wrap import UnwrapError, algorithm_of_wrap, key_access_type

SHARE = bytes(range(32))
HYBRIDS = [XWING, P256_MLKEM_768, P384_MLKEM_1024]
h = bytes.fromhex
# Of the drafts' authors: draft-ietf-lamps-pq-composite-kem-14, appendix with KEM combiner vectors.
# ML-KEM secret, ECDH secret, ephemeral key, recipient's key, and what they combine to.
COMBINED = {
    P256_MLKEM_768: """
        ca48920ded22e063f98a79a4091508678b7042cab63f78c571ff392e82612d43
        ef1c92443aaf987000e3470d34332b4c53ff0cdd4554b6bf377bf7bdb677d3d0
        041d155f6d3078d7e2cd4f9f758947029795dd9ab6d6e92d81d19171270cdefcd4abb682edbb22faf961ce75fc688109931bfa24468f646b97eca4d57d5f5e7610
        04ba2bfbf7b91182eb1fad54a2940c8b1dfd53de55fa3c02d199a3159ff73d38d29aa94f32e3e82bcc99b165320297149455997d7c3ea5ac97cd987d3e80396a3e
        d6c69aa6e986b620a2777d8cf1fb6be1b2255d6efae0566deb34c882b38846ee
    """,
    P384_MLKEM_1024: """
        c0f87f0c53fa8e2ba192a494694d37d1e3cf99c65e0dc5f69b2cc044b3fb205d
        4d52b7ef430382f479603207c0b8f7aa5bc35d8758835007e39a2642ad65e635d674db7a5513889657fb24e4e228a098
        0401a5b81dcb51290a0eb142b9032d5a37503164b7a20ac0e3b52dc54f9b0b7c9fdd2699a59563a0b9ad0e54478846faeab72b92275e1fbb8b963bcc6e80e30c089fbe4ed8d47ec76951db94aede46e679d5692eeb1d1b150d5b2e6660dc67c469
        0468cc4acc5dd85edbcbf25bae7ee7dcacec2968ea7ee57fc91311cb9c47d4a24c3854e5ce3e5d0b309fda493224520f2870496eb16571108b3deafd72c1df17edc302fbb8b60bae44d93177e6df5278e4667a090a2d59a2076f41d693975e8d19
        eb60f6c80a309ad4158d7b02f2cf8c947faead96ebbd85c3f62a94868ffddca4
    """,
}


@pytest.fixture(scope="module")
def keys() -> dict[str, KemPrivateKey]:
    """A key of each kind."""
    return {name: KemPrivateKey.generate(name, os.urandom) for name in KEM_TYPES}


def opened(key: KemPrivateKey, wrapped: bytes) -> bytes:
    """What a KAS does with a wrap."""
    ciphertext, sealed = read_envelope(wrapped)
    return open_kem_share(key.algorithm, key.decapsulate(ciphertext), sealed)


class TestWraps:
    """A share under a key of each kind."""

    @pytest.mark.parametrize("name", KEM_TYPES)
    def test_opens_what_was_wrapped(self, keys, name: str):
        """And the wrap shows its algorithm."""
        wrapped = wrap_kem(SHARE, keys[name].public_key(), iv=os.urandom(12))
        access = KeyAccess(KEM_TYPES[name], "https://kas", b64(wrapped), "")

        assert opened(keys[name], wrapped) == SHARE
        assert algorithm_of_wrap(access) == name
        assert key_access_type(name) == KEM_TYPES[name]

    @pytest.mark.parametrize("name", KEM_TYPES)
    def test_another_key_opens_nothing(self, keys, name: str):
        """ML-KEM gives another secret, under which the share does not open."""
        wrapped = wrap_kem(SHARE, keys[name].public_key(), iv=os.urandom(12))

        with pytest.raises(UnwrapError):
            opened(KemPrivateKey.generate(name, os.urandom), wrapped)

    @pytest.mark.parametrize("name", KEM_TYPES)
    @settings(max_examples=25, deadline=None)
    @given(place=st.integers(0), bit=st.integers(0, 7))
    def test_no_altered_wrap_opens(self, keys, name: str, place: int, bit: int):
        """A flipped bit anywhere: in the envelope, the ciphertext, the ephemeral key, the share."""
        wrapped = bytearray(wrap_kem(SHARE, keys[name].public_key(), iv=bytes(12)))
        wrapped[place % len(wrapped)] ^= 1 << bit

        with pytest.raises(FormatError):
            opened(keys[name], bytes(wrapped))

    @pytest.mark.parametrize("name", KEM_TYPES)
    def test_each_wrap_has_a_secret_of_its_own(self, keys, name: str):
        """Two encapsulations to one key differ."""
        first, second = (encapsulate(keys[name].public_key()) for _ in range(2))

        assert len(first[0]) == len(second[0]) == 32
        assert first[0] != second[0]
        assert len(first[1]) == CIPHERTEXT_SIZES[name]

    @pytest.mark.parametrize("name", HYBRIDS)
    def test_a_sender_without_a_point_opens_nothing(self, keys, name: str):
        """An ephemeral key of zeros, of another form, or beside the curve."""
        _, ciphertext = encapsulate(keys[name].public_key())
        size = {XWING: 32, P256_MLKEM_768: 65, P384_MLKEM_1024: 97}[name]
        inner = ciphertext[:-size]
        for ephemeral in (bytes(size), b"\x04" + b"\xff" * (size - 1)):
            if name == XWING and any(ephemeral):
                continue  # X25519 takes every other string for a key
            with pytest.raises(UnwrapError):
                keys[name].decapsulate(inner + ephemeral)

    def test_a_compressed_point_is_refused(self, keys):
        """One point, one spelling: another would be another ciphertext of the same wrap."""
        public = keys[P256_MLKEM_768].public_key()
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public.raw[1184:])
        compressed = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

        with pytest.raises(FormatError):
            KemPublicKey(P256_MLKEM_768, public.raw[:1184] + compressed)

    def test_a_share_is_sealed_in_sixty_bytes(self, keys):
        """A longer or shorter one is no share."""
        key = keys[MLKEM_768]
        secret, ciphertext = encapsulate(key.public_key())
        assert key.decapsulate(ciphertext) == secret

        for sealed in (b"", bytes(59), bytes(61)):
            with pytest.raises(UnwrapError):
                open_kem_share(MLKEM_768, secret, sealed)
        with pytest.raises(UnwrapError):
            open_kem_share(MLKEM_768, secret[:31], bytes(60))


class TestEnvelopes:
    """`SEQUENCE { [0] ciphertext, [1] sealed share }`."""

    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_reads_back_what_it_wrote(self, ciphertext: bytes, sealed: bytes):
        """Of any lengths."""
        assert read_envelope(write_envelope(ciphertext, sealed)) == (ciphertext, sealed)

    @pytest.mark.parametrize(
        "fault", ["behind", "inside", "order", "missing", "long", "tag", "empty"]
    )
    def test_refuses_other_encodings(self, fault: str):
        """One envelope has one spelling."""
        first, second = der.write(0x80, b"c" * 3), der.write(0x81, b"s" * 3)
        wrong = {
            "behind": der.write(der.SEQUENCE, first, second) + b"\0",
            "inside": der.write(der.SEQUENCE, first, second, first),
            "order": der.write(der.SEQUENCE, second, first),
            "missing": der.write(der.SEQUENCE, first),
            "long": b"\x30\x81\x0a" + first + second,
            "tag": der.write(der.SEQUENCE, der.write(der.OCTET_STRING, b"c"), second),
            "empty": b"",
        }[fault]

        with pytest.raises(FormatError):
            read_envelope(wrong)

    @pytest.mark.parametrize(
        ("kind", "size"),
        [("mlkem-wrapped", 1120), ("hybrid-wrapped", 1088), ("mlkem-wrapped", 1087)],
    )
    def test_type_and_length_name_one_algorithm(self, kind: str, size: int):
        """A ciphertext of another type's length is of no algorithm."""
        with pytest.raises(UnsupportedAlgorithmError):
            kem_of_envelope(kind, write_envelope(bytes(size), bytes(60)))

    def test_no_two_algorithms_look_alike(self):
        """Within one type lengths differ."""
        named = {(KEM_TYPES[name], size) for name, size in CIPHERTEXT_SIZES.items()}

        assert len(named) == len(envelope.KEM_TYPES)


class TestKeys:
    """Their encodings."""

    @pytest.mark.parametrize("name", KEM_TYPES)
    def test_public_keys_round_trip_as_pem(self, keys, name: str):
        """One key, one text."""
        public = keys[name].public_key()

        assert read_public_key(pem_of_key(public)) == public
        assert pem_of_key(read_public_key(pem_of_key(public))) == pem_of_key(public)

    @pytest.mark.parametrize("name", KEM_TYPES)
    def test_private_keys_round_trip(self, keys, name: str):
        """A key that was written opens what it opened."""
        wrapped = wrap_kem(SHARE, keys[name].public_key(), iv=bytes(12))
        again = KemPrivateKey.from_pkcs8(keys[name].pkcs8())

        assert again == keys[name]
        assert opened(again, wrapped) == SHARE
        assert again.pkcs8() == keys[name].pkcs8()

    @pytest.mark.parametrize("name", [MLKEM_768, MLKEM_1024])
    def test_openssl_reads_and_writes_the_same(self, keys, name: str):
        """The two encodings of ML-KEM alone are OpenSSL's, byte for byte."""
        key = keys[name]
        private = load_der_private_key(key.pkcs8(), None)
        form = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        public = load_der_public_key(key.public_key().spki())

        assert private.private_bytes(*form) == key.pkcs8()
        assert public == private.public_key()

    @pytest.mark.parametrize("name", KEM_TYPES)
    @pytest.mark.parametrize("fault", ["short", "long", "oid", "parameters", "bits", "behind"])
    def test_refuses_other_public_keys(self, keys, name: str, fault: str):
        """Another length or algorithm, parameters, a broken byte, anything behind."""
        public = keys[name].public_key()
        content = der.read_whole(public.spki(), der.SEQUENCE)
        identifier, _ = der.read(content, der.SEQUENCE)
        oid = bytes((*identifier[:-1], identifier[-1] ^ 0x40))
        bits = der.write(der.BIT_STRING, b"\0", public.raw)
        of = {
            "oid": (der.write(der.SEQUENCE, oid), bits),
            "parameters": (der.write(der.SEQUENCE, identifier, b"\x05\0"), bits),
            "bits": (
                der.write(der.SEQUENCE, identifier),
                der.write(der.BIT_STRING, b"\1", public.raw),
            ),
            "short": (
                der.write(der.SEQUENCE, identifier),
                der.write(der.BIT_STRING, b"\0", public.raw[:-1]),
            ),
            "long": (
                der.write(der.SEQUENCE, identifier),
                der.write(der.BIT_STRING, b"\0", public.raw, b"\0"),
            ),
            "behind": (der.write(der.SEQUENCE, identifier), bits, b"\0"),
        }

        with pytest.raises(FormatError):
            KemPublicKey.from_spki(der.write(der.SEQUENCE, *of[fault]))

    def test_refuses_an_ml_kem_key_out_of_range(self):
        """FIPS 203 section 7.2: coefficients are below 3329."""
        with pytest.raises(FormatError):
            KemPublicKey(MLKEM_768, b"\xff" * 1184)

    def test_refuses_an_x25519_key_that_agrees_on_zero(self, keys):
        """A recipient of small order would make the hybrid's second half a constant."""
        public = KemPublicKey(XWING, keys[XWING].public_key().raw[:1184] + bytes(32))

        with pytest.raises(UnsupportedAlgorithmError):
            encapsulate(public)

    @pytest.mark.parametrize("name", KEM_TYPES)
    @pytest.mark.parametrize("fault", ["version", "short", "parameters", "behind"])
    def test_refuses_other_private_keys(self, keys, name: str, fault: str):
        """Another version, a seed that is cut, parameters, anything behind."""
        content = der.read_whole(keys[name].pkcs8(), der.SEQUENCE)
        version, rest = der.read(content, der.INTEGER)
        identifier, rest = der.read(rest, der.SEQUENCE)
        raw = der.read_whole(rest, der.OCTET_STRING)
        parts = [
            der.write(der.INTEGER, b"\1" if fault == "version" else version),
            der.write(der.SEQUENCE, identifier, b"\x05\0" if fault == "parameters" else b""),
            der.write(der.OCTET_STRING, raw[:-1] if fault == "short" else raw),
            b"\0" if fault == "behind" else b"",
        ]

        with pytest.raises(FormatError):
            KemPrivateKey.from_pkcs8(der.write(der.SEQUENCE, *parts))

    def test_refuses_a_hybrid_of_another_curve(self, keys):
        """The EC half is on the curve that the algorithm says."""
        form = (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        other = ec.generate_private_key(ec.SECP384R1()).private_bytes(*form)
        content = der.read_whole(keys[P256_MLKEM_768].pkcs8(), der.SEQUENCE)
        _, rest = der.read(content, der.INTEGER)
        identifier, _ = der.read(rest, der.SEQUENCE)
        encoded = der.write(
            der.SEQUENCE,
            der.write(der.INTEGER, b"\0"),
            der.write(der.SEQUENCE, identifier),
            der.write(der.OCTET_STRING, bytes(64), other),
        )

        with pytest.raises(FormatError):
            KemPrivateKey.from_pkcs8(encoded)

    def test_an_unknown_algorithm_is_refused(self):
        """By every function that is given its name."""
        with pytest.raises(UnsupportedAlgorithmError):
            KemPublicKey("mlkem:512", bytes(800))
        with pytest.raises(UnsupportedAlgorithmError):
            KemPrivateKey.generate("mlkem:512", os.urandom)

    @pytest.mark.parametrize("name", KEM_TYPES)
    def test_a_private_key_does_not_show_itself(self, keys, name: str):
        """Neither seed nor parts stand in its text."""
        assert repr(keys[name]) == f"KemPrivateKey(algorithm='{name}')"


class TestOthers:
    """What others computed."""

    @pytest.mark.parametrize("name", COMBINED)
    def test_combines_as_the_draft_does(self, name: str):
        """The vectors of the draft's authors."""
        *parts, expected = map(h, COMBINED[name].split())

        assert combine(name, *parts) == expected

    def test_x_wing_is_as_its_draft_writes_it(self, keys):
        """Seed expansion and combiner, computed here once more from ML-KEM and X25519 alone."""
        key = keys[XWING]
        seed = key.pkcs8()[-32:]
        expanded = hashlib.shake_256(seed).digest(96)
        public = key.public_key().raw
        lattice = KemPrivateKey.from_pkcs8(
            KemPrivateKey.generate(MLKEM_768, lambda _: expanded[:64]).pkcs8()
        )
        secret, ciphertext = encapsulate(key.public_key())
        ephemeral, recipient = ciphertext[1088:], public[1184:]
        agreed = _x25519(expanded[64:], ephemeral)
        label = b"\\.//^\\"
        joined = lattice.decapsulate(ciphertext[:1088]) + agreed + ephemeral + recipient + label

        assert public[:1184] == lattice.public_key().raw
        assert secret == hashlib.sha3_256(joined).digest()

    def test_ml_kem_decapsulates_as_published(self, vectors):
        """Wycheproof: valid ciphertexts give the secret, and others none or another."""
        text = (vectors / "wycheproof" / "mlkem_768_test.json").read_text()
        tests = [test for group in json.loads(text)["testGroups"] for test in group["tests"]]
        outcomes = {test["tcId"]: _decapsulated(test) for test in tests}

        assert len(tests) > 50
        for test in tests:
            expected = h(test["K"]) if test["result"] == "valid" else None
            assert outcomes[test["tcId"]] == expected, test


def _decapsulated(test: dict) -> bytes | None:
    try:
        key = KemPrivateKey.from_pkcs8(
            KemPrivateKey.generate(MLKEM_768, lambda _: h(test["seed"])).pkcs8()
        )
        if "ek" in test and key.public_key().raw != h(test["ek"]):
            return None
        return key.decapsulate(h(test["c"]))
    except FormatError:
        return None


def _x25519(private: bytes, peer: bytes) -> bytes:
    """RFC 7748 section 5, by the book."""
    prime = 2**255 - 19
    scalar = bytearray(private)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    k, u = int.from_bytes(scalar, "little"), int.from_bytes(peer, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for place in reversed(range(255)):
        bit = k >> place & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        plus, minus = x2 + z2, x2 - z2
        da, cb = (x3 - z3) * plus % prime, (x3 + z3) * minus % prime
        x3, z3 = (da + cb) ** 2 % prime, u * (da - cb) ** 2 % prime
        aa, bb = plus * plus % prime, minus * minus % prime
        e = aa - bb
        x2, z2 = aa * bb % prime, e * (aa + 121665 * e) % prime
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, prime - 2, prime) % prime).to_bytes(32, "little")
