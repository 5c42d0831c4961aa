"""What every room must agree on, to the byte. Pure: no I/O, no clock, no randomness of its own."""

from envelock_formats.errors import FormatError

__all__ = ["FormatError"]
