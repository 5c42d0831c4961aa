"""A policy bundle, from its files as bytes. Pure: `folder` reads them.

| file              | content                                                                    |
|-------------------|----------------------------------------------------------------------------|
| `bundle.toml`     | `tenant`, `namespaces`, `contact`, `rules` (`required` or `optional`), `sharing` (home tenants admitted) |
| `attributes.json` | list of `{namespace?, name, rule: allOf/anyOf/hierarchy, values, key?, keys?}`; without `namespace` the bundle's only one is meant |
| `mappings.json`   | list of `{claim: "$.path", operator: in/not_in/contains, values, grants: FQN or NAMESPACE/NAME=VALUE}` |
| `rules/*.json`    | rules, see `rules`                                                         |
| `cases/*.json`    | see `cases`                                                                |
| `people.json`     | `{name: claims}`: identities for cases and for the development issuer only |

The digest covers the files that decide: not `cases/`, not `people.json`. It is
`digest("envelock/bundle/v1", path, bytes, path, bytes, ...)` in the order of the paths.
"""  # noqa: E501 a table has long lines

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from envelock_formats.canonical import CanonicalError, Json, parse
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import digest
from envelock_formats.keyid import KeyPath
from envelock_pdp import BundleError
from envelock_pdp.attributes import (
    AttributeSet,
    Combination,
    Definition,
    KeyScope,
    Operator,
    SubjectMapping,
    attribute_set,
)
from envelock_pdp.compile import RuleSet, compile_rules
from envelock_pdp.evaluate import Bundle
from envelock_pdp.paths import parse_path
from envelock_pdp.rules import RESOURCE_NAMES, Rule, RuleError, read_rules

T = TypeVar("T")

MAX_FILE = 4 * 1024 * 1024
_DEPTH = 64
_SYNTAX = {
    "Expecting ',' delimiter": 'expected ","',
    "Expecting ':' delimiter": 'expected ":"',
    "Expecting property name enclosed in double quotes": "expected a name in double quotes",
    "Expecting value": "expected a value",
    "Extra data": "more text after the end",
}
_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`\Z")
_SINGLE_FILES = ("bundle.toml", "attributes.json", "mappings.json")
_RULE_FILE = re.compile(r"rules/[^./][^/]*\.json\Z")
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.(\w+)")


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: str
    namespaces: tuple[str, ...]
    contact: str
    rules: Literal["required", "optional"]
    sharing: tuple[str, ...] = ()


class _KeyScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dataset: str
    domain: str = ""


class _Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    rule: Combination
    values: tuple[str, ...]
    namespace: str | None = None
    key: _KeyScope | None = None
    keys: dict[str, _KeyScope] = {}


class _Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    claim: str
    operator: Operator
    values: tuple[str | int | bool, ...]
    grants: str


def decides(path: str) -> bool:
    """Whether the file at *path*, relative to the bundle, is covered by the digest.

    Hidden files in `rules/` are not: editors keep theirs there.
    """
    return path in _SINGLE_FILES or _RULE_FILE.match(path) is not None


def read_bundle(files: Mapping[str, bytes]) -> Bundle:
    """Read a bundle.

    Args:
        files: Path relative to the bundle, with `/`, to content. Files that do not decide are
            passed over.

    Raises:
        BundleError: A file is missing or malformed; the error names it and the place.
    """
    deciding = {path: files[path] for path in sorted(files) if decides(path)}
    for path in _SINGLE_FILES:
        if path not in deciding:
            raise BundleError(path, "is missing")
    for path in deciding:
        _require_utf8(path)
    head = _head(deciding["bundle.toml"])
    attributes = _attributes(deciding, head.namespaces)
    return Bundle(
        tenant=head.tenant,
        namespaces=head.namespaces,
        contact=head.contact,
        rules_required=head.rules == "required",
        sharing=frozenset(head.sharing) - {head.tenant},
        attributes=attributes,
        rules=_rules(deciding, attributes),
        digest=bundle_digest(deciding),
    )


def _require_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BundleError(path, "the name of the file is not UTF-8") from error


def bundle_digest(files: Mapping[str, bytes]) -> bytes:
    """Digest of the files that decide: 32 bytes."""
    fields: list[bytes] = []
    for path in sorted(filter(decides, files)):
        fields += (path.encode(), files[path])
    return digest("envelock/bundle/v1", *fields)


def read_json(path: str, text: bytes) -> Json:
    """Parse a file of the bundle strictly; `BundleError` names the line where it can."""
    try:
        return parse(text, max_depth=_DEPTH, max_bytes=MAX_FILE)
    except CanonicalError as error:
        raise _syntax_error(path, text, error) from error


def fit(path: str, value: Json, shape: type[T]) -> T:
    """Fit a parsed file to *shape*; `BundleError` names the place as a JSON pointer."""
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        raise _misfit(path, str(error)) from error


def _head(text: bytes) -> _Head:
    path = "bundle.toml"
    try:
        head = fit(path, tomllib.loads(text.decode()), _Head)
    except ValueError as error:
        raise BundleError(path, str(error)) from error
    except RecursionError as error:
        raise BundleError(path, "is nested too deep") from error
    try:
        for tenant in (head.tenant, *head.sharing):
            if KeyPath(tenant).text != KeyPath(tenant).tenant:
                raise BundleError(path, f"{tenant!r} is not the name of a tenant")
        for namespace in head.namespaces:
            AttributeValue(namespace, "name", "value")
    except FormatError as error:
        raise BundleError(path, str(error)) from error
    if len(set(head.namespaces)) != len(head.namespaces):
        raise BundleError(path, "a namespace is repeated")
    if not head.contact.strip() or not head.contact.isprintable():
        raise BundleError(path, "contact: a refused person is told this; it must be printable")
    return head


def _attributes(files: Mapping[str, bytes], namespaces: tuple[str, ...]) -> AttributeSet:
    path = "attributes.json"
    found = fit(path, read_json(path, files[path]), tuple[_Definition, ...])
    definitions: dict[str, Definition] = {}
    for place, item in enumerate(found):
        definition = _definition(f"{path} /{place}", item, namespaces)
        if definition.fqn in definitions:
            raise BundleError(f"{path} /{place}/name", f"{item.name} is defined twice")
        definitions[definition.fqn] = definition
    known = {value for definition in definitions.values() for value in definition.all_values}
    mappings = _mappings(files["mappings.json"], known, namespaces)
    return attribute_set(tuple(definitions.values()), mappings)


def _definition(where: str, item: _Definition, namespaces: tuple[str, ...]) -> Definition:
    if item.namespace is None and len(namespaces) != 1:
        raise BundleError(where, '"namespace" is missing')
    namespace = item.namespace or namespaces[0]
    if namespace not in namespaces:
        raise BundleError(f"{where}/namespace", f"{namespace} is not a namespace of this bundle")
    if item.name in RESOURCE_NAMES:
        raise BundleError(f"{where}/name", f"{item.name} is taken: rules see it as $.{item.name}")
    for value in item.keys:
        if value not in item.values:
            raise BundleError(f"{where}/keys/{value}", "is none of the values")
    key = None if item.key is None else _scope(f"{where}/key", item.key)
    keys = {value: _scope(f"{where}/keys/{value}", scope) for value, scope in item.keys.items()}
    definition = Definition(namespace, item.name, item.rule, item.values, key, keys)
    try:
        values = set(definition.all_values)
    except FormatError as error:
        raise BundleError(where, str(error)) from error
    if not values or len(values) != len(item.values):
        raise BundleError(f"{where}/values", "expected values, none of them repeated")
    return definition


def _scope(where: str, item: _KeyScope) -> KeyScope:
    """A key scope whose fields are each one part of a key path."""
    for name, part in (("dataset", item.dataset), ("domain", item.domain or "none")):
        try:
            whole = KeyPath(part).text == KeyPath(part).tenant
        except FormatError as error:
            raise BundleError(f"{where}/{name}", str(error)) from error
        if not whole:
            raise BundleError(f"{where}/{name}", "must be one part of a key path")
    return KeyScope(item.dataset, item.domain)


def _mappings(
    text: bytes, known: set[AttributeValue], namespaces: tuple[str, ...]
) -> list[SubjectMapping]:
    path = "mappings.json"
    found = fit(path, read_json(path, text), tuple[_Mapping, ...])
    return [
        _mapping(f"{path} /{place}", item, known, namespaces) for place, item in enumerate(found)
    ]


def _mapping(
    where: str, item: _Mapping, known: set[AttributeValue], namespaces: tuple[str, ...]
) -> SubjectMapping:
    try:
        claim = parse_path(item.claim)
    except ValueError as error:
        raise BundleError(f"{where}/claim", str(error)) from error
    try:
        grants = _attribute(item.grants, namespaces)
    except FormatError as error:
        raise BundleError(f"{where}/grants", str(error)) from error
    if grants not in known:
        raise BundleError(f"{where}/grants", f"{grants.short} is not defined")
    if not item.values or (
        item.operator == "contains"
        and not all(isinstance(value, str) and value for value in item.values)
    ):
        raise BundleError(f"{where}/values", f"{item.operator} needs values, texts for contains")
    return SubjectMapping(claim, item.operator, item.values, grants)


def _attribute(text: str, namespaces: tuple[str, ...]) -> AttributeValue:
    if text.startswith("https://"):
        return AttributeValue.parse_fqn(text)
    if "/" not in text and len(namespaces) == 1:
        text = f"{namespaces[0]}/{text}"
    return AttributeValue.parse_short(text)


def _rules(files: Mapping[str, bytes], attributes: AttributeSet) -> RuleSet:
    names = {definition.name for definition in attributes.definitions}
    rules: dict[str, Rule] = {}
    for path in sorted(path for path in files if path.startswith("rules/")):
        try:
            found = read_rules(read_json(path, files[path]), names)
        except RuleError as error:
            raise BundleError(f"{path} {error.pointer or '/'}", error.problem) from error
        for rule in found:
            if rule.uid in rules:
                raise BundleError(path, f'uid "{rule.uid}" is used twice')
            rules[rule.uid] = rule
    return compile_rules(tuple(rules.values()))


def _syntax_error(path: str, text: bytes, error: CanonicalError) -> BundleError:
    """Find the line by reading again without our rules; what only they refuse has no line."""
    try:
        json.loads(text)
    except json.JSONDecodeError as found:
        return BundleError(f"{path} line {found.lineno}", _SYNTAX.get(found.msg, found.msg))
    except (ValueError, RecursionError):
        return BundleError(path, "is not UTF-8 text of JSON")
    return BundleError(path, str(error))


def _misfit(path: str, message: str) -> BundleError:
    """Turn msgspec's place into a JSON pointer."""
    found = _PLACE.search(message)
    if found is None:
        return BundleError(path, message)
    pointer = "".join(f"/{step[0] or step[1]}" for step in _STEP.findall(found["path"]))
    return BundleError(f"{path} {pointer}", message[: found.start()])
