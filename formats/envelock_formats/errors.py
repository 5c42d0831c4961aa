"""The one error family of the formats."""


class FormatError(Exception):
    """Bytes that are not what they claim to be. The message names the field and never a secret."""


class UnsupportedAlgorithmError(FormatError):
    """An algorithm that is not accepted; the message starts with `unsupported`."""


class IntegrityError(FormatError):
    """Bytes, order or key that the root signature does not vouch for; starts with `tampered`.

    A wrong key and altered bytes are one error: a hostile key access server must not learn which.
    """
