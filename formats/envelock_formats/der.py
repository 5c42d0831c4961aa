"""The little DER that post-quantum keys and wraps need (X.690 section 10), read strictly.

Lengths are definite and as short as they can be, so one value has one spelling: what was read and
is written again gives the same bytes. Tags of one byte alone are known.
"""

from typing import Final

from envelock_formats.errors import FormatError

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
SEQUENCE: Final = 0x30
MAX_SIZE = 1 << 16  # bytes of content
_SHORT = 0x80


class DerError(FormatError):
    """Bytes that are not the one encoding of a value."""


def write(tag: int, *parts: bytes) -> bytes:
    """Encode a value of *tag* whose content is *parts*, joined."""
    content = b"".join(parts)
    size = len(content)
    if size < _SHORT:
        return bytes((tag, size)) + content
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _SHORT | len(long))) + long + content


def read(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Read a value of *tag* from the front of *der*: its content, and what follows.

    Raises:
        DerError: Another tag, a length that is cut, spelt too long or beyond 64 KiB, or content
            that is.
    """
    if len(der) < 2 or der[0] != tag:  # noqa: PLR2004 tag and first byte of the length
        raise DerError("another DER value was expected")
    size, start = der[1], 2
    if size >= _SHORT:
        start += size - _SHORT
        size = int.from_bytes(der[2:start], "big")
    if size > MAX_SIZE or len(der) < start + size:
        raise DerError("DER value is cut short, or too large")
    if write(tag, der[start : start + size]) != der[: start + size]:
        raise DerError("DER length is not in its shortest form")
    return der[start : start + size], der[start + size :]


def read_whole(der: bytes, tag: int) -> bytes:
    """Read the one value of *tag* that *der* is; `DerError` when anything follows."""
    content, rest = read(der, tag)
    if rest:
        raise DerError("bytes follow a DER value")
    return content
