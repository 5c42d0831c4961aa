"""py-abac as the oracle: equal where both have an answer; ours refuses or denies where it errs."""

import importlib.util
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pdp.world import compiled, facts, rule

from envelock_pdp.bundle import read_json
from envelock_pdp.oracle import py_abac_rules
from envelock_pdp.rules import RuleError, read_rules

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("py_abac") is None, reason="py-abac is an optional dependency"
)
TEXT = st.sampled_from(["a", "b", "ab", "B", "10.1.1.1", "10.2.0.9"])
NUMBER = st.integers(-2, 2) | st.sampled_from([0.5, 1.5])
TEXTS = st.lists(TEXT, min_size=1, max_size=3)


def _with(names, **members):
    return st.fixed_dictionaries({"condition": st.sampled_from(names), **members})


ON_TEXT = (
    _with(["Equals", "NotEquals", "StartsWith", "EndsWith", "Contains", "NotContains"], value=TEXT)
    | _with(["Equals", "Contains"], value=TEXT, case_insensitive=st.booleans())
    | _with(["IsIn", "IsNotIn"], values=TEXTS)
    | _with(["RegexMatch"], value=st.sampled_from(["^a$", "^[ab]+$", "^a?b$", "^(?:a|b)$"]))
    | _with(["Exists", "NotExists", "Any"])
    | _with(
        ["EqualsAttribute", "NotEqualsAttribute"], ace=st.just("subject"), path=st.just("$.text2")
    )
    | _with(["IsInAttribute", "IsNotInAttribute"], ace=st.just("subject"), path=st.just("$.items"))
)
ON_IP = _with(["CIDR"], value=st.sampled_from(["10.1.0.0/16", "10.0.0.0/8", "192.0.2.0/24"]))
ON_NUMBER = _with(["Eq", "Neq", "Gt", "Gte", "Lt", "Lte"], value=NUMBER)
ON_LIST = (
    _with(["AllIn", "AnyIn", "AnyNotIn"], values=TEXTS)
    | _with(["IsEmpty", "IsNotEmpty"])
    | _with(
        ["AllInAttribute", "AnyInAttribute", "AnyNotInAttribute"],
        ace=st.just("subject"),
        path=st.just("$.items2"),
    )
)
ON_OBJECT = _with(["EqualsObject"], value=st.dictionaries(TEXT, TEXT, max_size=2))


def _logical(leaf):
    return leaf | st.recursive(
        leaf,
        lambda inner: (
            _with(["AllOf", "AnyOf"], values=st.lists(inner, min_size=1, max_size=2))
            | _with(["Not"], value=inner)
        ),
        max_leaves=3,
    )


BLOCK = st.fixed_dictionaries(
    {},
    optional={
        "$.text": _logical(ON_TEXT),
        "$.addr": _logical(ON_IP),
        "$.num": _logical(ON_NUMBER),
        "$.items": _logical(ON_LIST),
        "$.obj": _logical(ON_OBJECT),
    },
).filter(bool)
TARGET = st.sampled_from(["*", "doc*", "nurse", "?octor"])
RULE = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["allow", "deny"]),
        "targets": st.fixed_dictionaries({}, optional={"subject_id": TARGET}),
        "rules": st.fixed_dictionaries(
            {"subject": BLOCK | st.lists(BLOCK, min_size=1, max_size=2)}
        ),
    }
)
# Every attribute is there and of its type, lists are not empty: there both languages agree.
CLAIMS = st.fixed_dictionaries(
    {
        "text": TEXT,
        "text2": TEXT,
        "addr": st.sampled_from(["10.1.1.1", "10.2.0.9", "192.0.2.1", "::1"]),
        "num": NUMBER,
        "items": TEXTS,
        "items2": TEXTS,
        "obj": st.dictionaries(TEXT, TEXT, max_size=2),
    }
)


def _oracle(documents):
    text = json.dumps(documents).encode()
    rules = read_rules(read_json("rules/all.json", text), ("clearance",))
    return py_abac_rules(rules, {"rules/all.json": text})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents=st.lists(RULE, min_size=1, max_size=4), claims=CLAIMS)
def test_decides_as_py_abac_where_both_have_an_answer(documents, claims):
    """The same rules apply, for every condition, over attributes that are there."""
    named = [{"uid": f"r{place}", **document} for place, document in enumerate(documents)]
    asked = facts(claims)

    ours = [found.uid for found in compiled(*named).applying(asked)]

    assert ours == [found.uid for found in _oracle(named).applying(asked)]


def _both(document, claims, resource=None):
    """Whether the rule applies: ours, py-abac's."""
    asked = facts(claims, resource)
    return bool(compiled(document).applying(asked)), bool(_oracle([document]).applying(asked))


def _on_x(condition, effect="allow"):
    return rule(effect=effect, subject={"$.x": condition})


OTHER = {"ace": "resource", "path": "$.clearance"}
OPEN = [  # py-abac permits, ours does not: number of the finding, condition, claims
    ("2", {"condition": "EqualsAttribute", **OTHER}, {}),
    ("3", {"condition": "NotEqualsAttribute", **OTHER}, {"x": "a"}),
    ("3", {"condition": "Not", "value": {"condition": "Equals", "value": "a"}}, {}),
    ("3", {"condition": "IsNotIn", "values": ["a"]}, {}),
    ("4", {"condition": "AllIn", "values": ["a"]}, {"x": []}),
    ("7", {"condition": "RegexMatch", "value": "a"}, {"x": "banana"}),
    ("8", {"condition": "Eq", "value": 1}, {"x": True}),
    ("13", {"condition": "AllNotIn", "values": ["a"]}, {"x": ["a", "b"]}),
]
SILENT = [  # py-abac's denial does not match, ours does
    ("5", {"condition": "Gt", "value": 90}, {"x": "95"}),
    ("5", {"condition": "Gt", "value": 90}, {}),
    ("6", {"condition": "CIDR", "value": "10.0.0.0/8"}, {"x": "::ffff:10.1.1.1"}),
    ("6", {"condition": "CIDR", "value": "10.0.0.0/8"}, {"x": "garbage"}),
]


@pytest.mark.parametrize(("finding", "condition", "claims"), OPEN)
def test_does_not_permit_where_py_abac_fails_open(finding, condition, claims):
    """An allow that rests on an absent attribute, another type or a misread name does not apply."""
    assert _both(_on_x(condition), claims) == (False, True), finding


@pytest.mark.parametrize(("finding", "condition", "claims"), SILENT)
def test_denies_where_py_abac_skips_the_denial(finding, condition, claims):
    """A denial that cannot be evaluated applies."""
    assert _both(_on_x(condition, "deny"), claims) == (True, False), finding


@pytest.mark.parametrize(
    "document",
    [
        _on_x({"condition": "CIDR", "value": "10.0.0.5/8"}, "deny"),  # 6: never matches there
        _on_x({"condition": "RegexMatch", "value": "^(a+)+$"}),  # 7: runs for seconds there
        rule(subject={"tenant": {"condition": "Exists"}}),  # 10: a constant there
        rule(subject={"$..x": {"condition": "Exists"}}),  # 10: always there
        rule(),  # 12: allows everything there
    ],
)
def test_refuses_at_load_what_py_abac_accepts(document):
    """What can only be a mistake is not put in force."""
    assert _policy_accepts(document)
    with pytest.raises(RuleError):
        read_rules(document, ())


def _policy_accepts(document):
    from envelock_pdp.oracle import _policy_class  # noqa: PLC0415 py-abac warns when imported

    return _policy_class().from_json(document) is not None


def test_keeps_no_state_between_two_requests():
    """Finding 1: py-abac keeps one request's value on the shared condition; ours keeps none."""
    rules = compiled(_on_x({"condition": "EqualsAttribute", **OTHER}))
    [found] = rules.applying(facts({"x": "a"}, {"clearance": "a"}))

    assert not hasattr(found.check, "value")
    assert rules.applying(facts({"x": "a"}, {"clearance": "b"})) == []


def test_an_element_that_is_an_object_raises_nothing():
    """Finding 9: py-abac raises TypeError out of its decision."""
    document = _on_x({"condition": "AnyIn", "values": ["a"]})

    with pytest.raises(TypeError):
        _oracle([document]).applying(facts({"x": [{"a": 1}]}))
    assert compiled(document).applying(facts({"x": [{"a": 1}]})) == []


@pytest.mark.parametrize("name", ["n", "t", "in", "is", "not", "and", "null", "true", "a-b"])
def test_every_name_can_be_asked_about(name):
    """Finding 11: words of ObjectPath are ordinary names here."""
    document = rule(subject={f"$.{name}": {"condition": "Equals", "value": "x"}})

    assert len(compiled(document).applying(facts({name: "x"}))) == 1


def test_importing_the_decision_point_imports_no_py_abac():
    """Finding 14: its import warns, so ours does not rest on it."""
    import subprocess  # noqa: PLC0415 a fresh interpreter
    import sys  # noqa: PLC0415 as above

    program = (
        "import sys, envelock_pdp.evaluate, envelock_pdp.bundle, envelock_pdp.cases;"
        "sys.exit('py_abac' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], check=False)

    assert run.returncode == 0
