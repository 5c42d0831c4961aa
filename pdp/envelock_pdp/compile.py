"""Rules compiled to closures, behind an index that keeps a decision flat in their number.

A rule is looked at only when its most telling part can match: the id globs of resource, subject or
action when they are exact or begin with literal text; failing these, a case-sensitive `Equals` that
must hold. What remains is looked at every time.

Answers follow Kleene: a rule is certainly met, certainly not met, or cannot be evaluated. An
`allow` applies when it is certainly met, a `deny` unless it is certainly not met. No source text is
made or run.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from envelock_formats.canonical import Json
from envelock_pdp import conditions
from envelock_pdp.conditions import Answer, Comparison, Test
from envelock_pdp.paths import Lookup, lookup
from envelock_pdp.rules import (
    ELEMENTS,
    Block,
    Compared,
    Condition,
    Effect,
    Element,
    Logical,
    Rule,
    Single,
    literal_prefix,
)


class Facts(NamedTuple):
    """What rules are asked about; `evaluate` says what each mapping holds."""

    subject_id: str
    resource_id: str
    action_id: str
    subject: Mapping[str, object]
    resource: Mapping[str, object]
    action: Mapping[str, object]
    context: Mapping[str, object]


Check: TypeAlias = Callable[[Facts], Answer]
_FIRST_ELEMENT = Facts._fields.index("subject")
TARGETS = ("resource_id", "subject_id", "action_id")  # most telling first


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule, ready to be asked."""

    place: int  # in the bundle
    uid: str
    effect: Effect
    obligations: tuple[str, ...]
    check: Check

    def applies(self, facts: Facts) -> bool:
        """Whether the rule decides: an allow that is met, or a deny that is not ruled out."""
        answer = self.check(facts)
        return answer is True if self.effect == "allow" else answer is not False


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of a bundle."""

    rules: tuple[Rule, ...]
    _finders: tuple["_Finder", ...] = field(repr=False)

    def applying(self, facts: Facts) -> list[CompiledRule]:
        """The rules that decide about *facts*, in the order of the bundle."""
        found = [
            rule
            for finder in self._finders
            for rule in finder.candidates(facts)
            if rule.applies(facts)
        ]
        found.sort(key=_place)
        return found


def compile_rules(rules: Sequence[Rule]) -> RuleSet:
    """Compile and index *rules*."""
    always = _Always([])
    by_id = {name: _ById(Facts._fields.index(name)) for name in TARGETS}
    by_value: dict[tuple[Element, tuple[str, ...]], _ByValue] = {}
    for place, rule in enumerate(rules):
        compiled = CompiledRule(place, rule.uid, rule.effect, rule.obligations, rule_check(rule))
        target = next((name for name in TARGETS if _telling(getattr(rule.targets, name))), None)
        if target is not None:
            by_id[target].add(getattr(rule.targets, target), compiled)
        elif (key := _required_value(rule)) is not None:
            element, path, value = key
            finder = by_value.setdefault((element, path), _ByValue(_slot(element), lookup(path)))
            finder.add(value, compiled)
        else:
            always.rules.append(compiled)
    finders: tuple[_Finder, ...] = (*by_id.values(), *by_value.values(), always)
    return RuleSet(tuple(rules), tuple(finder for finder in finders if not finder.empty))


class _Finder(Protocol):
    """Finds the rules that may apply; never leaves out one that does."""

    @property
    def empty(self) -> bool: ...
    def candidates(self, facts: Facts) -> Iterable[CompiledRule]: ...


@dataclass(frozen=True, slots=True)
class _Always:
    rules: list[CompiledRule]

    @property
    def empty(self) -> bool:
        return not self.rules

    def candidates(self, facts: Facts) -> Iterable[CompiledRule]:  # noqa: ARG002 all of them, always
        return self.rules


@dataclass(frozen=True, slots=True)
class _ById:
    """Rules by one target: whole ids, and literal beginnings by their length."""

    slot: int
    exact: dict[str, list[CompiledRule]] = field(default_factory=dict)
    prefixes: dict[int, dict[str, list[CompiledRule]]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.exact and not self.prefixes

    def add(self, globs: Sequence[str], rule: CompiledRule) -> None:
        for literal, whole in {literal_prefix(glob) for glob in globs}:
            index = self.exact if whole else self.prefixes.setdefault(len(literal), {})
            index.setdefault(literal, []).append(rule)

    def candidates(self, facts: Facts) -> Iterable[CompiledRule]:
        name = str(facts[self.slot])
        found = self.exact.get(name, ())
        if not self.prefixes:
            return found
        near = [
            rule for length, index in self.prefixes.items() for rule in index.get(name[:length], ())
        ]
        return {rule.place: rule for rule in (*found, *near)}.values()  # two globs, one rule


@dataclass(frozen=True, slots=True)
class _ByValue:
    """Rules that need one text at one path; all of them when the request has no text there."""

    slot: int
    find: Lookup
    by_text: dict[str, list[CompiledRule]] = field(default_factory=dict)
    every: list[CompiledRule] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.every

    def add(self, text: str, rule: CompiledRule) -> None:
        self.by_text.setdefault(text, []).append(rule)
        self.every.append(rule)

    def candidates(self, facts: Facts) -> Iterable[CompiledRule]:
        value = self.find(facts[self.slot])  # type: ignore[arg-type] # slots of elements are mappings
        return self.by_text.get(value, ()) if isinstance(value, str) else self.every


def _place(rule: CompiledRule) -> int:
    return rule.place


def _slot(element: Element) -> int:
    return _FIRST_ELEMENT + ELEMENTS.index(element)


def _telling(globs: Sequence[str]) -> bool:
    return all(literal_prefix(glob)[0] for glob in globs)


def _required_value(rule: Rule) -> tuple[Element, tuple[str, ...], str] | None:
    """An element, path and text without which *rule* is certainly not met."""
    for element in ELEMENTS:
        blocks: tuple[Block, ...] = getattr(rule, element)
        if len(blocks) != 1:
            continue
        for path, condition in blocks[0]:
            match condition:
                case Single("Equals", str(text), fold=False):
                    return element, path, text
    return None


def rule_check(rule: Rule) -> Check:
    """Whether *rule* is met: its targets match, and its conditions hold."""
    targets = [
        target_check(name, getattr(rule.targets, name))
        for name in TARGETS
        if "*" not in getattr(rule.targets, name)
    ]
    elements: list[Check] = []
    for element in ELEMENTS:
        blocks: tuple[Block, ...] = getattr(rule, element)
        if () in blocks:
            continue
        parts = [
            [condition_check(element, path, found) for path, found in block] for block in blocks
        ]
        # One block is part of the one conjunction; several are alternatives in it.
        elements += parts[0] if len(parts) == 1 else [_any([_all(part) for part in parts])]
    return _all([*targets, *elements])


def target_check(target: str, globs: Sequence[str]) -> Check:
    """Whether the id at *target*, such as `action_id`, matches one of *globs*."""
    slot = Facts._fields.index(target)
    exact = frozenset(glob for glob in globs if literal_prefix(glob)[1])
    wild = [fnmatch.translate(glob) for glob in globs if glob not in exact]
    matches = re.compile("|".join(wild)).match if wild else None

    def check(facts: Facts) -> Answer:
        name = str(facts[slot])
        return name in exact or (matches is not None and matches(name) is not None)

    return check


def condition_check(element: Element, path: tuple[str, ...], condition: Condition) -> Check:
    """What *condition* answers about the value at *path* of *element*."""
    slot, find = _slot(element), lookup(path)
    match condition:
        case Single():
            test = _test(condition)
            return lambda facts: test(find(facts[slot]))  # type: ignore[arg-type] # as above
        case Compared(name, other_element, other_path):
            other_slot, find_other = _slot(other_element), lookup(other_path)
            return _comparison(conditions.COMPARED[name], slot, find, other_slot, find_other)
        case Logical("Not", (inner,)):
            check = condition_check(element, path, inner)
            return lambda facts: conditions.negation(check(facts))
        case Logical(name, parts):
            checks = [condition_check(element, path, part) for part in parts]
            return _all(checks) if name == "AllOf" else _any(checks)


def _comparison(
    compare: Comparison, slot: int, find: Lookup, other_slot: int, find_other: Lookup
) -> Check:
    def check(facts: Facts) -> Answer:
        value, other = find(facts[slot]), find_other(facts[other_slot])  # type: ignore[arg-type] # as above
        return compare(value, other)

    return check


def _test(condition: Single) -> Test:
    name, argument = condition.name, condition.argument
    match argument:
        case None:
            return conditions.BARE[name]
        case list():
            return conditions.LISTED[name](argument)
        case dict():
            return conditions.equal_to(argument)
        case str() if name in conditions.PLAIN:
            return conditions.PLAIN[name](argument)
        case str():
            return conditions.textual(conditions.TEXTUAL[name], argument, fold=condition.fold)
        case _:
            return conditions.numeric(conditions.NUMERIC[name], _number(argument))


def _number(argument: Json) -> float:
    if isinstance(argument, int | float):
        return argument
    raise TypeError("a numeric condition holds a number")


def _all(checks: Sequence[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def check(facts: Facts) -> Answer:
        verdict: Answer = True
        for one in checks:
            answer = one(facts)
            if answer is False:
                return False
            if answer is None:
                verdict = None
        return verdict

    return check


def _any(checks: Sequence[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def check(facts: Facts) -> Answer:
        verdict: Answer = False
        for one in checks:
            answer = one(facts)
            if answer is True:
                return True
            if answer is None:
                verdict = None
        return verdict

    return check
