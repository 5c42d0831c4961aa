"""The decision point's keys."""

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from envelock_formats import decision, jose
from envelock_formats.decision import DecidedBy, DecidedObject, Decision
from envelock_pdp.sign import FIRST_KEY, KeyFileError, load_keys, publish_keys

CLAIMS = Decision(
    iss="pdp",
    aud="kas",
    sub="s",
    sub_iss="i",
    sub_tenant="t",
    tenant="t",
    act="open",
    objs=(DecidedObject("o", "p", "k", permit=True),),
    key_sha256="k",
    policy=DecidedBy("b", 1, ()),
    iat=0,
    nbf=0,
    exp=30,
    jti="j",
)


def _write(folder, name, key):
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / name).write_bytes(text)
    (folder / name).chmod(0o600)


def test_makes_the_first_key_and_keeps_it(tmp_path):
    """The file is the owner's alone, and the second start finds it."""
    first, second = load_keys(tmp_path / "secrets"), load_keys(tmp_path / "secrets")

    assert first.kid == second.kid
    assert stat.S_IMODE((tmp_path / "secrets" / FIRST_KEY).stat().st_mode) == 0o600
    assert "signing" not in repr(first)


def test_the_newest_key_signs_and_all_are_published(tmp_path):
    """Rotation: decisions of the older key verify until its file is removed."""
    older = load_keys(tmp_path)
    _write(tmp_path, "pdp-0002.pem", ed25519.Ed25519PrivateKey.generate())
    keys = load_keys(tmp_path)
    publish_keys(keys, tmp_path / "pdp" / "jwks.json")
    published = json.loads((tmp_path / "pdp" / "jwks.json").read_text())["keys"]
    public = {jwk["kid"]: jose.key_from_jwk(jwk) for jwk in published}

    assert [jwk["alg"] for jwk in published] == ["ES256", "EdDSA"]
    for signer in (older, keys):
        token = signer.sign(CLAIMS)
        assert decision.verify(token, public, issuer="pdp", kas_id="kas", now=1) == CLAIMS
    assert keys.kid == published[1]["kid"]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_refuses_keys_that_do_not_sign_here(tmp_path, key):
    """P-256 and Ed25519 only."""
    _write(tmp_path, "pdp-0001.pem", key)

    with pytest.raises(KeyFileError, match="expected P-256 or Ed25519"):
        load_keys(tmp_path)


def test_refuses_a_key_that_others_can_read(tmp_path):
    """The message says what to do."""
    load_keys(tmp_path)
    (tmp_path / FIRST_KEY).chmod(0o640)

    with pytest.raises(KeyFileError, match="chmod 600"):
        load_keys(tmp_path)


def test_refuses_what_is_no_key(tmp_path):
    """A torn or foreign file stops the start."""
    (tmp_path / "pdp-1.pem").write_text("x")
    (tmp_path / "pdp-1.pem").chmod(0o600)

    with pytest.raises(KeyFileError, match="is not a private key"):
        load_keys(tmp_path)
