"""One ciphertext and tag that AES-GCM opens under two keys, to other plaintexts (W6).

The tag is linear in the ciphertext once a key is fixed, so one block of it can be solved for such
that both keys give one tag: Dodis et al., "Fast Message Franking", CRYPTO 2018, section 6.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_ONE = 1 << 127  # of GF(2^128), in GCM's order of bits
_REDUCE = 0xE1 << 120


def colliding_segment(first: bytes, second: bytes, iv: bytes) -> bytes:
    """A sealed segment of 12 + 32 + 16 bytes that opens under both 32-byte keys.

    With ciphertext blocks C1, C2 and the length block L, a tag is
    `C1 H^3 + C2 H^2 + L H + E(J0)`. C1 is fixed, C2 solves for equal tags.
    """
    c1, length = int.from_bytes(b"two keys, a file", "big"), 256  # bits of ciphertext
    terms = [_terms(key, iv, c1, length) for key in (first, second)]
    slope = terms[0][0] ^ terms[1][0]
    c2 = _times(terms[0][1] ^ terms[1][1], _inverse(slope))
    tags = {_times(c2, square) ^ rest for square, rest in terms}
    [tag] = tags
    return iv + b"".join(number.to_bytes(16, "big") for number in (c1, c2, tag))


def _terms(key: bytes, iv: bytes, c1: int, length: int) -> tuple[int, int]:
    """H^2, and everything of the tag that does not depend on C2."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 single blocks, as GCM
    h = int.from_bytes(block.update(bytes(16)), "big")
    j0 = int.from_bytes(block.update(iv + b"\0\0\0\1"), "big")
    square = _times(h, h)
    return square, _times(c1, _times(square, h)) ^ _times(length, h) ^ j0


def _times(x: int, y: int) -> int:
    """The product in GF(2^128): SP 800-38D section 6.3."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = (y >> 1) ^ (_REDUCE if y & 1 else 0)
    return product


def _inverse(x: int) -> int:
    """x^(2^128 - 2)."""
    found, power = _ONE, x
    for _ in range(127):
        power = _times(power, power)
        found = _times(found, power)
    return found
