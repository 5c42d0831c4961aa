"""Attributes of data, and what entitles a subject to them.

A *definition* lists the values of one attribute and how several asked values combine: `allOf`,
`anyOf`, or `hierarchy` (values ordered, the highest first; whoever holds one holds all below).
A *mapping* grants a value to subjects whose claim passes: `in` (one of the values is among the
claim's), `not_in` (the claim is there, and none is) or `contains` (a text of the claim contains one
of the values). Mappings to one value add up. A claim that is absent or of another type grants
nothing, whatever the operator.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, TypeAlias

from envelock_formats.fqn import AttributeValue
from envelock_pdp.paths import Lookup, Path, lookup
from envelock_pdp.values import identity, kind

Combination: TypeAlias = Literal["allOf", "anyOf", "hierarchy"]
Operator: TypeAlias = Literal["in", "not_in", "contains"]
_SCALARS = frozenset({"string", "number", "boolean"})


class Claims:
    """A subject's claims, for the time of one question: what a path leads to is looked at once."""

    def __init__(self, claims: Mapping[str, object]) -> None:
        self._claims = claims
        self._compared: dict[Path, tuple[frozenset[object], frozenset[object]]] = {}

    def listed(self, find: Lookup) -> Sequence[object]:
        """The values at a path; a list stands for its items."""
        found = find(self._claims)
        return found if isinstance(found, list) else [found]

    def compared(self, path: Path, find: Lookup) -> tuple[frozenset[object], frozenset[object]]:
        """The kinds of the values at *path*, and the identities of those that can be compared."""
        if path not in self._compared:
            held = self.listed(find)
            comparable = (item for item in held if kind(item) in _SCALARS)
            self._compared[path] = frozenset(map(kind, held)), frozenset(map(identity, comparable))
        return self._compared[path]


Grant: TypeAlias = Callable[[Claims], bool]


@dataclass(frozen=True, slots=True)
class KeyScope:
    """Which key objects are sealed under that ask for an attribute: fields of the key template."""

    dataset: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """One attribute; *values* from the highest down when *rule* is `hierarchy`.

    *keys* are those of single values, *key* that of all others; clients that seal look there, and
    nothing is decided by it.
    """

    namespace: str
    name: str
    rule: Combination
    values: tuple[str, ...]
    key: KeyScope | None = None
    keys: Mapping[str, KeyScope] = field(default_factory=dict)

    @property
    def fqn(self) -> str:
        """The definition's fully qualified name."""
        return f"https://{self.namespace}/attr/{self.name}"

    @property
    def all_values(self) -> tuple[AttributeValue, ...]:
        """Every value of the definition, in order."""
        return tuple(AttributeValue(self.namespace, self.name, value) for value in self.values)


@dataclass(frozen=True, slots=True)
class SubjectMapping:
    """Grants one value to subjects whose claim passes."""

    claim: Path
    operator: Operator
    values: tuple[str | int | bool, ...]
    grants: AttributeValue


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What was found for one asked attribute, of one or several values."""

    name: str
    asked: tuple[AttributeValue, ...]
    known: bool  # every asked value is defined
    held: bool

    @property
    def reason(self) -> str:
        """Why it fails, for the record."""
        if self.known:
            return f"entitlement: {self.name}"
        return f"attribute unknown: {self.asked[0].namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class AttributeSet:
    """Definitions and mappings of a bundle, ready to be asked."""

    definitions: tuple[Definition, ...]
    mappings: tuple[SubjectMapping, ...]
    _grants: Mapping[AttributeValue, tuple[Grant, ...]] = field(repr=False)
    _rules: Mapping[tuple[str, str], Combination] = field(repr=False)

    def entitlements(
        self, claims: Mapping[str, object], asked: Iterable[AttributeValue]
    ) -> tuple[Entitlement, ...]:
        """Hold *claims* against every asked attribute, grouped by definition, in their order."""
        groups: dict[tuple[str, str], list[AttributeValue]] = {}
        for value in asked:
            groups.setdefault((value.namespace, value.name), []).append(value)
        once = Claims(claims)
        return tuple(
            self._entitlement(once, self._rules.get(definition), values)
            for definition, values in groups.items()
        )

    def held(self, claims: Mapping[str, object]) -> tuple[AttributeValue, ...]:
        """Every defined value that the subject of *claims* holds, in the order of the definitions.

        The same as `entitlements` of each value alone, with no mapping looked at twice.
        """
        once = Claims(claims)
        groups = groupby(self._grants, key=lambda value: (value.namespace, value.name))
        return tuple(
            value
            for definition, values in groups
            for value in self._held_of(self._rules[definition], tuple(values), once)
        )

    def openable(self, value: AttributeValue) -> bool:
        """Whether some mapping can entitle somebody to *value*."""
        return bool(self._grants.get(value))

    def _held_of(
        self, rule: Combination, values: Sequence[AttributeValue], claims: Claims
    ) -> Iterable[AttributeValue]:
        if rule != "hierarchy":
            return (v for v in values if any(grant(claims) for grant in self._grants[v]))
        # INVARIANT: in a hierarchy the grants of each value begin with those of the values above.
        grants = enumerate(self._grants[values[-1]])
        first = next((place for place, grant in grants if grant(claims)), None)
        return () if first is None else (v for v in values if len(self._grants[v]) > first)

    def _entitlement(
        self,
        claims: Claims,
        rule: Combination | None,
        asked: Sequence[AttributeValue],
    ) -> Entitlement:
        known = all(value in self._grants for value in asked)
        combine = any if rule == "anyOf" else all
        held = known and combine(
            any(grant(claims) for grant in self._grants[value]) for value in asked
        )
        return Entitlement(asked[0].name, tuple(asked), known, held)


def attribute_set(
    definitions: Sequence[Definition], mappings: Sequence[SubjectMapping]
) -> AttributeSet:
    """Compile; every mapping's value must be defined, which the bundle has checked."""
    direct: dict[AttributeValue, list[Grant]] = {}
    for mapping in mappings:
        direct.setdefault(mapping.grants, []).append(grant_of(mapping))
    grants: dict[AttributeValue, tuple[Grant, ...]] = {}
    for definition in definitions:
        above: list[Grant] = []
        for value in definition.all_values:
            own = direct.get(value, [])
            above.extend(own)
            grants[value] = tuple(above if definition.rule == "hierarchy" else own)
    rules = {(one.namespace, one.name): one.rule for one in definitions}
    return AttributeSet(tuple(definitions), tuple(mappings), grants, rules)


def grant_of(mapping: SubjectMapping) -> Grant:
    """Whether *mapping* grants its value to the subject of some claims."""
    path, find = mapping.claim, lookup(mapping.claim)
    if mapping.operator == "contains":
        return _containing(find, tuple(str(value) for value in mapping.values))
    wanted = frozenset(map(identity, mapping.values))
    kinds = frozenset(map(kind, mapping.values))
    inside = mapping.operator == "in"

    def grant(claims: Claims) -> bool:
        found, held = claims.compared(path, find)
        return found <= kinds and held.isdisjoint(wanted) is not inside

    return grant


def _containing(find: Lookup, parts: tuple[str, ...]) -> Grant:
    def grant(claims: Claims) -> bool:
        return any(
            isinstance(item, str) and any(part in item for part in parts)
            for item in claims.listed(find)
        )

    return grant
