"""Whose question it is: the token, verified; or nobody, when only a body names a subject."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from multidict import CIMultiDictProxy

from envelock_formats.canonical import Json
from envelock_formats.printable import printable
from envelock_formats.request import Caller
from envelock_pdp.decide import Asked, Asker, Verdict
from envelock_pdp.question import Malformed, Question
from envelock_service.oidc import IssuerUnavailableError, UnauthenticatedError


class AccessToken(Protocol):
    """A verified access token."""

    @property
    def caller(self) -> Caller: ...
    @property
    def claims(self) -> Mapping[str, Json]: ...
    @property
    def expires(self) -> int:
        """Unix seconds."""
        ...


class Tokens(Protocol):
    """Verifies access tokens."""

    async def verify(self, token: str) -> AccessToken:
        """Verify *token*.

        Raises:
            UnauthenticatedError: It proves nobody.
            IssuerUnavailableError: The issuer's keys are not to be had.
        """
        ...


class Authenticated(Protocol):
    """A caller that proved itself."""

    @property
    def token(self) -> AccessToken: ...


class Callers(Protocol):
    """Authenticates requests by their headers: the token, and the proof when it is bound."""

    async def authenticate(
        self, method: str, path: str, headers: CIMultiDictProxy[str]
    ) -> Authenticated:
        """Authenticate; raises `Problem` 401."""
        ...


def bearer(token: AccessToken, *, trusted_ip: bool) -> Asker:
    """The asker that *token* proves."""
    return Asker(token.caller, token.claims, token.expires, trusted_ip)


async def verify_askers(questions: Iterable[Question | Malformed], tokens: Tokens) -> list[Asked]:
    """Find the asker of each question of a registered enforcement point.

    Each token is verified once, all of them at the same time. A question that is malformed, or
    whose token does not verify, stands as the verdict that denies it. Without a token the subject
    is the one that the body names, with the claims that it states: its answer is never signed.
    """
    asked = list(questions)
    stated = {one.subject_token for one in asked if isinstance(one, Question)}
    texts = [text for text in stated if text is not None]
    async with asyncio.TaskGroup() as group:
        found = {text: group.create_task(_verified(text, tokens)) for text in texts}
    verified = {text: task.result() for text, task in found.items()}
    return [_asked(one, verified) for one in asked]


def _asked(one: Question | Malformed, verified: Mapping[str, Asker | Verdict]) -> Asked:
    if isinstance(one, Malformed):
        reason = f"question malformed: {printable(one.problem)}"
        return Verdict(permit=False, reason=reason, error="malformed_request")
    asker = _stated(one) if one.subject_token is None else verified[one.subject_token]
    return asker if isinstance(asker, Verdict) else (one, asker)


async def _verified(text: str, tokens: Tokens) -> Asker | Verdict:
    try:
        return bearer(await tokens.verify(text), trusted_ip=True)
    except UnauthenticatedError:
        return Verdict(permit=False, reason="token", error="invalid_token")
    except IssuerUnavailableError:
        return Verdict(permit=False, reason="token", error="issuer_unavailable")


def _stated(question: Question) -> Asker:
    tenant = question.claims.get("tenant", question.tenant)
    caller = Caller("", question.subject, tenant if isinstance(tenant, str) else "", "")
    claims = {**question.claims, "sub": question.subject}
    return Asker(caller, claims, None, trusted_ip=True)
