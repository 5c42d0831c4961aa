"""Rules are read strictly; every refusal names its place."""

import pytest
from pdp.world import rule

from envelock_pdp.rules import Logical, RuleError, Single, Targets, read_rules

NAMES = frozenset({"clearance"})
ROLE = {"condition": "Equals", "value": "doctor"}


def _subject(condition, path="$.role"):
    return rule(subject={path: condition})


REFUSED = [
    ("text", "/0", "expected an object"),
    ({"uid": "r", "effect": "allow", "rules": {}}, "/0", '"targets" is missing'),
    ({**rule(), "efect": "deny"}, "/0", 'unknown member "efect" (did you mean "effect"?)'),
    (rule(uid=""), "/0/uid", "expected 1 to 64"),
    (rule(uid="a b"), "/0/uid", "expected 1 to 64"),
    (rule(effect="permit"), "/0/effect", 'expected "allow" or "deny"'),
    ({**rule(subject={"$.a": ROLE}), "priority": -1}, "/0/priority", "expected a whole number"),
    ({**rule(subject={"$.a": ROLE}), "priority": True}, "/0/priority", "expected a whole number"),
    ({**rule(subject={"$.a": ROLE}), "description": 1}, "/0/description", "expected a text"),
    ({**rule(subject={"$.a": ROLE}), "obligations": "x"}, "/0/obligations", "expected a list"),
    ({**rule(subject={"$.a": ROLE}), "obligations": [1]}, "/0/obligations/0", "expected a text"),
    (rule(targets={"subject_id": []}), "/0/targets/subject_id", "expected a glob"),
    (rule(targets={"subject_id": ""}), "/0/targets/subject_id", "expected a glob"),
    (rule(targets={"subject_id": 1}), "/0/targets/subject_id", "expected a list"),
    (rule(targets={"subjectid": "a"}), "/0/targets", 'did you mean "subject_id"?'),
    (rule(), "/0", 'say so with "anyone": true'),
    (rule(targets={"action_id": ["*", "open"]}), "/0", 'say so with "anyone": true'),
    (rule(subject=[{}, {"$.a": ROLE}]), "/0", 'say so with "anyone": true'),
    ({**rule(subject={"$.a": ROLE}), "anyone": True}, "/0/anyone", "this rule has conditions"),
    ({**rule(), "anyone": 1}, "/0/anyone", "expected true or false"),
    (rule(subject=[]), "/0/rules/subject", "an empty list can never match"),
    (rule(subject="x"), "/0/rules/subject", "expected an object"),
    (rule(subjekt={}), "/0/rules", 'unknown member "subjekt" (did you mean "subject"?)'),
    (_subject("x"), "/0/rules/subject/$.role", "expected an object"),
    (_subject({}), "/0/rules/subject/$.role", '"condition" is missing'),
    (
        _subject({"condition": "Equalz", "value": "a"}),
        "/0/rules/subject/$.role",
        'unknown condition "Equalz" (did you mean "Equals"?)',
    ),
    (_subject({"condition": "Between"}), "/0/rules/subject/$.role", 'unknown condition "Between"'),
    (_subject({"condition": "Equals"}), "/0/rules/subject/$.role", 'Equals needs "value"'),
    (_subject({**ROLE, "values": []}), "/0/rules/subject/$.role", 'unknown member "values"'),
    (
        _subject({"condition": "Equals", "value": 1}),
        "/0/rules/subject/$.role/value",
        "needs a string",
    ),
    (
        _subject({"condition": "Eq", "value": True}),
        "/0/rules/subject/$.role/value",
        "needs a number",
    ),
    (
        _subject({"condition": "Eq", "value": "1"}),
        "/0/rules/subject/$.role/value",
        "needs a number",
    ),
    (
        _subject({**ROLE, "case_insensitive": 1}),
        "/0/rules/subject/$.role/case_insensitive",
        "expected",
    ),
    (_subject({"condition": "Exists", "value": 1}), "/0/rules/subject/$.role", "unknown member"),
    (
        _subject({"condition": "IsIn", "values": []}),
        "/0/rules/subject/$.role/values",
        "expected a list",
    ),
    (_subject({"condition": "IsIn", "values": [None]}), "/0/rules/subject/$.role/values/0", "null"),
    (
        _subject({"condition": "AnyOf", "values": []}),
        "/0/rules/subject/$.role/values",
        "expected a list",
    ),
    (
        _subject({"condition": "Not", "value": {"condition": "Nott"}}),
        "/0/rules/subject/$.role/value",
        'did you mean "Not"?',
    ),
    (
        _subject({"condition": "RegexMatch", "value": "(a+)+"}),
        "/0/rules/subject/$.role/value",
        "pattern",
    ),
    (
        _subject({"condition": "CIDR", "value": "10.0.0.5/8"}),
        "/0/rules/subject/$.role/value",
        "10.0.0.5/8",
    ),
    (
        _subject({"condition": "CIDR", "value": "10.0.0.5"}),
        "/0/rules/subject/$.role/value",
        "'10.0.0.5'",
    ),
    (_subject({"condition": "CIDR", "value": "junk"}), "/0/rules/subject/$.role/value", "'junk'"),
    (
        _subject({"condition": "CIDR", "value": "::/0"}),
        "/0/rules/subject/$.role/value",
        "'::/0' holds IPv4",
    ),
    (
        _subject({"condition": "CIDR", "value": "::ffff:10.0.0.0/104"}),
        "/0/rules/subject/$.role/value",
        "'::ffff:10.0.0.0/104' holds IPv4",
    ),
    (
        _subject({"condition": "EqualsObject", "value": []}),
        "/0/rules/subject/$.role/value",
        "needs a object",
    ),
    (
        _subject({"condition": "EqualsAttribute", "ace": "resorce", "path": "$.tenant"}),
        "/0/rules/subject/$.role/ace",
        'unknown ace "resorce" (did you mean "resource"?)',
    ),
    (
        _subject({"condition": "EqualsAttribute", "ace": "resource", "path": "$.owner"}),
        "/0/rules/subject/$.role/path",
        'unknown path "$.owner"',
    ),
    (rule(action={"$.method": ROLE}), "/0/rules/action", "an action has no attributes"),
    (rule(resource={"$.clearence": ROLE}), "/0/rules/resource", 'did you mean "$.clearance"?'),
    (rule(context={"$.tiem.hour": ROLE}), "/0/rules/context", 'did you mean "$.time.hour"?'),
    (rule(context={"$.time": ROLE}), "/0/rules/context", 'unknown path "$.time"'),
]
CONSTANTS = [
    "role",
    "1 + 1",
    "now()",
    "$..role",
    "$['role']",
    "$",
    "$.",
    "$.a[0]",
    "$.a.b()",
    "$.1a",
]


@pytest.mark.parametrize(("document", "pointer", "problem"), REFUSED)
def test_refuses_with_the_place(document, pointer, problem):
    """Whatever is unknown, missing or meaningless is refused where it stands."""
    with pytest.raises(RuleError) as caught:
        read_rules([document], NAMES)

    assert (caught.value.pointer, problem in caught.value.problem) == (pointer, True), caught.value


@pytest.mark.parametrize("path", CONSTANTS)
def test_refuses_paths_that_are_no_paths(path):
    """Expressions and constants of ObjectPath name no attribute."""
    with pytest.raises(RuleError, match="is not a path"):
        read_rules(_subject(ROLE, path), NAMES)


def test_escapes_names_in_pointers():
    """A pointer is an RFC 6901 pointer even for odd names."""
    with pytest.raises(RuleError) as caught:
        read_rules(_subject({"condition": "IsIn", "values": 1}, "$.a-b"), NAMES)

    assert caught.value.pointer == "/rules/subject/$.a-b/values"


def test_bounds_nesting():
    """Conditions in conditions end somewhere."""
    deep = ROLE
    for _ in range(9):
        deep = {"condition": "Not", "value": deep}

    with pytest.raises(RuleError, match="nested deeper"):
        read_rules(_subject(deep), NAMES)


def test_reads_a_rule_into_values():
    """A rule that is alone in its file, with everything it can have."""
    document = {
        "uid": "treatment",
        "description": "for treatment",
        "effect": "allow",
        "priority": 3,
        "targets": {"subject_id": "dr-*", "action_id": ["open", "seal"]},
        "rules": {
            "subject": [
                {"$.role": ROLE},
                {"$.n": {"condition": "Not", "value": {"condition": "Exists"}}},
            ],
        },
        "obligations": ["watermark"],
    }

    [read] = read_rules(document, NAMES)

    assert read.targets == Targets(subject_id=("dr-*",), action_id=("open", "seal"))
    assert read.subject == (
        ((("role",), Single("Equals", "doctor")),),
        ((("n",), Logical("Not", (Single("Exists"),))),),
    )
    assert (read.context, read.obligations) == (((),), ("watermark",))


def test_anyone_is_permitted_only_when_said():
    """A rule without conditions permits, when the author says that it is meant."""
    [read] = read_rules({**rule(), "anyone": True}, NAMES)

    assert read.unconditional


def test_a_denial_of_everything_needs_no_word():
    """Denying everybody is safe, so it needs no confirmation."""
    [read] = read_rules(rule(effect="deny"), NAMES)

    assert read.unconditional
