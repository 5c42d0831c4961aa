"""Errors of the KAS. None of them knows HTTP, and none carries a secret."""


class KasError(Exception):
    """Base class; never raised itself."""


class CustodyError(KasError):
    """The custody did not answer, or not in time. Says nothing about the key. Safe to retry."""


class PdpUnavailableError(KasError):
    """The PDP did not answer, or said that it cannot decide. Safe to retry."""


class StaleError(KasError):
    """What this worker knew has been overtaken, and reading on did not settle it. Safe to retry."""


class TransitionError(KasError):
    """A change of a key's state that is not allowed; the message says why and what is."""


class RefusedKeyError(TransitionError):
    """The custody cannot hold a key of that kind, or takes over none; nothing was made."""


class KeyExistsError(KasError):
    """Somebody else made that version first."""
