"""Digests and associated data: a label, then length-prefixed fields.

`framed` is injective for a fixed label: two different lists of fields never give the same bytes,
so `("a", "bc")` and `("ab", "c")` cannot be confused. No label is a prefix of another.
"""

import binascii
import hashlib
from collections.abc import Iterable

from envelock_formats.errors import FormatError

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/", b"+/\x00\x00")
_PADDING = (b"", b"", b"==", b"=")  # by length modulo 4


def framed(label: str, *fields: bytes) -> bytes:
    """Return *label* in ASCII, then each field as its length (u32 big-endian) and its bytes."""
    parts = [label.encode("ascii")]
    for field in fields:
        parts += (len(field).to_bytes(4, "big"), field)
    return b"".join(parts)


def digest(label: str, *fields: bytes) -> bytes:
    """SHA-256 over `framed(label, *fields)`: 32 bytes."""
    return hashlib.sha256(framed(label, *fields)).digest()


def b64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=").decode()


def from_b64url(text: str) -> bytes:
    """Decode canonical base64url without padding; `FormatError` for any other spelling."""
    try:
        spelled = text.encode("ascii").translate(_FROM_URL) + _PADDING[len(text) % 4]
        raw = binascii.a2b_base64(spelled, strict_mode=True)
    except ValueError as error:
        raise FormatError("not base64url without padding") from error
    tail = raw[len(raw) // 3 * 3 :]  # spare bits in it may hide a second spelling
    if len(text) != (len(raw) * 4 + 2) // 3 or not text.endswith(b64url(tail)):
        raise FormatError("not canonical base64url")
    return raw


def b64(raw: bytes) -> str:
    """Standard base64 with padding."""
    return binascii.b2a_base64(raw, newline=False).decode()


def from_b64(text: str) -> bytes:
    """Decode canonical standard base64 with padding; `FormatError` for any other spelling."""
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise FormatError("not base64") from error
    tail = raw[len(raw) // 3 * 3 :]  # spare bits in it may hide a second spelling
    if len(text) != (len(raw) + 2) // 3 * 4 or not text.endswith(b64(tail)):
        raise FormatError("not canonical base64")
    return raw


def count(items: Iterable[object]) -> bytes:
    """The number of *items* as a field: u32 big-endian."""
    return sum(1 for _ in items).to_bytes(4, "big")
