"""Key wraps: round trips, one error for every failure, vectors, and joining shares."""

import hashlib
import json
import os
import pickle

import msgspec
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from formats.sealing import key_access
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats import wrap
from envelock_formats.errors import FormatError, IntegrityError, UnsupportedAlgorithmError
from envelock_formats.framing import b64

SHARE = bytes(range(32))
KEK = ec.generate_private_key(ec.SECP256R1())
EPHEMERAL = ec.generate_private_key(ec.SECP256R1())
LARGER = ec.generate_private_key(ec.SECP384R1())
OTHER_CURVE = ec.generate_private_key(ec.SECP256K1())
RSA = rsa.generate_private_key(65537, 2048)
IV = bytes(12)
SHARES = st.binary(min_size=32, max_size=32)


def access(kind, **members):
    """A key access object of another kind."""
    return msgspec.structs.replace(key_access(), type=kind, **members)


def wrapped_ec(share=SHARE):
    """A share wrapped to KEK."""
    return wrap.wrap_ec(share, KEK.public_key(), ephemeral=EPHEMERAL, iv=IV)


@given(SHARES)
def test_ec_wraps_survive_a_round_trip(share):
    """What was wrapped to a P-256 key unwraps with it, or with the ECDH secret alone."""
    wrapped = wrapped_ec(share)
    secret = KEK.exchange(ec.ECDH(), EPHEMERAL.public_key())

    assert wrap.unwrap_ec(wrapped, EPHEMERAL.public_key(), KEK) == share
    assert wrap.unwrap_with_secret(secret, wrapped) == share
    assert len(wrapped) == wrap.EC_WRAPPED_SIZE == 60


@pytest.mark.parametrize(
    ("algorithm", "secret_size"),
    [(wrap.EC_P256, 32), (wrap.EC_P384, 48), (wrap.EC_P521, 66)],
)
def test_every_curve_wraps_and_unwraps(algorithm, secret_size):
    """The ephemeral key is on the KEK's curve, the secret as long as its field."""
    kek, ephemeral = (ec.generate_private_key(wrap.curve_of(algorithm)) for _ in range(2))
    wrapped = wrap.wrap_ec(SHARE, kek.public_key(), ephemeral=ephemeral, iv=IV)
    secret = kek.exchange(ec.ECDH(), ephemeral.public_key())
    named = access("ec-wrapped", ephemeralPublicKey=wrap.public_pem(ephemeral.public_key()))

    assert (len(secret), len(wrapped)) == (secret_size, 60)
    assert wrap.unwrap_ec(wrapped, ephemeral.public_key(), kek) == SHARE
    assert wrap.unwrap_with_secret(secret, wrapped) == SHARE
    assert wrap.algorithm_of(kek.public_key()) == wrap.algorithm_of_wrap(named) == algorithm


@pytest.mark.parametrize("bits", [2048, 4096])
def test_the_size_of_an_rsa_wrap_names_the_key(bits):
    """A version may hold keys of several sizes: the wrap tells which one opens it."""
    key = rsa.generate_private_key(65537, bits)
    wrapped = wrap.wrap_rsa(SHARE, key.public_key())
    named = access("wrapped", wrappedKey=b64(wrapped))

    assert wrap.unwrap_rsa(wrapped, key) == SHARE
    assert wrap.algorithm_of(key.public_key()) == wrap.algorithm_of_wrap(named) == f"rsa:{bits}"


def test_a_wrap_that_no_key_here_opens_has_no_algorithm():
    """Other types, sizes and curves are unsupported, not guessed."""
    alien = wrap.public_pem(OTHER_CURVE.public_key())
    odd = [
        access("wrapped", wrappedKey=b64(bytes(300))),
        access("remote", wrappedKey=b64(bytes(256))),
        access("ec-wrapped", ephemeralPublicKey=alien),
        access("ec-wrapped"),
    ]

    for one in odd:
        with pytest.raises(FormatError):
            wrap.algorithm_of_wrap(one)
    for key in (OTHER_CURVE.public_key(), rsa.generate_private_key(65537, 1024).public_key()):  # noqa: S505 too short on purpose
        with pytest.raises(UnsupportedAlgorithmError):
            wrap.algorithm_of(key)
    with pytest.raises(UnsupportedAlgorithmError):
        wrap.curve_of("rsa:2048")


def test_rsa_wraps_survive_a_round_trip():
    """What was wrapped to an RSA key unwraps with it."""
    wrapped = wrap.wrap_rsa(SHARE, RSA.public_key())

    assert wrap.unwrap_rsa(wrapped, RSA) == SHARE
    assert len(wrapped) == 256


def test_derives_the_key_as_every_client_does():
    """HKDF-SHA256 over Z with salt SHA-256 of `TDF` and no info; IV, ciphertext, tag."""
    secret = KEK.exchange(ec.ECDH(), EPHEMERAL.public_key())
    key = HKDF(SHA256(), 32, hashlib.sha256(b"TDF").digest(), b"").derive(secret)

    assert wrapped_ec() == IV + AESGCM(key).encrypt(IV, SHARE, None)


def test_every_failure_to_unwrap_looks_the_same():
    """Altered bytes, other keys, curves, lengths and share sizes: one type, one text."""
    wrapped, public = wrapped_ec(), EPHEMERAL.public_key()
    long_share = wrap.agree(KEK, public).encrypt(IV, bytes(31), None)
    short_rsa = rsa.generate_private_key(65537, 1024)  # noqa: S505 too short on purpose
    attempts = [
        lambda: wrap.unwrap_ec(wrapped[:-1] + b"\0", public, KEK),
        lambda: wrap.unwrap_ec(wrapped, KEK.public_key(), KEK),
        lambda: wrap.unwrap_ec(wrapped, OTHER_CURVE.public_key(), KEK),
        lambda: wrap.unwrap_ec(wrapped, public, OTHER_CURVE),
        lambda: wrap.unwrap_ec(wrapped, LARGER.public_key(), KEK),
        lambda: wrap.unwrap_ec(wrapped, public, LARGER),
        lambda: wrap.unwrap_ec(wrapped[:-1], public, KEK),
        lambda: wrap.unwrap_ec(wrapped + b"\0", public, KEK),
        lambda: wrap.unwrap_ec(b"", public, KEK),
        lambda: wrap.unwrap_ec(IV + long_share, public, KEK),
        lambda: wrap.unwrap_with_secret(bytes(32), wrapped),
        lambda: wrap.unwrap_with_secret(bytes(31) + b"\1", wrapped),
        lambda: wrap.unwrap_with_secret(b"\1" * 48, wrapped),
        lambda: wrap.unwrap_with_secret(b"\1" * 33, wrapped),
        lambda: wrap.unwrap_with_secret(bytes(66), wrapped),
        lambda: wrap.unwrap_rsa(bytes(256), RSA),
        lambda: wrap.unwrap_rsa(b"", RSA),
        lambda: wrap.unwrap_rsa(RSA.public_key().encrypt(bytes(31), wrap._OAEP), RSA),  # noqa: SLF001 a wrap that ours refuses to make
        lambda: wrap.unwrap_rsa(bytes(128), short_rsa),
        lambda: wrap.open_answer(wrapped, KEK, None),
        lambda: wrap.ec_from_pem("x"),
        lambda: wrap.ec_from_pem("é"),
        lambda: wrap.ec_from_pem(wrap.public_pem(OTHER_CURVE.public_key())),
        lambda: wrap.ec_from_pem(wrap.public_pem(RSA.public_key())),
    ]
    for attempt in attempts:
        with pytest.raises(wrap.UnwrapError, match=r"^wrapped key does not open$"):
            attempt()


def test_the_error_survives_a_process_boundary():
    """It pickles, text and all."""
    assert str(pickle.loads(pickle.dumps(wrap.UnwrapError()))) == "wrapped key does not open"  # noqa: S301 our own bytes


def test_wraps_only_to_keys_that_are_accepted():
    """Short RSA and other curves are refused, and so is a share that is not 32 bytes."""
    short_rsa = rsa.generate_private_key(65537, 1024)  # noqa: S505 too short on purpose

    with pytest.raises(UnsupportedAlgorithmError):
        wrap.wrap_rsa(SHARE, short_rsa.public_key())
    with pytest.raises(UnsupportedAlgorithmError):
        wrap.wrap_ec(SHARE, OTHER_CURVE.public_key(), ephemeral=OTHER_CURVE, iv=IV)
    with pytest.raises(UnsupportedAlgorithmError):
        wrap.agree(OTHER_CURVE, KEK.public_key())
    with pytest.raises(UnsupportedAlgorithmError):
        wrap.agree(LARGER, KEK.public_key())
    with pytest.raises(ValueError, match="32 bytes"):
        wrap.wrap_rsa(SHARE[1:], RSA.public_key())


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("rsa:2048", "wrapped"), ("rsa:4096", "wrapped"), ("ec:secp256r1", "ec-wrapped"),
     ("ec:secp384r1", "ec-wrapped"), ("ec:secp521r1", "ec-wrapped"), ("aes:256", "wrapped")],
)  # fmt: skip
def test_names_the_type_of_each_algorithm(algorithm, kind):
    """The key access type follows from the algorithm of the key."""
    assert wrap.key_access_type(algorithm) == kind


def test_knows_no_other_algorithm():
    """An algorithm that is not written here has no type."""
    with pytest.raises(UnsupportedAlgorithmError, match=r"^unsupported"):
        wrap.key_access_type("ec:secp256k1")


@pytest.mark.parametrize("client", [RSA, KEK, LARGER], ids=["RSA", "P-256", "P-384"])
def test_an_answer_opens_at_the_client(client):
    """RSA clients get OAEP; EC clients a session key that may seal many shares."""
    session = ec.generate_private_key(getattr(client, "curve", ec.SECP256R1()))
    if client is RSA:
        sealed = wrap.wrap_rsa(SHARE, RSA.public_key())
    else:
        sealed = wrap.seal_share(wrap.agree(session, client.public_key()), SHARE, os.urandom(12))
    pem = wrap.public_pem(session.public_key())

    assert wrap.open_answer(sealed, client, wrap.ec_from_pem(pem)) == SHARE


def cases(vectors, name):
    """Every case of a Wycheproof file with its group."""
    path = vectors / "wycheproof" / f"{name}_test.json"
    for group in json.loads(path.read_bytes())["testGroups"]:
        for case in group["tests"]:
            yield group, case


def test_opens_the_wycheproof_oaep_cases(vectors):
    """Each valid case of our size and label opens; each invalid one is the one error."""
    opened = refused = 0
    for group, case in cases(vectors, "rsa_oaep_2048_sha1_mgf1sha1"):
        key = load_der_private_key(
            bytes.fromhex(group["privateKeyPkcs8"]), None, unsafe_skip_rsa_key_validation=True
        )
        message, wrapped = bytes.fromhex(case["msg"]), bytes.fromhex(case["ct"])
        if case["result"] == "valid" and len(message) == 32 and not case["label"]:
            assert wrap.unwrap_rsa(wrapped, key) == message
            opened += 1
            continue
        with pytest.raises(wrap.UnwrapError):
            wrap.unwrap_rsa(wrapped, key)
        refused += 1

    assert opened + refused == 36
    assert refused > 20


@pytest.mark.parametrize("algorithm", [wrap.EC_P256, wrap.EC_P384])
def test_agrees_with_the_wycheproof_ecdh_cases(vectors, algorithm):
    """Valid points agree on the vector's secret; the invalid ones never yield a cipher."""
    agreed = refused = 0
    for _, case in cases(vectors, f"ecdh_{algorithm[3:]}"):
        key = ec.derive_private_key(int(case["private"], 16), wrap.curve_of(algorithm))
        try:
            peer = load_der_public_key(bytes.fromhex(case["public"]))
            cipher = wrap.agree(key, peer)
        except (ValueError, UnsupportedAlgorithm, UnsupportedAlgorithmError, wrap.UnwrapError):
            refused += 1
            assert case["result"] != "valid" or not int(case["shared"], 16)
            continue
        sealed = wrap.seal_share(cipher, SHARE, IV)
        agreed += 1
        assert case["result"] != "invalid"
        assert wrap.unwrap_with_secret(bytes.fromhex(case["shared"]), sealed) == SHARE

    assert (agreed > 200, refused > 200) == (True, True)


@given(st.lists(SHARES, min_size=1, max_size=4, unique=True))
def test_joins_one_share_of_each_split(shares):
    """The data key is the XOR over splits; alternatives count once."""
    objects = [key_access(share, sid=str(n)) for n, share in enumerate(shares)]
    total = 0
    for share in shares:
        total ^= int.from_bytes(share, "big")
    if not total:
        return
    alternatives = [*objects, objects[0]]

    assert wrap.combine(objects, dict(enumerate(shares))) == total.to_bytes(32, "big")
    assert wrap.combine(alternatives, dict(enumerate(shares))) == total.to_bytes(32, "big")
    assert wrap.combine(alternatives, dict(enumerate([*shares, shares[0]]))) == total.to_bytes(
        32, "big"
    )


def test_absent_and_empty_split_ids_are_one():
    """W10: the golden files of Java mix both for one split."""
    objects = [key_access(), key_access(sid="")]

    assert wrap.combine(objects, {1: SHARE}) == SHARE


@pytest.mark.parametrize(
    "shares",
    [{}, {0: SHARE}, {1: SHARE}, {0: SHARE, 1: SHARE}, {0: SHARE[1:], 1: SHARE},
     {0: SHARE, 1: SHARE + b"\0"}, {0: b"", 1: SHARE}, {0: bytes(32), 1: bytes(32)}],
    ids=repr,
)  # fmt: skip
def test_refuses_split_games(shares):
    """W10: a split without a share, another length, and a sum of zero are errors."""
    with pytest.raises(IntegrityError, match=r"^tampered"):
        wrap.combine([key_access(sid="a"), key_access(sid="b")], shares)


def test_refuses_alternatives_that_disagree():
    """W10: two shares of one split that differ mean that somebody merged splits."""
    with pytest.raises(IntegrityError, match=r"^tampered"):
        wrap.combine([key_access(), key_access()], {0: SHARE, 1: SHARE[::-1]})
