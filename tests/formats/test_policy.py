"""The policy object: one parser for everybody."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64
from envelock_formats.tdf.policy import Policy, PolicyError, parse_policy, write_policy

UUID = "0d21482b-5d80-466b-ae92-7b0d01b9e2ba"
SECRET = AttributeValue("clinic.example", "clearance", "secret")
NAMES = st.lists(
    st.builds(AttributeValue, st.just("a.b"), st.sampled_from("xyz"), st.sampled_from("123")),
    unique=True,
)


def text_of(**changes):
    """A policy's base64 text, with some members of its body changed."""
    body = {"dataAttributes": [{"attribute": SECRET.fqn}], "dissem": []} | changes
    return b64(json.dumps({"uuid": UUID, "body": body}).encode())


@given(NAMES, st.lists(st.sampled_from(["doctor", "nurse", "\u00e9"])))
def test_reads_back_what_it_wrote(attributes, dissem):
    """Writing then parsing is the identity."""
    found = parse_policy(write_policy(UUID, attributes, dissem))

    assert found == Policy(UUID, tuple(attributes), tuple(dissem))


def test_reads_what_other_clients_write():
    """Null lists, known extra members, upper case and an all-zero id are fine."""
    attribute = {"attribute": SECRET.fqn.upper().replace("HTTPS", "https"), "displayName": "",
                 "isDefault": False, "pubKey": "", "kasURL": "", "kasUrl": None}  # fmt: skip

    assert parse_policy(text_of(dataAttributes=[attribute])).attributes == (SECRET,)
    assert parse_policy(text_of(dataAttributes=None, dissem=None)).attributes == ()
    assert parse_policy(text_of()).namespaces == {"clinic.example"}
    empty = b'{"uuid":"00000000-0000-0000-0000-000000000000","body":{}}'
    assert parse_policy(b64(empty)).dissem == ()


@pytest.mark.parametrize(
    "text",
    [
        text_of(extra=1),
        text_of(DataAttributes=[]),
        text_of(dataAttributes=[{"attribute": SECRET.fqn, "Attribute": SECRET.fqn}]),
        text_of(dataAttributes=[{"attribute": SECRET.fqn}] * 2),
        text_of(
            dataAttributes=[{"attribute": SECRET.fqn}, {"attribute": SECRET.fqn + "x" * 99999}]
        ),
        text_of(dataAttributes=[{"attribute": f"{SECRET.fqn}{n}"} for n in range(101)]),
        text_of(dataAttributes=[{"attribute": "clearance"}]),
        text_of(dataAttributes=[{}]),
        text_of(dataAttributes={}),
        text_of(dissem=["e\u0301"]),
        text_of(dissem=[""]),
        text_of(dissem="doctor"),
        b64(b'{"uuid":"x","body":{}}'),
        b64(b'{"uuid":"%s"}' % UUID.encode()),
        b64(b'{"uuid":"%s","body":{},"body":{}}' % UUID.encode()),
        b64(b'{"uuid":"%s","body":{},"UUID":""}' % UUID.encode()),
        b64(b"[]"),
        b64(b"\xff"),
        text_of().rstrip("=") + "\n",
        "",
    ],
)
def test_refuses_what_two_parsers_could_see_differently(text):
    """W16: duplicates, case twins, unknown members, names not in normal form, bad base64."""
    with pytest.raises(PolicyError):
        parse_policy(text)
