"""Explanations as lines for people and as JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from envelock_formats.canonical import Json
from envelock_pdp.cases import Result
from envelock_pdp.conditions import Answer
from envelock_pdp.explanation import (
    ExplainedCondition,
    ExplainedElement,
    ExplainedRule,
    ExplainedTarget,
    ExplainedValue,
    Explanation,
    Found,
    Step,
)
from envelock_pdp.paths import MALFORMED, show_path

_WORDS = {True: "true", False: "false", None: "undefined"}
_MAX_SHOWN = 60  # characters of a value
_GAP = "  "
_WIDEST = 48  # characters of what was asked, before what was found follows
_ANSWER = len("not looked at")


def told(result: Result, found: Explanation, label: str = "") -> list[str]:
    """The explanation of a case, as lines in columns.

    Args:
        result: The case, and what it gave.
        found: Its explanation.
        label: Of the bundle, where there are several.
    """
    return [
        f'{label}{result.case.file} "{result.case.name}": {_against(result)}',
        "",
        *_section("asked", _asked(found)),
        "",
        *_section("entitlement", _entitlement(found.values)),
        "",
        *_section("rules", [line for rule in found.rules for line in _rule(rule)]),
        "",
        *_section("decision", _decision(found)),
    ]


def as_object(result: Result, found: Explanation) -> dict[str, Json]:
    """The same as JSON; `null` is a condition that cannot be evaluated, or an absent value."""
    outcome, request = found.outcome, found.request
    return {
        "file": result.case.file,
        "name": result.case.name,
        "expected": _word(permit=result.case.permit),
        "passed": result.passed,
        "decision": _word(permit=outcome.permit),
        "reason": outcome.reason,
        "reasons": list(outcome.reasons),
        "obligations": list(outcome.obligations),
        "subject": request.subject,
        "tenant": request.tenant,
        "action": request.action,
        "object": request.object_id,
        "at": _moment(found.now),
        "entitlement": [_value_object(value) for value in found.values],
        "rules": [_rule_object(rule) for rule in found.rules],
        "steps": [
            {"step": step.name, "said": step.said, "verdict": step.verdict} for step in found.steps
        ],
    }


def _section(title: str, lines: Iterable[str]) -> list[str]:
    """*lines* beside their title, which stands at the first of them."""
    width = len("entitlement") + len(_GAP)
    return [
        f"{title if place == 0 else '':<{width}}{line}".rstrip() for place, line in enumerate(lines)
    ]


def _against(result: Result) -> str:
    got = _word(permit=result.outcome.permit)
    if result.passed:
        return f"{got}, as expected"
    expected = _word(permit=result.case.permit)
    if expected != got:
        return f"{got}, where {expected} was expected"
    wanted = ", ".join(f'"{text}"' for text in result.missing)
    return f"{got}, as expected, but not because of {wanted}"


def _asked(found: Explanation) -> list[str]:
    request, moment = found.request, datetime.fromtimestamp(found.now, UTC)
    asks = ", ".join(value.asked.short for value in found.values) or "no attribute"
    stated = [f"ip {request.ip}"] * (request.ip is not None)
    stated += [f"purpose {request.purpose}"] * (request.purpose is not None)
    who = f"{request.subject}@{request.tenant}"
    return [
        f"{who} wants to {request.action} {request.object_id!r}, which asks for {asks}",
        ", ".join([f"at {_moment(found.now)}, a {moment:%A}", *stated]),
    ]


def _entitlement(values: Sequence[ExplainedValue]) -> list[str]:
    if not values:
        return ["no attribute is asked for"]
    rows: list[tuple[str, str, str]] = []
    for value in values:
        kind = value.combination or "not defined in attributes.json"
        rows.append(("held" if value.held else "not held", value.asked.short, kind))
        for one in value.mappings:
            wanted = ", ".join(_shown(item) for item in one.mapping.values)
            above = (
                "" if one.mapping.grants == value.asked else f", as of {one.mapping.grants.value}"
            )
            asks = f"{_GAP}claim {show_path(one.mapping.claim)} {one.mapping.operator} {wanted}"
            rows.append((_WORDS[one.grants], asks, f"{_is(one.claim)}{above}"))
        if value.combination is not None and not value.mappings:
            rows.append((_WORDS[False], f"{_GAP}no mapping grants it", ""))
    return _columns(rows)


def _rule(rule: ExplainedRule) -> list[str]:
    rows: list[tuple[str, str, str]] = [_target_row(target) for target in rule.targets]
    for element in rule.elements:
        rows += _element_rows(element)
    if not rows:
        rows = [(_WORDS[True], "no condition", "")]
    head = f"{rule.effect} {rule.uid}: {_standing(rule)}"
    return [head, *(f"{_GAP}{line}" for line in _columns(rows))]


def _standing(rule: ExplainedRule) -> str:
    if rule.effect == "deny" and rule.answer is None:
        return "applies, since it cannot be ruled out"
    if rule.effect == "allow" and rule.answer is None:
        return "does not apply, since it is not certain"
    return "applies" if rule.applies else "does not apply"


def _target_row(target: ExplainedTarget) -> tuple[str, str, str]:
    globs = " or ".join(target.globs)
    return (_WORDS[target.matches], f"target {target.target} {globs}", _is(target.id))


def _element_rows(element: ExplainedElement) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    several = len(element.blocks) > 1
    for place, block in enumerate(element.blocks):
        if several:
            rows.append((_WORDS[_all(block)], "or" if place else "either", ""))
        for condition in block:
            rows += _condition_rows(condition, 1 if several else 0)
    return rows


def _condition_rows(condition: ExplainedCondition, depth: int) -> list[tuple[str, str, str]]:
    found = condition.found
    place = f"{_GAP * depth}{found.element} {show_path(found.path)}"
    row = (_WORDS[condition.answer], f"{place} {_spelt(condition)}", _seen(condition))
    parts = [line for part in condition.parts for line in _condition_rows(part, depth + 1)]
    return [row, *parts]


def _spelt(condition: ExplainedCondition) -> str:
    if condition.other is not None:
        other = condition.other
        return f"{condition.name} {other.element} {show_path(other.path)}"
    if condition.argument is None:
        return condition.name
    fold = " in any case" if condition.fold else ""
    return f"{condition.name} {_shown(condition.argument)}{fold}"


def _seen(condition: ExplainedCondition) -> str:
    said = _is(condition.found.value)
    if condition.other is not None:
        said += f", the other {_is(condition.other.value)}"
    elif condition.answer is None and _present(condition.found.value) and not condition.parts:
        said += ", which it cannot judge"
    return said


def _decision(found: Explanation) -> list[str]:
    outcome = found.outcome
    lines = _columns([_step_row(number, step) for number, step in enumerate(found.steps, 1)])
    lines.append(f"{_word(permit=outcome.permit)}: {outcome.reason}")
    if outcome.obligations:
        lines.append(f"obligations: {', '.join(outcome.obligations)}")
        lines.append("the KAS can see to none of them, so it releases nothing")
    return lines


def _step_row(number: int, step: Step) -> tuple[str, str, str]:
    return (step.verdict, f"{number} {step.name}", step.said)


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows of an answer, what was asked, and what was found; a long one moves no other."""
    width = min(_WIDEST, max(len(asked) for _, asked, _ in rows))
    return [
        f"{answer:<{_ANSWER}}{_GAP}{asked:<{width}}{_GAP}{seen}".rstrip()
        for answer, asked, seen in rows
    ]


def _all(block: Sequence[ExplainedCondition]) -> Answer:
    answers = {condition.answer for condition in block}
    return False if False in answers else None if None in answers else True


def _present(value: object) -> bool:
    return value is not None and value is not MALFORMED


def _is(value: object) -> str:
    if value is None:
        return "is absent"
    if value is MALFORMED:
        return "is out of reach: something above it is no object"
    return f"is {_shown(value)}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _moment(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _word(*, permit: bool) -> str:
    return "permit" if permit else "deny"


def _value_object(value: ExplainedValue) -> dict[str, Json]:
    return {
        "asked": value.asked.fqn,
        "rule": value.combination,
        "held": value.held,
        "mappings": [
            {
                "claim": show_path(one.mapping.claim),
                "operator": one.mapping.operator,
                "values": list(one.mapping.values),
                "grants": one.mapping.grants.fqn,
                "found": _json(one.claim),
                "answer": one.grants,
            }
            for one in value.mappings
        ],
    }


def _rule_object(rule: ExplainedRule) -> dict[str, Json]:
    return {
        "uid": rule.uid,
        "effect": rule.effect,
        "description": rule.description,
        "applies": rule.applies,
        "answer": rule.answer,
        "obligations": list(rule.obligations),
        "targets": [
            {"target": one.target, "globs": list(one.globs), "id": one.id, "matches": one.matches}
            for one in rule.targets
        ],
        "conditions": {
            element.element: [
                [_condition_object(condition) for condition in block] for block in element.blocks
            ]
            for element in rule.elements
        },
    }


def _condition_object(condition: ExplainedCondition) -> dict[str, Json]:
    members: dict[str, Json] = {
        "path": show_path(condition.found.path),
        "condition": condition.name,
        "found": _json(condition.found.value),
        "answer": condition.answer,
    }
    if condition.argument is not None:
        members["value"] = condition.argument
    if condition.fold:
        members["case_insensitive"] = True
    if condition.other is not None:
        members["other"] = _found_object(condition.other)
    if condition.parts:
        members["parts"] = [_condition_object(part) for part in condition.parts]
    return members


def _found_object(found: Found) -> dict[str, Json]:
    return {
        "ace": found.element,
        "path": show_path(found.path),
        "found": _json(found.value),
    }


def _json(value: object) -> Json:
    """A claim as it came from JSON; what is out of reach is null, like what is absent."""
    plain: Json = None if value is MALFORMED else json.loads(json.dumps(value))
    return plain
