"""Segments and the root signature over them."""

import hashlib
import hmac
import itertools
import json

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from formats.sealing import DEK, manifest_of, seal_pieces
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.errors import IntegrityError
from envelock_formats.tdf.manifest import Segment
from envelock_formats.tdf.segments import SegmentCipher, root_signature, verify_root

PIECES = [b"one", b"two", b"three"]


def opened(cipher, segment, sealed):
    """The plaintext of one segment."""
    out = bytearray(segment.size)
    cipher.open_into(segment, memoryview(sealed), memoryview(out))
    return bytes(out)


@pytest.mark.parametrize("kind", ["GMAC", "HS256"])
@given(st.binary(max_size=100), st.binary(min_size=12, max_size=12))
def test_segments_survive_a_round_trip(kind, plaintext, iv):
    """IV, ciphertext and tag open to what was sealed; the hash is of the chosen kind."""
    cipher, out = SegmentCipher(DEK, kind), bytearray(len(plaintext) + 28)
    segment = cipher.seal_into(iv, plaintext, memoryview(out))

    assert out == iv + AESGCM(DEK).encrypt(iv, plaintext, None)
    assert segment.hash == (out[-16:] if kind == "GMAC" else hmac.digest(DEK, out, "sha256"))
    assert opened(cipher, segment, out) == plaintext


@pytest.mark.parametrize("kind", ["GMAC", "HS256"])
@pytest.mark.parametrize("position", [0, 11, 12, 14, -17, -16, -1])
def test_no_flipped_bit_opens(kind, position):
    """IV, ciphertext and tag are authenticated, and nothing unverified stays in the buffer."""
    cipher, sealed = SegmentCipher(DEK, kind), bytearray(40 + 28)
    segment = cipher.seal_into(bytes(12), b"secret data " * 3 + b"last", memoryview(sealed))
    sealed[position] ^= 1
    out = bytearray(segment.size)

    with pytest.raises(IntegrityError, match=r"^tampered"):
        cipher.open_into(segment, memoryview(sealed), memoryview(out))
    assert not any(out)


def test_the_tag_in_the_file_is_the_one_in_the_list():
    """W5: a segment that opens under the key but is not the listed one is refused."""
    cipher = SegmentCipher(DEK)
    _, (listed, _) = seal_pieces([b"one", b"two"])
    payload, (_, other) = seal_pieces([b"one", b"two"])

    assert opened(cipher, other, payload[31:]) == b"two"
    with pytest.raises(IntegrityError, match="hash"):
        opened(cipher, listed, payload[31:])


def test_refuses_buffers_of_other_lengths():
    """Lengths are those of the list; a slip of the caller is caught before any IV is used."""
    cipher = SegmentCipher(DEK)
    payload, (segment,) = seal_pieces([b"one"])

    for sealed, out in ((payload[:-1], 3), (payload + b"\0", 3), (payload, 2), (payload, 4)):
        with pytest.raises(IntegrityError, match="length"):
            cipher.open_into(segment, memoryview(sealed), memoryview(bytearray(out)))
    with pytest.raises(ValueError, match="28 bytes"):
        cipher.seal_into(bytes(12), b"x", memoryview(bytearray(28)))
    with pytest.raises(ValueError, match="12 bytes"):
        cipher.seal_into(bytes(11), b"x", memoryview(bytearray(29)))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_refuses_data_keys_of_other_lengths(size):
    """A data key is 32 bytes."""
    with pytest.raises(IntegrityError):
        SegmentCipher(bytes(size))


def test_the_root_signs_the_hashes_in_order():
    """HMAC-SHA256 over the raw hashes, or over their hex in legacy files."""
    hashes = [bytes([n]) * 16 for n in range(3)]

    assert root_signature(DEK, hashes) == hmac.digest(DEK, b"".join(hashes), hashlib.sha256)
    assert root_signature(DEK, hashes, legacy=True) == hmac.digest(
        DEK, b"".join(one.hex().encode() for one in hashes), hashlib.sha256
    )


ORDERS = [
    order
    for count in range(5)
    for order in itertools.product(range(3), repeat=count)
    if order != (0, 1, 2)
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_root_holds_for_one_list_alone(order):
    """W3: dropped, doubled, swapped, or no segments at all do not verify."""
    _, segments = seal_pieces(PIECES)
    made = manifest_of(segments)
    changed = manifest_of([segments[index] for index in order], b"x" * 32)
    forged = type(made)(made.policy, made.key_access, changed.segments, made.root)

    verify_root(DEK, made)
    with pytest.raises(IntegrityError, match=r"^tampered"):
        verify_root(DEK, forged)


@given(st.binary(min_size=32, max_size=32).filter(lambda key: key != DEK))
def test_the_root_holds_for_one_key_alone(key):
    """W11: whatever other share a hostile server returns, nothing is opened under it."""
    _, segments = seal_pieces(PIECES)

    with pytest.raises(IntegrityError, match="root"):
        verify_root(key, manifest_of(segments))


def ghash_key(key):
    """H of GCM under *key*: the encryption of a zero block."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 a GCM building block
    return int.from_bytes(encryptor.update(bytes(16)), "big")


def multiply(one, other):
    """The product in GF(2^128), in GCM's bit order (SP 800-38D section 6.3)."""
    product, shifted = 0, other
    for bit in range(127, -1, -1):
        if one >> bit & 1:
            product ^= shifted
        shifted = shifted >> 1 ^ (0xE1 << 120 if shifted & 1 else 0)
    return product


def power(base, exponent):
    """*base* to the *exponent* in GF(2^128)."""
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = multiply(result, base)
        base, exponent = multiply(base, base), exponent >> 1
    return result


def keystream_mask(key, iv):
    """What the tag is XORed with: the encryption of the first counter block."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 a GCM building block
    return int.from_bytes(encryptor.update(iv + b"\0\0\0\1"), "big")


def two_key_segment(first, second, iv=bytes(12)):
    """A segment of 32 bytes whose one tag is valid under both keys.

    With blocks (c, 0) the tag under a key is `c H^3 xor L H xor mask`, so equal tags are one linear
    equation for c.
    """
    length = 32 * 8
    h1, h2 = ghash_key(first), ghash_key(second)
    cubes = power(h1, 3) ^ power(h2, 3)
    rest = multiply(length, h1 ^ h2) ^ keystream_mask(first, iv) ^ keystream_mask(second, iv)
    block = multiply(rest, power(cubes, (1 << 128) - 2))
    tag = multiply(block, power(h1, 3)) ^ multiply(length, h1) ^ keystream_mask(first, iv)
    return iv + block.to_bytes(16, "big") + bytes(16) + tag.to_bytes(16, "big")


def test_a_segment_that_opens_under_two_keys_is_bound_to_one():
    """W6: GCM does not commit to its key, the root signature does."""
    first, second = b"1" * 32, b"2" * 32
    sealed = two_key_segment(first, second)
    segment = Segment(sealed[-16:], 32)
    made = manifest_of([segment], first)

    one, other = (opened(SegmentCipher(key), segment, sealed) for key in (first, second))

    assert one != other
    verify_root(first, made)
    with pytest.raises(IntegrityError):
        verify_root(second, made)


def test_opens_the_wycheproof_gcm_cases(vectors):
    """Cases of our key and IV size without associated data open exactly when they are valid."""
    found = json.loads((vectors / "wycheproof" / "aes_gcm_test.json").read_bytes())
    seen = {"valid": 0, "invalid": 0}
    for group in found["testGroups"]:
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        for case in (case for case in group["tests"] if not case["aad"]):
            sealed = bytes.fromhex(case["iv"] + case["ct"] + case["tag"])
            cipher, segment = SegmentCipher(bytes.fromhex(case["key"])), Segment(sealed[-16:], 0)
            segment = Segment(segment.hash, len(sealed) - 28)
            seen[case["result"]] += 1
            if case["result"] == "valid":
                assert opened(cipher, segment, sealed).hex() == case["msg"]
                continue
            with pytest.raises(IntegrityError):
                opened(cipher, segment, sealed)

    assert min(seen.values()) > 10
