"""What a subject holds of all values at once is what it holds of each."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from envelock_formats.fqn import AttributeValue
from envelock_pdp.attributes import Definition, SubjectMapping, attribute_set

NAMES = ("one", "two", "three")
VALUES = ("a", "b", "c", "d", "e")
RULES = st.sampled_from(["allOf", "anyOf", "hierarchy"])
DEFINITIONS = st.lists(
    st.builds(
        Definition,
        namespace=st.just("clinic.example"),
        name=st.sampled_from(NAMES),
        rule=RULES,
        values=st.lists(st.sampled_from(VALUES), max_size=5, unique=True).map(tuple),
    ),
    max_size=3,
    unique_by=lambda one: one.name,
)
CLAIMED = st.sampled_from(["x", "y", "xy", 1, True])
MAPPINGS = st.lists(
    st.builds(
        SubjectMapping,
        claim=st.sampled_from([("role",), ("team",), ("in", "depth")]),
        operator=st.sampled_from(["in", "not_in", "contains"]),
        values=st.lists(CLAIMED, min_size=1, max_size=2).map(tuple),
        grants=st.builds(
            AttributeValue, st.just("clinic.example"), st.sampled_from(NAMES),
            st.sampled_from(VALUES)),
    ),
    max_size=8,
)  # fmt: skip
CLAIMS = st.dictionaries(
    st.sampled_from(["role", "team", "in"]),
    CLAIMED | st.lists(CLAIMED | st.none(), max_size=3) | st.just({"depth": "x"}) | st.none(),
)


class Counted(dict[str, object]):
    """Claims that count how often they are looked at."""

    looks = 0

    def get(self, name, default=None):
        """As of a dict."""
        self.looks += 1
        return super().get(name, default)


@settings(max_examples=500)
@given(definitions=DEFINITIONS, mappings=MAPPINGS, claims=CLAIMS)
def test_held_is_what_each_value_alone_is_entitled_to(definitions, mappings, claims):
    """In the order of the definitions, and no mapping is looked at twice."""
    defined = [value for definition in definitions for value in definition.all_values]
    known = attribute_set(definitions, [one for one in mappings if one.grants in defined])
    counted = Counted(claims)

    held = known.held(counted)

    assert counted.looks <= len(known.mappings)
    assert list(held) == [
        value for value in defined if known.entitlements(claims, (value,))[0].held
    ]


def test_a_long_hierarchy_is_looked_through_once():
    """So that one who asks what a subject holds does not keep all others waiting."""
    levels = tuple(f"v{number}" for number in range(6000))
    mappings = [
        SubjectMapping(("role",), "in", (level,), AttributeValue("clinic.example", "one", level))
        for level in levels
    ]
    definition = Definition("clinic.example", "one", "hierarchy", levels)
    known = attribute_set([definition], mappings)
    claims = Counted(role=levels[-2])

    started = time.perf_counter()
    held = known.held(claims)
    took = time.perf_counter() - started

    assert [value.value for value in held] == list(levels[-2:])
    assert claims.looks == 1
    assert took < 1  # seconds
