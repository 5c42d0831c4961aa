"""Encrypted metadata: a short text beside each wrapped share, under that share.

In a key access object it stands as base64 of `{"ciphertext": base64, "iv": base64}`, where the
ciphertext is IV 12, AES-256-GCM ciphertext, tag 16, without associated data. Nothing but the share
authenticates it: the root signature does not cover it, so it can be removed, and exchanged by
anybody who could ever open the file.
"""

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envelock_formats.canonical import decode, encode
from envelock_formats.errors import FormatError, IntegrityError
from envelock_formats.framing import b64, from_b64
from envelock_formats.wrap import IV_SIZE, checked_share

MAX_METADATA = 64 * 1024  # bytes of plaintext that are written
_MAX_SEALED = 1 << 18  # bytes of JSON, as a manifest bounds it


class _Sealed(msgspec.Struct, frozen=True):
    ciphertext: str
    iv: str = ""


def seal_metadata(share: bytes, metadata: bytes, iv: bytes) -> str:
    """Encrypt *metadata* under a 32-byte *share*; *iv* is 12 fresh random bytes.

    Raises:
        FormatError: More than 64 KiB.
    """
    if len(metadata) > MAX_METADATA:
        raise FormatError(f"metadata of {len(metadata)} bytes, at most {MAX_METADATA}")
    sealed = iv + AESGCM(checked_share(share)).encrypt(iv, metadata, None)
    return b64(encode({"ciphertext": b64(sealed), "iv": b64(iv)}))


def open_metadata(share: bytes, text: str) -> bytes:
    """Decrypt the `encryptedMetadata` of a key access object.

    Raises:
        IntegrityError: It is malformed, or does not open under *share*.
    """
    try:
        found = decode(from_b64(text), _Sealed, max_bytes=_MAX_SEALED)
        sealed = from_b64(found.ciphertext)
        return AESGCM(checked_share(share)).decrypt(sealed[:IV_SIZE], sealed[IV_SIZE:], None)
    except (FormatError, InvalidTag, ValueError) as error:  # ValueError: too short for an IV
        raise IntegrityError("tampered: encrypted metadata does not open") from error
