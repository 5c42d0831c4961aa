"""A development issuer on a port of its own, and callers that hold keys."""

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats import jose
from envelock_formats.canonical import Json
from envelock_formats.framing import b64url
from envelock_service.issuer import Identity, Issuer, fresh_token_id
from envelock_service.oidc import CallerSettings, IssuerSettings, TokenVerifier
from envelock_service.server import Handler

SECRET = "open sesame"
CLAIMS: Mapping[str, Json] = {"sub": "doctor", "tenant": "clinic", "scope": "envelock:keys"}


@dataclass
class Clock:
    """Unix seconds and monotonic seconds, which a test can set ahead together."""

    ahead: float = 0.0

    def wall(self) -> float:
        """Unix seconds."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Monotonic seconds."""
        return time.monotonic() + self.ahead


@dataclass
class Authority:
    """A running issuer, and a verifier that trusts it."""

    issuer: Issuer
    url: str
    key: ec.EllipticCurvePrivateKey
    tokens: TokenVerifier
    clock: Clock
    fetches: list[str]
    withdrawn: asyncio.Event = field(default_factory=asyncio.Event)  # set: it shows no key

    def token(self, jkt: str = "", **changes: Json) -> str:
        """A token with claims changed; a claim that is `...` is left out."""
        now = int(self.clock.wall())
        claims: dict[str, Json] = {
            **CLAIMS,
            "iss": self.url,
            "aud": "envelock",
            "iat": now,
            "exp": now + 600,
            "jti": os.urandom(8).hex(),
        }
        if jkt:
            claims["cnf"] = {"jkt": jkt}
        claims |= changes
        kept = {name: value for name, value in claims.items() if value is not ...}
        kid = jose.thumbprint(jose.public_jwk(self.key.public_key()))
        return jose.sign(self.key, kept, typ="at+jwt", kid=kid)


@dataclass
class Holder:
    """A client that holds a key and makes proofs with it."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def jkt(self) -> str:
        """The thumbprint that a token can be bound to."""
        return jose.thumbprint(jose.public_jwk(self.key.public_key()))

    def proof(self, url: str, token: str, method: str = "POST", **changes: Json) -> str:
        """A proof; `header` replaces header members, a claim that is `...` is left out."""
        header = {
            "typ": "dpop+jwt",
            "alg": "ES256",
            "jwk": jose.public_jwk(self.key.public_key()),
            **dict(changes.pop("header", {}) or {}),
        }
        claims: dict[str, Json] = {
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "jti": os.urandom(8).hex(),
            "ath": b64url(hashlib.sha256(token.encode()).digest()),
        } | changes
        kept = {name: value for name, value in claims.items() if value is not ...}
        return jose.sign_with_header(self.key, header, kept)

    def headers(
        self, url: str, token: str, method: str = "POST", **changes: Json
    ) -> dict[str, str]:
        """The headers of an authenticated request."""
        return {
            "Authorization": f"DPoP {token}",
            "DPoP": self.proof(url, token, method, **changes),
        }


@asynccontextmanager
async def running_authority(**settings: object) -> AsyncIterator[Authority]:
    """An issuer on a free loopback port."""
    fetches: list[str] = []
    withdrawn = asyncio.Event()

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        fetches.append(request.path)
        if withdrawn.is_set() and request.path == "/jwks.json":
            return web.json_response({"keys": []})
        return await handler(request)

    clock, key = Clock(), ec.generate_private_key(ec.SECP256R1())
    bound = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    people = {"doctor": Identity(CLAIMS, hashlib.sha256(SECRET.encode()).digest())}
    issuer = Issuer(
        url=url,
        audience="envelock",
        key=key,
        identities=people.get,
        clock=clock.wall,
        token_ids=lambda: fresh_token_id(os.urandom),
    )
    app = issuer.app()
    app.middlewares.append(counted)
    served = web.AppRunner(app)
    await served.setup()
    await web.SockSite(served, bound).start()
    found = {"issuer": url, "tenant_claim": "tenant", **settings}
    if "tenant" in settings:
        del found["tenant_claim"]
    trusted = CallerSettings("envelock", (IssuerSettings(**found),))
    try:
        tokens = TokenVerifier(trusted, clock.wall, clock.monotonic)
        yield Authority(issuer, url, key, tokens, clock, fetches, withdrawn)
    finally:
        await served.cleanup()
