"""The same tokens before real servers: KAS and PDP of a deployment, by their issuer's own key."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from aiohttp import ClientSession
from attacks.forging import CASES, Case, Template, absent, other, times
from attacks.places import fits, jose_part, stripped
from attacks.test_proofs import CASES as OF_PROOFS
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from service.world import Holder

from envelock.testing import Server, server
from envelock_formats import jose
from envelock_formats.framing import b64url

AT = {"kas": "/v1/publickeys", "pdp": "/v1/attributes"}
TOKENS = [
    *CASES,
    *times("exp", "iat", "nbf"),
    *absent("J16", "aud", "iss", "sub", "tenant"),
    *other("J16", "aud", "", "other", ["other"], 7),
    *other("J17", "iss", "https://other.example", "", 7),
    *other("J22", "sub", "", 7, []),
    *other("D12", "cnf", {}, {"jkt": 7}, "jkt"),
]


@dataclass(frozen=True)
class Asked:
    """One server, and somebody whom it knows."""

    name: str
    url: str
    issuer: str
    key: object
    holder: Holder

    def access(self) -> Template:
        """A good access token."""
        kid = jose.thumbprint(jose.public_jwk(self.key.public_key()))
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "doctor",
            "tenant": "clinic",
            "aud": "envelock",
            "iat": now,
            "exp": now + 600,
            "cnf": {"jkt": self.holder.jkt},
        }
        return Template(self.key, {"alg": "ES256", "typ": "at+jwt", "kid": kid}, claims)

    def proof(self, token: str) -> Template:
        """A good proof for one more request."""
        header = {
            "alg": "ES256",
            "typ": "dpop+jwt",
            "jwk": jose.public_jwk(self.holder.key.public_key()),
        }
        claims = {
            "htm": "GET",
            "htu": self.url,
            "iat": int(time.time()),
            "jti": str(time.perf_counter_ns()),
            "ath": b64url(hashlib.sha256(token.encode()).digest()),
        }
        return Template(self.holder.key, header, claims)

    async def ask(self, session: ClientSession, token: str, proof: str) -> tuple[int, str]:
        """Status, and what is said without the request id."""
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        async with session.get(self.url, headers=headers) as answer:
            return answer.status, str(stripped(await answer.json(content_type=None)))


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One deployment for all tests of this module."""
    with server() as found:
        yield found


@pytest.fixture(params=AT)
def asked(running: Server, request: pytest.FixtureRequest) -> Asked:
    """Each server that authenticates callers."""
    base = running.url if request.param == "kas" else running.pdp
    key = load_pem_private_key((running.data / "secrets" / "issuer.pem").read_bytes(), None)
    return Asked(request.param, base + AT[request.param], running.issuer, key, Holder())


def url_of(text: str) -> object:
    """The URL that a proof is for."""
    return jose_part(text.split(".")[1]).get("htu")


async def refused(asked: Asked, cases: list[Case], *, proofs: bool) -> tuple[list[str], set[str]]:
    """Send every case; returns those that were not refused with 401, and all that was said."""
    wrong, said = [], set()
    async with ClientSession() as session:
        for case in cases:
            token = asked.access().signed()
            if proofs:
                text = case.forge(asked.proof(token))
                pair = token, text
            else:
                text = case.forge(asked.access())
                pair = text, asked.proof(text).signed()
            if not fits(text) or (case.number == "D7" and url_of(text) == asked.url):
                continue  # no header carries it; or it changes another URL than this one
            status, words = await asked.ask(session, *pair)
            said.add(words)
            if status != 401:
                wrong.append(f"{case}: {status} {words}")
    return wrong, said


async def test_a_token_and_its_proof_are_accepted(asked: Asked):
    """What the cases change is accepted unchanged."""
    token = asked.access().signed()
    async with ClientSession() as session:
        status, words = await asked.ask(session, token, asked.proof(token).signed())

    assert status == 200, words


async def test_no_token_with_one_thing_wrong_is_accepted(asked: Asked):
    """J1 to J26 at KAS and PDP: 401 for each, in the same words."""
    cases = [case for case in TOKENS if "access" not in case.except_at]
    wrong, said = await refused(asked, cases, proofs=False)

    assert wrong == []
    assert len(said) == 1


async def test_no_proof_with_one_thing_wrong_is_accepted(asked: Asked):
    """D2 to D12 at KAS and PDP: 401 for each, in the same words."""
    cases = [case for case in [*CASES, *OF_PROOFS] if "proof" not in case.except_at]
    post = [case for case in cases if case.name != "htm 'GET'"]
    wrong, said = await refused(asked, post, proofs=True)

    assert wrong == []
    assert len(said) == 1


async def test_a_proof_for_one_server_is_none_for_the_other(running: Server, asked: Asked):
    """D16: neither may use at the other what was shown to it."""
    token = asked.access().signed()
    elsewhere = replace(
        asked, url=(running.pdp if asked.name == "kas" else running.url) + AT[asked.name]
    )
    async with ClientSession() as session:
        status, _ = await asked.ask(session, token, elsewhere.proof(token).signed())

    assert status == 401


async def test_a_proof_is_good_once_at_each_server(asked: Asked):
    """D9: twice at once is once."""
    token = asked.access().signed()
    proof = asked.proof(token).signed()
    async with ClientSession() as session:
        answers = await asyncio.gather(*(asked.ask(session, token, proof) for _ in range(5)))

    assert sorted(status for status, _ in answers) == [200, 401, 401, 401, 401]
