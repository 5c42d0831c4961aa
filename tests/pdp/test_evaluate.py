"""The truth table, the layers around it, and that a decision is total and fails closed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdp.world import NOON, bundle, request, rule

from envelock_formats.fqn import AttributeValue
from envelock_pdp.evaluate import evaluate

PERMIT = rule("permit", subject={"$.yes": {"condition": "Eq", "value": 1}})
DENY = rule("deny", "deny", subject={"$.no": {"condition": "Eq", "value": 1}})
ENTITLED = ("none asked", "all held", "one lacking")
APPLYING = ("denial", "denial in doubt", "denial and permit", "permit", "none")


def _claims(applying: str) -> dict[str, int]:
    """Claims under which exactly the named rules apply."""
    claims = {"yes": int("permit" in applying)}
    return claims if applying == "denial in doubt" else claims | {"no": int("denial" in applying)}


def _expected(entitled: str, applying: str, *, required: bool) -> bool:
    """The table, cell by cell."""
    if entitled == "one lacking" or "denial" in applying:
        return False
    if applying == "permit":
        return True
    return entitled == "all held" and not required


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize(("entitled", "applying"), list(itertools.product(ENTITLED, APPLYING)))
def test_decides_as_the_truth_table_says(entitled, applying, required):
    """Every cell of the table, with rules optional and required."""
    attrs = {
        "none asked": (),
        "all held": ("clearance=public", "department=oncology"),
        "one lacking": ("clearance=secret", "department=oncology"),
    }
    claims = {"clearance": "internal", "departments": ["oncology"], **_claims(applying)}

    outcome = evaluate(
        bundle(PERMIT, DENY, required=required), request(*attrs[entitled], claims=claims), NOON
    )

    assert outcome.permit is _expected(entitled, applying, required=required)


class TestReasons:
    """The record says why, in words that people search for."""

    def test_names_the_attribute_that_is_not_held(self):
        """A lacking entitlement is named by its attribute."""
        outcome = evaluate(bundle(), request("clearance=secret"), NOON)

        assert (outcome.permit, outcome.reason) == (False, "entitlement: clearance")

    def test_names_the_rule_that_denies(self):
        """A denial is named by its rule, and the rules that decided are the denials."""
        outcome = evaluate(bundle(PERMIT, DENY), request(claims={"yes": 1, "no": 1}), NOON)

        assert (outcome.reason, outcome.rules) == ("rule: deny", ("deny",))

    def test_names_every_ground_once(self):
        """The deciding ground first, then whatever else stands on the same side."""
        claims = {"clearance": "public", "departments": ["oncology"], **_claims("denial")}
        attrs = ("clearance=secret", "department=oncology", "handling=study")

        outcome = evaluate(bundle(DENY), request(*attrs, claims=claims), NOON)

        assert outcome.reason == "entitlement: clearance"
        assert outcome.reasons == (
            "entitlement: clearance",
            "entitlement: handling",
            "rule: deny",
        )

    def test_a_request_shows_no_claims(self):
        """Claims are personal: they stand in no representation."""
        assert "salary" not in repr(request(claims={"salary": 1}))

    def test_names_the_rule_that_permits(self):
        """A permit is named by its rule."""
        outcome = evaluate(bundle(PERMIT, DENY), request(claims={"yes": 1, "no": 0}), NOON)

        assert (outcome.reason, outcome.rules) == ("rule: permit", ("permit",))

    def test_says_that_no_rule_applies(self):
        """Without attributes and rules nothing is permitted."""
        assert evaluate(bundle(), request(), NOON).reason == "rules: none applies"

    def test_says_entitled_when_no_rule_was_needed(self):
        """Entitlement alone permits where rules are optional."""
        outcome = evaluate(bundle(), request("clearance=public", claims={"clearance": "public"}), 0)

        assert (outcome.permit, outcome.reason) == (True, "entitled")


class TestAttributes:
    """Entitlement, by the definition's rule."""

    @pytest.mark.parametrize(
        ("held", "asked", "permit"),
        [
            ("secret", ["secret"], True),
            ("secret", ["public"], True),
            ("internal", ["secret"], False),
            ("internal", ["public", "internal"], True),
            ("internal", ["public", "secret"], False),
        ],
    )
    def test_a_hierarchy_holds_all_below(self, held, asked, permit):
        """Whoever holds a value holds the lower ones; of several asked the highest counts."""
        attrs = [f"clearance={value}" for value in asked]

        outcome = evaluate(bundle(), request(*attrs, claims={"clearance": held}), NOON)

        assert outcome.permit is permit

    @pytest.mark.parametrize(
        ("name", "claim", "permit"),
        [("department", "departments", True), ("handling", "trainings", False)],
    )
    def test_any_of_needs_one_and_all_of_every_value(self, name, claim, permit):
        """One of two asked values is enough for anyOf only."""
        values = {"department": ["cardiology", "oncology"], "handling": ["personal", "study"]}
        attrs = [f"{name}={value}" for value in values[name]]

        outcome = evaluate(bundle(), request(*attrs, claims={claim: values[name][:1]}), NOON)

        assert outcome.permit is permit

    @pytest.mark.parametrize(
        "attr", ["clearance=cosmic", "colour=red", "other.example/clearance=public"]
    )
    def test_an_attribute_nobody_defined_denies(self, attr):
        """An unknown value, definition or namespace is never taken for granted."""
        outcome = evaluate(
            bundle(rule("all", targets={}) | {"anyone": True}),
            request(attr, claims={"clearance": "secret"}),
            NOON,
        )

        assert not outcome.permit
        assert outcome.reason.startswith("attribute unknown: ")

    @pytest.mark.parametrize("claim", [["secret", {}], {"secret": 1}, None, True, ["SECRET"], []])
    def test_a_claim_of_another_shape_grants_nothing(self, claim):
        """Only the text, or a list of texts, grants."""
        outcome = evaluate(bundle(), request("clearance=secret", claims={"clearance": claim}), NOON)

        assert not outcome.permit


class TestTenants:
    """Home and owner."""

    def test_a_foreign_caller_is_not_admitted(self):
        """Another home tenant is refused, whatever it holds."""
        asked = request("clearance=public", claims={"clearance": "secret"}, tenant="globex")

        outcome = evaluate(bundle(), asked, NOON)

        assert (outcome.permit, outcome.reason) == (False, "tenant not admitted: globex")

    def test_sharing_admits_a_foreign_caller(self):
        """The owner's bundle may name other home tenants."""
        asked = request("clearance=public", claims={"clearance": "secret"}, tenant="globex")

        assert evaluate(bundle(head='sharing = ["globex"]\n'), asked, NOON).permit

    def test_rules_see_the_verified_home_tenant(self):
        """A claim called `tenant` does not stand in for the verified one."""
        own = rule("own", subject={"$.tenant": {"condition": "Equals", "value": "clinic"}})
        asked = request(claims={"tenant": "clinic"}, tenant="globex")

        assert not evaluate(bundle(own, head='sharing = ["globex"]\n'), asked, NOON).permit


class TestDissem:
    """Who is named in the policy."""

    @pytest.mark.parametrize(
        ("claims", "dissem", "permit"),
        [
            ({}, ("doctor",), True),
            ({}, ("nurse",), False),
            ({"email": "d@x.example"}, ("d@x.example",), True),
            ({"email": "d@x.example", "email_verified": False}, ("d@x.example",), False),
            ({"email": "d@x.example", "email_verified": "true"}, ("d@x.example",), False),
            ({"email": ["d@x.example"]}, ("d@x.example",), False),
        ],
    )
    def test_is_enforced_on_top(self, claims, dissem, permit):
        """The subject, or an address the issuer stands for, must be named."""
        asked = request("clearance=public", claims=claims | {"clearance": "public"}, dissem=dissem)

        assert evaluate(bundle(), asked, NOON).permit is permit

    def test_alone_permits_nothing(self):
        """Being named is no permit where no rule and no attribute gives one."""
        assert evaluate(bundle(), request(dissem=("doctor",)), NOON).reason == "rules: none applies"


class TestWhatRulesSee:
    """The request in the words of rules."""

    @pytest.mark.parametrize(
        ("element", "path", "condition"),
        [
            ("subject", "$.clearance", {"condition": "Equals", "value": "secret"}),
            ("resource", "$.tenant", {"condition": "Equals", "value": "clinic"}),
            ("resource", "$.clearance", {"condition": "Equals", "value": "public"}),
            (
                "resource",
                "$.department",
                {"condition": "AllIn", "values": ["oncology", "cardiology"]},
            ),
            (
                "resource",
                "$.attributes",
                {
                    "condition": "AnyIn",
                    "values": ["https://clinic.example/attr/clearance/value/public"],
                },
            ),
            (
                "context",
                "$.time.iso",
                {"condition": "Equals", "value": "2026-01-05T12:00:00+00:00"},
            ),
            ("context", "$.time.hour", {"condition": "Eq", "value": 12}),
            ("context", "$.time.minute", {"condition": "Eq", "value": 0}),
            ("context", "$.time.weekday", {"condition": "Eq", "value": 1}),
            ("context", "$.time.epoch", {"condition": "Eq", "value": NOON}),
            ("context", "$.network.ip", {"condition": "CIDR", "value": "192.0.2.0/24"}),
            ("context", "$.purpose", {"condition": "Equals", "value": "treatment"}),
        ],
    )
    def test_every_documented_member_is_there(self, element, path, condition):
        """Each path of the table has the value that the table says."""
        asked = request(
            "clearance=public",
            "department=oncology",
            "department=cardiology",
            claims={"clearance": "secret", "departments": ["oncology"]},
            ip="192.0.2.9",
            purpose="treatment",
        )

        outcome = evaluate(bundle(rule("seen", **{element: {path: condition}})), asked, NOON)

        assert outcome.permits == ("seen",)

    def test_obligations_of_permits_come_with_a_permit_only(self):
        """A rule's obligations reach the decision when it permits."""
        owing = PERMIT | {"obligations": ["watermark"]}
        permitted = evaluate(bundle(owing, DENY), request(claims={"yes": 1, "no": 0}), NOON)
        denied = evaluate(bundle(owing, DENY), request(claims={"yes": 1, "no": 1}), NOON)

        assert (permitted.obligations, denied.obligations) == (("watermark",), ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
CLAIMS = st.dictionaries(
    st.sampled_from(["clearance", "departments", "trainings", "yes", "no", "email", "tenant", "x"]),
    JSON | st.sampled_from(["secret", "internal", ["oncology"], 1]),
)
ATTRS = st.lists(
    st.sampled_from(["clearance=secret", "clearance=public", "department=oncology", "colour=red"]),
    max_size=3,
    unique=True,
)
BUNDLE = bundle(PERMIT, DENY)


@given(claims=CLAIMS, attrs=ATTRS, ip=st.none() | st.text(), now=st.integers(0, 2**35))
def test_never_raises_and_permits_only_what_the_claims_carry(claims, attrs, ip, now):
    """Any claims, context and time give an outcome; a permit needs entitlement and no denial."""
    outcome = evaluate(BUNDLE, request(*attrs, claims=claims, ip=ip, purpose=ip), now)

    if outcome.permit:
        assert type(claims["no"]) in {int, float}
        assert claims["no"] != 1
        assert all(found.held for found in outcome.entitlements)
        assert outcome.entitlements or outcome.permits
    for name, needed in (("clearance", "secret"), ("departments", "oncology")):
        asked = {"clearance": "clearance=secret", "departments": "department=oncology"}[name]
        held = claims.get(name)
        if outcome.permit and asked in attrs:
            assert needed in (held if isinstance(held, list) else [held])


def test_an_attribute_value_is_what_it_says():
    """The short name in a request is the value that entitlement is about."""
    [asked] = request("clearance=secret").policy.attributes

    assert asked == AttributeValue("clinic.example", "clearance", "secret")
