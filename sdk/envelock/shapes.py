"""Members of a manifest as they may be asked for while nothing about it is certain."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from envelock.ailments import Findings
from envelock_formats.errors import FormatError
from envelock_formats.framing import from_b64

Members: TypeAlias = dict[str, Any]
_KNOWN: Mapping[str, frozenset[str]] = {
    "method": frozenset({"algorithm", "iv", "isStreamable"}),
    "rootSignature": frozenset({"alg", "sig"}),
    "segment": frozenset({"hash", "segmentSize", "encryptedSegmentSize"}),
    "payload": frozenset({"type", "url", "protocol", "mimeType", "isEncrypted"}),
    "keyAccess": frozenset(
        {"type", "url", "protocol", "wrappedKey", "policyBinding", "encryptedMetadata", "kid"}
        | {"sid", "schemaVersion", "ephemeralPublicKey"}
    ),
}


class ShapeError(Exception):
    """A member is missing or of another type; the message names it."""


def object_of(parent: Members, name: str) -> Members:
    """The object *name*; `ShapeError` when it is none."""
    if not isinstance(value := parent.get(name), dict):
        raise ShapeError(name)
    return value


def list_of(parent: Members, name: str) -> list[Any]:
    """The list *name*; `ShapeError` when it is none."""
    if not isinstance(value := parent.get(name), list):
        raise ShapeError(name)
    return value


def text_of(parent: Members, name: str) -> str:
    """The text *name*; `ShapeError` when it is none."""
    if not isinstance(value := parent.get(name), str):
        raise ShapeError(name)
    return value


def optional_text(parent: Members, name: str) -> str:
    """The text *name*, empty when it is absent or null; `ShapeError` when it is something else."""
    return "" if parent.get(name) is None else text_of(parent, name)


def decoded(text: object) -> bytes:
    """The bytes that *text* is base64 of; none when it is no canonical base64."""
    try:
        return from_b64(text) if isinstance(text, str) else b""
    except FormatError:
        return b""


def unknown_members(kind: str, value: Members, where: str, findings: Findings) -> None:
    """Note the members that an object of this *kind* does not have in the format."""
    for name in sorted(value.keys() - _KNOWN[kind]):
        findings.add("unknown-member", f"{where}.{name}")
