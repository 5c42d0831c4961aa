"""The one error family of the formats."""


class FormatError(Exception):
    """Bytes that are not what they claim to be. The message names the field and never a secret."""
