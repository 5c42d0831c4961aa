"""Key access objects: the policy binding, and the digest that names wrapped keys."""

import hashlib
import hmac

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from formats.sealing import DEK, POLICY, key_access
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64
from envelock_formats.tdf.keyaccess import (
    KeyAccess,
    PolicyBinding,
    bind_policy,
    binding_holds,
    binding_mac,
    ephemeral_key,
    keys_sha256,
    object_id,
)

MAC = hmac.digest(DEK, POLICY.encode(), "sha256")


@given(st.binary(min_size=32, max_size=32), st.text("abcd"))
def test_a_binding_holds_for_its_own_share_and_policy_alone(share, policy):
    """Another share or another policy is not bound."""
    binding = bind_policy(share, policy)

    assert binding_holds(share, policy, binding)
    assert not binding_holds(share, policy + "a", binding)
    assert not binding_holds(hashlib.sha256(share).digest(), policy, binding)


@pytest.mark.parametrize(
    "binding",
    [
        PolicyBinding(b64(MAC.hex().encode()), alg="HS256"),
        PolicyBinding(b64(MAC.hex().encode())),
        PolicyBinding(b64(MAC.hex().encode()), algorithm="HS256"),
        PolicyBinding(b64(MAC), alg="HS256"),
        b64(MAC.hex().encode()),
    ],
)
def test_reads_every_form_of_a_binding(binding):
    """W15: hex or raw, an object or a bare string, with the algorithm or without."""
    assert binding_holds(DEK, POLICY, binding)


@pytest.mark.parametrize(
    "binding",
    [
        PolicyBinding(b64(MAC.hex().encode()), alg="GMAC"),
        PolicyBinding(b64(MAC.hex().encode()), alg="HS256", algorithm="none"),
        PolicyBinding(b64(MAC.hex().upper().encode())),
        PolicyBinding(b64(MAC[:-1])),
        PolicyBinding(b64(MAC + b"\0")),
        PolicyBinding(MAC.hex()),
        PolicyBinding("!"),
        PolicyBinding(""),
    ],
)
def test_refuses_other_bindings(binding):
    """W15: another algorithm, upper case, another length or bad base64 is malformed."""
    with pytest.raises(FormatError):
        binding_mac(binding)


def pem(key):
    """The PEM text of the key's public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    "changes",
    [{"type": "ec-wrapped"}, {"kid": "x"}, {"sid": "1"}, {"wrappedKey": b64(b"x")},
     {"policyBinding": bind_policy(DEK, "x")},
     {"ephemeralPublicKey": pem(ec.generate_private_key(ec.SECP256R1()))}],
)  # fmt: skip
def test_what_a_key_server_uses_moves_the_digest(changes):
    """A decision about one wrap cannot be used for another."""
    assert keys_sha256([key_access()]) != keys_sha256(
        [msgspec.structs.replace(key_access(), **changes)]
    )


@pytest.mark.parametrize(
    "changes",
    [{"url": "http://x"}, {"encryptedMetadata": "x"}, {"schemaVersion": None}, {"sid": ""},
     {"policyBinding": b64(MAC.hex().encode())}],
)  # fmt: skip
def test_what_clients_rewrite_does_not_move_the_digest(changes):
    """Address, metadata and the spelling of a binding may change on the way."""
    changed = msgspec.structs.replace(key_access(), **changes)

    assert keys_sha256([key_access()]) == keys_sha256([changed])


def test_names_an_object_by_its_keys():
    """Order and number of the objects count."""
    one, two = key_access(sid="1"), key_access(sid="2")

    assert object_id([one]) == "sha256:" + keys_sha256([one]).hex()
    assert len({object_id(keys) for keys in ([one], [two], [one, two], [two, one], [])}) == 5


def test_ignores_members_it_does_not_know():
    """Other clients may add members; a missing one is an error."""
    found = msgspec.convert(msgspec.to_builtins(key_access()) | {"new": 1}, KeyAccess)

    assert found == key_access()
    assert found.split == ""


@pytest.mark.parametrize("text", ["x", "é", pem(ed25519.Ed25519PrivateKey.generate())])
def test_refuses_other_ephemeral_keys(text):
    """Only an EC public key in PEM is one."""
    with pytest.raises(FormatError):
        ephemeral_key(text)
