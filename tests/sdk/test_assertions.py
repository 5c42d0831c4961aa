"""What a caller demands of the assertions in a file: checked before the first byte, or earlier."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from formats.sealing import DEK, pack, seal_pieces
from sdk.sealing_plans import plan

from envelock import (
    Assertion,
    ConfigError,
    Demands,
    FormatError,
    Secret,
    Statement,
    TamperedError,
)
from envelock.assertions import signing_key, verifying_key, with_checked_key
from envelock.commands.asserting import assertions_of, keys_of
from envelock.reader import SealedFile
from envelock.writer import seal_bytes
from envelock_formats.tdf.assertions import MAX_ASSERTIONS, aggregate, write_assertion
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.manifest import parse_manifest
from envelock_formats.wrap import public_pem

SAID = Statement("json", "urn:x", '{"ocl":"secret"}')
EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
PRIVATE = {"encoding": Encoding.PEM, "format": PrivateFormat.PKCS8,
           "encryption_algorithm": NoEncryption()}  # fmt: skip
DATA = b"negative"


def sealed(*assertions):
    """A sealed file with these assertions."""
    return seal_bytes(DATA, plan(assertions=assertions))


def altered(raw, change):
    """The file with what *change* makes of its list of assertions."""
    place = read_container(lambda start, count: raw[start : start + count], len(raw))
    manifest = json.loads(place.manifest)
    manifest["assertions"] = change(manifest["assertions"])
    payload = raw[place.payload_offset : place.payload_offset + place.payload_size]
    return pack(payload, json.dumps(manifest).encode())


def opened(raw, **demands):
    """A reader of *raw* under the data key."""
    return SealedFile.open(raw, demands=Demands(**demands)).unlock(DEK)


def test_every_assertion_is_verified_and_told():
    """By order, with who signed: anybody with the data key, or the one that was named."""
    raw = sealed(Assertion("a", SAID), Assertion("b", SAID, key=EC), Assertion("c", SAID, key=RSA))

    with opened(raw, keys={"b": EC.public_key(), "c": RSA.public_key()}) as reader:
        assert [(one.id, one.verified, one.signer) for one in reader.assertions] == [
            ("a", True, "data key"), ("b", True, "named key"), ("c", True, "named key"),
        ]  # fmt: skip
        assert reader.assertions[0].statement == SAID
        assert reader.read() == DATA


def test_none_are_read_from_a_file_without():
    """The usual file."""
    with opened(sealed()) as reader:
        assert reader.assertions == ()


REFUSED = {
    "a key that nobody named": ([Assertion("a", SAID, key=EC)], list, {}, "none was named"),
    "another key than named": (
        [Assertion("a", SAID, key=EC)], list, {"keys": {"a": RSA}}, "does not verify"),
    "the data key where an author is named": (
        [Assertion("a", SAID)], list, {"keys": {"a": EC}}, "does not verify"),
    "one that was removed": (
        [Assertion("a", SAID)], lambda found: found[1:], {"required_assertions": ["a"]}, "missing"),
    "one that was never there": ([], list, {"required_assertions": ["a"]}, "missing"),
    "an altered statement": (
        [Assertion("a", SAID)],
        lambda found: [found[0] | {"statement": found[0]["statement"] | {"value": "x"}}],
        {}, "does not verify"),
    "one without a binding": (
        [Assertion("a", SAID)], lambda _: [{"id": "a"}], {}, "bound by nothing"),
    "one that is repeated": ([Assertion("a", SAID)], lambda found: found * 2, {}, "twice"),
    "what is none": ([], lambda _: [5], {}, "not a JSON object"),
    "one under another name": (
        [Assertion("a", SAID)], lambda found: [found[0] | {"id": "b"}],
        {"required_assertions": ["b"]}, "does not verify"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_before_the_first_byte(case):
    """No reader is given at all."""
    assertions, change, demands, words = REFUSED[case]
    raw = sealed(*assertions)
    raw = altered(raw, change) if assertions else altered(altered_in(raw), change)

    with pytest.raises(TamperedError, match=words) as caught:
        opened(raw, **demands)

    assert caught.value.code == "assertion"


def altered_in(raw):
    """The file with an empty list of assertions, as some clients write it."""
    place = read_container(lambda start, count: raw[start : start + count], len(raw))
    manifest = json.loads(place.manifest) | {"assertions": []}
    payload = raw[place.payload_offset : place.payload_offset + place.payload_size]
    return pack(payload, json.dumps(manifest).encode())


def test_one_of_another_file_is_refused():
    """It is bound to the segments of its own file."""
    foreign = write_assertion(Assertion("a", SAID), aggregate(seal_pieces([b"other"])[1]), DEK)

    with pytest.raises(TamperedError, match="another payload"):
        opened(altered(sealed(Assertion("a", SAID)), lambda _: [foreign]))


def test_what_is_missing_is_noticed_before_anybody_is_asked():
    """When the file is opened, not when its key is there."""
    with pytest.raises(TamperedError, match="'a': is missing"):
        SealedFile.open(sealed(), demands=Demands(["a"]))
    with pytest.raises(FormatError, match="assertions"):
        SealedFile.open(altered(sealed(Assertion("a", SAID)), lambda one: one * 300))
    assert MAX_ASSERTIONS < 300


def test_problems_can_be_listed_instead():
    """Not of those that are required."""
    raw = altered(sealed(Assertion("a", SAID), Assertion("b", SAID)),
                  lambda found: [found[0], found[1] | {"type": "handling"}, 5])  # fmt: skip

    with opened(raw, strict=False) as reader:
        assert [one.verified for one in reader.assertions] == [True, False, False]
        assert "does not verify" in reader.assertions[1].problem
        assert reader.read() == DATA
    with pytest.raises(TamperedError, match="'b'"):
        opened(raw, strict=False, required_assertions=["b"])


class TestKeys:
    """Where keys come from."""

    def test_files_texts_and_objects(self, tmp_path):
        """Each names one key."""
        pem = EC.private_bytes(**PRIVATE)
        (tmp_path / "key.pem").write_bytes(pem)
        public = public_pem(EC.public_key()).encode()

        der = EC.private_bytes(**PRIVATE | {"encoding": Encoding.DER})
        spki = EC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        shared = Secret(bytes(range(32)))

        for key in (EC, pem, der, tmp_path / "key.pem"):
            assert signing_key(key).private_numbers() == EC.private_numbers()
            assert verifying_key(key) == EC.public_key()
        for key in (EC.public_key(), public, spki, b"# ours\n" + public):
            assert verifying_key(key) == EC.public_key()
        assert verifying_key(shared) is signing_key(shared) is shared
        assert with_checked_key(Assertion("a", SAID, key=pem)).key.curve.name == "secp256r1"

    @pytest.mark.parametrize("key", [
        b"short", bytes(range(32)), b"x" * 70_000, 5, b"-----BEGIN PUBLIC KEY-----\nx", "text",
        ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024),  # noqa: S505 refused
        dsa.generate_private_key(1024).private_bytes(**PRIVATE),  # noqa: S505 refused
    ], ids=["short", "secret", "long", "number", "broken", "text", "P-384", "RSA 1024",
            "DSA"])  # fmt: skip
    def test_others_are_refused(self, key):
        """Before anything is sealed or opened under them."""
        with pytest.raises(ConfigError):
            verifying_key(key)

    def test_a_public_key_does_not_sign(self):
        """Nor is its text taken for a secret."""
        for key in (EC.public_key(), public_pem(EC.public_key()).encode()):
            with pytest.raises(ConfigError, match="public"):
                signing_key(key)

    def test_a_file_that_is_too_long_is_not_read_in_part(self, tmp_path):
        """Neither as a key nor as a secret."""
        (tmp_path / "long").write_bytes(bytes(64 * 1024 + 1))

        with pytest.raises(ConfigError, match="more than"):
            verifying_key(tmp_path / "long")
        with pytest.raises(ConfigError, match="more than"):
            keys_of([f"a=secret:{tmp_path / 'long'}"])

    def test_a_missing_file_is_named(self, tmp_path):
        """With its path."""
        with pytest.raises(ConfigError, match=r"no\.pem"):
            Demands(keys={"a": tmp_path / "no.pem"})

    def test_one_text_is_no_list(self):
        """`"ab"` would be two ids."""
        with pytest.raises(ConfigError, match="list of ids"):
            Demands("ab")


PEM, DER, SSH = (
    EC.public_key().public_bytes(encoding, form)
    for encoding, form in (
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.OpenSSH, PublicFormat.OpenSSH),
    )
)
FORMS = {
    "DER": DER,
    "PEM behind a comment": b"# the key of our author\n" + PEM,
    "PEM behind a byte order mark": "\ufeff".encode() + PEM,
    "SSH": SSH,
    "PEM": PEM,
}


class TestForgery:
    """The bytes of an author's public key, which everybody has, sign nothing."""

    @pytest.mark.parametrize("form", FORMS)
    def test_an_hmac_under_a_public_key_is_refused(self, tmp_path, form):
        """Named by bytes, by path or on the command line: as that key, or not at all."""
        known, path = FORMS[form], tmp_path / "author"
        path.write_bytes(known)
        raw = sealed(Assertion("a", SAID))
        place = read_container(lambda start, count: raw[start : start + count], len(raw))
        sums = aggregate(parse_manifest(place.manifest).segments)
        forged = altered(raw, lambda _: [write_assertion(Assertion("a", SAID), sums, known)])

        for key in (known, path, *keys_of([f"a={path}"]).values()):
            with pytest.raises((ConfigError, TamperedError)) as caught:
                opened(forged, keys={"a": key}, required_assertions=["a"])
            assert form != "SSH" or isinstance(caught.value, ConfigError)
        with pytest.raises(ConfigError, match="is no key"):
            keys_of([f"a=secret:{path}"])
        with pytest.raises(ValueError, match="is no key"):
            Secret(known)


class TestSecrets:
    """Shared by two people, under a name of their own."""

    def test_signs_and_verifies(self, tmp_path):
        """In Python, and on the command line as `ID=secret:FILE`."""
        (tmp_path / "s").write_bytes(bytes(range(40)))
        shared = Secret(bytes(range(40)))
        [named] = keys_of([f"a=secret:{tmp_path / 's'}"]).values()

        for key in (shared, named):
            with opened(sealed(Assertion("a", SAID, key=shared)), keys={"a": key}) as reader:
                assert reader.assertions[0].signer == "named key"
        with pytest.raises(TamperedError, match="does not verify"):
            opened(sealed(Assertion("a", SAID, key=shared)), keys={"a": Secret(bytes(32))})
        with pytest.raises(TamperedError, match="does not verify"):
            opened(sealed(Assertion("a", SAID)), keys={"a": shared})

    @pytest.mark.parametrize(("alg", "key", "signs"), [
        ("HS256", "s" * 32, "Secret"), ("ES256", EC.private_bytes(**PRIVATE).decode(), "EC"),
        ("ES256", "s" * 32, None), ("HS256", EC.private_bytes(**PRIVATE).decode(), None),
        ("HS256", PEM.decode(), None), ("HS256", "short", None), ("ES256", PEM.decode(), None),
    ], ids=["secret", "private", "secret as ES256", "private as HS256", "public as HS256",
            "short", "public"])  # fmt: skip
    def test_a_key_in_a_statement_is_what_it_says(self, tmp_path, alg, key, signs):
        """HS256 alone makes it a secret."""
        said = {"id": "a", "statement": {"format": "f", "schema": "s", "value": "v"}}
        (tmp_path / "a").write_text(json.dumps(said | {"signingKey": {"alg": alg, "key": key}}))

        if signs is None:
            with pytest.raises(ConfigError):
                assertions_of([tmp_path / "a"], [])
            return
        [made] = assertions_of([tmp_path / "a"], [])
        assert type(made.key).__name__.startswith(signs)

    def test_what_is_missing_or_short_is_refused(self, tmp_path):
        """With its path."""
        (tmp_path / "s").write_bytes(bytes(31))
        for name in ("s", "none"):
            with pytest.raises(ConfigError, match=str(tmp_path / name)):
                keys_of([f"a=secret:{tmp_path / name}"])


def test_ids_are_unique_when_sealing():
    """Two of one id would be refused by every reader here."""
    with pytest.raises(ConfigError, match="same id"):
        plan(assertions=(Assertion("a", SAID), Assertion("a", SAID)))
    with pytest.raises(ConfigError, match="more than"):
        plan(assertions=tuple(Assertion(str(n), SAID) for n in range(257)))
