"""Every condition: met, not met, cannot be evaluated; in an allow and in a deny."""

import pytest
from pdp.world import compiled, facts, rule

from envelock_pdp.conditions import NAMES
from envelock_pdp.patterns import MAX_TEXT

# name, rest of the condition, values that meet it, that do not, of another type
TABLE = [
    ("Eq", {"value": 2}, [2, 2.0], [3], ["2", True, [2], float("nan")]),
    ("Neq", {"value": 2}, [3], [2], ["3", False]),
    ("Gt", {"value": 2}, [2.5], [2], ["9", True]),
    ("Gte", {"value": 2}, [2], [1], ["9"]),
    ("Lt", {"value": 2}, [1], [2], ["1", False]),
    ("Lte", {"value": 2}, [2], [3], [None, float("-inf")]),
    ("Equals", {"value": "a"}, ["a"], ["A", "b", ""], [1, ["a"]]),
    ("Equals", {"value": "A", "case_insensitive": True}, ["a", "A"], ["b"], [1]),
    ("NotEquals", {"value": "a"}, ["b"], ["a"], [1, ["a"]]),
    ("StartsWith", {"value": "ab"}, ["abc"], ["cab"], [1]),
    ("EndsWith", {"value": "ab"}, ["cab"], ["abc"], [1]),
    ("Contains", {"value": "ab"}, ["cabc"], ["ba"], [["ab"]]),
    ("NotContains", {"value": "ab"}, ["ba"], ["cabc"], [["x"]]),
    (
        "RegexMatch",
        {"value": "[a-z]+"},
        ["abc"],
        ["abc1", "1abc", "abc\n"],
        [1, "a" * (MAX_TEXT + 1)],
    ),
    ("IsIn", {"values": ["a", 1]}, ["a", 1], ["b", 2], [True, ["a"]]),
    ("IsIn", {"values": [["a"], {"b": 1}]}, [["a"], {"b": 1}], [["b"], {"b": True}], ["a"]),
    ("IsNotIn", {"values": ["a"]}, ["b"], ["a"], [1, ["b"]]),
    (
        "AllIn",
        {"values": ["a", "b"]},
        [["a"], ["a", "b"]],
        [["a", "c"], []],
        ["a", ["a", 1], {"a": 1}],
    ),
    ("AllNotIn", {"values": ["a", "b"]}, [["c"]], [["a"]], ["c", [], ["a", "c"], [1]]),
    ("AnyIn", {"values": ["a", "b"]}, [["a", "c"]], [["c"], []], ["a", ["a", {}], [None]]),
    ("AnyNotIn", {"values": ["a", "b"]}, [["c"], []], [["a", "c"]], ["c", [1]]),
    ("IsEmpty", {}, [[]], [["a"]], ["", {}]),
    ("IsNotEmpty", {}, [["a"]], [[]], ["a", {"a": 1}]),
    (
        "CIDR",
        {"value": "10.0.0.0/8"},
        ["10.1.1.1", "::ffff:10.1.1.1"],
        ["11.1.1.1", "::1"],
        ["10.1", 1],
    ),
    ("CIDR", {"value": "fd00::/8"}, ["fd00::1"], ["fe80::1", "10.0.0.1"], ["fd00::1%eth0"]),
    ("Any", {}, ["a", 0, False, []], [], []),
    ("EqualsObject", {"value": {"a": 1}}, [{"a": 1}], [{"a": True}, {"a": 1, "b": 2}], ["a"]),
    (
        "AllOf",
        {"values": [{"condition": "Gt", "value": 1}, {"condition": "Lt", "value": 3}]},
        [2],
        [3],
        ["2"],
    ),
    (
        "AnyOf",
        {"values": [{"condition": "Eq", "value": 1}, {"condition": "Eq", "value": 2}]},
        [2],
        [3],
        ["2"],
    ),
    ("Not", {"value": {"condition": "Eq", "value": 1}}, [2], [1], ["1"]),
]
# name, the other attribute, as above
COMPARED = [
    ("EqualsAttribute", "a", ["a"], ["b"], [1, ["a"]]),
    ("EqualsAttribute", 1, [1, 1.0], [2], [True]),
    ("NotEqualsAttribute", "a", ["b"], ["a"], [1]),
    ("IsInAttribute", ["a", "b"], ["a"], ["c"], [1, ["a"]]),
    ("IsNotInAttribute", ["a", "b"], ["c"], ["a"], [1]),
    ("AllInAttribute", ["a", "b"], [["a"]], [["a", "c"], []], ["a", [1]]),
    ("AllNotInAttribute", ["a", "b"], [["c"]], [["a"]], [[], ["a", "c"], "c"]),
    ("AnyInAttribute", ["a", "b"], [["a", "c"]], [["c"]], ["a", [1]]),
    ("AnyNotInAttribute", ["a", "b"], [["c"]], [["a", "c"]], ["c", [1]]),
]
CASES = [
    (name, rest, value, answer)
    for name, rest, met, unmet, malformed in TABLE
    for answer, values in ((True, met), (False, unmet), (None, [*malformed, None]))
    for value in values
]
OTHERS = [
    (name, other, value, answer)
    for name, other, met, unmet, malformed in COMPARED
    for answer, values in ((True, met), (False, unmet), (None, [*malformed, None]))
    for value in values
]
PRESENCE = [
    ("Exists", {"x": 1}, True),
    ("Exists", {"x": None}, False),
    ("Exists", {}, False),
    ("NotExists", {}, True),
    ("NotExists", {"x": []}, False),
]


def _decisions(condition, claims, resource=None, path="$.x"):
    """Whether an allow applies, and whether a deny applies."""
    rules = compiled(
        rule("allow", subject={path: condition}), rule("deny", "deny", subject={path: condition})
    )
    applying = {found.uid for found in rules.applying(facts(claims, resource))}
    return "allow" in applying, "deny" in applying


def _meaning(answer):
    """An allow needs certainty; a deny needs certainty to stay away."""
    return answer is True, answer is not False


@pytest.mark.parametrize(("name", "rest", "value", "answer"), CASES)
def test_answers_in_three_ways(name, rest, value, answer):
    """Met, unmet, or of another type or absent: an allow and a deny read it oppositely."""
    assert _decisions({"condition": name, **rest}, {"x": value}) == _meaning(answer)


@pytest.mark.parametrize(("name", "other", "value", "answer"), OTHERS)
def test_compares_two_attributes_in_three_ways(name, other, value, answer):
    """The forms that look at another attribute answer as the others do."""
    condition = {"condition": name, "ace": "resource", "path": "$.clearance"}

    assert _decisions(condition, {"x": value}, {"clearance": other}) == _meaning(answer)


@pytest.mark.parametrize("name", sorted({case[0] for case in COMPARED}))
@pytest.mark.parametrize("claims", [{}, {"x": "a"}, {"x": ["a"]}])
def test_cannot_compare_with_what_is_absent(name, claims):
    """Where the other attribute is absent nothing is known, not even when both are."""
    condition = {"condition": name, "ace": "resource", "path": "$.clearance"}

    assert _decisions(condition, claims) == _meaning(None)


@pytest.mark.parametrize(("name", "claims", "answer"), PRESENCE)
def test_presence_is_answered_by_absence_too(name, claims, answer):
    """Exists and NotExists have an answer for what is absent; null is absent."""
    assert _decisions({"condition": name}, claims) == _meaning(answer)


@pytest.mark.parametrize("name", ["Exists", "NotExists", "Any"])
def test_a_member_of_something_that_has_none_is_neither_there_nor_absent(name):
    """`$.x.y` of a text cannot be evaluated, not even for presence."""
    assert _decisions({"condition": name}, {"x": "text"}, path="$.x.y") == _meaning(None)


def test_the_tables_cover_all_37_conditions():
    """No condition is without a row."""
    covered = {row[0] for row in (*TABLE, *COMPARED, *PRESENCE)}

    assert covered == NAMES
    assert len(NAMES) == 37


@pytest.mark.parametrize(
    ("one", "other", "all_of", "any_of"),
    [
        (True, None, None, True),
        (False, None, False, None),
        (None, None, None, None),
        (True, False, False, True),
    ],
)
def test_doubt_does_not_hide_certainty(one, other, all_of, any_of):
    """AllOf is unmet by one unmet part and AnyOf met by one met part, whatever the rest is."""
    spelling = {
        True: {"condition": "Exists"},
        False: {"condition": "NotExists"},
        None: {"condition": "Eq", "value": 1},
    }
    for values in ([spelling[one], spelling[other]], [spelling[other], spelling[one]]):
        claims = {"x": "text"}

        assert _decisions({"condition": "AllOf", "values": values}, claims) == _meaning(all_of)
        assert _decisions({"condition": "AnyOf", "values": values}, claims) == _meaning(any_of)


def test_a_value_nested_too_deeply_cannot_be_evaluated():
    """Depth is bounded, so no claim exhausts the stack."""
    deep = []
    for _ in range(5000):
        deep = [deep]

    assert _decisions({"condition": "IsIn", "values": [[]]}, {"x": deep}) == _meaning(None)
