"""Digests and associated data: a label, then length-prefixed fields.

`framed` is injective for a fixed label: two different lists of fields never give the same bytes,
so `("a", "bc")` and `("ab", "c")` cannot be confused. No label is a prefix of another.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable

from envelock_formats.errors import FormatError

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")


def framed(label: str, *fields: bytes) -> bytes:
    """Return *label* in ASCII, then each field as its length (u32 big-endian) and its bytes."""
    return label.encode("ascii") + b"".join(
        len(field).to_bytes(4, "big") + field for field in fields
    )


def digest(label: str, *fields: bytes) -> bytes:
    """SHA-256 over `framed(label, *fields)`: 32 bytes."""
    return hashlib.sha256(framed(label, *fields)).digest()


def b64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_b64url(text: str) -> bytes:
    """Decode canonical base64url without padding; `FormatError` for any other spelling."""
    if not _BASE64URL.match(text) or len(text) % 4 == 1:
        raise FormatError("not base64url without padding")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64url(raw) != text:  # spare bits may hide a second spelling
        raise FormatError("not canonical base64url")
    return raw


def b64(raw: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(raw).decode()


def from_b64(text: str) -> bytes:
    """Decode canonical standard base64 with padding; `FormatError` for any other spelling."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise FormatError("not base64") from error
    if b64(raw) != text:
        raise FormatError("not canonical base64")
    return raw


def count(items: Iterable[object]) -> bytes:
    """The number of *items* as a field: u32 big-endian."""
    return sum(1 for _ in items).to_bytes(4, "big")
