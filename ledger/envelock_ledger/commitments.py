"""Personal fields as commitments.

A record holds SHA-256 over a label, the field's name, 16 bytes of salt and the value's canonical
JSON. The salt is fresh for every record and field, so equal people give unequal commitments, and
without the salt nobody can test a guess. Forgetting salt and value is erasure: the record, its
chain and every proof stay as they were.
"""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Self

from envelock_formats import canonical
from envelock_formats.canonical import Json
from envelock_formats.framing import digest
from envelock_ledger.errors import ProofError

LABEL = "envelock/commitment/v1"
SALT_SIZE = 16  # bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens one commitment of a record: 16 bytes of salt, and the value that it hides.

    `encoded` is the canonical JSON of `value`; `Opening.of` writes it.
    """

    field: str
    salt: bytes = dataclass_field(repr=False)
    value: Json = dataclass_field(repr=False)
    encoded: bytes = dataclass_field(repr=False)

    @classmethod
    def of(cls, field: str, salt: bytes, value: Json) -> Self:
        """Open *field* with a value; `CanonicalError` when it has no canonical JSON."""
        return cls(field, salt, value, canonical.encode(value))


def commit(field: str, value: Json, salt: bytes) -> str:
    """Return the commitment to *value* under *field*: 64 lower-case hex digits.

    Args:
        field: Name of the field; a commitment under one name opens under no other.
        value: Any value with canonical JSON.
        salt: 16 random bytes, used for this record and field only.

    Raises:
        ProofError: The salt has another length.
        CanonicalError: The value has no canonical JSON.
    """
    return commit_encoded(field, canonical.encode(value), salt)


def commit_encoded(field: str, value: bytes, salt: bytes) -> str:
    """As `commit`, for a value that is canonical JSON already; that it is, is not checked."""
    if len(salt) != SALT_SIZE:
        raise ProofError(f"salt of {len(salt)} bytes, expected {SALT_SIZE}")
    return digest(LABEL, field.encode(), salt, value).hex()


def check(field: str, value: Json, salt: bytes, commitment: str) -> None:
    """Raise `ProofError` unless *commitment* opens to *value* under *field* and *salt*."""
    if commit(field, value, salt) != commitment:
        raise ProofError(f"opening of {field!r} does not match its commitment")
