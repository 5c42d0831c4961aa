"""Access tokens: who may issue them, and what is believed of them.

Discovery and keys are fetched from configured issuers only (OpenID Connect Discovery 1.0, RFC
8414); a token that names another issuer costs no request. A token passes the strict gate, then
PyJWT checks signature and claims (RFC 7519, RFC 8725, RFC 9068), then it is remembered by its hash
until it ends. Not checked here: the proof of possession (`dpop`).

An issuer's keys are fetched when they are first needed, when a token names an unknown one, and once
they are `FRESH_SECONDS` old. While they cannot be fetched, known ones hold for `KNOWN_SECONDS`.
INVARIANT: a key that its issuer no longer shows verifies nothing after the fetch that shows so; no
token is believed from memory then that was signed with it.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec

from envelock_formats import jose
from envelock_formats.canonical import Json, parse_object
from envelock_formats.errors import FormatError
from envelock_formats.request import Caller

DEVELOPMENT_ISSUER = "ENVELOCK_DEVELOPMENT_ISSUER"
MAX_TOKEN = 16 * 1024
MAX_DOCUMENT = 256 * 1024
MAX_LIFETIME_SECONDS = 3600
SKEW_SECONDS = 5
FRESH_SECONDS = 600
KNOWN_SECONDS = 3600
REFETCH_SECONDS = 30  # between two attempts while keys are known
RETRY_SECONDS = 2  # between two attempts while none are
FETCH_TIMEOUT_SECONDS = 5
CACHED_TOKENS = 10_000
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_log = logging.getLogger(__name__)


class UnauthenticatedError(Exception):
    """The token proves nobody. One error for every cause; the message is for the operator's log."""


class IssuerUnavailableError(Exception):
    """The issuer's keys could not be fetched, and none are known, or too old. Safe to retry."""


class IssuerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One issuer of access tokens. Exactly one of `tenant_claim` and `tenant` must be set."""

    issuer: str
    tenant_claim: str | None = None
    tenant: str | None = None
    algorithms: tuple[Literal["ES256", "EdDSA", "RS256"], ...] = ("ES256",)
    require_bound: bool = False

    def __post_init__(self) -> None:
        if (self.tenant_claim is None) == (self.tenant is None):
            raise ValueError("an issuer has either tenant_claim or tenant")
        require_secure(self.issuer)


class CallerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[callers]`: who may call, and the audience that their tokens must name."""

    audience: str = "envelock"
    issuers: tuple[IssuerSettings, ...] = ()


def with_development_issuer(settings: CallerSettings, environment: str) -> CallerSettings:
    """Add the development issuer that `up` started, named in the environment; never in production.

    Its address changes with every start, so it cannot stand in the settings file.
    """
    url = os.environ.get(DEVELOPMENT_ISSUER)
    if url is None or environment != "development":
        return settings
    added = IssuerSettings(issuer=url, tenant_claim="tenant")
    return msgspec.structs.replace(settings, issuers=(*settings.issuers, added))


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A verified access token."""

    caller: Caller
    claims: Mapping[str, Json] = field(repr=False)
    scopes: frozenset[str]
    expires: int  # unix seconds
    digest: bytes  # SHA-256 of its text


@dataclass(slots=True)
class _Keys:
    """What is known of one issuer; written only under `lock`."""

    by_kid: dict[str, jose.VerifyingKey] = field(default_factory=dict)
    fetched: float = float("-inf")  # monotonic seconds; when the issuer last showed these
    tried: float = float("-inf")  # monotonic seconds; end of the last attempt, either way
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TokenVerifier:
    """Verifies access tokens of the configured issuers."""

    def __init__(
        self, settings: CallerSettings, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._audience = settings.audience
        self._issuers = {issuer.issuer: issuer for issuer in settings.issuers}
        self._keys = {issuer: _Keys() for issuer in self._issuers}
        self._verified: dict[bytes, AccessToken] = {}
        self._clock = clock
        self._monotonic = monotonic

    async def verify(self, token: str) -> AccessToken:
        """Verify *token* and return what it proves.

        Raises:
            UnauthenticatedError: Malformed, expired, of an unknown issuer, or not signed by it.
            IssuerUnavailableError: The issuer's keys are not to be had.
        """
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._verified.get(digest)
        if known is not None and self._clock() < known.expires:
            await self._keys_of(self._issuers[known.caller.issuer])
            if digest in self._verified:  # else the issuer's keys have changed meanwhile
                return known
        verified = await self._verify(token, digest)
        if len(self._verified) >= CACHED_TOKENS:
            self._verified.clear()
        self._verified[digest] = verified
        return verified

    async def require_keys(self) -> None:
        """Fetch the keys of issuers whose keys are not known, or too old.

        Raises:
            IssuerUnavailableError: Those of an issuer are not to be had: its tokens prove nobody.
        """
        for issuer in self._issuers.values():
            await self._keys_of(issuer)

    async def _verify(self, token: str, digest: bytes) -> AccessToken:
        try:
            jws = jose.read(token, typ=frozenset({"at+jwt"}), max_bytes=MAX_TOKEN)
            issuer = self._issuers.get(str(jws.claims.get("iss")))
            if issuer is None or jws.header.alg not in issuer.algorithms:
                raise UnauthenticatedError("token is of an issuer that is not configured")
            key = await self._key(issuer, jws.header.kid)
            if jose.algorithm(key) != jws.header.alg:
                raise UnauthenticatedError("token is signed with another algorithm")
            claims = self._claims(token, key, jws.header.alg, issuer.issuer)
        except (FormatError, jwt.PyJWTError) as error:
            raise UnauthenticatedError("token does not verify") from error
        return _access_token(claims, issuer, digest)

    def _claims(self, token: str, key: jose.VerifyingKey, alg: str, issuer: str) -> dict[str, Json]:
        claims: dict[str, Json] = jwt.decode(
            token,
            key,
            algorithms=[alg],
            audience=self._audience,
            issuer=issuer,
            leeway=SKEW_SECONDS,
            options={
                "require": ["exp", "iss", "aud", "iat", "sub"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
        _require_times(claims, self._clock())
        return claims

    async def _key(self, issuer: IssuerSettings, kid: str | None) -> jose.VerifyingKey:
        if kid is None:
            raise UnauthenticatedError("token names no key")
        keys = await self._keys_of(issuer)
        if kid not in keys.by_kid:
            await self._refetch(issuer, keys)
        if (key := keys.by_kid.get(kid)) is None:
            raise UnauthenticatedError("token names an unknown key")
        return key

    async def _keys_of(self, issuer: IssuerSettings) -> _Keys:
        """The issuer's keys, not too old. One caller waits to renew known ones, never all."""
        keys = self._keys[issuer.issuer]
        age = self._monotonic() - keys.fetched
        if age >= KNOWN_SECONDS or (age >= FRESH_SECONDS and not keys.lock.locked()):
            await self._refetch(issuer, keys)
            if self._monotonic() - keys.fetched >= KNOWN_SECONDS:
                raise IssuerUnavailableError(issuer.issuer)
        return keys

    async def _refetch(self, issuer: IssuerSettings, keys: _Keys) -> None:
        """Fetch once for all who wait, who fail together too, and not again right away."""
        seen = keys.tried
        async with keys.lock:
            now = self._monotonic()
            pause = REFETCH_SECONDS if now - keys.fetched < KNOWN_SECONDS else RETRY_SECONDS
            if keys.tried != seen or now - seen < pause:
                return
            try:
                found = await fetch_keys(issuer.issuer)
            except (aiohttp.ClientError, TimeoutError, FormatError) as error:
                _log.warning("keys of issuer %s are not to be had: %s", issuer.issuer, error)
            else:
                if found != keys.by_kid:
                    self._verified.clear()
                keys.by_kid, keys.fetched = found, self._monotonic()
            keys.tried = self._monotonic()


async def fetch_keys(issuer: str) -> dict[str, jose.VerifyingKey]:
    """Fetch an issuer's public keys by `kid`, through its discovery document.

    Raises:
        FormatError: A document is malformed, too large, redirected, or of another issuer, or its
            keys are at no address that is to be trusted.
        aiohttp.ClientError, TimeoutError: It could not be fetched.
    """
    async with _session() as session:
        discovery = await _discovery(session, issuer)
        jwks_uri = discovery.get("jwks_uri")
        if not isinstance(jwks_uri, str):
            raise FormatError("discovery document names no keys")
        try:
            require_secure(jwks_uri)
        except ValueError as error:
            raise FormatError("discovery document names an address that is not secure") from error
        return read_jwks(await _document(session, jwks_uri))


async def fetch_discovery(issuer: str) -> dict[str, Json]:
    """Fetch an issuer's discovery document.

    Raises:
        FormatError: It is malformed, too large, redirected, or of another issuer.
        aiohttp.ClientError, TimeoutError: It could not be fetched.
    """
    async with _session() as session:
        return await _discovery(session, issuer)


def read_jwks(document: Mapping[str, Json]) -> dict[str, jose.VerifyingKey]:
    """Read a JWK set (RFC 7517 section 5): keys by `kid`; keys of other uses are passed over.

    Raises:
        FormatError: Not a JWK set, or a `kid` stands twice.
    """
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise FormatError("not a JWK set")
    keys: dict[str, jose.VerifyingKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict) or not isinstance(kid := jwk.get("kid"), str):
            continue
        if kid in keys:
            raise FormatError("JWK set repeats a kid")
        try:
            keys[kid] = jose.key_from_jwk(jwk)
        except FormatError:
            continue  # an encryption key, or of a type that signs nothing here
    return keys


def require_secure(url: str) -> None:
    """Refuse a URL that is neither https nor http on a loopback address.

    Raises:
        ValueError: The URL is not to be trusted, or has user information in it.
    """
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (parts.scheme == "https" or loopback) or parts.username is not None or parts.fragment:
        raise ValueError(f"{url}: expected https, or http on loopback")


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, trust_env=False)


async def _discovery(session: aiohttp.ClientSession, issuer: str) -> dict[str, Json]:
    discovery = await _document(session, f"{issuer}/.well-known/openid-configuration")
    if discovery.get("issuer") != issuer:
        raise FormatError("discovery document is of another issuer")
    return discovery


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Json]:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != HTTPStatus.OK:
            raise FormatError(f"{url} answered {response.status}")
        text = await response.content.read(MAX_DOCUMENT + 1)
        while len(text) <= MAX_DOCUMENT and (more := await response.content.read(MAX_DOCUMENT)):
            text += more
    return parse_object(text, max_bytes=MAX_DOCUMENT)


def _require_times(claims: Mapping[str, Json], now: float) -> None:
    """Check `exp`, `iat` and `nbf` against the clock that was given, integers only."""
    moments = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if any(isinstance(moment, bool) for moment in moments):
        raise UnauthenticatedError("token has a time that is not an integer")
    match moments:
        case int(exp), int(iat), int(nbf):
            if not max(iat, nbf) - SKEW_SECONDS <= now < exp + SKEW_SECONDS:
                raise UnauthenticatedError("token has expired or is not yet valid")
            if exp - iat > MAX_LIFETIME_SECONDS:
                raise UnauthenticatedError("token lives too long")
        case _:
            raise UnauthenticatedError("token has a time that is not an integer")


def _access_token(claims: dict[str, Json], issuer: IssuerSettings, digest: bytes) -> AccessToken:
    subject = claims.get("sub")
    tenant = issuer.tenant if issuer.tenant_claim is None else claims.get(issuer.tenant_claim)
    if not isinstance(subject, str) or not subject or not isinstance(tenant, str) or not tenant:
        raise UnauthenticatedError("token names no subject or no tenant")
    jkt = _bound_to(claims.get("cnf"))
    if issuer.require_bound and not jkt:
        raise UnauthenticatedError("token is not bound to a key")
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise UnauthenticatedError("token has a malformed scope")
    caller = Caller(issuer.issuer, subject, tenant, jkt)
    expires = claims["exp"]
    return AccessToken(caller, claims, frozenset(scope.split()), int(str(expires)), digest)


def _bound_to(confirmation: Json) -> str:
    match confirmation:
        case None:
            return ""
        case {"jkt": str(jkt)} if jkt:
            return jkt
        case _:
            raise UnauthenticatedError("token is bound in a way that is not known")
