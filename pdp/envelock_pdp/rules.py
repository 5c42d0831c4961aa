"""Rules: the policy language of py-abac 0.4, read strictly into values.

One file holds one rule or a list of rules. A rule is `{uid, description, effect, priority, targets,
rules}`; `targets` are globs over the ids of subject, resource and action; `rules` holds for each of
`subject`, `resource`, `action` and `context` a map `path -> condition` (all must hold) or a list of
such maps (one must). Two members are ours: `obligations` (texts that go into the decision when the
rule permits) and `anyone` (says that a rule without any condition is meant).

Refused, always with the place: members, conditions and paths that do not exist; an `allow` that
matches everything without `"anyone": true`; a list of maps or values that is empty, since such a
rule can never match and a denial that never matches is no denial. `priority` is read and has no
effect: a denial always wins.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from envelock_formats.canonical import Json
from envelock_pdp import conditions
from envelock_pdp.paths import Path, parse_path
from envelock_pdp.values import kind

Element: TypeAlias = Literal["subject", "resource", "action", "context"]
Effect: TypeAlias = Literal["allow", "deny"]

ELEMENTS: tuple[Element, ...] = get_args(Element)
CONTEXT_PATHS = frozenset(
    {
        ("time", "iso"),
        ("time", "hour"),
        ("time", "minute"),
        ("time", "weekday"),
        ("time", "epoch"),
        ("network", "ip"),
        ("purpose",),
    }
)
RESOURCE_NAMES = frozenset({"tenant", "attributes"})
MAX_NESTING = 8  # conditions in conditions
_UID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z")
_MAX_TEXT = 1000
_GLOB = re.compile(r"[*?\[]")


class RuleError(Exception):
    """A rule that is not well-formed: *pointer* (RFC 6901) names the place, *problem* the fault."""

    def __init__(self, pointer: str, problem: str) -> None:
        super().__init__(f"{pointer or '/'}: {problem}")
        self.pointer = pointer
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Single:
    """A condition on one value. *argument* is what the condition's name asks for."""

    name: str
    argument: Json = None
    fold: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """A condition that compares a value with another attribute of the request."""

    name: str
    element: Element
    path: Path


@dataclass(frozen=True, slots=True)
class Logical:
    """`AllOf`, `AnyOf` or `Not` over conditions on the same value."""

    name: str
    parts: tuple["Condition", ...]


Condition: TypeAlias = Single | Compared | Logical
Block: TypeAlias = tuple[tuple[Path, Condition], ...]  # all must hold


@dataclass(frozen=True, slots=True)
class Targets:
    """Globs over ids; one of each must match."""

    subject_id: tuple[str, ...] = ("*",)
    resource_id: tuple[str, ...] = ("*",)
    action_id: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Each element has alternatives, of which one must hold; `((),)` always holds."""

    uid: str
    effect: Effect
    targets: Targets
    subject: tuple[Block, ...] = ((),)
    resource: tuple[Block, ...] = ((),)
    action: tuple[Block, ...] = ((),)
    context: tuple[Block, ...] = ((),)
    description: str = ""
    obligations: tuple[str, ...] = ()

    @property
    def unconditional(self) -> bool:
        """Whether the rule matches every request."""
        blocks = (self.subject, self.resource, self.action, self.context)
        globs = (self.targets.subject_id, self.targets.resource_id, self.targets.action_id)
        return all(() in block for block in blocks) and all("*" in glob for glob in globs)


def read_rules(document: Json, attributes: Collection[str]) -> tuple[Rule, ...]:
    """Read the rules of one file.

    Args:
        document: The parsed file: a rule, or a list of rules.
        attributes: Names of the bundle's attributes, which are members of `resource`.

    Raises:
        RuleError: Any fault; uniqueness of `uid` over several files is not checked here.
    """
    reader = _Reader(frozenset(attributes))
    if isinstance(document, list):
        return tuple(reader.rule(item, f"/{place}") for place, item in enumerate(document))
    return (reader.rule(document, ""),)


@dataclass(frozen=True, slots=True)
class _Reader:
    attributes: frozenset[str]

    def rule(self, value: Json, at: str) -> Rule:
        known = ("uid", "description", "effect", "priority", "targets", "rules")
        members = _object(value, at, (*known, "obligations", "anyone"))
        for name in ("uid", "effect", "targets", "rules"):
            if name not in members:
                raise RuleError(at, f'"{name}" is missing')
        blocks = _object(members["rules"], f"{at}/rules", ELEMENTS)
        read = {
            element: self._block(element, blocks.get(element, {}), f"{at}/rules/{element}")
            for element in ELEMENTS
        }
        _priority(members.get("priority", 0), f"{at}/priority")
        rule = Rule(
            uid=_uid(members["uid"], f"{at}/uid"),
            effect=_effect(members["effect"], f"{at}/effect"),
            targets=_targets(members["targets"], f"{at}/targets"),
            description=_text(members.get("description", ""), f"{at}/description"),
            obligations=_texts(members.get("obligations", []), f"{at}/obligations"),
            **read,
        )
        _require_meant(rule, members.get("anyone", False), at)
        return rule

    def _block(self, element: Element, value: Json, at: str) -> tuple[Block, ...]:
        if not isinstance(value, list):
            return (self._conjunction(element, value, at),)
        if not value:
            raise RuleError(at, "an empty list can never match; leave it out, or write {}")
        return tuple(
            self._conjunction(element, item, f"{at}/{place}") for place, item in enumerate(value)
        )

    def _conjunction(self, element: Element, value: Json, at: str) -> Block:
        return tuple(
            (self._path(element, path, at), self._condition(condition, f"{at}/{_escaped(path)}"))
            for path, condition in _object(value, at).items()
        )

    def _path(self, element: Element, text: str, at: str) -> Path:
        try:
            path = parse_path(text)
        except ValueError as error:
            raise RuleError(at, str(error)) from error
        if element == "action":
            raise RuleError(at, "an action has no attributes here: use targets.action_id")
        if element == "context" and path not in CONTEXT_PATHS:
            raise _unknown("path", text, ("$." + ".".join(known) for known in CONTEXT_PATHS), at)
        if element == "resource":
            names = RESOURCE_NAMES | self.attributes
            if len(path) != 1 or path[0] not in names:
                raise _unknown("path", text, (f"$.{name}" for name in names), at)
        return path

    def _condition(self, value: Json, at: str, depth: int = MAX_NESTING) -> Condition:
        members = _object(value, at)
        name = members.get("condition")
        if not isinstance(name, str):
            raise RuleError(at, '"condition" is missing')
        if name not in conditions.NAMES:
            raise _unknown("condition", name, conditions.NAMES, at)
        if name in conditions.LOGICAL:
            return self._logical(name, members, at, depth)
        if name in conditions.COMPARED:
            return self._compared(name, members, at)
        return _single(name, members, at)

    def _compared(self, name: str, members: Mapping[str, Json], at: str) -> Compared:
        _members(members, at, ("ace", "path"))
        element = next((known for known in ELEMENTS if known == members["ace"]), None)
        if element is None:
            raise _unknown("ace", str(members["ace"]), ELEMENTS, f"{at}/ace")
        return Compared(name, element, self._path(element, str(members["path"]), f"{at}/path"))

    def _logical(self, name: str, members: Mapping[str, Json], at: str, depth: int) -> Logical:
        if depth == 0:
            raise RuleError(at, f"conditions are nested deeper than {MAX_NESTING}")
        if name == "Not":
            _members(members, at, ("value",))
            return Logical(name, (self._condition(members["value"], f"{at}/value", depth - 1),))
        _members(members, at, ("values",))
        listed = _list(members["values"], f"{at}/values")
        return Logical(
            name,
            tuple(
                self._condition(item, f"{at}/values/{place}", depth - 1)
                for place, item in enumerate(listed)
            ),
        )


def _single(name: str, members: Mapping[str, Json], at: str) -> Single:
    fold = False
    if name in conditions.BARE:
        _members(members, at, ())
        return Single(name)
    if name in conditions.LISTED:
        _members(members, at, ("values",))
        return Single(name, list(_values(members["values"], f"{at}/values")))
    if name in conditions.TEXTUAL:
        _members(members, at, ("value",), ("case_insensitive",))
        fold = _flag(members.get("case_insensitive", False), f"{at}/case_insensitive")
    else:
        _members(members, at, ("value",))
    value = members["value"]
    expected = {"EqualsObject": "object"} | dict.fromkeys(conditions.NUMERIC, "number")
    if kind(value) != expected.get(name, "string"):
        raise RuleError(f"{at}/value", f"{name} needs a {expected.get(name, 'string')}")
    _buildable(name, value, at)
    return Single(name, value, fold)


def _buildable(name: str, value: Json, at: str) -> None:
    """Refuse a pattern or network that does not compile, at the place where it is written."""
    if (build := conditions.PLAIN.get(name)) is not None:
        try:
            build(str(value))
        except ValueError as error:
            raise RuleError(f"{at}/value", str(error)) from error


def _values(value: Json, at: str) -> Iterable[Json]:
    listed = _list(value, at)
    for place, item in enumerate(listed):
        if kind(item) is None:
            raise RuleError(f"{at}/{place}", "null and infinite numbers cannot be compared")
    return listed


def _require_meant(rule: Rule, anyone: Json, at: str) -> None:
    meant = _flag(anyone, f"{at}/anyone")
    if rule.effect == "allow" and rule.unconditional and not meant:
        raise RuleError(at, 'this rule permits everybody everything; say so with "anyone": true')
    if meant and not rule.unconditional:
        raise RuleError(f"{at}/anyone", "this rule has conditions or targets, so not anyone")


def _object(value: Json, at: str, known: Collection[str] | None = None) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise RuleError(at, "expected an object")
    if known is not None and (unknown := [name for name in value if name not in known]):
        raise _unknown("member", unknown[0], known, at)
    return value


def _members(
    members: Mapping[str, Json],
    at: str,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> None:
    known = ("condition", *required, *optional)
    if unknown := [name for name in members if name not in known]:
        raise _unknown("member", unknown[0], known, at)
    if missing := [name for name in required if name not in members]:
        raise RuleError(at, f'{members["condition"]} needs "{missing[0]}"')


def _list(value: Json, at: str) -> list[Json]:
    if not isinstance(value, list) or not value:
        raise RuleError(at, "expected a list that is not empty")
    return value


def _targets(value: Json, at: str) -> Targets:
    members = _object(value, at, Targets.__slots__)
    return Targets(**{name: _globs(globs, f"{at}/{name}") for name, globs in members.items()})


def _globs(value: Json, at: str) -> tuple[str, ...]:
    globs = _texts([value] if isinstance(value, str) else value, at)
    if not globs or not all(globs):
        raise RuleError(at, "expected a glob, or a list of globs, none of them empty")
    return globs


def literal_prefix(glob: str) -> tuple[str, bool]:
    """What *glob* begins with before its first wildcard, and whether it has no wildcard."""
    found = _GLOB.search(glob)
    return (glob, True) if found is None else (glob[: found.start()], False)


def _uid(value: Json, at: str) -> str:
    if not isinstance(value, str) or not _UID.match(value):
        raise RuleError(at, "expected 1 to 64 letters, digits, '.', '_' or '-'")
    return value


def _effect(value: Json, at: str) -> Effect:
    match value:
        case "allow" | "deny":
            return value
        case _:
            raise RuleError(at, 'expected "allow" or "deny"')


def _priority(value: Json, at: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RuleError(at, "expected a whole number, at least 0")


def _flag(value: Json, at: str) -> bool:
    if not isinstance(value, bool):
        raise RuleError(at, "expected true or false")
    return value


def _text(value: Json, at: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise RuleError(at, f"expected a text of at most {_MAX_TEXT} characters")
    return value


def _texts(value: Json, at: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RuleError(at, "expected a list of texts")
    return tuple(_text(item, f"{at}/{place}") for place, item in enumerate(value))


def _unknown(what: str, name: str, known: Iterable[str], at: str) -> RuleError:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f' (did you mean "{near[0]}"?)' if near else ""
    return RuleError(at, f'unknown {what} "{name}"{meant}')


def _escaped(name: str) -> str:
    """One reference token of a JSON pointer: RFC 6901 section 3."""
    return name.replace("~", "~0").replace("/", "~1")
