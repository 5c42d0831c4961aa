"""J1 to J30: tokens with one thing wrong, at every place of a KAS that reads one.

Each refusal costs no custody operation and says the same as every other refusal at that place; it
is on record when the caller is known by then, and counted when not.
"""

import time
from dataclasses import replace

import pytest
from attacks.forging import CASES, STRANGER, Case, absent, other, raw_claim, times
from attacks.places import RECORDED, Outcome, Place
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats import jose
from envelock_formats.framing import b64url
from envelock_formats.wire import RewrapBody
from envelock_formats.wrap import public_pem

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSED = {
    "access": (401, "invalid_token"),
    "proof": (401, "invalid_dpop_proof"),
    "request": (400, "malformed_request"),
    "decision": (403, "access_denied"),
}
LONG = "x" * 300
CLAIMS = {
    "access": [
        *times("exp", "iat", "nbf"),
        *absent("J16", "aud"),
        *other("J16", "aud", "", "envelock-", "envelo", "ENVELOCK", "envelock ", ["other"], [], 7,
               None, {"envelock": 1}),
        *absent("J17", "iss"),
        *other("J17", "iss", "https://other.example", ["x"], "", 7, None),
        Case("J17", "iss with a slash", lambda t: t.claiming(iss=t.claims["iss"] + "/")),
        Case("J17", "iss in capitals", lambda t: t.claiming(iss=t.claims["iss"].upper())),
        Case("J17", "iss in a list", lambda t: t.claiming(iss=[t.claims["iss"]])),
        Case("J15", "iss that listens", lambda t: t.claiming(iss=t.listener)),
        *absent("J22", "sub"),
        *other("J22", "sub", "", ["doctor"], 7, None, {"a": 1}),
        *other("J22", "tenant", "", ["clinic"], 7, None, ...),
        *other("D12", "cnf", {}, {"jkt": 7}, {"jkt": ""}, {"jkt": None}, "jkt", ["jkt"],
               {"x5t#S256": "abc"}),
    ],
    "request": [
        *times("exp"),
        Case("J26", "too long", lambda t: t.claiming(pad="x" * 3_200_000)),
        *absent("J26", "requestBody"),
        *other("J26", "requestBody", "", "{}", "[]", "[" * 100_000, 7, None, {"a": 1}),
    ],
    "decision": [
        *times("exp", "iat", "nbf"),
        *other("J16", "aud", ..., "", "envelock", "envelock-kas2", "ENVELOCK-KAS", ["envelock-kas"],
               ["envelock-kas", "other"], 7, None),
        *other("J17", "iss", ..., "", "envelock-pdp/", "Envelock-PDP", ["envelock-pdp"], 7),
        *other("J22", "sub", ..., [], 7, None),
        *other("J21", "jti", ..., "", 7, None, ["a"]),
        *other("J30", "act", ..., "", "OPEN", "read", 7),
        *other("J30", "objs", ..., [], {}, [[]], 7),
        *other("J30", "policy", ..., {}, [], 7),
        *other("J9", "extra", 1, None, "x"),
    ],
    "proof": [],
}  # fmt: skip
TABLE = [
    (place, case)
    for place in REFUSED
    for case in [*CASES, *CLAIMS[place]]
    if place not in case.except_at
]


@pytest.mark.parametrize("where", sorted(REFUSED))
async def test_a_token_in_order_is_accepted(place: Place, where: str):
    """What the cases change is accepted unchanged, or they would show nothing."""
    outcome = await place.present(where, place.template(where).signed())

    assert (outcome.status, outcome.permitted) == (200, True)


@pytest.mark.parametrize(("where", "case"), TABLE, ids=lambda part: str(part)[:60])
async def test_a_token_with_one_thing_wrong_is_refused(place: Place, where: str, case: Case):
    """J29 too: its status, the words of every refusal; no key, no custody operation, no PDP."""
    token = case.forge(place.template(where))
    said_so = (await place.reference(where)).words["message"]
    before = await place.traces()
    outcome = await place.present(where, token)
    after = await place.traces()
    status, code = REFUSED[where]

    assert (outcome.status, outcome.words.get("reason")) == (status, code)
    assert not outcome.permitted
    assert (after.custody, after.asked) == (before.custody, before.asked)
    assert after.records - before.records == (where in RECORDED)
    assert after.refused - before.refused == (where not in RECORDED)
    assert outcome.challenge == (status == 401)
    assert place.knocked == []
    if where != "request":  # whose faults of form are told
        assert outcome.words.get("message", said_so) == said_so
    if where in RECORDED:
        record = await place.newest()
        assert (record["typ"], record["tn"], record["act"]) == ("denied", "clinic", "open")


async def test_everybody_else_is_served_afterwards(place: Place):
    """No refusal leaves anything behind that would refuse others."""
    assert await place.permitted()


@pytest.mark.parametrize(
    ("claim", "value", "named"),
    [
        ("sub", "somebody", "sub"),
        ("sub", "doctor ", "sub"),
        ("sub", "Doctor", "sub"),
        ("sub_iss", "https://other.example", "sub_iss"),
        ("sub_tenant", "globex", "sub_tenant"),
        ("tenant", "globex", "tenant"),
        ("act", "seal", "act"),
        ("act", "rebind", "act"),
        ("cnf", {"jkt": b64url(bytes(32))}, "cnf"),
        ("cnf", ..., "cnf"),
        ("key_sha256", b64url(bytes(32)), "key_sha256"),
        ("key_sha256", "", "key_sha256"),
    ],
)
async def test_a_decision_for_another_request_is_refused(place: Place, claim, value, named):
    """J22, J30: each claim is held against the request; which one differed is in the record."""
    before = await place.traces()
    outcome = await place.present("decision", place.template("decision").claiming(**{claim: value}))
    after = await place.traces()

    assert (outcome.status, outcome.words["reason"]) == (403, "decision_mismatch")
    assert after.custody == before.custody
    assert (await place.newest())["rsn"] == f"decision mismatch: {named}"
    assert named not in outcome.words.get("message", "")


@pytest.mark.parametrize("member", ["id", "policy_sha256", "keys_sha256", "new_policy_sha256"])
async def test_a_decision_about_another_object_is_refused(place: Place, member: str):
    """J30: object, policy and wrapped keys are each named by the decision."""
    template = place.template("decision")
    [decided] = template.claims["objs"]
    before = await place.traces()
    outcome = await place.present(
        "decision", template.claiming(objs=[decided | {member: b64url(bytes(32))}])
    )

    assert (outcome.status, outcome.words["reason"]) == (403, "decision_mismatch")
    assert (await place.traces()).custody == before.custody
    assert (await place.newest())["rsn"] == f"decision mismatch: objs.{member}"


@pytest.mark.parametrize("spelled", [lambda jti: jti, str.upper, lambda jti: f"{jti} "])
async def test_a_decision_is_spent_under_its_very_name(place: Place, spelled):
    """J21: used again for another request it is refused; another name is another decision."""
    token = place.template("decision")
    token = replace(token, claims=token.claims | {"jti": f"ab-{time.time_ns()}"})
    first = await place.present("decision", token.signed())
    again = token.claiming(jti=spelled(token.claims["jti"]))
    outcome = await place.present("decision", again)

    assert first.permitted
    assert (outcome.status, outcome.permitted) == (200, True)  # the same request, so a repeat
    other_key = ec.generate_private_key(ec.SECP256R1())
    body = RewrapBody(public_pem(other_key.public_key()), (place.sealed.entry(),), decision=again)
    assert (await refused_body(place, body)).words["reason"] == "decision_mismatch"


async def refused_body(place: Place, body: RewrapBody) -> Outcome:
    """Send a body of one's own making."""
    import msgspec  # noqa: PLC0415 only here

    template = place.template("request")
    return await place.present(
        "request", template.claiming(requestBody=msgspec.json.encode(body).decode())
    )


@pytest.mark.parametrize("where", sorted(REFUSED))
@pytest.mark.parametrize("kind", sorted(REFUSED))
async def test_no_token_stands_for_one_of_another_kind(place: Place, where: str, kind: str):
    """J23: an access token is no decision, a decision no access token, and so on."""
    if where == kind:
        return
    before = await place.traces()
    outcome = await place.present(where, place.template(kind).signed())

    assert (outcome.status, outcome.words["reason"]) == REFUSED[where]
    assert (await place.traces()).custody == before.custody


@pytest.mark.parametrize("where", ["access", "decision"])
async def test_an_id_token_is_no_token_here(place: Place, where: str):
    """J23: of the same issuer, with the same key, for the same audience."""
    template = place.template(where)
    token = template.headed(typ="JWT")

    assert (await place.present(where, token)).status == REFUSED[where][0]


async def test_a_decision_by_the_issuer_and_a_token_by_the_decider_are_refused(place: Place):
    """J6, J23: keys belong to issuers; the name of one opens nothing at another."""
    access, decided = place.template("access"), place.template("decision")
    swapped = [
        ("decision", replace(decided, key=access.key)),
        ("decision", replace(decided, key=access.key, header=decided.header
                             | {"kid": access.header["kid"]})),
        ("access", replace(access, key=decided.key)),
        ("access", replace(access, key=decided.key, header=access.header
                           | {"kid": decided.header["kid"]})),
    ]  # fmt: skip
    for where, template in swapped:
        assert (await place.present(where, template.signed())).status == REFUSED[where][0]


@pytest.mark.parametrize(
    ("claim", "ahead", "accepted"),
    [("exp", -4, True), ("exp", -7, False), ("iat", 4, True), ("iat", 7, False),
     ("nbf", 4, True), ("nbf", 7, False)],
)  # fmt: skip
async def test_clocks_may_differ_by_five_seconds(place: Place, claim, ahead, accepted):
    """J19: as much is allowed for, and no more."""
    token = place.template("access").claiming(**{claim: int(time.time()) + ahead})
    outcome = await place.present("access", token)

    assert outcome.permitted == accepted


async def test_high_s_is_a_signature_like_any_other(place: Place):
    """J11: ECDSA has two for a text; both are accepted, and nothing is named by a signature."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    head, payload, signature = place.template("decision").signed().split(".")
    raw = jose.from_b64url(signature)
    s = order - int.from_bytes(raw[32:], "big")
    twin = f"{head}.{payload}.{b64url(raw[:32] + s.to_bytes(32, 'big'))}"

    assert (await place.present("decision", twin)).permitted


async def test_a_stranger_with_a_good_form_is_refused_everywhere(place: Place):
    """A key that nobody pinned signs nothing that counts."""
    for where in ("access", "request", "decision"):
        token = replace(place.template(where), key=STRANGER).signed()
        assert (await place.present(where, token)).status == REFUSED[where][0]


async def test_a_number_is_read_once(place: Place):
    """J18: an `exp` in another spelling of the same number is none."""
    now = int(time.time())
    for text in (f"{now + 60}.0", f"{(now + 60) / 10}e1", f"0{now + 60}", f"+{now + 60}"):
        token = raw_claim(place.template("access"), "exp", text)
        assert (await place.present("access", token)).status == 401
