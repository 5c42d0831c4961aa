"""D1 to D20: proofs of possession with one thing wrong, before a KAS that counts its custody."""

import time
from dataclasses import replace

import pytest
from attacks.forging import STRANGER, Case, other
from attacks.places import REWRAP, Outcome, Place, Traces, stripped
from cryptography.hazmat.primitives.asymmetric import ec
from kas.world import another_worker
from service.world import Holder

from envelock_formats import jose
from envelock_formats.framing import b64url
from envelock_formats.wire import write_request_token
from envelock_kas.records import Origin
from envelock_service import callers as seen
from envelock_service.callers import Authenticated, Callers
from envelock_service.dpop import Proof
from envelock_service.problem import Problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = int(time.time())
HOST = "kas.example"


def _at(change) -> Case:
    """A proof for another URL, made from the right one."""
    name, url = change
    return Case("D7", name, lambda t: t.claiming(htu=url(t.claims["htu"])))


CASES = [
    *other("D6", "htm", "GET", "post", "Post", "", "POST ", 7, None, ["POST"], ...),
    *map(_at, {
        "another path": lambda u: u.replace("Rewrap", "PublicKey"),
        "another case of the path": lambda u: u.lower(),
        "a longer path": lambda u: u + "/",
        "an empty segment": lambda u: u.replace("/kas.", "//kas."),
        "a dot segment": lambda u: u.replace("/kas.", "/./kas."),
        "an escaped letter": lambda u: u.replace("Rewrap", "%52ewrap"),
        "an escaped dot": lambda u: u.replace("kas.Access", "kas%2eAccess"),
        "another scheme": lambda u: u.replace("http:", "https:"),
        "another port": lambda u: u.replace("127.0.0.1:", "127.0.0.1:1"),
        "no port": lambda _: f"http://127.0.0.1{REWRAP}",
        "another host": lambda u: u.replace("127.0.0.1", "127.0.0.2"),
        "another name of the host": lambda u: u.replace("127.0.0.1", "localhost"),
        "a decimal host": lambda u: u.replace("127.0.0.1", "2130706433"),
        "a mapped host": lambda u: u.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        "user information": lambda u: u.replace("http://", "http://a@"),
        "our host as user": lambda u: f"{u.rpartition('/kas')[0]}@{HOST}{REWRAP}",
        "a path only": lambda _: REWRAP,
        "no scheme": lambda u: u.removeprefix("http:"),
        "blank in front": lambda u: f" /{u}",
        "a port that is none": lambda u: u.replace("127.0.0.1:", "127.0.0.1:99999"),
        "an open bracket": lambda _: f"http://[::1{REWRAP}",
    }.items()),
    *other("D7", "htu", "", 7, None, ["x"], ...),
    *other("D8", "iat", NOW - 3600, NOW + 50_000, str(NOW), None, NOW + 0.5, -1, ...),
    Case("D8", "iat true", lambda t: t.claiming(iat=True)),
    *other("D10", "jti", "", "x" * 257, "x" * 5_000, 7, None, ["a"], ...),
    *other("D11", "ath", "", b64url(bytes(32)), 7, None, ...),
    Case("D2", "typ of an access token", lambda t: t.headed(typ="at+jwt")),
    Case("D2", "typ in capitals", lambda t: t.headed(typ="DPOP+JWT")),
    Case("D2", "typ as a media type", lambda t: t.headed(typ="application/dpop+jwt")),
    Case("D4", "no jwk", lambda t: t.headed(jwk=...)),
    *(Case("D4", f"jwk {str(jwk)[:20]}", lambda t, jwk=jwk: t.headed(jwk=jwk))
      for jwk in (None, {}, [], "jwk", 7, {"kty": "oct", "k": "AA"}, {"kty": "EC"})),
    *(Case("D4", f"jwk with {name}", lambda t, name=name, value=value: t.headed(
        jwk=t.header["jwk"] | {name: value}))
      for name, value in {"d": b64url(bytes(32)), "k": "AA", "use": "enc", "key_ops": ["sign"],
                          "alg": "HS256", "crv": "P-384", "kty": "RSA", "x": b64url(bytes(31)),
                          "y": b64url(bytes(32))}.items()),
    Case("D4", "a kid", lambda t: t.headed(kid="k")),
    Case("D5", "of another key than its own", lambda t: replace(t, key=STRANGER).signed()),
    Case("D12", "of another holder", lambda t: replace(t, key=STRANGER).headed(
        jwk=jose.public_jwk(STRANGER.public_key()))),
]  # fmt: skip


async def proved(place: Place, *proofs: str, scheme: str = "DPoP", token: str = "") -> Outcome:
    """A request with these proofs."""
    token = token or place.access_token
    body = {"signedRequestToken": place.template("request").signed()}
    headers = [("Authorization", f"{scheme} {token}"), *(("DPoP", proof) for proof in proofs)]
    async with place.session.post(place.origin + REWRAP, json=body, headers=headers) as answer:
        words = stripped(await answer.json(content_type=None))
        return Outcome(answer.status, words, "WWW-Authenticate" in answer.headers)


def touched(before: Traces, after: Traces) -> bool:
    """Whether custody or PDP had anything to do."""
    return (before.custody, before.asked) != (after.custody, after.asked)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_proof_with_one_thing_wrong_is_refused(place: Place, case: Case):
    """D2 to D12: one answer for every cause; no operation, no record, one more is counted."""
    proof = case.forge(place.template("proof"))
    said = await place.reference("proof")
    before = await place.traces()
    outcome = await place.present("proof", proof)
    after = await place.traces()

    assert (outcome.status, outcome.words["reason"]) == (401, "invalid_dpop_proof")
    assert outcome.words.get("message", said.words["message"]) == said.words["message"]
    assert not touched(before, after)
    assert (after.records, after.refused) == (before.records, before.refused + 1)


@pytest.mark.parametrize("number", [0, 2, 3])
async def test_exactly_one_proof_is_needed(place: Place, number: int):
    """D1: none and several are refused, in headers and within one."""
    proofs = [place.template("proof").signed() for _ in range(number)]
    joined = [", ".join(proofs)] if proofs else [""]
    before = await place.traces()
    outcomes = [await proved(place, *proofs), await proved(place, *joined)]

    assert {outcome.words["reason"] for outcome in outcomes} == {"invalid_dpop_proof"}
    assert not touched(before, await place.traces())


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic", "Token"])
async def test_a_bound_token_needs_its_scheme(place: Place, scheme: str):
    """D13: sent otherwise it is refused, with a proof and without."""
    proof = place.template("proof").signed()

    for proofs in ([], [proof]):
        outcome = await proved(place, *proofs, scheme=scheme)
        assert (outcome.status, outcome.words["reason"]) == (401, "invalid_token")


async def test_members_beside_the_required_ones_change_no_thumbprint(place: Place):
    """D4: RFC 7638 counts the required ones; whatever else a key says is another matter."""
    template = place.template("proof")
    proof = template.headed(jwk=template.header["jwk"] | {"kid": "x", "use": "sig"})

    assert (await place.present("proof", proof)).permitted


@pytest.mark.parametrize("query", ["?x=1", "#y", "?x=1#y", "?", "#"])
async def test_query_and_fragment_are_left_out(place: Place, query: str):
    """D7: RFC 9449 section 4.3 leaves them out."""
    template = place.template("proof")

    assert (await place.present("proof", template.claiming(
        htu=template.claims["htu"] + query))).permitted  # fmt: skip


@pytest.mark.parametrize(("ahead", "accepted"), [(3, True), (8, False), (-57, True), (-63, False)])
async def test_a_proof_is_young(place: Place, ahead: int, accepted: bool):  # noqa: FBT001 a column
    """D8: a minute old at most, five seconds ahead at most."""
    proof = place.template("proof").claiming(iat=int(time.time()) + ahead)

    assert (await place.present("proof", proof)).permitted == accepted


async def test_the_same_id_again_is_refused(place: Place):
    """D9: byte for byte, and signed anew; a name is compared as it is."""
    template = place.template("proof")
    template = replace(template, claims=template.claims | {"jti": f"Once-{time.time_ns()}"})
    texts = [template.signed()]
    texts += [texts[0], template.signed(), template.claiming(iat=int(time.time()) - 1)]
    outcomes = [await place.present("proof", text) for text in texts]
    another = template.claiming(jti=template.claims["jti"].lower())

    assert [outcome.permitted for outcome in outcomes] == [True, False, False, False]
    assert (await place.present("proof", another)).permitted


async def test_the_same_id_is_spent_on_every_worker(place: Place):
    """D9: what one worker accepted, another refuses, on record, with no key released."""
    token = await place.authority.tokens.verify(place.access_token)
    shown = Authenticated(
        token,
        Proof(place.holder.jkt, place.holder.key.public_key(), "dpop:one", int(time.time()) + 60),
        place.access_token,
    )
    surfaces = [place.world.worker.surface, (await another_worker(place.world)).surface]
    key = ec.generate_private_key(ec.SECP256R1())
    released: list[object] = []
    for surface in surfaces:
        request = write_request_token(place.body(key), place.holder.key, now=int(time.time()))
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            await surface.release(shown, request, Origin("r-test"))
            released.append(True)
        except Problem as problem:
            released.append(problem.code)

    assert released == [True, "decision_replayed"]
    assert (await place.newest())["rsn"] == "replayed"


async def test_a_proof_is_for_its_own_token(place: Place):
    """D11: another token of the same caller needs another proof."""
    key, header, claims = place.template("access").key, *place._access()[1:]  # noqa: SLF001 the world's own parts
    another = place.known(replace(place.template("access"), key=key, header=header,
                                  claims=claims | {"jti": "another"}).signed())  # fmt: skip
    outcome = await proved(place, place.template("proof").signed(), token=another)

    assert outcome.words["reason"] == "invalid_dpop_proof"


async def test_a_proof_is_of_no_use_with_an_unbound_token(place: Place):
    """D12, D14: a proof binds nothing that is not bound."""
    token = place.known(place.template("access").claiming(cnf=...))
    url = f"{place.origin}{REWRAP}"

    outcome = await proved(place, place.holder.proof(url, token), scheme="DPoP", token=token)
    assert (outcome.status, outcome.words["reason"]) == (401, "invalid_token")

    proofs = [place.holder.proof(url, token), Holder().proof(url, token), "x.y.z"]
    told = [await proved(place, proof, scheme="Bearer", token=token) for proof in proofs]
    alone = await proved(place, scheme="Bearer", token=token)
    assert {(one.status, one.permitted) for one in told} == {(alone.status, alone.permitted)}


async def test_a_proof_for_the_decision_point_is_none_here(place: Place):
    """D16: the URL of the PDP is another one."""
    template = place.template("proof")
    url = "http://127.0.0.1:1/access/v1/evaluation"

    assert (await place.present("proof", template.claiming(htu=url))).status == 401


async def test_a_refused_proof_spends_no_name(place: Place):
    """D17: a proof that fails, whoever sends it, uses up nobody's name."""
    template = place.template("proof")
    for wrong in ({"ath": "x"}, {"htm": "GET"}, {"htu": "http://evil.example/"}):
        assert (await place.present("proof", template.claiming(**wrong))).status == 401
    bits = template.signed()[:-8] + "AAAAAAAA"

    assert (await place.present("proof", bits)).status == 401
    assert (await place.present("proof", template.signed())).permitted


async def test_a_name_outlives_its_proof(place: Place):
    """D18: it is remembered for as long as a proof of that age is accepted, and longer."""
    template = place.template("proof")
    at = int(time.time()) + 3  # the youngest there is
    template = replace(template, claims=template.claims | {"iat": at})
    first = await place.present("proof", template.signed())
    [expires] = [
        until for until in place.world.parts.callers._seen.values()  # noqa: SLF001 what is remembered is the promise
        if until >= at + 60
    ][-1:]  # fmt: skip

    assert first.permitted
    assert expires >= at + 60


async def test_shares_go_to_the_key_that_the_request_names(place: Place):
    """D19: it may be another than the proof's; a decision that is brought along must name it."""
    decided = place.template("decision")
    other_key = b64url(bytes(32))

    assert (await place.present("access", place.template("access").signed())).permitted
    refused = await place.present("decision", decided.claiming(key_sha256=other_key))
    assert refused.words["reason"] == "decision_mismatch"


async def test_a_million_names_are_remembered_in_bounded_space():
    """D20: the oldest go first, in constant time for each."""
    now = [float(NOW)]
    known = Callers(None, [], lambda: now[0])  # type: ignore[arg-type] no token is read here
    key = Holder().key.public_key()
    slowest = 0.0
    begun = time.monotonic()
    for number in range(1_000_000):
        proof = Proof("jkt", key, f"dpop:{number}", NOW + 65)
        before = time.monotonic()
        known._require_fresh(proof)  # noqa: SLF001 the million are not worth a million signatures
        slowest = max(slowest, time.monotonic() - before)
    took = time.monotonic() - begun

    assert len(known._seen) == seen.MAX_SEEN  # noqa: SLF001 as above
    assert slowest < 1.0
    assert took < 60
