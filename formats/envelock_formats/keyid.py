"""Key paths and key ids.

A *path* names what a key protects: parts of letters, digits, `-` and `.`, joined by `:`; the first
part is the tenant. No part looks like a version (`v1`). A *key id* is `path:vN`, N counted from 1
without leading zeros. Both stand in manifests and records for ever, so one value has one spelling.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from envelock_formats.errors import FormatError

MAX_PATH = 200
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
_VERSION_PART = re.compile(r"v[0-9]+\Z")
_KEY_ID = re.compile(r"(?P<path>.+):v(?P<version>[1-9][0-9]{0,9})\Z", re.ASCII)


class KeyIdError(FormatError):
    """A key path or key id that is not well-formed."""


@dataclass(frozen=True, slots=True, order=True)
class KeyPath:
    """What a key protects, such as `acme:patients:2026-11`."""

    text: str

    def __post_init__(self) -> None:
        parts = self.text.split(":")
        if len(self.text) > MAX_PATH or not all(map(_PART.match, parts)):
            raise KeyIdError(
                f"key path {self.text[:MAX_PATH]!r}: parts are letters, digits, '-' and '.',"
                f" joined by ':', {MAX_PATH} characters at most"
            )
        if any(map(_VERSION_PART.match, parts)):
            raise KeyIdError(f"key path {self.text!r}: no part may look like a version")

    def __str__(self) -> str:
        return self.text

    @property
    def tenant(self) -> str:
        """The first part."""
        return self.text.split(":", 1)[0]

    @property
    def ancestors(self) -> tuple["KeyPath", ...]:
        """Every path above this one, the tenant first."""
        parts = self.text.split(":")
        return tuple(KeyPath(":".join(parts[:depth])) for depth in range(1, len(parts)))

    def below(self, other: "KeyPath") -> bool:
        """Whether this path lies strictly below *other*."""
        return self.text.startswith(other.text + ":")


@dataclass(frozen=True, slots=True, order=True)
class KeyId:
    """One version of a key: `path:vN`."""

    path: KeyPath
    version: int

    def __post_init__(self) -> None:
        if not 1 <= self.version < 10**10:
            raise KeyIdError(f"key version {self.version}: counted from 1")

    def __str__(self) -> str:
        return f"{self.path}:v{self.version}"

    @property
    def tenant(self) -> str:
        """The tenant that owns the key."""
        return self.path.tenant

    @staticmethod
    def parse(text: str) -> "KeyId":
        """Read `path:vN`; `KeyIdError` for any other spelling."""
        return _key_id(text)


@lru_cache(maxsize=4096)
def _key_id(text: str) -> KeyId:
    found = _KEY_ID.match(text)
    if found is None:
        raise KeyIdError(f"key id {text[:MAX_PATH]!r}: expected path:vN")
    return KeyId(KeyPath(found["path"]), int(found["version"]))
