"""Who is calling: the access token, and the proof of possession when the token is bound.

Nothing about a caller is read from anywhere else: no header, no body, no address names a person.

A proof is refused when this process saw it before. That covers requests that only read; whatever
changes or releases something spends the proof in the ledger too, which holds for every process and
across restarts.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multidict import CIMultiDictProxy

from envelock_service import dpop
from envelock_service.oidc import AccessToken, TokenVerifier, UnauthenticatedError
from envelock_service.problem import Problem

MAX_SEEN = 200_000  # proofs; more than one process can verify while one is young enough


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A caller that proved itself. `proof` is None for an unbound token; it is not yet spent."""

    token: AccessToken
    proof: dpop.Proof | None
    text: str  # the access token as it came, for the PDP to verify itself

    def __repr__(self) -> str:
        return f"Authenticated({self.token.caller!r})"


class Callers:
    """Authenticates requests to one server.

    Args:
        tokens: Verifies access tokens.
        origins: The origins that clients may name this server by, such as `https://kas.example`.
        clock: Unix seconds.
    """

    def __init__(
        self, tokens: TokenVerifier, origins: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._tokens = tokens
        self._origins = tuple(origins)
        self._clock = clock
        # Names of proofs until they are too old, oldest first. A plain dict would search for its
        # first name through all that were deleted before it.
        self._seen: OrderedDict[str, int] = OrderedDict()

    async def authenticate(
        self, method: str, path: str, headers: CIMultiDictProxy[str]
    ) -> Authenticated:
        """Authenticate one request.

        Raises:
            Problem: 401 `invalid_token` or `invalid_dpop_proof`; which check failed is not said.
            IssuerUnavailableError: The issuer's keys are not to be had.
        """
        text, scheme = _credentials(headers.getall("Authorization", []))
        try:
            token = await self._tokens.verify(text)
        except UnauthenticatedError as error:
            raise Problem("invalid_token") from error
        if not token.caller.jkt:
            # SECURITY: a proof beside it, which some clients send, proves nothing.
            if scheme != "bearer":
                raise Problem("invalid_token")
            return Authenticated(token, None, text)
        if scheme != "dpop":
            raise Problem("invalid_token", "a bound token is sent as DPoP, not as Bearer")
        try:
            proof = dpop.require_proof(
                headers.getall("DPoP", []),
                method=method,
                urls=frozenset(dpop.normal_url(origin + path) for origin in self._origins),
                token=text,
                jkt=token.caller.jkt,
                now=int(self._clock()),
            )
        except dpop.ProofError as error:
            raise Problem("invalid_dpop_proof") from error
        self._require_fresh(proof)
        return Authenticated(token, proof, text)

    async def bearer(self, text: str) -> AccessToken:
        """The token *text*, of whoever brings it; that it is theirs to use is not checked.

        Raises:
            UnauthenticatedError: It proves nobody.
            IssuerUnavailableError: The issuer's keys are not to be had.
        """
        return await self._tokens.verify(text)

    def _require_fresh(self, proof: dpop.Proof) -> None:
        """Refuse a proof that was seen; a flood of proofs displaces the oldest names only."""
        now = int(self._clock())
        while self._seen and (len(self._seen) >= MAX_SEEN or next(iter(self._seen.values())) < now):
            self._seen.popitem(last=False)
        if proof.name in self._seen:
            raise Problem("invalid_dpop_proof")
        self._seen[proof.name] = proof.expires


def _credentials(headers: Sequence[str]) -> tuple[str, str]:
    """Token and scheme of the one Authorization header."""
    if len(headers) != 1:
        raise Problem("invalid_token", "missing authorization header")
    scheme, _, text = headers[0].partition(" ")
    if scheme.lower() not in {"bearer", "dpop"} or not text:
        raise Problem("invalid_token", "missing authorization header")
    return text, scheme.lower()
