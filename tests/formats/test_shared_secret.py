"""Shared secrets: any bytes that are long enough, and no key of another kind."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats import jose
from envelock_formats.tdf.shared_secret import Secret

EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
PUBLIC_FORMS = {
    f"{name} {kind}": make(key.public_key())
    for kind, key in (("EC", EC), ("RSA", RSA), ("Ed25519", ed25519.Ed25519PrivateKey.generate()))
    for name, make in {
        "PEM": lambda key: key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "DER": lambda key: key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "SSH": lambda key: key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    }.items()
}
PRIVATE_FORMS = {
    f"{name} {kind}": key.private_bytes(encoding, form, NoEncryption())
    for kind, key in (("EC", EC), ("RSA", RSA))
    for name, encoding, form in (
        ("PKCS8", Encoding.DER, PrivateFormat.PKCS8),
        ("traditional", Encoding.DER, PrivateFormat.TraditionalOpenSSL),
        ("OpenSSH", Encoding.PEM, PrivateFormat.OpenSSH),
    )
}
KEYS = PUBLIC_FORMS | PRIVATE_FORMS | {
    "PKCS1": RSA.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1),
    "JWK": json.dumps(jose.public_jwk(EC.public_key())).encode(),
    "JWK set": json.dumps({"keys": [jose.public_jwk(EC.public_key())]}).encode(),
}  # fmt: skip
UNMARKED = {"PKCS1", "traditional EC", "traditional RSA"}  # found where they begin, or not at all
WRAPPINGS = {
    "bare": lambda key: key,
    "behind a byte order mark": lambda key: "\ufeff".encode() + key,
    "behind a comment": lambda key: b"# the key of our author\n" + key,
    "before a line's end": lambda key: key + b"\r\n",
    "as UTF-16": lambda key: key.decode("latin-1").encode("utf-16"),
    "as base64": base64.b64encode,
}


@pytest.mark.parametrize(("name", "wrapping"), [
    (name, wrapping) for name in KEYS for wrapping in WRAPPINGS
    if name not in UNMARKED or wrapping in {"bare", "before a line's end", "as base64"}
])  # fmt: skip
def test_a_key_is_not_a_secret(name, wrapping):
    """Whatever its form: the bytes of a public key are known to everybody."""
    with pytest.raises(ValueError, match="is no key"):
        Secret(WRAPPINGS[wrapping](KEYS[name]))


@given(st.binary(min_size=32, max_size=200))
def test_a_secret_is_any_other_32_bytes_or_more(value):
    """Taken as they are; shown nowhere."""
    secret = Secret(value)

    assert secret.value == value
    assert repr(secret) == "Secret()"


def test_a_short_secret_is_none():
    """Nor is text one."""
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Secret(bytes(31))
    with pytest.raises(TypeError):
        Secret("x" * 32)
