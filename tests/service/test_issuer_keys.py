"""The keys of an issuer that fails, lies, dawdles, or changes them: stale for a while, then 503."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from service.world import Clock

from envelock_formats import jose
from envelock_formats.canonical import Json
from envelock_service import oidc
from envelock_service.oidc import (
    CallerSettings,
    IssuerSettings,
    IssuerUnavailableError,
    TokenVerifier,
    UnauthenticatedError,
)

Answer = Callable[[], Awaitable[web.StreamResponse]]
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/jwks.json"


@dataclass
class Scripted:
    """An issuer whose answers a test chooses, and a verifier that trusts it."""

    url: str = ""
    clock: Clock = field(default_factory=Clock)
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: TokenVerifier = field(init=False)

    def add(self, kid: str) -> None:
        """A key that the issuer shows from now on."""
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def token(self, kid: str = "first", key: ec.EllipticCurvePrivateKey | None = None) -> str:
        """A fresh token, signed with a key of the issuer's, or with another under its name."""
        now = int(self.clock.wall())
        claims: dict[str, Json] = {
            "iss": self.url, "aud": "envelock", "sub": "doctor", "iat": now, "exp": now + 600,
            "jti": os.urandom(8).hex(),
        }  # fmt: skip
        return jose.sign(key or self.keys[kid], claims, typ="at+jwt", kid=kid)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the script says of the path, else what an honest issuer says."""
        self.asked.append(request.path)
        if (scripted := self.answers.get(request.path)) is not None:
            return await scripted()
        if request.path == DISCOVERY:
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}{KEYS}"})
        shown = [jose.public_jwk(key.public_key()) | {"kid": kid} for kid, key in self.keys.items()]
        return web.json_response({"keys": shown})


@pytest.fixture
async def issuer() -> AsyncIterator[Scripted]:
    """A scripted issuer, running, with one key."""
    found = Scripted()
    app = web.Application()
    app.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    found.add("first")
    settings = CallerSettings(issuers=(IssuerSettings(issuer=found.url, tenant="t"),))
    found.tokens = TokenVerifier(settings, found.clock.wall, found.clock.monotonic)
    yield found
    await runner.cleanup()


def says(value: object, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON; bytes and text are sent as they are."""

    async def answer() -> web.StreamResponse:
        if isinstance(value, bytes):
            return web.Response(body=value, status=status, headers=headers)
        return web.json_response(value, status=status, headers=headers)

    return answer


async def dawdles() -> web.StreamResponse:
    """Headers at once, and a body that does not end."""
    await asyncio.sleep(30)
    return web.Response()


def broken(issuer: Scripted, fault: str) -> tuple[str, Answer]:
    """The path that answers wrongly under *fault*, and how."""
    shown = jose.public_jwk(issuer.keys["first"].public_key()) | {"kid": "first"}
    here = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}{KEYS}"}
    return {
        "error": (KEYS, says({}, 500)),
        "discovery error": (DISCOVERY, says({}, 503)),
        "redirect": (KEYS, says({}, 302, Location=f"{issuer.url}/elsewhere")),
        "too large": (KEYS, says({"keys": [shown], "pad": "x" * oidc.MAX_DOCUMENT})),
        "slow": (KEYS, dawdles),
        "not JSON": (KEYS, says(b"<html>")),
        "too deep": (KEYS, says(b"[" * 20_000)),
        "not a set": (KEYS, says({"keys": "none"})),
        "kid twice": (KEYS, says({"keys": [shown, shown]})),
        "another issuer": (DISCOVERY, says(here | {"issuer": "https://other.example"})),
        "keys by http": (DISCOVERY, says(here | {"jwks_uri": "http://keys.example/jwks"})),
        "keys in a file": (DISCOVERY, says(here | {"jwks_uri": "file:///etc/keys"})),
        "keys at no address": (DISCOVERY, says(here | {"jwks_uri": "https://["})),
        "keys at user@": (DISCOVERY, says(here | {"jwks_uri": "https://a@keys.example"})),
        "no place of keys": (DISCOVERY, says({"issuer": issuer.url})),
    }[fault]


FAULTS = [
    "error", "discovery error", "redirect", "too large", "slow", "not JSON", "too deep",
    "not a set", "kid twice", "another issuer", "keys by http", "keys in a file",
    "keys at no address", "keys at user@", "no place of keys",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_known_keys_serve_through_every_fault_and_then_end(
    issuer: Scripted, fault: str, monkeypatch: pytest.MonkeyPatch
):
    """Stale while it fails, an hour at most; tried again twice a minute; whole again at once."""
    monkeypatch.setattr(oidc, "FETCH_TIMEOUT_SECONDS", 0.2)
    await issuer.tokens.verify(issuer.token())
    path, wrong = broken(issuer, fault)
    issuer.answers[path] = wrong
    attempts: list[int] = []
    for ahead in (700, 710, 731, 3500):
        issuer.clock.ahead = ahead
        issuer.asked.clear()
        stale = await issuer.tokens.verify(issuer.token())
        attempts.append(issuer.asked.count(DISCOVERY))
    issuer.clock.ahead = 3700
    with pytest.raises(IssuerUnavailableError):
        await issuer.tokens.verify(issuer.token())
    del issuer.answers[path]
    issuer.clock.ahead = 3703
    back = await issuer.tokens.verify(issuer.token())

    assert (stale.caller.subject, back.caller.subject) == ("doctor", "doctor")
    assert attempts == [1, 0, 1, 1]
    assert "/elsewhere" not in issuer.asked


@pytest.mark.parametrize("fault", ["error", "slow"])
async def test_an_unknown_kid_during_an_outage_is_refused_and_costs_little(
    issuer: Scripted, fault: str, monkeypatch: pytest.MonkeyPatch
):
    """A flood of kids is 401 each, not 503, and is one attempt in half a minute."""
    monkeypatch.setattr(oidc, "FETCH_TIMEOUT_SECONDS", 0.2)
    await issuer.tokens.verify(issuer.token())
    path, wrong = broken(issuer, fault)
    issuer.answers[path] = wrong
    issuer.clock.ahead = 60
    issuer.asked.clear()
    forged = ec.generate_private_key(ec.SECP256R1())
    for number in range(50):
        with pytest.raises(UnauthenticatedError):
            await issuer.tokens.verify(issuer.token(f"k{number}", forged))

    assert issuer.asked.count(DISCOVERY) == 1
    assert (await issuer.tokens.verify(issuer.token())).caller.subject == "doctor"


async def test_a_new_key_is_found_by_its_first_token(issuer: Scripted):
    """Half a minute after the last fetch an unknown kid fetches; before that it is refused."""
    await issuer.tokens.verify(issuer.token())
    issuer.add("second")
    issuer.clock.ahead = 20
    with pytest.raises(UnauthenticatedError):
        await issuer.tokens.verify(issuer.token("second"))
    issuer.clock.ahead = 31
    found = await issuer.tokens.verify(issuer.token("second"))
    old = await issuer.tokens.verify(issuer.token("first"))

    assert (found.caller.subject, old.caller.subject) == ("doctor", "doctor")
    assert issuer.asked.count(KEYS) == 2


async def test_a_key_that_was_replaced_under_its_name_verifies_nothing(issuer: Scripted):
    """The same kid with another key: what the old one signed is refused, remembered or not."""
    old = issuer.keys["first"]
    remembered = issuer.token()
    await issuer.tokens.verify(remembered)
    issuer.add("first")
    issuer.clock.ahead = 300  # still fresh
    await issuer.tokens.verify(remembered)
    issuer.clock.ahead = 660
    fresh = await issuer.tokens.verify(issuer.token())

    assert fresh.caller.subject == "doctor"
    with pytest.raises(UnauthenticatedError):
        await issuer.tokens.verify(issuer.token("first", old))


async def test_keys_of_other_uses_are_passed_over(issuer: Scripted):
    """J5: encryption keys, private ones and ones without a name neither verify nor harm."""
    jwk = jose.public_jwk(issuer.keys["first"].public_key())
    private = ec.generate_private_key(ec.SECP256R1())
    odd: list[Json] = [
        jwk | {"kid": "enc", "use": "enc"},
        jwk | {"kid": "signs", "key_ops": ["sign"]},
        jwk | {"kid": "private", "d": "AA"},
        {"kty": "oct", "k": "AA", "kid": "secret"},
        jwk,
        7,
    ]
    issuer.answers[KEYS] = says({"keys": [*odd, jwk | {"kid": "first"}]})
    found = await issuer.tokens.verify(issuer.token())

    assert found.caller.subject == "doctor"
    for kid in ("enc", "signs", "private", "secret"):
        with pytest.raises(UnauthenticatedError):
            await issuer.tokens.verify(issuer.token(kid, issuer.keys["first"]))
    with pytest.raises(UnauthenticatedError):
        await issuer.tokens.verify(issuer.token("first", private))


async def test_a_fetch_that_is_given_up_holds_up_nobody(issuer: Scripted):
    """A caller who hangs up while it waits for the issuer leaves no lock behind."""
    await issuer.tokens.verify(issuer.token())
    reached = asyncio.Event()

    async def reached_and_dawdles() -> web.StreamResponse:
        reached.set()
        return await dawdles()

    issuer.answers[KEYS] = reached_and_dawdles
    issuer.clock.ahead = 700
    waiting = asyncio.create_task(issuer.tokens.verify(issuer.token()))
    await reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del issuer.answers[KEYS]

    assert (await issuer.tokens.verify(issuer.token())).caller.subject == "doctor"
