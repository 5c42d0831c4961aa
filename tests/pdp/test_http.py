"""Decisions over real sockets: who may ask, what is signed, what is said."""

import json
import os
import stat
from collections import Counter

import pytest
from pdp.service import (
    ACCOUNTANT,
    DOCTOR,
    KAS_ID,
    KEY,
    KEYS,
    STRANGER,
    item,
    policy,
    running,
    write_bundle,
)
from pdp.world import NOON, files, rule

from envelock_formats.decision import Confirmation
from envelock_formats.framing import b64url
from envelock_formats.request import policy_sha256
from envelock_formats.tdf.policy import parse_policy


@pytest.fixture
async def pdp(tmp_path):
    """A decision point with the bundles of two tenants."""
    owing = rule("owing", subject={"$.sub": {"condition": "Equals", "value": "doctor"}})
    write_bundle(tmp_path / "policies" / "clinic", files(owing | {"obligations": ["log"]}))
    write_bundle(
        tmp_path / "policies" / "globex", files(tenant="globex", namespace="globex.example")
    )
    async with running(tmp_path) as found:
        yield found


def _plain(name="o1", *attrs, subject="doctor", **rest):
    asked = item(name, *attrs, **rest)
    asked["subject"] = {"type": "user", "id": subject}
    return asked


class TestSigned:
    """What an enforcement point gets."""

    async def test_every_claim_is_what_was_verified_or_computed(self, pdp):
        """Caller from the token, digests from the bytes, bundle and epoch from what is in force."""
        claims = DOCTOR | {"jkt": "thumb"}
        _, answer = await pdp.ask(item("o1", "clearance=secret", claims=claims))
        found = pdp.verified(answer["context"]["decisions"][0])
        [decided] = found.objs
        in_force = pdp.policies.of("clinic")

        assert (found.sub, found.sub_iss, found.sub_tenant) == (
            "doctor",
            "https://issuer",
            "clinic",
        )
        assert (found.tenant, found.act, found.key_sha256, found.aud) == (
            "clinic",
            "open",
            KEY,
            KAS_ID,
        )
        assert found.cnf == Confirmation("thumb")
        assert (found.iat, found.nbf, found.exp) == (NOON, NOON, NOON + 30)
        assert (decided.id, decided.keys_sha256, decided.permit) == ("o1", KEYS, True)
        assert decided.policy_sha256 == b64url(policy_sha256(policy("clearance=secret")))
        assert decided.obligations == ("log",)
        assert found.policy.bundle == b64url(in_force.bundle.digest)
        assert (found.policy.epoch, found.policy.rules) == (1, ("owing",))

    async def test_an_unbound_token_gives_no_confirmation(self, pdp):
        """`cnf` is absent, not empty."""
        _, answer = await pdp.ask(item(claims=DOCTOR))

        assert pdp.verified(answer["context"]["decisions"][0]).cnf is None

    async def test_reasons_and_rules_are_told(self, pdp):
        """The record needs the true reason."""
        _, answer = await pdp.ask(
            item("o1", "clearance=secret", claims=ACCOUNTANT),
            item("o2", "clearance=secret", claims=DOCTOR),
        )

        assert [one["context"] for one in answer["evaluations"]] == [
            {"decision": 0, "reason_admin": {"en": "entitlement: clearance"}, "rules": []},
            {
                "decision": 1,
                "reason_admin": {"en": "rule: owing"},
                "rules": ["owing"],
                "obligations": ["log"],
            },
        ]
        assert [one["decision"] for one in answer["evaluations"]] == [False, True]

    async def test_a_decision_never_outlives_the_token(self, pdp):
        """A token that ends in ten seconds gives a decision of ten seconds."""
        _, answer = await pdp.ask(item(claims=DOCTOR | {"exp": NOON + 10}))

        assert pdp.verified(answer["context"]["decisions"][0]).exp == NOON + 10

    async def test_a_token_that_has_ended_gives_none(self, pdp):
        """Not even when the verifier still knows it."""
        _, answer = await pdp.ask(item(claims=DOCTOR | {"exp": NOON}))

        assert answer["evaluations"][0]["context"]["error"]["code"] == "invalid_token"
        assert answer["context"]["decisions"] == []

    async def test_swapped_policy_bytes_are_another_digest(self, pdp):
        """The decision is about the very text that was sent; another spelling is another policy."""
        spelled = item("o1", claims=ACCOUNTANT, policy=policy("clearance=public"))
        _, answer = await pdp.ask(spelled)
        [decided] = pdp.verified(answer["context"]["decisions"][0]).objs

        assert decided.policy_sha256 != b64url(policy_sha256(policy("clearance=secret")))

    async def test_rebinding_is_decided_under_both_policies(self, pdp):
        """Old and new must permit; the decision names both."""
        low, high = policy("clearance=public"), policy("clearance=secret")
        pairs = [(low, low), (high, low), (low, high)]
        _, answer = await pdp.ask(
            *(
                item(f"o{place}", act="rebind", claims=ACCOUNTANT, policy=old, new_policy=new)
                for place, (old, new) in enumerate(pairs)
            )
        )
        found = pdp.verified(answer["context"]["decisions"][0])

        assert [decided.permit for decided in found.objs] == [True, False, False]
        assert found.objs[2].new_policy_sha256 == b64url(policy_sha256(high))


class TestOwner:
    """Whose bundle decides."""

    async def test_a_foreign_caller_is_refused(self, pdp):
        """Home tenant globex, owner clinic, no sharing."""
        _, answer = await pdp.ask(item("o1", "clearance=public", claims=STRANGER))

        assert answer["evaluations"][0]["decision"] is False
        assert answer["evaluations"][0]["context"]["reason_admin"]["en"] == (
            "tenant not admitted: globex"
        )

    async def test_an_attribute_of_another_tenant_denies(self, pdp):
        """The owner that the KAS derives from the key, not the attribute's, decides."""
        foreign = item("o1", "globex.example/clearance=public", claims=DOCTOR)
        _, answer = await pdp.ask(foreign)

        assert answer["evaluations"][0]["decision"] is False
        assert "attribute unknown" in answer["evaluations"][0]["context"]["reason_admin"]["en"]

    async def test_namespaces_name_the_owner_where_nobody_does(self, pdp):
        """Without a stated tenant all namespaces must be of one bundle."""
        _, answer = await pdp.ask(
            item("o1", "globex.example/clearance=public", claims=STRANGER, tenant=None),
            item(
                "o2",
                "globex.example/clearance=public",
                "clearance=public",
                claims=STRANGER,
                tenant=None,
            ),
            item("o3", claims=STRANGER, tenant=None),
        )

        assert [one["decision"] for one in answer["evaluations"]] == [True, False, False]
        assert answer["evaluations"][1]["context"]["reason_admin"]["en"] == "owner unknown"
        assert [one["context"]["decision"] for one in answer["evaluations"]] == [0, None, None]

    async def test_a_tenant_without_a_bundle_is_not_now(self, pdp):
        """In doubt 503, and the neighbours are decided."""
        _, answer = await pdp.ask(
            item("o1", claims=DOCTOR, tenant="initech"), item("o2", claims=DOCTOR)
        )

        assert answer["evaluations"][0]["context"]["error"] == {
            "status": 503,
            "code": "policy_stale",
        }
        assert answer["evaluations"][1]["decision"] is True


class TestBatches:
    """One call, several askers, few decisions."""

    async def test_a_hundred_objects_are_one_decision(self, pdp):
        """And the hundred-and-first is another."""
        _, answer = await pdp.ask(*(item(f"o{n}", claims=DOCTOR) for n in range(101)))
        sizes = [len(pdp.verified(text).objs) for text in answer["context"]["decisions"]]

        assert sizes == [100, 1]
        assert answer["evaluations"][100]["context"]["decision"] == 1

    async def test_ten_callers_with_a_thousand_questions(self, pdp):
        """Each caller has its own decision, each token is verified once, order is kept."""
        people = [DOCTOR | {"sub": f"p{n}"} for n in range(10)]
        asked = [item(f"o{n}", "clearance=secret", claims=people[n % 10]) for n in range(1000)]
        _, answer = await pdp.ask(*asked)
        found = [pdp.verified(text) for text in answer["context"]["decisions"]]

        assert Counter(one.sub for one in found) == Counter(person["sub"] for person in people)
        assert len(pdp.tokens.asked) == 10
        for n, one in enumerate(answer["evaluations"]):
            decided = found[one["context"]["decision"]]
            assert decided.sub == f"p{n % 10}"
            assert f"o{n}" in {held.id for held in decided.objs}

    @pytest.mark.parametrize(
        ("name", "value"), [("request", 2), ("key_sha256", KEYS), ("kas_id", "https://other")]
    )
    async def test_requests_keys_and_servers_are_kept_apart(self, pdp, name, value):
        """What a decision is bound to, or spent on, is one of it."""
        _, answer = await pdp.ask(
            item("o1", claims=DOCTOR), item("o2", claims=DOCTOR, **{name: value})
        )

        assert [one["context"]["decision"] for one in answer["evaluations"]] == [0, 1]

    async def test_a_repeated_question_is_answered_once(self, pdp):
        """A decision names an object once, and covers each repetition."""
        _, answer = await pdp.ask(*[item("o1", claims=DOCTOR)] * 3, item("o2", claims=DOCTOR))
        [signed] = answer["context"]["decisions"]

        assert [one["context"]["decision"] for one in answer["evaluations"]] == [0, 0, 0, 0]
        assert [held.id for held in pdp.verified(signed).objs] == ["o1", "o2"]

    async def test_an_object_asked_about_in_two_ways_is_denied_the_second_time(self, pdp):
        """A decision says one thing of an object; another request may say another."""
        other = policy("clearance=public")
        _, answer = await pdp.ask(
            item("o1", "clearance=secret", claims=DOCTOR),
            item("o1", claims=DOCTOR, policy=other),
            item("o1", claims=DOCTOR, policy=other, request=2),
        )

        assert [one["context"]["decision"] for one in answer["evaluations"]] == [0, None, 1]
        assert answer["evaluations"][1]["context"]["error"]["code"] == "malformed_request"

    async def test_each_policy_of_a_call_is_read_once(self, pdp, monkeypatch):
        """However many evaluations name it; a large one would hold everybody up."""
        read = []

        def counted(text):
            read.append(text)
            return parse_policy(text)

        monkeypatch.setattr("envelock_pdp.decide.parse_policy", counted)
        await pdp.ask(*(item(f"o{n}", "clearance=secret", claims=DOCTOR) for n in range(50)))

        assert read == [policy("clearance=secret")]

    @pytest.mark.parametrize("text", ["", "e30", "e30=", "e30==", "bm90IGpzb24=", "e30=\n", "é"])
    async def test_a_malformed_policy_denies_itself_alone(self, pdp, text):
        """Its neighbour is decided and signed; it stands in no decision."""
        _, answer = await pdp.ask(item("o1", claims=DOCTOR, policy=text), item("o2", claims=DOCTOR))

        assert answer["evaluations"][0] == {
            "decision": False,
            "context": {"decision": None, "reason_admin": {"en": "policy malformed"}, "rules": []},
        }
        assert [held.id for held in pdp.verified(answer["context"]["decisions"][0]).objs] == ["o2"]

    @pytest.mark.parametrize(
        ("token", "code", "status"),
        [("bad", "invalid_token", 401), ("away", "issuer_unavailable", 503)],
    )
    async def test_a_bad_token_fails_its_own_questions(self, pdp, token, code, status):
        """The neighbours are decided."""
        _, answer = await pdp.ask(item("o1", claims=token), item("o2", claims=DOCTOR))

        assert answer["evaluations"][0]["context"]["error"] == {"status": status, "code": code}
        assert answer["evaluations"][1]["decision"] is True

    async def test_defaults_stand_at_the_top_and_are_overridden_whole(self, pdp):
        """Subject, action, resource and context of the top level hold where an item has none."""
        top = item("o0", claims=DOCTOR)
        other = item("o9", claims=ACCOUNTANT)["context"]
        _, answer = await pdp.ask(
            {"resource": item("o1", "clearance=secret")["resource"]},
            {"resource": item("o2", "clearance=secret")["resource"], "context": other},
            **top,
        )

        assert [one["decision"] for one in answer["evaluations"]] == [True, False]

    @pytest.mark.parametrize(
        ("semantic", "answers"),
        [
            ("execute_all", [False, True, False]),
            ("deny_on_first_deny", [False]),
            ("permit_on_first_permit", [False, True]),
        ],
    )
    async def test_semantics_end_a_call_early(self, pdp, semantic, answers):
        """What is not answered is not signed either."""
        claims = [ACCOUNTANT, DOCTOR, ACCOUNTANT]
        _, answer = await pdp.ask(
            *(item(f"o{n}", "clearance=secret", claims=who) for n, who in enumerate(claims)),
            options={"evaluations_semantic": semantic},
        )
        signed = sum(len(pdp.verified(text).objs) for text in answer["context"]["decisions"])

        assert [one["decision"] for one in answer["evaluations"]] == answers
        assert signed == len(answers)


class TestStated:
    """A subject that only a body names."""

    async def test_gets_an_answer_that_is_not_signed(self, pdp):
        """AuthZEN's plain use releases nothing."""
        asked = _plain("o1", "clearance=secret")
        asked["subject"]["properties"] = DOCTOR
        _, answer = await pdp.ask(asked, path="evaluation")

        assert answer == {
            "decision": True,
            "context": {
                "reason_admin": {"en": "rule: owing"},
                "rules": ["owing"],
                "obligations": ["log"],
            },
        }

    async def test_the_body_cannot_speak_for_a_token(self, pdp):
        """Claims in a body count for nothing beside a token."""
        asked = item("o1", "clearance=secret", claims=ACCOUNTANT)
        asked["subject"] = {"type": "user", "id": "doctor", "properties": DOCTOR}
        _, answer = await pdp.ask(asked, path="evaluation")

        assert answer["decision"] is False
        assert pdp.verified(answer["context"]["decisions"][0]).sub == "accountant"


class TestPublic:
    """What a caller gets."""

    async def test_a_caller_asks_about_itself(self, pdp):
        """It gets the signed form, and no reason."""
        status, answer = await pdp.ask_openly(_plain("o1", "clearance=secret"), DOCTOR)

        assert (status, answer["decision"], list(answer["context"])) == (200, True, ["decisions"])
        assert pdp.verified(answer["context"]["decisions"][0]).sub == "doctor"

    async def test_a_denial_says_nothing_more(self, pdp):
        """Neither reason nor rules, in either call."""
        asked = _plain("o1", "clearance=secret", subject="accountant")
        _, one = await pdp.ask_openly(asked, ACCOUNTANT)
        _, many = await pdp.ask_openly({"evaluations": [asked]}, ACCOUNTANT, "evaluations")

        assert list(one["context"]) == ["decisions"]
        assert many["evaluations"] == [{"decision": False, "context": {"decision": 0}}]

    async def test_nobody_asks_about_somebody_else(self, pdp):
        """One foreign subject refuses the call."""
        status, answer = await pdp.ask_openly(_plain("o1", subject="doctor"), ACCOUNTANT)

        assert (status, answer["code"]) == (403, "access_denied")

    async def test_nobody_asks_without_a_token(self, pdp):
        """The API is no oracle for strangers."""
        status, answer = await pdp.ask_openly(_plain())

        assert (status, answer["code"]) == (401, "invalid_token")

    async def test_a_token_in_the_body_counts_for_nothing(self, pdp):
        """The asker is who authenticated."""
        asked = _plain("o1", "clearance=secret", subject="accountant", claims=DOCTOR)
        _, answer = await pdp.ask_openly(asked, ACCOUNTANT)

        assert answer["decision"] is False

    @pytest.mark.parametrize("inside", [True, False])
    async def test_an_address_is_believed_from_enforcement_points_alone(self, tmp_path, inside):
        """A caller cannot state its own address."""
        near = rule("near", context={"$.network.ip": {"condition": "CIDR", "value": "10.0.0.0/8"}})
        write_bundle(tmp_path / "policies", files(near))
        async with running(tmp_path) as pdp:
            asked = _plain(ip="10.1.1.1", claims=DOCTOR)
            if inside:
                _, answer = await pdp.ask(asked, path="evaluation")
            else:
                _, answer = await pdp.ask_openly(asked, DOCTOR)

        assert answer["decision"] is inside

    async def test_describes_itself(self, pdp):
        """Discovery and keys lead to everything else."""
        async with pdp.public.get(f"{pdp.url}/.well-known/authzen-configuration") as response:
            found = await response.json()
        async with pdp.public.get(found["jwks_uri"]) as response:
            keys = await response.json()

        assert found["policy_decision_point"] == pdp.url
        assert found["access_evaluations_endpoint"] == f"{pdp.url}/access/v1/evaluations"
        assert [key["kid"] for key in keys["keys"]] == [pdp.keys.kid]
        assert "d" not in keys["keys"][0]

    async def test_lists_the_attributes_of_the_callers_tenant(self, pdp):
        """Names, values in order, whether anybody can open them, and whom to ask."""
        headers = {"Authorization": f"Bearer {json.dumps(DOCTOR)}"}
        async with pdp.public.get(f"{pdp.url}/v1/attributes", headers=headers) as response:
            found = await response.json()

        assert (found["epoch"], found["contact"]) == (1, "records@clinic.example")
        assert found["attributes"][0]["values"][0] == {
            "value": "secret",
            "fqn": "https://clinic.example/attr/clearance/value/secret",
            "short": "clinic.example/clearance=secret",
            "openable": True,
        }
        assert [one["rule"] for one in found["attributes"]] == ["hierarchy", "anyOf", "allOf"]

    async def test_says_which_values_nobody_can_open(self, tmp_path):
        """A value without a mapping to it, or to one above it, entitles nobody."""
        mapping = {
            "claim": "$.c",
            "operator": "in",
            "values": ["i"],
            "grants": "clearance=internal",
        }
        content = files() | {"mappings.json": json.dumps([mapping]).encode()}
        write_bundle(tmp_path / "policies", content)
        async with running(tmp_path) as pdp:
            headers = {"Authorization": f"Bearer {json.dumps(DOCTOR)}"}
            async with pdp.public.get(f"{pdp.url}/v1/attributes", headers=headers) as response:
                found = await response.json()

        values = found["attributes"][0]["values"]
        assert [one["openable"] for one in values] == [False, True, True]

    async def test_health_needs_every_bundle(self, pdp, tmp_path):
        """A bundle without its epoch is not healthy."""
        await pdp.health.look()
        async with pdp.public.get(f"{pdp.url}/healthz") as response:
            healthy = response.status
        write_bundle(tmp_path / "policies" / "third", {"bundle.toml": b"?"})
        await pdp.policies.refresh()
        await pdp.health.look()
        async with pdp.public.get(f"{pdp.url}/healthz") as response:
            ill, told = response.status, await response.json()

        assert (healthy, ill) == (200, 503)
        assert [(one["name"], one["state"]) for one in told["parts"]] == [("policy", "down")]
        assert "third" not in str(told)


def _without(*path):
    asked = item(claims=DOCTOR)
    target = asked
    for name in path[:-1]:
        target = target[name]
    del target[path[-1]]
    return asked


def _with(value, *path):
    asked = item(claims=DOCTOR)
    target = asked
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    return asked


MALFORMED = [
    {},
    [],
    _without("subject"),
    _without("subject", "id"),
    _without("subject", "type"),
    _without("action"),
    _without("action", "name"),
    _without("resource"),
    _without("resource", "id"),
    _without("resource", "properties"),
    _without("resource", "properties", "policy"),
    _with("delete", "action", "name"),
    _with("file", "resource", "type"),
    _with("", "resource", "id"),
    _with("x" * 257, "resource", "id"),
    _with(1, "resource", "properties", "policy"),
    _with("AAAA", "resource", "properties", "keys_sha256"),
    _with("*", "context", "key_sha256"),
    _with("eyJ9", "resource", "properties", "new_policy"),
    _with("rebind", "action", "name"),
    _with("x" * 201, "context", "purpose"),
]


class TestLimits:
    """What is not a question is refused before it costs anything."""

    @pytest.mark.parametrize("body", MALFORMED)
    async def test_refuses_what_is_missing_or_malformed(self, pdp, body):
        """400, with the member's name; for a caller within a batch too."""
        status, answer = await pdp.ask(body, path="evaluation")
        among, _ = await pdp.ask_openly({"evaluations": [_plain(), body]}, DOCTOR, "evaluations")

        assert (status, among, answer["code"]) == (400, 400, "malformed_request")
        assert answer["detail"]

    @pytest.mark.parametrize("body", MALFORMED)
    async def test_what_is_malformed_fails_no_neighbour(self, pdp, body):
        """An enforcement point asks for many callers; each stands and falls alone."""
        asked = item("o1", "clearance=secret", claims=DOCTOR)
        status, answer = await pdp.ask(asked, body, asked | {"context": asked["context"]})
        first, second, third = answer["evaluations"]

        assert (status, first["decision"], third) == (200, True, first)
        assert (second["decision"], second["context"]["decision"]) == (False, None)
        assert second["context"]["error"] == {"status": 400, "code": "malformed_request"}
        assert second["context"]["reason_admin"]["en"].startswith("question malformed: evaluations")

    async def test_ids_of_seals_are_long_enough(self, pdp):
        """A seal is named by the whole path of its key."""
        asked = item("seal:" + "x" * 200, "clearance=secret", act="seal", claims=DOCTOR)
        _, answer = await pdp.ask(asked)

        assert answer["evaluations"][0]["decision"] is True

    async def test_a_caller_asks_a_hundred_questions_at_most(self, pdp):
        """A thousand are for enforcement points."""
        asked = [_plain(f"o{n}") for n in range(101)]
        status, _ = await pdp.ask_openly({"evaluations": asked[1:]}, DOCTOR, "evaluations")
        refused, answer = await pdp.ask_openly({"evaluations": asked}, DOCTOR, "evaluations")

        assert (status, refused, answer["detail"]) == (200, 400, "evaluations: at most 100")

    async def test_one_subject_cannot_ask_without_end(self, tmp_path):
        """429 until its bucket has filled again, with whichever token; others are answered."""
        write_bundle(tmp_path / "policies", files())
        async with running(tmp_path, burst=5) as pdp:
            many = {"evaluations": [_plain()] * 4}
            seen = [(await pdp.ask_openly(many, DOCTOR, "evaluations"))[0]]
            again = DOCTOR | {"jkt": "another"}
            seen.append((await pdp.ask_openly(_plain(), again))[0])
            seen.append((await pdp.ask_openly(_plain(subject="accountant"), ACCOUNTANT))[0])
            pdp.clock[0] += 10
            seen.append((await pdp.ask_openly(_plain(), DOCTOR))[0])

        assert seen == [200, 429, 200, 200]

    async def test_a_large_body_is_paid_for_before_it_is_read(self, tmp_path):
        """Each KiB counts, whether or not there is a question in it."""
        write_bundle(tmp_path / "policies", files())
        async with running(tmp_path, burst=5) as pdp:
            large, _ = await pdp.ask_openly({"x": "y" * 10_000}, DOCTOR)
            after, _ = await pdp.ask_openly(_plain(), DOCTOR)

        assert (large, after) == (400, 429)

    @pytest.mark.parametrize(
        "text", [b"", b"{", b'{"a":1,"a":1}', b"\xff", b'{"a":NaN}', b"[" * 99]
    )
    async def test_refuses_what_is_not_strict_json(self, pdp, text):
        """Duplicate names, other encodings and depth have no reading."""
        headers = {"Content-Type": "application/json"}
        url = "http://pdp/access/v1/evaluations"
        async with pdp.internal.post(url, data=text, headers=headers) as response:
            status = response.status

        assert status == 400

    async def test_passes_over_members_that_are_not_known(self, pdp):
        """The API may grow."""
        asked = item("o1", claims=DOCTOR, device="x") | {"later": 1}
        status, answer = await pdp.ask(asked, path="evaluation")

        assert (status, answer["decision"]) == (200, True)

    async def test_refuses_more_than_a_thousand(self, pdp):
        """1000 are answered above; one more is not."""
        small = {"resource": item()["resource"]}
        status, answer = await pdp.ask(*[small] * 1001, **item(claims=DOCTOR))

        assert (status, answer["detail"]) == (400, "evaluations: at most 1000")

    async def test_refuses_a_large_body_of_a_caller(self, pdp):
        """One MiB."""
        status, answer = await pdp.ask_openly({"x": "y" * (1 << 20)}, DOCTOR)

        assert (status, answer["code"]) == (413, "too_large")

    async def test_refuses_another_media_type(self, pdp):
        """JSON only."""
        async with pdp.internal.post("http://pdp/access/v1/evaluation", data=b"a=b") as response:
            status = response.status

        assert status == 415

    async def test_sends_a_request_id_back(self, pdp):
        """One that came, when it is well-formed; else one of ours."""
        seen = []
        for given in ("abc-1", "a b", None):
            headers = {"X-Request-ID": given} if given else {}
            async with pdp.public.get(f"{pdp.url}/healthz", headers=headers) as response:
                seen.append(response.headers["X-Request-ID"])

        assert (seen[0], seen[1][:2], seen[2][:2]) == ("abc-1", "r-", "r-")

    @pytest.mark.parametrize("given", ["abc-1", "a b"])
    async def test_a_problem_and_its_header_name_one_request(self, pdp, given):
        """Whoever quotes either id means the same."""
        headers = {"X-Request-ID": given}
        async with pdp.public.get(f"{pdp.url}/v1/attributes", headers=headers) as response:
            problem = await response.json(content_type=None)

        assert response.headers["X-Request-ID"] == problem["request_id"]

    async def test_the_socket_is_the_owners_alone(self, pdp):
        """Mode 0600."""
        assert stat.S_IMODE(pdp.socket.stat().st_mode) == 0o600

    async def test_another_user_at_the_socket_is_refused(self, pdp, monkeypatch):
        """The kernel's word about the peer is what counts, here made to differ."""
        monkeypatch.setattr("envelock_service.server.peer_uid", lambda _peer: os.geteuid() + 1)
        status, answer = await pdp.ask(item(claims=DOCTOR))

        assert (status, answer["code"]) == (403, "access_denied")

    async def test_a_single_question_that_cannot_be_decided_is_its_problem(self, pdp):
        """Without neighbours the error is the answer's."""
        stale, _ = await pdp.ask(item(claims=DOCTOR, tenant="initech"), path="evaluation")
        unauthenticated, _ = await pdp.ask(item(claims="bad"), path="evaluation")

        assert (stale, unauthenticated) == (503, 401)
