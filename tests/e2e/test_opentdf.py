"""Stock clients at a whole deployment: attributes with keys, and verdicts, by the real PDP."""

import json
import shutil
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import envelock_policies
from envelock.testing import Server, server

ATTRIBUTES = "/policy.attributes.AttributesService/"
AUTHORIZATION = "/authorization.v2.AuthorizationService/"
SECRET = "https://clinic.example/attr/clearance/value/secret"
PUBLIC = "https://clinic.example/attr/clearance/value/public"
CARDIOLOGY = "https://clinic.example/attr/department/value/cardiology"
ONCOLOGY = "https://clinic.example/attr/department/value/oncology"


CHAIN = {
    "entityChain": {
        "entities": [
            {
                "ephemeralId": "e1",
                "userName": "somebody",
                "claims": {
                    "@type": "type.googleapis.com/google.protobuf.Struct",
                    "value": {"clearance": "secret", "roles": ["doctor"]},
                },
            },
            {"ephemeralId": "e2", "clientId": "page", "category": "CATEGORY_ENVIRONMENT"},
        ]
    }
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Iterator[Server]:
    """The shipped clinic; departments have keys of their own, and oncology another."""
    bundle = tmp_path_factory.mktemp("stock") / "clinic"
    shutil.copytree(envelock_policies.path("clinic"), bundle)
    defined = json.loads((bundle / "attributes.json").read_text())
    [department] = [one for one in defined if one["name"] == "department"]
    department["key"] = {"dataset": "departments"}
    department["keys"] = {"oncology": {"dataset": "oncology"}}
    (bundle / "attributes.json").write_text(json.dumps(defined))
    people = json.loads((bundle / "people.json").read_text())
    people["gateway"] = {"sub": "gateway", "tenant": "clinic", "scope": "envelock:decisions"}
    (bundle / "people.json").write_text(json.dumps(people))
    with server(bundle) as running:
        yield running


def token(running: Server, name: str) -> str:
    """An unbound access token, as stock clients get theirs."""
    profile = tomllib.loads((running.data / "profiles" / f"{name}.toml").read_text())
    form = {"grant_type": "client_credentials", "client_id": name}
    form["client_secret"] = Path(profile["client_secret_file"]).read_text().strip()
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(f"{running.issuer}/token", data) as answer:  # noqa: S310 ours
        return str(json.load(answer)["access_token"])


def call(running: Server, path: str, message: object, *, name: str = "doctor"):
    """Status and answer of a call in JSON."""
    text = json.dumps(message).encode()
    request = urllib.request.Request(f"{running.url}{path}", text)  # noqa: S310 ours
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {token(running, name)}")
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310 ours
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class TestAttributes:
    """`AttributesService`."""

    def test_a_value_has_the_key_that_the_policies_map_it_to(self, stock: Server):
        """Its own, else the definition's, else none; the key is there from then on."""
        asked = {"fqns": [ONCOLOGY, CARDIOLOGY, SECRET]}
        status, found = call(stock, f"{ATTRIBUTES}GetAttributeValuesByFqns", asked)
        by_fqn = found["fqnAttributeValues"]
        [own] = by_fqn[ONCOLOGY]["value"]["kasKeys"]
        [general] = by_fqn[CARDIOLOGY]["attribute"]["kasKeys"]

        assert status == 200
        assert own["publicKey"]["kid"].startswith("clinic:oncology:")
        assert general["publicKey"]["kid"].startswith("clinic:departments:")
        assert own["publicKey"]["algorithm"] == "ALGORITHM_EC_P256"
        assert by_fqn[CARDIOLOGY]["value"]["kasKeys"] == []
        assert by_fqn[SECRET]["attribute"]["kasKeys"] == []
        assert by_fqn[SECRET]["attribute"]["rule"] == "ATTRIBUTE_RULE_TYPE_ENUM_HIERARCHY"

    def test_key_mappings_say_what_counts(self, stock: Server):
        """One list for each value, with the rule."""
        asked = {"fqns": [ONCOLOGY, CARDIOLOGY, SECRET]}
        _, found = call(stock, f"{ATTRIBUTES}GetKeyMappingsByFqns", asked)
        kids = {
            fqn: [key["publicKey"]["kid"].split(":")[1] for key in one["keys"]]
            for fqn, one in found["fqnKeyMappings"].items()
        }

        assert kids == {ONCOLOGY: ["oncology"], CARDIOLOGY: ["departments"], SECRET: []}

    @pytest.mark.parametrize(
        ("fqns", "status"),
        [
            (["https://clinic.example/attr/clearance/value/cosmic"], 404),
            (["https://elsewhere.example/attr/clearance/value/secret"], 404),
            (["clearance=secret"], 400),
            ([], 400),
            ([SECRET] * 251, 400),
        ],
    )
    def test_what_is_not_defined_is_not_found(self, stock: Server, fqns, status: int):
        """And what is no FQN is malformed."""
        found, _ = call(stock, f"{ATTRIBUTES}GetAttributeValuesByFqns", {"fqns": fqns})

        assert found == status


def question(fqns: list[str], **changes: object) -> dict[str, object]:
    """A question about the caller itself."""
    return {
        "entityIdentifier": {"withRequestToken": True},
        "action": {"name": "read"},
        "resource": {"ephemeralId": "r1", "attributeValues": {"fqns": fqns}},
    } | changes


class TestAuthorization:
    """`authorization.v2`."""

    @pytest.mark.parametrize(
        ("name", "fqn", "decision"),
        [
            ("doctor", SECRET, "DECISION_PERMIT"),
            ("accountant", SECRET, "DECISION_DENY"),
            ("accountant", PUBLIC, "DECISION_PERMIT"),
            ("doctor", "https://nobody.example/attr/a/value/b", "DECISION_DENY"),
        ],
    )
    def test_says_what_a_release_would(self, stock: Server, name: str, fqn: str, decision: str):
        """By the same policies."""
        status, found = call(stock, f"{AUTHORIZATION}GetDecision", question([fqn]), name=name)

        assert status == 200
        assert found["decision"] == {
            "ephemeralResourceId": "r1",
            "decision": decision,
            "requiredObligations": [],
        }

    def test_anothers_token_asks_for_its_bearer(self, stock: Server):
        """The accountant's token in the doctor's question."""
        asked = question([SECRET], entityIdentifier={"token": {"jwt": token(stock, "accountant")}})
        _, found = call(stock, f"{AUTHORIZATION}GetDecision", asked)

        assert found["decision"]["decision"] == "DECISION_DENY"

    def test_a_token_that_proves_nobody_is_denied(self, stock: Server):
        """Not an error: others in the call have their answers."""
        asked = question([PUBLIC], entityIdentifier={"token": {"jwt": "a.b.c"}})
        status, found = call(stock, f"{AUTHORIZATION}GetDecision", asked)

        assert (status, found["decision"]["decision"]) == (200, "DECISION_DENY")

    def test_several_resources_have_a_decision_each(self, stock: Server):
        """In order, under the ids that came."""
        resources = [
            {"ephemeralId": fqn, "attributeValues": {"fqns": [fqn]}} for fqn in (SECRET, ONCOLOGY)
        ]
        asked = {
            "entityIdentifier": {"withRequestToken": True},
            "action": {"name": "read"},
            "resources": resources,
        }
        _, several = call(stock, f"{AUTHORIZATION}GetDecisionMultiResource", asked)
        _, bulk = call(stock, f"{AUTHORIZATION}GetDecisionBulk", {"decisionRequests": [asked] * 2})
        said = {one["ephemeralResourceId"]: one["decision"] for one in several["resourceDecisions"]}

        assert said == {SECRET: "DECISION_PERMIT", ONCOLOGY: "DECISION_DENY"}
        assert several["allPermitted"] is False
        assert bulk["decisionResponses"] == [several, several]

    def test_entitlements_are_the_values_that_are_held(self, stock: Server):
        """Lower values of a hierarchy are among them."""
        _, found = call(
            stock,
            f"{AUTHORIZATION}GetEntitlements",
            {"entityIdentifier": {"withRequestToken": True}},
        )
        [one] = found["entitlements"]
        held = set(one["actionsPerAttributeValueFqn"])

        assert {SECRET, PUBLIC, CARDIOLOGY} <= held
        assert ONCOLOGY not in held

    def test_asking_about_others_by_name_needs_a_scope(self, stock: Server):
        """What somebody may read is told to who may ask."""
        asked = question([SECRET], entityIdentifier=CHAIN)
        refused, _ = call(stock, f"{AUTHORIZATION}GetDecision", asked)
        status, found = call(stock, f"{AUTHORIZATION}GetDecision", asked, name="gateway")

        assert refused == 403
        assert (status, found["decision"]["decision"]) == (200, "DECISION_PERMIT")

    @pytest.mark.parametrize(
        "changes",
        [
            {"action": {"name": "transmit"}},
            {"resource": {"registeredResourceValueFqn": "https://x/reg_res/a/value/b"}},
            {"resource": {"attributeValues": {"fqns": ["no fqn"]}}},
            {"resource": {"attributeValues": {"fqns": [SECRET] * 21}}},
            {"entityIdentifier": {}},
            {"entityIdentifier": {"entityChain": {"entities": []}}},
        ],
    )
    def test_what_cannot_be_decided_is_refused(self, stock: Server, changes):
        """400, naming the member."""
        status, found = call(stock, f"{AUTHORIZATION}GetDecision", question([SECRET], **changes))

        assert (status, found["code"]) == (400, "invalid_argument")

    def test_a_call_has_a_limit(self, stock: Server):
        """1,000 questions, said in the message."""
        resource = {"attributeValues": {"fqns": [SECRET]}}
        asked = question([SECRET]) | {"resources": [resource] * 1001}
        status, found = call(stock, f"{AUTHORIZATION}GetDecisionMultiResource", asked)

        assert status == 400
        assert "1000" in found["message"]

    def test_the_same_value_many_times_is_one(self, stock: Server):
        """And a definition is not repeated with all its values for each."""
        _, found = call(stock, f"{ATTRIBUTES}GetAttributeValuesByFqns", {"fqns": [SECRET] * 250})

        assert list(found["fqnAttributeValues"]) == [SECRET]
        assert "values" not in found["fqnAttributeValues"][SECRET]["attribute"]

    @pytest.mark.parametrize("jwt", ["a" * 20_000, "x.y.z"])
    def test_entitlements_of_nobody_are_none(self, stock: Server, jwt: str):
        """A token that proves nobody holds nothing; one that is too long is refused."""
        status, found = call(
            stock,
            f"{AUTHORIZATION}GetEntitlements",
            {"entityIdentifier": {"token": {"ephemeralId": "e", "jwt": jwt}}},
        )
        held = [one["actionsPerAttributeValueFqn"] for one in found.get("entitlements", [])]

        assert (status, held) == ((200, [{}]) if len(jwt) < 100 else (400, []))

    def test_who_is_revoked_is_permitted_nothing(self, stock: Server):
        """Neither when asking, nor when asked about; a moment later, without a restart."""
        nurse = token(stock, "nurse")
        about = question([PUBLIC], entityIdentifier={"token": {"jwt": nurse}})
        _, before = call(stock, f"{AUTHORIZATION}GetDecision", about)
        body = {"subject": "nurse", "standing": "shut"}
        status, _ = call(stock, "/v1/subjects", body, name="operator")
        _, after = call(stock, f"{AUTHORIZATION}GetDecision", about)
        asking, _ = call(stock, f"{AUTHORIZATION}GetDecision", question([PUBLIC]), name="nurse")
        _, held = call(
            stock,
            f"{AUTHORIZATION}GetEntitlements",
            {"entityIdentifier": {"token": {"jwt": nurse}}},
        )

        assert status == 200
        assert before["decision"]["decision"] == "DECISION_PERMIT"
        assert after["decision"]["decision"] == "DECISION_DENY"
        assert asking == 403
        assert held["entitlements"][0]["actionsPerAttributeValueFqn"] == {}
