"""Names of attributes.

A value is `https://NAMESPACE/attr/NAME/value/VALUE` (the fully qualified name, FQN), all in lower
case. People write `NAMESPACE/NAME=VALUE` for it, and `NAME=VALUE` where the namespace is known.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from envelock_formats.errors import FormatError

MAX_PART = 128  # characters
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")
_TOKEN = re.compile(r"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?\Z")
_FQN = re.compile(r"https://([^/]+)/attr/([^/]+)/value/([^/]+)\Z")


class AttributeNameError(FormatError):
    """A name of an attribute that is not well-formed."""


@dataclass(frozen=True, slots=True, order=True)
class AttributeValue:
    """One value of one attribute definition."""

    namespace: str
    name: str
    value: str

    def __post_init__(self) -> None:
        too_long = max(map(len, (self.namespace, self.name, self.value))) > MAX_PART
        if (
            too_long
            or not _NAMESPACE.match(self.namespace)
            or not (_TOKEN.match(self.name) and _TOKEN.match(self.value))
        ):
            raise AttributeNameError(
                f"attribute {self.short[:200]!r}: expected NAMESPACE/NAME=VALUE in lower case"
            )

    @property
    def definition(self) -> str:
        """FQN of the definition: the value's FQN without its last two parts."""
        return f"https://{self.namespace}/attr/{self.name}"

    @property
    def fqn(self) -> str:
        """The fully qualified name, as it stands in policies."""
        return f"{self.definition}/value/{self.value}"

    @property
    def short(self) -> str:
        """The form for people: `NAMESPACE/NAME=VALUE`."""
        return f"{self.namespace}/{self.name}={self.value}"

    @staticmethod
    def parse_fqn(text: str) -> "AttributeValue":
        """Read a fully qualified name; upper case is folded, as other clients write it."""
        return _from_fqn(text)

    @classmethod
    def parse_short(cls, text: str) -> Self:
        """Read `NAMESPACE/NAME=VALUE`; `AttributeNameError` when a part is missing."""
        left, equals, value = text.partition("=")
        namespace, slash, name = left.rpartition("/")
        if not equals or not slash:
            raise AttributeNameError(f"attribute {text[:200]!r}: expected NAMESPACE/NAME=VALUE")
        return cls(namespace, name, value)


@lru_cache(maxsize=4096)
def _from_fqn(text: str) -> AttributeValue:
    found = _FQN.match(text.lower()) if text.isascii() else None  # other letters fold to ASCII
    if found is None:
        raise AttributeNameError(
            f"attribute {text[:200]!r}: expected https://NAMESPACE/attr/NAME/value/VALUE"
        )
    return AttributeValue(*found.groups())
