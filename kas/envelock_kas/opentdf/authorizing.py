"""`authorization.v2.AuthorizationService`: verdicts for enforcement points that hold no keys.

Nothing is released by them, so they are neither signed nor recorded. Anybody may ask about the
bearer of a token that they have, themselves included; to ask about somebody by name needs the scope
`envelock:decisions`, and the policies asked are then those of the asker's own tenant. Obligations
that the asker says it fulfils count here: what it guards is its own.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import orjson
from aiohttp import web

from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.request import Caller
from envelock_formats.tdf.policy import write_policy
from envelock_kas.catalogue import Asked, Catalogue, Said, Subject
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.http import Surface
from envelock_kas.opentdf.asking import question_of
from envelock_kas.opentdf.authorization import (
    DENY,
    GET_BULK,
    GET_DECISION,
    GET_ENTITLEMENTS,
    GET_MULTI,
    MAX_CLAIMS,
    MAX_ENTITIES,
    MAX_FQNS,
    MAX_QUESTIONS,
    MAX_REQUESTS,
    PERMIT,
    Actions,
    BulkResponse,
    DecisionResponse,
    EntitlementsResponse,
    Entity,
    EntityEntitlements,
    EntityIdentifier,
    MultiRequest,
    MultiResponse,
    Resource,
    ResourceDecision,
    Token,
)
from envelock_kas.opentdf.connect import Method
from envelock_kas.pdp_socket import PdpRefusedError
from envelock_service.callers import Authenticated
from envelock_service.oidc import UnauthenticatedError
from envelock_service.problem import Problem

T = TypeVar("T", bound=msgspec.Struct)
SCOPE = "envelock:decisions"
MAX_JWT = 16 * 1024  # characters
QUESTION_BYTES = 512  # that a question counts as, for the rate
_ACTS = {"read": "open", "decrypt": "open", "create": "seal", "encrypt": "seal"}
_NOBODY = str(uuid.UUID(int=0))


@dataclass(frozen=True, slots=True)
class _Named:
    """A subject under the id that the asker knows it by; *caller* is None for who proves nobody."""

    id: str
    subject: Subject
    caller: Caller | None


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of one resource; None of one that nobody may permit."""

    resource: Resource
    asked: Asked | None


class Authorization:
    """The procedures of `authorization.v2.AuthorizationService`."""

    def __init__(self, surface: Surface, catalogue: Catalogue) -> None:
        self._surface = surface
        self._catalogue = catalogue

    def routes(self, app: web.Application) -> None:
        """Add the routes."""
        GET_DECISION.serve(app, self.decision)
        GET_MULTI.serve(app, self.several)
        GET_BULK.serve(app, self.bulk)
        GET_ENTITLEMENTS.serve(app, self.entitlements)

    async def decision(self, request: web.Request) -> web.Response:
        """One subject, one resource."""
        caller, asked = await self._read(request, GET_DECISION)
        several = MultiRequest(
            asked.entityIdentifier,
            (asked.resource,),
            asked.action,
            asked.fulfillableObligationFqns,
        )
        [answer] = await self._answer(caller, (several,))
        return GET_DECISION.answer(request, DecisionResponse(answer.resourceDecisions[0]))

    async def several(self, request: web.Request) -> web.Response:
        """One subject, several resources."""
        caller, asked = await self._read(request, GET_MULTI)
        [answer] = await self._answer(caller, (asked,))
        return GET_MULTI.answer(request, answer)

    async def bulk(self, request: web.Request) -> web.Response:
        """Several subjects, several resources each."""
        caller, asked = await self._read(request, GET_BULK)
        if not 1 <= len(asked.decisionRequests) <= MAX_REQUESTS:
            raise Problem("malformed_request", f"decisionRequests: 1 to {MAX_REQUESTS}")
        answers = await self._answer(caller, asked.decisionRequests)
        return GET_BULK.answer(request, BulkResponse(tuple(answers)))

    async def entitlements(self, request: web.Request) -> web.Response:
        """Every value that each subject holds, of the asker's tenant."""
        caller, asked = await self._read(request, GET_ENTITLEMENTS)
        tenant = caller.token.caller.tenant
        told: list[EntityEntitlements] = []
        for named in await self._subjects(caller, asked.entityIdentifier):
            fqns: Sequence[str] = ()
            if self._may_be_asked_about(named, tenant):
                with _refusals():
                    fqns = await self._catalogue.holdings(tenant, named.subject)
            told.append(EntityEntitlements(named.id, {fqn: Actions() for fqn in fqns}))
        return GET_ENTITLEMENTS.answer(request, EntitlementsResponse(tuple(told)))

    async def _read(self, request: web.Request, method: Method[T]) -> tuple[Authenticated, T]:
        """The caller, and what it asks.

        What this worker knows of who is shut out is brought up to date, since no record will be
        held against the ledger.
        """
        found = await question_of(self._surface, request, method)
        await self._surface.gate.catch_up()
        return found

    async def _answer(
        self, caller: Authenticated, asked: Sequence[MultiRequest]
    ) -> list[MultiResponse]:
        """Answer every request, each for all of its subjects."""
        number = sum(len(one.resources) * _entities(one.entityIdentifier) for one in asked)
        if number > MAX_QUESTIONS or not all(one.resources for one in asked):
            raise Problem("malformed_request", f"resources: 1 to {MAX_QUESTIONS} questions")
        self._surface.gate.admit(caller.token.caller, number * QUESTION_BYTES)
        return [await self._several(caller, one) for one in asked]

    async def _several(self, caller: Authenticated, asked: MultiRequest) -> MultiResponse:
        questions = [self._question(asked, resource) for resource in asked.resources]
        subjects = await self._subjects(caller, asked.entityIdentifier)
        said = [await self._said(caller, named, questions) for named in subjects]
        told = tuple(
            _told(one.resource, [answers[place] for answers in said], asked)
            for place, one in enumerate(questions)
        )
        return MultiResponse(all(one.decision == PERMIT for one in told), told)

    def _question(self, asked: MultiRequest, resource: Resource) -> _Question:
        act = _ACTS.get(asked.action.name.lower())
        if act is None:
            raise Problem("malformed_request", f"action is one of: {', '.join(_ACTS)}")
        values = _values(resource)
        owners = {self._surface.gate.projection.owner_of(one.namespace) for one in values}
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None:
            return _Question(resource, None)
        return _Question(resource, Asked(act, owner, write_policy(_NOBODY, values)))

    async def _said(
        self, caller: Authenticated, named: _Named, questions: Sequence[_Question]
    ) -> Sequence[Said]:
        """What is said of one subject, in the order of *questions*; no where nobody may ask."""
        home = caller.token.caller.tenant
        open_to = {
            place: one.asked
            for place, one in enumerate(questions)
            if one.asked is not None
            and self._may_be_asked_about(named, one.asked.owner)
            and (named.subject.token is not None or one.asked.owner == home)
        }
        answers = [Said(permit=False)] * len(questions)
        if open_to:
            with _refusals():
                said = await self._catalogue.verdicts(named.subject, list(open_to.values()))
            for place, answer in zip(open_to, said, strict=True):
                answers[place] = answer
        return answers

    def _may_be_asked_about(self, named: _Named, owner: str) -> bool:
        """Whether the subject proves somebody, and nobody concerned is shut out."""
        if named.caller is None:
            return False
        return self._surface.gate.shut_out(named.caller, owner) is None

    async def _subjects(self, caller: Authenticated, asked: EntityIdentifier) -> list[_Named]:
        """Whom a question is about.

        Raises:
            Problem: 400 for nobody, too many, or another kind; 403 for names without the scope.
        """
        if asked.token is not None and asked.token.jwt:
            return [await self._bearer(asked.token)]
        if asked.withRequestToken:
            return [_Named("", Subject(caller.text), caller.token.caller)]
        chain = asked.entityChain.entities if asked.entityChain is not None else ()
        subjects = [one for one in chain if one.category != "CATEGORY_ENVIRONMENT"]
        if not 1 <= len(subjects) <= len(chain) <= MAX_ENTITIES:
            raise Problem("malformed_request", "entityIdentifier: a token, or 1 to 10 entities")
        if SCOPE not in caller.token.scopes:
            raise Problem("access_denied", f"asking about others by name needs the scope {SCOPE}")
        return [_stated(one, caller.token.caller) for one in subjects]

    async def _bearer(self, token: Token) -> _Named:
        if len(token.jwt) > MAX_JWT:
            raise Problem("malformed_request", f"jwt: at most {MAX_JWT} characters")
        try:
            found = await self._surface.callers.bearer(token.jwt)
        except UnauthenticatedError:
            return _Named(token.ephemeralId, Subject(token.jwt), None)
        return _Named(token.ephemeralId, Subject(token.jwt), found.caller)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the PDP does not answer into problems."""
    try:
        yield
    except PdpRefusedError as error:
        raise Problem("malformed_request", "the question cannot be decided") from error
    except PdpUnavailableError as error:
        raise Problem("pdp_unavailable") from error


def _entities(asked: EntityIdentifier) -> int:
    """How many questions a resource is."""
    chain = asked.entityChain.entities if asked.entityChain is not None else ()
    return max(1, len(chain))


def _values(resource: Resource) -> list[AttributeValue]:
    """The values that a resource has.

    Raises:
        Problem: 400 for none, too many, or what is no FQN; for registered resources, which are not
            known here.
    """
    fqns = resource.attributeValues.fqns if resource.attributeValues is not None else ()
    if resource.registeredResourceValueFqn or not 1 <= len(fqns) <= MAX_FQNS:
        raise Problem("malformed_request", f"attributeValues.fqns: 1 to {MAX_FQNS}")
    try:
        return [AttributeValue.parse_fqn(fqn) for fqn in dict.fromkeys(fqns)]
    except FormatError as error:
        raise Problem("malformed_request", str(error)) from error


def _stated(entity: Entity, asker: Caller) -> _Named:
    """Somebody of the asker's own tenant and issuer, with the claims that the asker states.

    Raises:
        Problem: 400 without a name, or with more claims than a question may have.
    """
    value = (entity.claims or {}).get("value")
    claims = dict(value) if isinstance(value, dict) else {}
    sub = claims.get("sub")
    name = entity.userName or entity.clientId or entity.emailAddress
    name = name or (sub if isinstance(sub, str) else "")
    if not name or len(orjson.dumps(claims)) > MAX_CLAIMS:
        raise Problem("malformed_request", "an entity has a name, and claims of 64 KiB at most")
    if entity.emailAddress:
        claims["email"] = entity.emailAddress
    subject = Subject(None, name, asker.tenant, claims)
    return _Named(entity.ephemeralId, subject, Caller(asker.issuer, name, asker.tenant, ""))


def _told(resource: Resource, said: Sequence[Said], asked: MultiRequest) -> ResourceDecision:
    owed = tuple(dict.fromkeys(duty for one in said for duty in one.obligations))
    met = set(owed) <= set(asked.fulfillableObligationFqns)
    permit = bool(said) and all(one.permit for one in said) and met
    return ResourceDecision(resource.ephemeralId, PERMIT if permit else DENY, owed)
