"""Compiled rules decide as their definition says, however they are indexed."""

import fnmatch

from hypothesis import given, settings
from hypothesis import strategies as st
from pdp.world import compiled, facts, rule

from envelock_pdp.compile import compile_rules
from envelock_pdp.rules import read_rules

IDS = st.sampled_from(["a", "ab", "abc", "b", "svc-1", "x"])
GLOBS = st.sampled_from(["*", "a", "ab", "a*", "ab*", "?b", "[ab]", "svc-*", "*c", "b"])
TARGET = GLOBS | st.lists(GLOBS, min_size=1, max_size=3)
CONDITION = st.sampled_from(
    [
        {"condition": "Equals", "value": "a"},
        {"condition": "Equals", "value": "b"},
        {"condition": "Equals", "value": "A", "case_insensitive": True},
        {"condition": "Eq", "value": 1},
        {"condition": "Exists"},
        {"condition": "Not", "value": {"condition": "Equals", "value": "a"}},
    ]
)
BLOCK = st.dictionaries(st.sampled_from(["$.x", "$.y"]), CONDITION, max_size=2)
RULE = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["allow", "deny"]),
        "targets": st.fixed_dictionaries(
            {}, optional={"subject_id": TARGET, "resource_id": TARGET, "action_id": TARGET}
        ),
        "rules": st.fixed_dictionaries(
            {}, optional={"subject": BLOCK | st.lists(BLOCK, min_size=1, max_size=2)}
        ),
    }
)
CLAIMS = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["a", "b", "A", 1, None, []]))


def _globs(document, name):
    globs = document["targets"].get(name, "*")
    return globs if isinstance(globs, list) else [globs]


def _targeted(document, asked):
    """The definition of targets, with py-abac's own matcher."""
    return all(
        any(fnmatch.fnmatchcase(getattr(asked, name), glob) for glob in _globs(document, name))
        for name in ("subject_id", "resource_id", "action_id")
    )


@settings(max_examples=300)
@given(
    documents=st.lists(RULE, max_size=8),
    ids=st.tuples(IDS, IDS, IDS),
    claims=CLAIMS,
)
def test_the_index_never_hides_a_rule(documents, ids, claims):
    """All rules behind one index decide as each rule alone does, in the same order."""
    named = [{"uid": f"r{place}", **document} for place, document in enumerate(documents)]
    for document in named:
        [probe] = read_rules({**document, "effect": "deny"}, ())
        if probe.unconditional:
            document["anyone"] = True
    asked = facts(claims, subject_id=ids[0], resource_id=ids[1], action_id=ids[2])

    together = [found.uid for found in compile_rules(read_rules(named, ())).applying(asked)]

    alone = []
    for document in named:
        bare = {**document, "targets": {}}
        bare.pop("anyone", None)
        [probe] = read_rules({**bare, "effect": "deny"}, ())
        bare |= {"anyone": True} if probe.unconditional else {}
        met = compile_rules(read_rules(bare, ())).applying(asked)
        alone += [found.uid for found in met if _targeted(document, asked)]
    assert together == alone


def test_rules_keep_the_order_of_the_bundle():
    """Whichever index finds them, rules are reported in their order."""
    role = {"$.role": {"condition": "Equals", "value": "doctor"}}
    rules = compiled(
        rule("by-value", subject=role),
        rule("by-prefix", targets={"subject_id": "doc*"}),
        rule("always", "deny"),
        rule("by-id", targets={"resource_id": "object"}),
    )

    found = [one.uid for one in rules.applying(facts({"role": "doctor"}))]

    assert found == ["by-value", "by-prefix", "always", "by-id"]


def test_a_rule_found_by_two_globs_applies_once():
    """Two beginnings of one rule are one rule."""
    rules = compiled(rule(targets={"subject_id": ["d*", "do*", "doctor"]}))

    assert len(rules.applying(facts())) == 1
