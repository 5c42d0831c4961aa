"""Segments: IV 12, AES-256-GCM ciphertext, tag 16, under the data key; and the root over them.

GCM says nothing about order, number, or which key was meant, and one ciphertext can be made that
opens under two keys. What binds a file together, and to its key, is the root signature: HMAC-SHA256
under the data key over all segment hashes in order. It is checked before the first byte is opened.

Buffers are the caller's: a file of any size passes through two of them.
"""

import hashlib
import hmac
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envelock_formats.errors import IntegrityError
from envelock_formats.tdf.keyaccess import SHARE_SIZE
from envelock_formats.tdf.manifest import OVERHEAD, Manifest, Segment, SegmentHash
from envelock_formats.wrap import IV_SIZE, TAG_SIZE


class SegmentCipher:
    """Seals and opens the segments of one file under its data key of 32 bytes."""

    __slots__ = ("_aead", "_dek", "_hash")

    def __init__(self, dek: bytes, segment_hash: SegmentHash = "GMAC") -> None:
        if len(dek) != SHARE_SIZE:
            raise IntegrityError("tampered: data key is not 32 bytes")
        self._aead, self._dek, self._hash = AESGCM(dek), dek, segment_hash

    def seal_into(self, iv: bytes, plaintext: memoryview | bytes, out: memoryview) -> Segment:
        """Seal *plaintext* into *out*, which is exactly 28 bytes longer.

        SECURITY: *iv* is 12 bytes that never repeat under one data key; a second time gives away
        the authentication key.
        """
        if len(iv) != IV_SIZE or len(out) != len(plaintext) + OVERHEAD:
            raise ValueError("an IV is 12 bytes, and a sealed segment is 28 bytes longer")
        out[:IV_SIZE] = iv
        self._aead.encrypt_into(iv, plaintext, None, out[IV_SIZE:])
        return Segment(self._segment_hash(out), len(plaintext))

    def open_into(self, segment: Segment, sealed: memoryview, out: memoryview) -> None:
        """Open *sealed* into *out*, which is exactly `segment.size` bytes.

        Raises:
            IntegrityError: The hash, the tag or a length does not match; *out* is then all zeros.
        """
        if len(sealed) != segment.sealed_size or len(out) != segment.size:
            raise IntegrityError("tampered: a segment has another length")
        if not hmac.compare_digest(self._segment_hash(sealed), segment.hash):
            raise IntegrityError("tampered: a segment does not match its hash")
        try:
            self._aead.decrypt_into(sealed[:IV_SIZE], sealed[IV_SIZE:], None, out)
        except InvalidTag as error:
            # SECURITY: OpenSSL decrypts before it compares, so what lies in *out* is not verified.
            out[:] = bytes(len(out))
            raise IntegrityError("tampered: a segment does not open") from error

    def _segment_hash(self, sealed: memoryview) -> bytes:
        if self._hash == "GMAC":
            return bytes(sealed[-TAG_SIZE:])
        return hmac.digest(self._dek, sealed, hashlib.sha256)


def root_signature(dek: bytes, hashes: Iterable[bytes], *, legacy: bool = False) -> bytes:
    """HMAC-SHA256 over all segment hashes in order: 32 bytes.

    Args:
        dek: Data key.
        hashes: Raw segment hashes.
        legacy: Version 4.2.2 and older, where each hash enters as lower-case hex.
    """
    aggregate = b"".join(hashes)
    return hmac.digest(dek, aggregate.hex().encode() if legacy else aggregate, hashlib.sha256)


def verify_root(dek: bytes, manifest: Manifest) -> None:
    """Check that *dek* signed this list of segments; compared in constant time.

    Raises:
        IntegrityError: It did not: another key, or a list that was changed. Which one is not told.
    """
    hashes = (segment.hash for segment in manifest.segments)
    expected = root_signature(dek, hashes, legacy=manifest.legacy)
    if not hmac.compare_digest(expected, manifest.root):
        raise IntegrityError("tampered: root signature does not match")
