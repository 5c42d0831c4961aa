"""Who is believed, and of whom nothing is: tokens and proofs, one defect each."""

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from multidict import CIMultiDict, CIMultiDictProxy
from service.world import CLAIMS, Authority, Holder, running_authority

from envelock_formats import jose
from envelock_formats.framing import b64url
from envelock_service.callers import Callers
from envelock_service.dpop import normal_url
from envelock_service.oidc import (
    CallerSettings,
    IssuerSettings,
    IssuerUnavailableError,
    TokenVerifier,
    UnauthenticatedError,
    require_secure,
)
from envelock_service.problem import Problem

ORIGIN = "https://kas.example"
PATH = "/kas.AccessService/Rewrap"


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    """An issuer, running."""
    async with running_authority() as found:
        yield found


@asynccontextmanager
async def hanging_issuer() -> AsyncIterator[tuple[TokenVerifier, Callable[[int], str]]]:
    """A verifier that trusts an issuer which takes connections and never answers; its tokens."""
    released = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    listening = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    settings = CallerSettings(issuers=(IssuerSettings(issuer=url, tenant="t"),))
    key = ec.generate_private_key(ec.SECP256R1())

    def token(number: int) -> str:
        return jose.sign(key, {"iss": url, "n": number}, typ="at+jwt", kid="x")

    try:
        yield TokenVerifier(settings, time.time, time.monotonic), token
    finally:
        released.set()
        listening.close()
        await listening.wait_closed()


def callers(authority: Authority) -> Callers:
    """Authenticates for one origin."""
    return Callers(authority.tokens, [ORIGIN], authority.clock.wall)


async def authenticate(authority: Authority, *headers: tuple[str, str]):
    """Authenticate one POST."""
    given = CIMultiDictProxy(CIMultiDict(headers))
    return await callers(authority).authenticate("POST", PATH, given)


class TestTokens:
    """Access tokens."""

    async def test_believes_a_token_of_its_issuer(self, authority: Authority):
        """Issuer, subject, tenant and scopes come from the verified token."""
        token = await authority.tokens.verify(authority.token())

        assert token.caller.issuer == authority.url
        assert (token.caller.subject, token.caller.tenant) == ("doctor", "clinic")
        assert token.scopes == frozenset({"envelock:keys"})

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": ...},
            {"iss": ...},
            {"aud": ...},
            {"iat": ...},
            {"sub": ...},
            {"tenant": ...},
            {"exp": int(time.time()) - 10},
            {"exp": str(int(time.time()) + 60)},
            {"exp": True},
            {"exp": int(time.time()) + 100_000},
            {"exp": -1},
            {"iat": int(time.time()) + 50_000},
            {"nbf": int(time.time()) + 50_000},
            {"aud": "other"},
            {"aud": "envelock "},
            {"aud": ["other"]},
            {"iss": "https://other.example"},
            {"iss": ["x"]},
            {"sub": ""},
            {"sub": 7},
            {"sub": ["doctor"]},
            {"tenant": ["clinic"]},
            {"tenant": ""},
            {"scope": ["envelock:keys"]},
            {"cnf": {}},
            {"cnf": {"jkt": 1}},
            {"cnf": {"x5t#S256": "abc"}},
            {"cnf": "jkt"},
        ],
        ids=str,
    )
    async def test_refuses_a_claim_that_is_missing_or_wrong(self, authority: Authority, claims):
        """Every claim that is relied on must be there, of its type, and fit."""
        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(authority.token(**claims))

    async def test_refuses_every_spelling_but_one(self, authority: Authority):
        """Padding, white space, other alphabets and extra parts are no tokens."""
        token = authority.token()
        head, payload, signature = token.split(".")
        for garbled in (
            f" {token}",
            f"{token} ",
            f"{token}=",
            f"{head}=.{payload}.{signature}",
            f"{head}.{payload}",
            f"{head}.{payload}.",
            f"{token}.x",
            token.replace("-", "+") if "-" in token else f"{token}+",
            "",
            "a" * 20_000,
        ):
            with pytest.raises(UnauthenticatedError):
                await authority.tokens.verify(garbled)

    @pytest.mark.parametrize(
        "header",
        [
            {"alg": "none"},
            {"alg": "nOnE"},
            {"alg": "HS256"},
            {"alg": "ES384"},
            {"alg": "RS256"},
            {"typ": "JWT"},
            {"typ": "dpop+jwt"},
            {"typ": "kas-decision+jwt"},
            {"typ": None},
            {"kid": "unknown"},
            {"kid": "../secret"},
            {"kid": None},
            {"kid": 7},
            {"crit": []},
            {"crit": ["exp"], "exp": 1},
            {"b64": False},
            {"jku": "http://127.0.0.1:1/"},
            {"x5u": "http://127.0.0.1:1/"},
            {"jwk": {"kty": "EC"}},
            {"zip": "DEF"},
        ],
        ids=str,
    )
    async def test_refuses_headers_that_choose(self, authority: Authority, header):
        """Nothing inside a token chooses how it is verified, and no URL in it is followed."""
        kid = jose.thumbprint(jose.public_jwk(authority.key.public_key()))
        whole = {"alg": "ES256", "typ": "at+jwt", "kid": kid} | header
        claims = dict(CLAIMS) | {"iss": authority.url, "aud": "envelock"}
        claims |= {"iat": int(time.time()), "exp": int(time.time()) + 60}
        token = jose.sign_with_header(authority.key, whole, claims)

        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(token)

    async def test_refuses_a_mac_made_with_the_public_key(self, authority: Authority):
        """A public key is no secret."""
        pem = authority.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        kid = jose.thumbprint(jose.public_jwk(authority.key.public_key()))
        parts = [{"alg": "HS256", "typ": "at+jwt", "kid": kid}, dict(CLAIMS)]
        signing_input = ".".join(b64url(json.dumps(part).encode()) for part in parts)
        mac = hmac.HMAC(pem, hashes.SHA256())
        mac.update(signing_input.encode())

        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(f"{signing_input}.{b64url(mac.finalize())}")

    async def test_refuses_repeated_names(self, authority: Authority):
        """Two readers could see two tokens."""
        kid = jose.thumbprint(jose.public_jwk(authority.key.public_key()))
        header = f'{{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"{kid}"}}'
        token = authority.token().split(".")
        token[0] = base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")

        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(".".join(token))

    async def test_refuses_a_signature_of_another_key(self, authority: Authority):
        """The right kid with another key's signature."""
        forged = Authority(
            authority.issuer,
            authority.url,
            ec.generate_private_key(ec.SECP256R1()),
            authority.tokens,
            authority.clock,
            [],
        ).token()

        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(forged)

    async def test_an_expired_token_is_not_believed_from_memory(self, authority: Authority):
        """A remembered token ends when it ends."""
        token = authority.token()
        await authority.tokens.verify(token)
        authority.clock.ahead = 700

        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(token)

    async def test_many_first_tokens_cost_one_fetch(self, authority: Authority):
        """Keys are fetched once for all who wait."""
        tokens = [authority.token() for _ in range(20)]
        await asyncio.gather(*(authority.tokens.verify(token) for token in tokens))

        assert authority.fetches.count("/jwks.json") == 1

    async def test_unknown_keys_do_not_hammer_the_issuer(self, authority: Authority):
        """A flood of unknown kids costs at most one fetch in half a minute."""
        await authority.tokens.verify(authority.token())
        for _ in range(20):
            kid = os.urandom(8).hex()
            claims = {"iss": authority.url}
            token = jose.sign(authority.key, claims, typ="at+jwt", kid=kid)
            with pytest.raises(UnauthenticatedError):
                await authority.tokens.verify(token)

        assert authority.fetches.count("/jwks.json") == 1

    async def test_a_foreign_issuer_costs_no_request(self, authority: Authority):
        """Discovery is never asked of an issuer that only a token names."""
        with pytest.raises(UnauthenticatedError):
            await authority.tokens.verify(authority.token(iss="http://127.0.0.1:9"))

        assert authority.fetches == []

    async def test_known_keys_outlive_an_issuer_that_is_down(self):
        """While the issuer is away, keys that are known still verify; unknown ones are refused."""
        async with running_authority() as authority:
            await authority.tokens.verify(authority.token())
        authority.clock.ahead = 60
        again = await authority.tokens.verify(authority.token())

        assert again.caller.subject == "doctor"

    async def test_known_keys_end_an_hour_after_the_issuer_went_down(self):
        """What nobody has confirmed for so long is believed no more, in memory or not: 503."""
        async with running_authority() as authority:
            remembered = authority.token()
            await authority.tokens.verify(remembered)
        authority.clock.ahead = 3500
        late = await authority.tokens.verify(authority.token())
        known = authority.token()
        await authority.tokens.verify(known)
        authority.clock.ahead = 3700
        fresh = authority.token()

        assert late.caller.subject == "doctor"
        for token in (fresh, known):
            with pytest.raises(IssuerUnavailableError):
                await authority.tokens.verify(token)

    async def test_a_key_that_the_issuer_removed_is_refused_soon(self, authority: Authority):
        """Ten minutes later, for new tokens and for one that is remembered."""
        remembered = authority.token(exp=int(authority.clock.wall()) + 1800)
        await authority.tokens.verify(remembered)
        authority.withdrawn.set()
        authority.clock.ahead = 500
        still = await authority.tokens.verify(remembered)
        authority.clock.ahead = 700

        assert still.caller.subject == "doctor"
        for token in (remembered, authority.token()):
            with pytest.raises(UnauthenticatedError):
                await authority.tokens.verify(token)
        assert authority.fetches.count("/jwks.json") == 2

    async def test_an_issuer_that_hangs_delays_everybody_once(self, monkeypatch):
        """Whoever waits fails together, and whoever comes right after fails at once."""
        monkeypatch.setattr("envelock_service.oidc.FETCH_TIMEOUT_SECONDS", 0.3)
        async with hanging_issuer() as (tokens, token):
            begun = time.monotonic()
            found = await asyncio.gather(
                *(tokens.verify(token(n)) for n in range(8)), return_exceptions=True
            )
            together = time.monotonic() - begun
            with pytest.raises(IssuerUnavailableError):
                await tokens.verify(token(8))
            after = time.monotonic() - begun - together

        assert {type(one) for one in found} == {IssuerUnavailableError}
        assert together < 0.8
        assert after < 0.2

    async def test_only_one_waits_while_known_keys_are_renewed(self, authority: Authority):
        """Fetching takes its time; whoever comes meanwhile is answered with what is known."""
        await authority.tokens.verify(authority.token())
        authority.clock.ahead = 700
        tokens = [authority.token() for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            first = group.create_task(authority.tokens.verify(tokens[0]))
            await asyncio.sleep(0)
            others = [group.create_task(authority.tokens.verify(text)) for text in tokens[1:]]
            await asyncio.wait(others)
            waiting = not first.done()

        assert waiting
        assert authority.fetches.count("/jwks.json") == 2

    async def test_without_any_key_it_is_unavailable_not_unauthenticated(self):
        """An issuer that was never reached says nothing about the token: 503."""
        async with running_authority() as authority:
            token = authority.token()

        with pytest.raises(IssuerUnavailableError):
            await authority.tokens.verify(token)

    async def test_a_fixed_tenant_wins_over_claims(self):
        """An issuer with a fixed tenant gives that tenant, whatever the token says."""
        async with running_authority(tenant="acme") as authority:
            token = await authority.tokens.verify(authority.token())

            assert token.caller.tenant == "acme"

    async def test_a_tenant_may_demand_bound_tokens(self):
        """Then a bearer token proves nobody."""
        async with running_authority(require_bound=True) as authority:
            with pytest.raises(UnauthenticatedError):
                await authority.tokens.verify(authority.token())

    @pytest.mark.parametrize(
        "url", ["http://issuer.example", "ftp://x", "https://a@b/", "https://a/#b", "issuer"]
    )
    def test_an_issuer_is_named_by_https(self, url: str):
        """Keys that decide who is who do not come over plain http."""
        with pytest.raises(ValueError, match="expected https"):
            require_secure(url)

    def test_an_issuer_has_exactly_one_source_of_tenants(self):
        """Neither both nor none."""
        for arguments in ({}, {"tenant": "a", "tenant_claim": "b"}):
            with pytest.raises(ValueError, match="either"):
                IssuerSettings("https://i.example", **arguments)


class TestProofs:
    """Proofs of possession (RFC 9449)."""

    async def test_believes_a_proof_made_for_this_request(self, authority: Authority):
        """A bound token with its proof authenticates."""
        holder = Holder()
        token = authority.token(holder.jkt)
        found = await authenticate(authority, *holder.headers(ORIGIN + PATH, token).items())

        assert found.proof is not None
        assert found.token.caller.jkt == holder.jkt

    @pytest.mark.parametrize(
        "changes",
        [
            {"htm": "GET"},
            {"htm": "post"},
            {"htm": ...},
            {"htu": ORIGIN + "/other"},
            {"htu": "http://kas.example" + PATH},
            {"htu": "https://evil.example" + PATH},
            {"htu": "https://kas.example:8443" + PATH},
            {"htu": PATH},
            {"htu": ORIGIN + PATH + "/"},
            {"htu": "https://kas.example@evil.example" + PATH},
            {"htu": ...},
            {"iat": int(time.time()) - 120},
            {"iat": int(time.time()) + 50_000},
            {"iat": str(int(time.time()))},
            {"iat": True},
            {"iat": ...},
            {"jti": ""},
            {"jti": "x" * 257},
            {"jti": 7},
            {"jti": ...},
            {"ath": "x"},
            {"ath": ...},
            {"header": {"typ": "JWT"}},
            {"header": {"typ": None}},
            {"header": {"alg": "none"}},
            {"header": {"alg": "HS256"}},
            {"header": {"alg": "RS256"}},
            {"header": {"jwk": None}},
            {"header": {"jwk": {"kty": "EC", "crv": "P-256"}}},
            {"header": {"kid": "k"}},
        ],
        ids=str,
    )
    async def test_refuses_a_proof_with_one_thing_wrong(self, authority: Authority, changes):
        """Each check of section 4.3 refuses alone."""
        holder = Holder()
        token = authority.token(holder.jkt)
        headers = holder.headers(ORIGIN + PATH, token, **changes)

        with pytest.raises(Problem, match="invalid_dpop_proof"):
            await authenticate(authority, *headers.items())

    async def test_query_and_host_case_do_not_matter(self, authority: Authority):
        """`htu` is compared as RFC 9449 normalises it."""
        holder = Holder()
        token = authority.token(holder.jkt)
        url = f"https://KAS.example:443{PATH}?x=1#y"
        found = await authenticate(authority, *holder.headers(url, token).items())

        assert found.proof is not None
        assert normal_url(url) == normal_url(ORIGIN + PATH)

    async def test_refuses_a_proof_that_it_saw(self, authority: Authority):
        """Byte for byte the same, or signed again with the same id."""
        holder = Holder()
        token = authority.token(holder.jkt)
        found = callers(authority)
        answers = []
        for _ in range(3):
            headers = holder.headers(ORIGIN + PATH, token, jti="once")
            given = CIMultiDictProxy(CIMultiDict(headers))
            try:
                await found.authenticate("POST", PATH, given)
                answers.append("ok")
            except Problem as problem:
                answers.append(problem.code)

        assert answers == ["ok", "invalid_dpop_proof", "invalid_dpop_proof"]

    async def test_refuses_two_proofs_and_none(self, authority: Authority):
        """Exactly one proof comes with a bound token."""
        holder = Holder()
        token = authority.token(holder.jkt)
        headers = list(holder.headers(ORIGIN + PATH, token).items())

        for given in ([headers[0]], [*headers, headers[1]]):
            with pytest.raises(Problem, match="invalid_dpop_proof"):
                await authenticate(authority, *given)

    async def test_refuses_a_proof_of_another_key(self, authority: Authority):
        """A stolen token is of no use without its key."""
        token = authority.token(Holder().jkt)
        headers = Holder().headers(ORIGIN + PATH, token)

        with pytest.raises(Problem, match="invalid_dpop_proof"):
            await authenticate(authority, *headers.items())

    async def test_refuses_a_private_key_in_a_proof(self, authority: Authority):
        """A proof that gives its private key away is refused."""
        holder = Holder()
        token = authority.token(holder.jkt)
        jwk = jose.public_jwk(holder.key.public_key()) | {"d": "x"}
        headers = holder.headers(ORIGIN + PATH, token, header={"jwk": jwk})

        with pytest.raises(Problem, match="invalid_dpop_proof"):
            await authenticate(authority, *headers.items())

    async def test_a_bound_token_is_no_bearer_token(self, authority: Authority):
        """Sent as Bearer it is refused, proof or not."""
        holder = Holder()
        token = authority.token(holder.jkt)
        proof = holder.proof(ORIGIN + PATH, token)

        for given in ([], [("DPoP", proof)]):
            with pytest.raises(Problem, match="invalid_token"):
                await authenticate(authority, ("Authorization", f"Bearer {token}"), *given)

    async def test_a_proof_beside_an_unbound_token_proves_nothing(self, authority: Authority):
        """The caller is the token's bearer, as without it; the scheme DPoP promises more."""
        token, holder = authority.token(), Holder()
        proof = ("DPoP", holder.proof(ORIGIN + PATH, token))
        found = await authenticate(authority, ("Authorization", f"Bearer {token}"), proof)

        assert found.proof is None
        assert found.token.caller.jkt == ""
        with pytest.raises(Problem, match="invalid_token"):
            await authenticate(authority, ("Authorization", f"DPoP {token}"), proof)

    @pytest.mark.parametrize(
        "value", ["", "Basic x", "Bearer", "Bearer ", "token", "Bearer a b c", "DPoP x"]
    )
    async def test_refuses_other_credentials(self, authority: Authority, value: str):
        """Only a token after Bearer or DPoP is a credential."""
        with pytest.raises(Problem, match="invalid_token"):
            await authenticate(authority, ("Authorization", value))

    async def test_refuses_two_authorizations(self, authority: Authority):
        """One request, one caller."""
        header = ("Authorization", f"Bearer {authority.token()}")

        with pytest.raises(Problem, match="invalid_token"):
            await authenticate(authority, header, header)

    async def test_nothing_of_a_caller_is_shown(self, authority: Authority):
        """Neither the token nor its claims are in what is printed of a caller."""
        text = authority.token()
        found = await authenticate(authority, ("Authorization", f"Bearer {text}"))

        assert text not in repr(found)
        assert "scope" not in repr(found)
