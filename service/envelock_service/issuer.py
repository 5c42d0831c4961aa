"""The development token issuer: OpenID discovery, keys, and client-credentials tokens.

SECURITY: it knows its people from a file and believes whoever holds a client secret from another
file. It is for one machine: it binds to a loopback address and refuses `environment =
"production"`. RFC 6749 sections 2.3.1 and 4.4, RFC 8414, RFC 9068, RFC 9449 section 5.
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats import jose
from envelock_formats.canonical import Json
from envelock_formats.framing import b64url
from envelock_service import dpop
from envelock_service.settings import SettingsError

TOKEN_SECONDS = 600
MAX_FORM = 16 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who may get tokens: the claims of the token, and the digest of the secret."""

    claims: Mapping[str, Json]
    secret_sha256: bytes = field(repr=False)


class TokenRequestError(Exception):
    """An error of RFC 6749 section 5.2; the argument is its code."""


def require_development(environment: str, host: str) -> None:
    """Refuse to be an issuer for anything but one developer's machine.

    Raises:
        SettingsError: The environment is production, or *host* is not a loopback address.
    """
    if environment == "production":
        raise SettingsError(
            "the development token issuer does not run in production",
            "name your identity provider in [[callers.issuers]] and remove [issuer]",
        )
    if not ipaddress.ip_address(host).is_loopback:
        raise SettingsError(f"the development token issuer binds to loopback, not to {host}")


class Issuer:
    """Issues access tokens signed with ES256.

    Args:
        url: Its own base URL, which becomes `iss`.
        audience: The `aud` of every token.
        key: Signs tokens.
        identities: Looks up an identity by client id; None when there is none.
        clock: Unix seconds.
        token_ids: Makes a fresh `jti`.
    """

    def __init__(
        self,
        *,
        url: str,
        audience: str,
        key: ec.EllipticCurvePrivateKey,
        identities: Callable[[str], Identity | None],
        clock: Callable[[], float],
        token_ids: Callable[[], str],
    ) -> None:
        self._url = url
        self._audience = audience
        self._key = key
        self._jwk = jose.public_jwk(key.public_key())
        self._kid = jose.thumbprint(self._jwk)
        self._identities = identities
        self._clock = clock
        self._token_ids = token_ids

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_FORM)
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/jwks.json", self._keys)
        app.router.add_post("/token", self._token)
        return app

    async def _discovery(self, _request: web.Request) -> web.Response:
        methods: list[Json] = ["client_secret_basic", "client_secret_post"]
        return web.json_response(
            {
                "issuer": self._url,
                "jwks_uri": f"{self._url}/jwks.json",
                "token_endpoint": f"{self._url}/token",
                "authorization_endpoint": f"{self._url}/authorize",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": methods,
                "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "RS256"],
            }
        )

    async def _keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [self._jwk | {"kid": self._kid, "use": "sig"}]})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        try:
            identity = self._authenticate(request.headers.get("Authorization"), form)
            jkt = self._proof_key(request.headers.getall("DPoP", []))
        except TokenRequestError as error:
            return _refusal(str(error))
        answer = {
            "access_token": self.issue(identity.claims, jkt),
            "token_type": "DPoP" if jkt else "Bearer",
            "expires_in": TOKEN_SECONDS,
        }
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    def issue(self, claims: Mapping[str, Json], jkt: str) -> str:
        """Sign an access token with *claims*, bound to the key *jkt* unless that is empty."""
        now = int(self._clock())
        token: dict[str, Json] = dict(claims) | {
            "iss": self._url,
            "aud": self._audience,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "jti": self._token_ids(),
        }
        if jkt:
            token["cnf"] = {"jkt": jkt}
        return jose.sign(self._key, token, typ="at+jwt", kid=self._kid)

    def _authenticate(self, header: str | None, form: Mapping[str, str]) -> Identity:
        if form.get("grant_type") != "client_credentials":
            raise TokenRequestError("unsupported_grant_type")
        client_id, secret = _client_credentials(header, form)
        identity = self._identities(client_id)
        presented = hashlib.sha256(secret.encode()).digest()
        expected = identity.secret_sha256 if identity else bytes(len(presented))
        if not hmac.compare_digest(presented, expected) or identity is None:
            raise TokenRequestError("invalid_client")
        return identity

    def _proof_key(self, headers: list[str]) -> str:
        if not headers:
            return ""
        try:
            return dpop.key_of_token_request(
                headers, url=f"{self._url}/token", now=int(self._clock())
            )
        except dpop.ProofError as error:
            raise TokenRequestError("invalid_dpop_proof") from error


def _client_credentials(header: str | None, form: Mapping[str, str]) -> tuple[str, str]:
    """Client id and secret from the Basic header (RFC 6749 section 2.3.1) or from the form."""
    if header is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, packed = header.partition(" ")
    if scheme.lower() != "basic":
        raise TokenRequestError("invalid_client")
    try:
        client_id, _, secret = base64.b64decode(packed, validate=True).decode().partition(":")
    except ValueError as error:
        raise TokenRequestError("invalid_client") from error
    return unquote_plus(client_id), unquote_plus(secret)


def _refusal(code: str) -> web.Response:
    status = 401 if code == "invalid_client" else 400
    return web.json_response({"error": code}, status=status)


def fresh_token_id(entropy: Callable[[int], bytes]) -> str:
    """A `jti` of 128 random bits."""
    return b64url(entropy(16))
