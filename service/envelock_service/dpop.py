"""Proofs of possession: RFC 9449, checked as sections 4.3 and 7.1 list it.

Pure: the caller brings the headers, the accepted URLs and the time, and spends the proof's name in
the ledger. A name is good once, on every worker and across restarts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from envelock_formats import jose
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url, digest

MAX_PROOF = 16 * 1024
MAX_JTI = 256
MAX_AGE_SECONDS = 60
SKEW_SECONDS = 5
_DEFAULT_PORT = {"http": 80, "https": 443}


class ProofError(FormatError):
    """The proof is missing, malformed, old, for another request, or made with another key."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified proof, not yet spent."""

    jkt: str
    key: jose.VerifyingKey
    name: str  # spent once in the ledger
    expires: int  # unix seconds after which the proof is refused for its age


def require_proof(
    headers: Sequence[str],
    *,
    method: str,
    urls: frozenset[str],
    token: str,
    jkt: str,
    now: int,
) -> Proof:
    """Verify the one DPoP proof of a request.

    Args:
        headers: Every `DPoP` header of the request.
        method: The HTTP method.
        urls: The URLs that name this resource, normalised by `normal_url`.
        token: The access token that the request carries.
        jkt: The thumbprint that the token is bound to.
        now: Unix seconds.

    Raises:
        ProofError: Any check of RFC 9449 section 4.3 fails.
    """
    jws, key, found = _verified(headers)
    jti, age_ends = _require_claims(jws, method, urls, now)
    if jws.claims.get("ath") != b64url(hashlib.sha256(token.encode()).digest()):
        raise ProofError("proof is for another token")
    if found != jkt:
        raise ProofError("proof is made with another key than the token's")
    name = "dpop:" + digest("envelock/dpop/v1", jkt.encode(), jti.encode()).hex()
    return Proof(jkt, key, name, age_ends)


def key_of_token_request(headers: Sequence[str], *, url: str, now: int) -> str:
    """Verify the proof of a token request (RFC 9449 section 5); returns its key's thumbprint.

    Not checked: whether the proof was seen before. A token bound to a key is of use only to the
    holder of that key.

    Raises:
        ProofError: Any check fails.
    """
    jws, _key, jkt = _verified(headers)
    _require_claims(jws, "POST", frozenset({normal_url(url)}), now)
    return jkt


@lru_cache(maxsize=1024)
def normal_url(url: str) -> str:
    """Scheme, host, port and path of *url*: RFC 9449 section 4.3 leaves out query and fragment.

    Raises:
        ProofError: Not an absolute http(s) URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT[parts.scheme]
    except (KeyError, ValueError) as error:
        raise ProofError("not an http URL") from error
    if not parts.hostname or parts.username is not None:
        raise ProofError("not an http URL")
    return f"{parts.scheme}://{parts.hostname}:{port}{parts.path or '/'}"


def _verified(headers: Sequence[str]) -> tuple[jose.Jws, jose.VerifyingKey, str]:
    """Parse the one proof and check its signature; returns it with its key and thumbprint."""
    if len(headers) != 1:
        raise ProofError("exactly one proof is needed")
    try:
        jws = jose.read(
            headers[0],
            typ=frozenset({"dpop+jwt"}),
            max_bytes=MAX_PROOF,
            names=jose.PROOF_HEADER_NAMES,
        )
        key, jkt = jws.header.key, jws.header.jkt
        if key is None or jkt is None:
            raise ProofError("proof brings no key")
        jose.verify(jws, key)
    except FormatError as error:
        raise ProofError("proof does not verify") from error
    return jws, key, jkt


def _require_claims(jws: jose.Jws, method: str, urls: frozenset[str], now: int) -> tuple[str, int]:
    match jws.claims:
        case {"htm": str(htm), "htu": str(htu), "iat": int(iat), "jti": str(jti)}:
            pass
        case _:
            raise ProofError("proof lacks a claim")
    if htm != method or normal_url(htu) not in urls:
        raise ProofError("proof is for another request")
    if isinstance(iat, bool) or not now - MAX_AGE_SECONDS <= iat <= now + SKEW_SECONDS:
        raise ProofError("proof is too old or from the future")
    if not 1 <= len(jti) <= MAX_JTI:
        raise ProofError("proof has a malformed jti")
    return jti, iat + MAX_AGE_SECONDS + SKEW_SECONDS
