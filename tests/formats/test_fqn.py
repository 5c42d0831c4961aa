"""Names of attributes: two spellings, one value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.fqn import AttributeNameError, AttributeValue

LABEL = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
TOKEN = st.from_regex(r"[a-z0-9](?:[a-z0-9_.-]{0,6}[a-z0-9])?", fullmatch=True)
VALUES = st.builds(
    AttributeValue, st.lists(LABEL, min_size=1, max_size=3).map(".".join), TOKEN, TOKEN
)


@given(VALUES)
def test_reads_back_both_spellings(value):
    """The long and the short form give the value that wrote them."""
    assert AttributeValue.parse_fqn(value.fqn) == value
    assert AttributeValue.parse_short(value.short) == value


def test_folds_case_of_long_names():
    """Other clients write upper case; it names the same value."""
    found = AttributeValue.parse_fqn("https://Clinic.Example/attr/Clearance/value/SECRET")

    assert found == AttributeValue("clinic.example", "clearance", "secret")
    assert found.definition == "https://clinic.example/attr/clearance"


@pytest.mark.parametrize(
    "text",
    ["", "http://a.b/attr/n/value/v", "https://a.b/attr/n/value/", "https://a.b/attr/n", "a/n=v",
     "https://a.b/attr/n/value/v/w", "https://a.b:8/attr/n/value/v", "https://a@b/attr/n/value/v",
     "https://a.b/attr/n/value/v\n", "https://a..b/attr/n/value/v", "https://a.b/attr/n/value/%20",
     "https://a.b/attr/n/value/é"],
)  # fmt: skip
def test_refuses_other_long_names(text):
    """Another scheme, a port, a user, an empty or foreign part are errors."""
    with pytest.raises(AttributeNameError):
        AttributeValue.parse_fqn(text)


@pytest.mark.parametrize(
    "text", ["", "n=v", "a.b/n", "a.b/N=v", "a.b/n=", "/n=v", "a.b/=v", "a.b/n=v w"]
)
def test_refuses_other_short_names(text):
    """Every part must be there, in lower case."""
    with pytest.raises(AttributeNameError):
        AttributeValue.parse_short(text)
