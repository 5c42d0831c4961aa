"""Why a request is decided as it is: every rule, every condition, every step, with the values.

For authors, about their own cases: it shows claims. The decision itself is `evaluate`'s. Each
answer here comes from the very check that the compiled rule is made of, asked by itself, so nothing
is passed over as an evaluation may once the outcome is certain. Pure, like what it explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from envelock_formats.canonical import Json
from envelock_formats.fqn import AttributeValue
from envelock_pdp.attributes import Claims, Combination, Definition, SubjectMapping, grant_of
from envelock_pdp.compile import TARGETS, Facts, condition_check, rule_check, target_check
from envelock_pdp.conditions import Answer
from envelock_pdp.evaluate import AccessRequest, Bundle, Outcome, evaluate, facts_of, named
from envelock_pdp.paths import Path, lookup
from envelock_pdp.rules import ELEMENTS, Block, Compared, Condition, Effect, Element, Rule, Single

Verdict: TypeAlias = Literal["goes on", "permit", "deny", "not looked at"]


@dataclass(frozen=True, slots=True)
class Found:
    """The value at a path: of JSON, None where it is absent, or `paths.MALFORMED`."""

    element: Element
    path: Path
    value: object


@dataclass(frozen=True, slots=True)
class ExplainedCondition:
    """One condition: what was found, what it is held against, and the answer.

    *parts* are the conditions of `AllOf`, `AnyOf` and `Not`, about the same value.
    """

    name: str
    argument: Json
    fold: bool
    found: Found
    other: Found | None  # the attribute that a condition such as `EqualsAttribute` compares with
    parts: tuple["ExplainedCondition", ...]
    answer: Answer


@dataclass(frozen=True, slots=True)
class ExplainedTarget:
    """The globs of one target that is not `*`, and the id that was held against them."""

    target: str
    globs: tuple[str, ...]
    id: str
    matches: bool


@dataclass(frozen=True, slots=True)
class ExplainedElement:
    """The conditions about one element: of several blocks one must hold, of a block all."""

    element: Element
    blocks: tuple[tuple[ExplainedCondition, ...], ...]


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """One rule. An allow applies when it is met, a deny unless it is certainly not met."""

    uid: str
    effect: Effect
    description: str
    obligations: tuple[str, ...]
    targets: tuple[ExplainedTarget, ...]
    elements: tuple[ExplainedElement, ...]
    answer: Answer
    applies: bool


@dataclass(frozen=True, slots=True)
class ExplainedMapping:
    """A mapping that could grant an asked value, and the claim that it looks at."""

    mapping: SubjectMapping
    claim: object  # as in `Found`
    grants: bool


@dataclass(frozen=True, slots=True)
class ExplainedValue:
    """One attribute value that is asked for; *combination* is None where it is not defined."""

    asked: AttributeValue
    combination: Combination | None
    mappings: tuple[ExplainedMapping, ...]

    @property
    def held(self) -> bool:
        """Whether some mapping grants it."""
        return any(mapping.grants for mapping in self.mappings)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the decision; the first that denies ends it."""

    name: str
    said: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one decision."""

    request: AccessRequest
    now: int  # unix seconds
    values: tuple[ExplainedValue, ...]
    rules: tuple[ExplainedRule, ...]
    steps: tuple[Step, ...]
    outcome: Outcome


def explain_request(bundle: Bundle, request: AccessRequest, now: int) -> Explanation:
    """Decide *request* and explain it.

    Args:
        bundle: The owner's bundle, its rules by our own engine.
        request: What is asked.
        now: Unix seconds.
    """
    facts = facts_of(bundle, request, now)
    outcome = evaluate(bundle, request, now)
    return Explanation(
        request=request,
        now=now,
        values=tuple(_value(bundle, asked, facts) for asked in request.policy.attributes),
        rules=tuple(explain_rule(rule, facts) for rule in bundle.rules.rules),
        steps=_steps(bundle, request, outcome),
        outcome=outcome,
    )


def explain_rule(rule: Rule, facts: Facts) -> ExplainedRule:
    """Ask every condition of *rule* about *facts*."""
    answer = rule_check(rule)(facts)
    return ExplainedRule(
        uid=rule.uid,
        effect=rule.effect,
        description=rule.description,
        obligations=rule.obligations,
        targets=tuple(_targets(rule, facts)),
        elements=tuple(
            ExplainedElement(element, tuple(_block(element, block, facts) for block in blocks))
            for element in ELEMENTS
            if () not in (blocks := getattr(rule, element))
        ),
        answer=answer,
        applies=answer is True if rule.effect == "allow" else answer is not False,
    )


def _targets(rule: Rule, facts: Facts) -> list[ExplainedTarget]:
    found: list[ExplainedTarget] = []
    for target in TARGETS:
        globs: tuple[str, ...] = getattr(rule.targets, target)
        if "*" not in globs:
            matches = target_check(target, globs)(facts) is True
            found.append(ExplainedTarget(target, globs, str(getattr(facts, target)), matches))
    return found


def _block(element: Element, block: Block, facts: Facts) -> tuple[ExplainedCondition, ...]:
    return tuple(_condition(element, path, condition, facts) for path, condition in block)


def _condition(
    element: Element, path: Path, condition: Condition, facts: Facts
) -> ExplainedCondition:
    argument: Json = None
    fold, other = False, None
    parts: Sequence[Condition] = ()
    match condition:
        case Single(_, argument, fold):
            pass
        case Compared(_, other_element, other_path):
            other = _found(other_element, other_path, facts)
        case _:
            parts = condition.parts
    return ExplainedCondition(
        name=condition.name,
        argument=argument,
        fold=fold,
        found=_found(element, path, facts),
        other=other,
        parts=tuple(_condition(element, path, part, facts) for part in parts),
        answer=condition_check(element, path, condition)(facts),
    )


def _found(element: Element, path: Path, facts: Facts) -> Found:
    return Found(element, path, lookup(path)(getattr(facts, element)))


def _value(bundle: Bundle, asked: AttributeValue, facts: Facts) -> ExplainedValue:
    definition = next(
        (one for one in bundle.attributes.definitions if asked in one.all_values), None
    )
    if definition is None:
        return ExplainedValue(asked, None, ())
    granting = _granting(definition, asked)
    mappings = tuple(
        ExplainedMapping(
            mapping, lookup(mapping.claim)(facts.subject), grant_of(mapping)(Claims(facts.subject))
        )
        for mapping in bundle.attributes.mappings
        if mapping.grants in granting
    )
    return ExplainedValue(asked, definition.rule, mappings)


def _granting(definition: Definition, asked: AttributeValue) -> tuple[AttributeValue, ...]:
    """The values whose holder holds *asked*: in a hierarchy those above it too."""
    values = definition.all_values
    return values[: values.index(asked) + 1] if definition.rule == "hierarchy" else (asked,)


def _steps(bundle: Bundle, request: AccessRequest, outcome: Outcome) -> tuple[Step, ...]:
    """The steps of `evaluate`, in its order; after a denial nothing more is looked at."""
    steps: list[Step] = []
    denied = False
    for name, said, holds in _grounds(bundle, request, outcome):
        if denied:
            steps.append(Step(name, "", "not looked at"))
            continue
        steps.append(Step(name, said, "goes on" if holds else "deny"))
        denied = not holds
    if not denied:
        steps.append(Step("decision", "nothing denied it", "permit"))
    return tuple(steps)


def _grounds(
    bundle: Bundle, request: AccessRequest, outcome: Outcome
) -> list[tuple[str, str, bool]]:
    """Each step: its name, what there is to say, and whether the request passes it."""
    admitted = request.tenant == bundle.tenant or request.tenant in bundle.sharing
    entitled = all(found.held for found in outcome.entitlements)
    return [
        ("home tenant", _home(bundle, request), admitted),
        ("entitlement", _entitlement(outcome), entitled),
        ("denials", _listed(outcome.denials, "no deny applies"), not outcome.denials),
        ("permits", *_permits(bundle, outcome)),
        ("dissem", *_dissem(request)),
    ]


def _home(bundle: Bundle, request: AccessRequest) -> str:
    if request.tenant == bundle.tenant:
        return f"{request.tenant} owns the object"
    shared = "shares with" if request.tenant in bundle.sharing else "does not share with"
    return f"{bundle.tenant} {shared} {request.tenant} (`sharing` in bundle.toml)"


def _entitlement(outcome: Outcome) -> str:
    if not outcome.entitlements:
        return "no attribute is asked for"
    lacking = [found.name for found in outcome.entitlements if not found.held]
    return f"not held: {', '.join(lacking)}" if lacking else "every attribute asked for is held"


def _permits(bundle: Bundle, outcome: Outcome) -> tuple[str, bool]:
    """A permit is needed where no attribute is asked for, or where the bundle says so."""
    if outcome.permits:
        return _listed(outcome.permits, ""), True
    if bundle.rules_required:
        return 'no allow applies, and `rules = "required"` in bundle.toml wants one', False
    if not outcome.entitlements:
        return "no allow applies, and without attributes one is needed", False
    return "no allow applies, and none is needed: attributes are held", True


def _dissem(request: AccessRequest) -> tuple[str, bool]:
    if not request.policy.dissem:
        return "not stated: anybody whom the policy permits", True
    if named(request):
        return f"names {request.subject}", True
    return f"does not name {request.subject}: {', '.join(request.policy.dissem)}", False


def _listed(uids: Sequence[str], none: str) -> str:
    return f"by {', '.join(uids)}" if uids else none
