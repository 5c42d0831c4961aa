"""Signed decisions: verified as a token, then held against the request."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats import decision, jose
from envelock_formats.canonical import convert
from envelock_formats.framing import b64url
from envelock_formats.request import Caller, RequestedObject

PDP = ec.generate_private_key(ec.SECP256R1())
KEYS = {"p1": PDP.public_key()}
NOW = 1_800_000_000
CALLER = Caller(issuer="https://idp", subject="doctor", tenant="clinic", jkt="j")
ASKED = RequestedObject("sha256:00", b"p" * 32, b"k" * 32)
CLAIMS = {
    "iss": "https://pdp", "aud": "kas", "sub": "doctor", "sub_iss": "https://idp",
    "sub_tenant": "clinic", "tenant": "clinic", "act": "open",
    "objs": [{"id": "sha256:00", "policy_sha256": b64url(b"p" * 32),
              "keys_sha256": b64url(b"k" * 32), "permit": True}],
    "key_sha256": b64url(b"c" * 32),
    "policy": {"bundle": "b", "epoch": 3, "rules": ["r"]},
    "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "1", "cnf": {"jkt": "j"},
}  # fmt: skip


def token(**changes):
    """A decision signed by the PDP, with some claims changed or, for `...`, left out."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    return jose.sign(PDP, claims, typ=decision.TYPE, kid="p1")


def verify(text, **changes):
    """Verify as the KAS does."""
    parts = {"issuer": "https://pdp", "kas_id": "kas", "now": NOW} | changes
    return decision.verify(text, KEYS, **parts)


def test_verifies_what_the_pdp_signed():
    """A decision reads back whole, whichever side wrote the claims."""
    made = convert(CLAIMS, decision.Decision)

    assert verify(decision.sign(made, PDP, "p1")) == verify(token()) == made


@pytest.mark.parametrize(
    "changes",
    [{"iss": "https://other"}, {"aud": "kas2"}, {"aud": ["kas"]}, {"exp": NOW}, {"exp": NOW + 61},
     {"exp": NOW - 1, "iat": NOW - 30, "nbf": NOW - 30},
     {"exp": NOW, "iat": NOW - 30, "nbf": NOW - 30}, {"nbf": NOW + 6}, {"iat": NOW + 6},
     {"exp": ...}, {"sub": ...}, {"jti": ""}, {"act": "delete"}, {"objs": []}, {"extra": 1},
     {"objs": CLAIMS["objs"] * 2}, {"objs": CLAIMS["objs"] * 101}, {"iat": "now"},
     {"policy": {"bundle": "b", "epoch": 3, "rules": [], "more": 1}}, {"cnf": {"jkt": 1}}],
    ids=repr,
)  # fmt: skip
def test_refuses_other_claims(changes):
    """Another issuer, audience or shape, and times outside the window, are errors."""
    with pytest.raises(decision.DecisionError):
        verify(token(**changes))


def objects(count):
    """That many objects, each with an id of its own."""
    return [CLAIMS["objs"][0] | {"id": f"sha256:{number:02x}"} for number in range(count)]


def test_a_decision_covers_a_hundred_objects():
    """The limit is what a request may ask at once."""
    assert len(verify(token(objs=objects(100))).objs) == 100
    with pytest.raises(decision.DecisionError):
        verify(token(objs=objects(101)))


def test_refuses_other_signers():
    """An unknown kid, no kid, another key and another type are errors."""
    stranger = ec.generate_private_key(ec.SECP256R1())

    for text in (
        jose.sign(PDP, CLAIMS, typ=decision.TYPE, kid="p2"),
        jose.sign(PDP, CLAIMS, typ=decision.TYPE),
        jose.sign(stranger, CLAIMS, typ=decision.TYPE, kid="p1"),
        jose.sign(PDP, CLAIMS, typ="JWT", kid="p1"),
    ):
        with pytest.raises(decision.DecisionError):
            verify(text)


def test_accepts_a_clock_that_is_a_little_behind():
    """`iat` and `nbf` may lie five seconds ahead, no more."""
    assert verify(token(iat=NOW + 5, nbf=NOW + 5)).iat == NOW + 5


def test_an_unbound_decision_has_no_confirmation():
    """The claim is absent, not empty."""
    made = verify(token(cnf=...))

    assert made.cnf is None
    assert "cnf" not in msgspec.to_builtins(made)


def match(made, **changes):
    """Hold *made* against the request it was made for, with some parts changed."""
    parts = {"caller": CALLER, "tenant": "clinic", "act": "open", "key_digest": b"c" * 32,
             "objects": [ASKED]} | changes  # fmt: skip
    return decision.require_match(made, **parts)


def test_matches_the_request_it_was_made_for():
    """Each object asked gets what was decided about it."""
    assert match(verify(token()))["sha256:00"].permit


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("sub", {"caller": Caller("https://idp", "nurse", "clinic", "j")}),
        ("sub_iss", {"caller": Caller("https://idp2", "doctor", "clinic", "j")}),
        ("sub_tenant", {"caller": Caller("https://idp", "doctor", "other", "j")}),
        ("cnf", {"caller": Caller("https://idp", "doctor", "clinic", "i")}),
        ("cnf", {"caller": Caller("https://idp", "doctor", "clinic", "")}),
        ("tenant", {"tenant": "other"}),
        ("act", {"act": "rebind"}),
        ("key_sha256", {"key_digest": b"d" * 32}),
        ("objs.id", {"objects": [RequestedObject("x", b"p" * 32, b"k" * 32)]}),
        ("objs.policy_sha256", {"objects": [RequestedObject("sha256:00", b"q" * 32, b"k" * 32)]}),
        ("objs.keys_sha256", {"objects": [RequestedObject("sha256:00", b"p" * 32, b"l" * 32)]}),
        ("objs.new_policy_sha256",
         {"objects": [RequestedObject("sha256:00", b"p" * 32, b"k" * 32, b"n" * 32)]}),
    ],
)  # fmt: skip
def test_matches_no_other_request(claim, changes):
    """Whatever differs is named."""
    with pytest.raises(decision.DecisionMismatchError, match=claim.replace(".", r"\.")):
        match(verify(token()), **changes)
