"""What several commands share about assertions: files that state them, keys that sign them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from envelock.assertions import (
    Assertion,
    AssertionKey,
    Demands,
    Secret,
    Statement,
    secret_of,
    signing_key,
)
from envelock.errors import ConfigError
from envelock.reader import SealedFile
from envelock_formats.canonical import Json, convert, parse
from envelock_formats.errors import FormatError
from envelock_formats.tdf.assertions import StatedAssertion, read_assertion

_MAX_FILE = 1 << 20
_SECRET = "secret:"  # noqa: S105 the mark of one
_SHOWN = 60  # characters of a statement in a line


class _SigningKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    key: str  # the secret itself where *alg* is HS256, else PEM


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    schema: str
    value: str


class _Asserted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An assertion in a file, as the stock command line takes it too."""

    id: str
    statement: _Statement
    type: str = "other"
    scope: str = "payload"
    appliesToState: str = "unencrypted"  # noqa: N815 the format's own name
    signingKey: _SigningKey | None = None  # noqa: N815 the format's own name


def assertions_of(files: Sequence[Path], keys: Sequence[str]) -> list[Assertion]:
    """The assertions that *files* state: each one object, or a list.

    Args:
        files: JSON.
        keys: `ID=FILE`, the private key that signs the assertion of that id, or `ID=secret:FILE`.

    Raises:
        ConfigError: A file or key cannot be read, or a key is for no assertion.
    """
    named = keys_of(keys)
    found = [item for file in files for item in _read(file)]
    if unused := set(named) - {item.id for item in found}:
        raise ConfigError(f"--assertion-key for {min(unused)!r}, and there is no such assertion")
    try:
        return [_assertion(item, named.get(item.id)) for item in found]
    except ValueError as error:
        raise ConfigError(str(error)) from error


def demands_of(required: Sequence[str], keys: Sequence[str], *, listing: bool) -> Demands:
    """What a command line demands of a file's assertions.

    Raises:
        ConfigError: A key cannot be read.
    """
    return Demands(tuple(required), keys_of(keys), strict=not listing)


def keys_of(named: Sequence[str]) -> dict[str, AssertionKey]:
    """The keys in `ID=FILE` and `ID=secret:FILE` options.

    Raises:
        ConfigError: An option is not of that form, or repeats an id, or a secret cannot be read.
    """
    found: dict[str, AssertionKey] = {}
    for text in named:
        name, _, file = text.rpartition("=")
        if not name or not file or name in found:
            raise ConfigError(f"--assertion-key {text!r}", hint="write ID=FILE, once for each id")
        secret = file.removeprefix(_SECRET)
        found[name] = Path(file) if secret == file else secret_of(Path(secret))
    return found


def stated_lines(sealed: SealedFile) -> Iterator[str]:
    """What a file says of itself, a line for each assertion."""
    for stated in _stated(sealed):
        said = stated.statement
        value = said.value if len(said.value) <= _SHOWN else f"{said.value[:_SHOWN]}…"
        kind = f"{stated.type} of the {stated.scope}, {stated.algorithm or 'unsigned'}"
        yield f"asserts {stated.id} ({kind}): {said.schema} {value}"
    if any(key.encryptedMetadata for key in sealed.key_access):
        yield "holds   encrypted metadata"


def stated_values(sealed: SealedFile) -> list[Json]:
    """The assertions of a file for programs; nothing is verified."""
    return [
        {
            "id": stated.id,
            "type": stated.type,
            "scope": stated.scope,
            "applies_to": stated.applies_to,
            "algorithm": stated.algorithm,
            "format": stated.statement.format,
            "schema": stated.statement.schema,
            "value": stated.statement.value,
        }
        for stated in _stated(sealed)
    ]


def _stated(sealed: SealedFile) -> Iterator[StatedAssertion]:
    for value in sealed.manifest.assertions:
        try:
            yield read_assertion(value)
        except FormatError:
            yield StatedAssertion(
                "malformed", "unknown", "unknown", "", Statement("", "", ""), "", {}, None
            )


def _read(file: Path) -> list[_Asserted]:
    try:
        found = parse(file.read_bytes(), max_bytes=_MAX_FILE)
        return convert(found if isinstance(found, list) else [found], list[_Asserted])
    except FormatError as error:
        hint = "it has id, statement {format, schema, value}, and may have type, scope"
        raise ConfigError(f"assertion {file}: {error}", hint=hint) from error


def _assertion(item: _Asserted, named: AssertionKey | None) -> Assertion:
    key = named
    if key is None and item.signingKey is not None:
        stated = item.signingKey.key.encode()
        key = Secret(stated) if item.signingKey.alg == "HS256" else stated
    return Assertion(
        id=item.id,
        statement=Statement(item.statement.format, item.statement.schema, item.statement.value),
        type=item.type,
        scope=item.scope,
        applies_to=item.appliesToState,
        key=None if key is None else signing_key(key),
    )
