"""The token that a session shows, and the key that it proves to hold.

A session draws one P-256 key. A token that it fetches itself is bound to that key (RFC 9449), and
every request then carries a fresh proof; a token that the caller brings is shown as it is. The
client secret goes to the pinned issuer alone, whatever a KAS says of where tokens are issued.
"""

import base64
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from envelock.addresses import private_origin
from envelock.errors import ConfigError, NotAuthenticatedError, UnavailableError
from envelock.exchange import Call, Reply, Steps, TokenSource, TokenWanted, call, error_of
from envelock.profile import Profile
from envelock_formats import jose
from envelock_formats.canonical import Json
from envelock_formats.framing import b64url

MARGIN_SECONDS = 30
JTI_SIZE = 16


class _TokenAnswer(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 a kind, no secret
    expires_in: int = 60


@dataclass(frozen=True, slots=True)
class ShownToken:
    """An access token, and the key that it is shown with proofs of."""

    text: str = field(repr=False)
    jkt: str  # thumbprint of the key; empty for an unbound token, shown without proofs
    expires: float  # unix seconds


class Credentials:
    """Tokens and proofs of one session; may be used from several threads.

    Args:
        profile: Who fetches tokens, and where.
        brought: The caller's own token, or what gives it; then none is fetched.
        entropy: n random bytes.
    """

    def __init__(
        self, profile: Profile, *, brought: TokenSource | None, entropy: Callable[[int], bytes]
    ) -> None:
        self._profile = profile
        self._brought = brought
        self._entropy = entropy
        self._lock = threading.Lock()
        self._token: ShownToken | None = None
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.jwk = jose.public_jwk(self.key.public_key())
        self.jkt = jose.thumbprint(self.jwk)

    def token(self, endpoint: str) -> Steps[ShownToken]:
        """The token to show: kept until shortly before its end.

        Args:
            endpoint: Where the KAS says tokens are issued; not believed, see `_permitted`.

        Raises:
            ConfigError: There is no secret, or it may not go there.
            NotAuthenticatedError: The issuer does not know the client.
        """
        if self._brought is not None:
            text = yield TokenWanted(self._brought)
            if not isinstance(text, str) or not text:
                raise NotAuthenticatedError("the token callable gave no token")
            return ShownToken(text, jkt="", expires=0)
        with self._lock:
            known = self._token
        if known is not None and time.time() < known.expires - MARGIN_SECONDS:
            return known
        fresh = yield from self._fetch(endpoint)
        with self._lock:
            self._token = fresh
        return fresh

    def forget(self) -> None:
        """Drop the token, so that the next request fetches another."""
        with self._lock:
            self._token = None

    def headers(self, token: ShownToken, method: str, url: str) -> dict[str, str]:
        """The headers that authenticate one request; a bound token gets a fresh proof."""
        if not token.jkt:
            return {"Authorization": f"Bearer {token.text}"}
        ath = b64url(hashlib.sha256(token.text.encode()).digest())
        proof = self._proof(method, url, {"ath": ath})
        return {"Authorization": f"DPoP {token.text}", "DPoP": proof}

    def _fetch(self, endpoint: str) -> Steps[ShownToken]:
        client_id = self._profile.values.client_id
        if not client_id:
            raise ConfigError("no client id", hint="run `envelock login`, or pass --as NAME")
        endpoint = self._permitted(endpoint)
        pair = f"{quote_plus(client_id)}:{quote_plus(self._profile.secret())}"
        headers = {
            "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
            "Content-Type": "application/x-www-form-urlencoded",
            "DPoP": self._proof("POST", endpoint, {}),
        }
        form = urlencode({"grant_type": "client_credentials"}).encode()
        reply = yield from call(Call("POST", endpoint, headers, form))
        answer = _read(reply, client_id)
        jkt = self.jkt if answer.token_type.lower() == "dpop" else ""
        return ShownToken(answer.access_token, jkt, time.time() + answer.expires_in)

    def _permitted(self, named: str) -> str:
        """The endpoint that the client secret may go to, when a KAS has *named* one.

        SECURITY: a KAS must not choose who learns the secret. Without a pinned endpoint only the
        KAS's own origin will do, to which the caller has chosen to talk.

        Raises:
            ConfigError: The KAS names another one.
        """
        pinned = self._profile.values.token_endpoint
        if pinned and named not in {"", pinned}:
            raise ConfigError(
                f"the KAS names token endpoint {named[:200]!r}, and {pinned!r} is pinned",
                code="token_endpoint",
                hint="if its operator confirms: envelock login --token-endpoint URL",
            )
        endpoint = pinned or named
        if not pinned and private_origin(endpoint) != private_origin(self._profile.values.url):
            raise ConfigError(
                f"the KAS names token endpoint {named[:200]!r}, which is not pinned",
                code="token_endpoint",
                hint="run `envelock login`, or set ENVELOCK_TOKEN_ENDPOINT",
            )
        private_origin(endpoint)
        return endpoint

    def _proof(self, method: str, url: str, more: dict[str, str]) -> str:
        claims: dict[str, Json] = {
            "htm": method,
            "htu": url.partition("?")[0],
            "iat": int(time.time()),
            "jti": b64url(self._entropy(JTI_SIZE)),
            **more,
        }
        header: dict[str, Json] = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk}
        return jose.sign_with_header(self.key, header, claims)


def _read(reply: Reply, client_id: str) -> _TokenAnswer:
    if reply.status in {400, 401}:
        raise NotAuthenticatedError(
            f"the issuer does not know {client_id}, or not with this secret",
            hint="check the profile, or run `envelock login`",
        )
    if reply.status != 200:  # noqa: PLR2004 OK
        raise error_of(reply, "token")
    try:
        return msgspec.json.decode(reply.body, type=_TokenAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnavailableError("token: the issuer's answer is malformed") from error
