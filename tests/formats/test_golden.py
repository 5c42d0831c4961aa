"""Files that other clients wrote, opened with the published keys, by the formats alone."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from envelock_formats import wrap
from envelock_formats.framing import from_b64
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.keyaccess import binding_holds
from envelock_formats.tdf.manifest import ManifestError, parse_manifest
from envelock_formats.tdf.segments import SegmentCipher, verify_root

LEGACY = {"no-splitids-java", "small-java-4.3.0", "go-422", "js-422"}
GOLDEN = ["java-0.7.8-legacy", "no-splitids-java", "small-java-4.3.0"]
CLIENTS = [f"clients/{name}" for name in ("go-422", "go-as", "go-ec", "go-small", "js-422", "js-at",
                                          "js-ec", "js-small", "py-small")]  # fmt: skip


@pytest.fixture(scope="module")
def keys(vectors):
    """The published private keys, by key id."""
    found = {}
    for path in ("golden-keys.json", "clients/keys.json"):
        listed = json.loads((vectors / "opentdf" / path).read_bytes())["keys"]
        found |= {
            kid: load_der_private_key(base64.b64decode(der), None) for kid, der in listed.items()
        }
    return found


def unwrapped(key, keys):
    """The share in one key access object, None when its wrap does not open."""
    wrapped, private = from_b64(key.wrappedKey), keys[key.kid]
    try:
        if key.type == "wrapped":
            return wrap.unwrap_rsa(wrapped, private)
        return wrap.unwrap_ec(wrapped, wrap.ec_from_pem(key.ephemeralPublicKey), private)
    except wrap.UnwrapError:
        return None


@pytest.mark.parametrize("name", GOLDEN + CLIENTS)
def test_opens_what_other_clients_wrote(vectors, keys, name):
    """Binding, shares, root and every segment hold; the plaintext is the published one."""
    raw = (vectors / "opentdf" / f"{name}.tdf").read_bytes()
    place = read_container(lambda offset, count: raw[offset : offset + count], len(raw))
    legacy = name.split("/")[-1] in LEGACY
    manifest = parse_manifest(place.manifest, legacy=legacy)
    found = {n: unwrapped(key, keys) for n, key in enumerate(manifest.key_access)}
    shares = {n: share for n, share in found.items() if share is not None}

    dek = wrap.combine(manifest.key_access, shares)
    verify_root(dek, manifest)
    cipher, offset, plain = SegmentCipher(dek, manifest.segment_hash), place.payload_offset, b""
    for segment in manifest.segments:
        out = bytearray(segment.size)
        sealed = memoryview(raw)[offset : offset + segment.sealed_size]
        cipher.open_into(segment, sealed, memoryview(out))
        offset, plain = offset + segment.sealed_size, plain + bytes(out)

    assert manifest.payload_size == place.payload_size
    assert all(
        binding_holds(share, manifest.policy, manifest.key_access[n].policyBinding)
        for n, share in shares.items()
    )
    if name in CLIENTS:
        assert plain == (vectors / "opentdf" / "clients" / "plaintext.txt").read_bytes()
    if legacy:
        with pytest.raises(ManifestError, match="legacy"):
            parse_manifest(place.manifest)


def test_every_published_file_is_opened(vectors):
    """No file of the collection is left out above."""
    root = vectors / "opentdf"

    assert {str(path.relative_to(root).with_suffix("")) for path in root.glob("**/*.tdf")} == {
        *GOLDEN,
        *CLIENTS,
    }
