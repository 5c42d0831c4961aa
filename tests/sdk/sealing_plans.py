"""Plans and sources for tests of sealing."""

import os

from formats.sealing import DEK, POLICY, key_access

from envelock.writer import SealPlan

SEGMENT = 16 * 1024


def plan(dek=DEK, **changes):
    """A plan of small segments whose one key access object binds the policy."""
    parts = {"dek": dek, "key_access": (key_access(dek),), "policy": POLICY}
    return SealPlan(**parts | {"segment_size": SEGMENT} | changes)


def noise(size):
    """Bytes that do not repeat."""
    return os.urandom(size)
