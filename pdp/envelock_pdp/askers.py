"""Whose question it is: the token, verified; or nobody, when only a body names a subject."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from multidict import CIMultiDictProxy

from envelock_formats.canonical import Json
from envelock_formats.request import Caller
from envelock_pdp.decide import Asker
from envelock_pdp.question import Question
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


async def verify_askers(
    questions: Iterable[Question], tokens: Tokens
) -> list[tuple[Question, Asker | str]]:
    """Find the asker of each question of a registered enforcement point.

    Each token is verified once, all of them at the same time. A token that does not verify stands
    as the code of its problem. Without a token the subject is the one that the body names, with
    the claims that it states: its answer is never signed.
    """
    asked = list(questions)
    texts = {one.subject_token for one in asked if one.subject_token is not None}
    async with asyncio.TaskGroup() as group:
        found = {text: group.create_task(_verified(text, tokens)) for text in texts}
    return [
        (one, _stated(one) if one.subject_token is None else found[one.subject_token].result())
        for one in asked
    ]


async def _verified(text: str, tokens: Tokens) -> Asker | str:
    try:
        return bearer(await tokens.verify(text), trusted_ip=True)
    except UnauthenticatedError:
        return "invalid_token"
    except IssuerUnavailableError:
        return "issuer_unavailable"


def _stated(question: Question) -> Asker:
    tenant = question.claims.get("tenant", question.tenant)
    caller = Caller("", question.subject, tenant if isinstance(tenant, str) else "", "")
    claims = {**question.claims, "sub": question.subject}
    return Asker(caller, claims, None, trusted_ip=True)
