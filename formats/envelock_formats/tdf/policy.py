"""The policy object of a sealed file: which attributes it asks for, and to whom it may go.

One parser serves SDK, KAS and PDP, and reads the very bytes that the policy binding covers, so no
two of them can see two policies in one text. Members that the released clients write are known;
anything else is refused, since a member that one side ignores may be one that another side obeys.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from envelock_formats.canonical import decode, encode, plain
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64, from_b64

MAX_POLICY = 64 * 1024  # bytes of JSON
MAX_ATTRIBUTES = 100
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")


class PolicyError(FormatError):
    """A policy that is malformed; the message names the member."""


class _Attribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attribute: str
    displayName: str | None = None  # noqa: N815 the format's own name
    isDefault: bool | None = None  # noqa: N815 the format's own name
    pubKey: str | None = None  # noqa: N815 the format's own name
    kasURL: str | None = None  # noqa: N815 the format's own name
    kasUrl: str | None = None  # noqa: N815 the Python client's spelling


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dataAttributes: tuple[_Attribute, ...] | None = None  # noqa: N815 the format's own name
    dissem: tuple[str, ...] | None = None


class _Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    uuid: str
    body: _Body


@dataclass(frozen=True, slots=True)
class Policy:
    """What a file asks: every attribute value, and when *dissem* is not empty one of its names."""

    uuid: str
    attributes: tuple[AttributeValue, ...]
    dissem: tuple[str, ...]

    @property
    def namespaces(self) -> frozenset[str]:
        """The namespaces of all attributes."""
        return frozenset(value.namespace for value in self.attributes)


def parse_policy(text: str) -> Policy:
    """Read a policy from its base64 text.

    Raises:
        PolicyError: Not canonical base64, not strict JSON, an unknown member, a name that is not
            well-formed or not in Unicode normal form C, an attribute named twice.
    """
    try:
        found = decode(from_b64(text), _Policy, max_bytes=MAX_POLICY)
        asked = found.body.dataAttributes or ()
        attributes = tuple(AttributeValue.parse_fqn(item.attribute) for item in asked)
    except FormatError as error:
        raise PolicyError(f"policy: {error}") from error
    dissem = found.body.dissem or ()
    if not _UUID.match(found.uuid):
        raise PolicyError("policy: uuid is malformed")
    if len(attributes) > MAX_ATTRIBUTES or len(set(attributes)) != len(attributes):
        raise PolicyError("policy: an attribute is repeated, or there are too many")
    if not all(name and unicodedata.is_normalized("NFC", name) for name in dissem):
        raise PolicyError("policy: a name in dissem is empty or not in normal form C")
    return Policy(found.uuid.lower(), attributes, dissem)


def write_policy(
    uuid: str, attributes: Sequence[AttributeValue], dissem: Sequence[str] = ()
) -> str:
    """Write a policy as base64 of canonical JSON, in the order of *attributes*."""
    asked = [{"attribute": value.fqn} for value in attributes]
    body = {"dataAttributes": asked, "dissem": list(dissem)}
    text = b64(encode(plain({"uuid": uuid, "body": body})))
    parse_policy(text)
    return text
