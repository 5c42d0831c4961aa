"""`authorization.v2.AuthorizationService`: verdicts for enforcement points that hold no keys.

Nothing is released by them, so they are neither signed nor recorded. Anybody may ask about the
bearer of a token that they have, themselves included; to ask about somebody by name needs the scope
`envelock:decisions`, and the policies asked are then those of the asker's own tenant. Obligations
that the asker says it fulfils count here: what it guards is its own.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.tdf.policy import write_policy
from envelock_kas.catalogue import Asked, Catalogue, Said, Subject
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.http import Surface, authenticate
from envelock_kas.opentdf.authorization import (
    DENY,
    GET_BULK,
    GET_DECISION,
    GET_ENTITLEMENTS,
    GET_MULTI,
    PERMIT,
    Actions,
    BulkRequest,
    BulkResponse,
    DecisionRequest,
    DecisionResponse,
    EntitlementsRequest,
    EntitlementsResponse,
    Entity,
    EntityEntitlements,
    EntityIdentifier,
    MultiRequest,
    MultiResponse,
    Resource,
    ResourceDecision,
)
from envelock_service.callers import Authenticated
from envelock_service.problem import Problem

SCOPE = "envelock:decisions"
MAX_FQNS = 20  # of a resource
MAX_REQUESTS = 200
MAX_ENTITIES = 10
MAX_QUESTIONS = 1000  # of one call: one for each entity and resource
QUESTION_BYTES = 512  # that a question counts as, for the rate
_ACTS = {"read": "open", "decrypt": "open", "create": "seal", "encrypt": "seal"}
_NOBODY = str(uuid.UUID(int=0))


@dataclass(frozen=True, slots=True)
class _Named:
    """A subject under the id that the asker knows it by."""

    id: str
    subject: Subject


@dataclass(slots=True)
class _Call:
    """The questions of one call. One task owns it."""

    caller: Authenticated
    asked: list[Asked] = field(default_factory=list)
    said: Sequence[Said] = ()

    def add(self, asked: Sequence[Asked]) -> range:
        """Put questions in; where their answers will stand."""
        start = len(self.asked)
        self.asked += asked
        if len(self.asked) > MAX_QUESTIONS:
            raise Problem("malformed_request", f"at most {MAX_QUESTIONS} questions in a call")
        return range(start, len(self.asked))


class Authorization:
    """The procedures of `authorization.v2.AuthorizationService`."""

    def __init__(self, surface: Surface, catalogue: Catalogue) -> None:
        self._surface = surface
        self._catalogue = catalogue

    def routes(self, app: web.Application) -> None:
        """Add the routes."""
        GET_DECISION.route(app, self.decision)
        GET_MULTI.route(app, self.several)
        GET_BULK.route(app, self.bulk)
        GET_ENTITLEMENTS.route(app, self.entitlements)

    async def decision(self, request: web.Request, asked: DecisionRequest) -> DecisionResponse:
        """One subject, one resource."""
        several = MultiRequest(
            asked.entityIdentifier,
            (asked.resource,),
            asked.action,
            asked.fulfillableObligationFqns,
        )
        [answer] = await self._answer(request, (several,))
        return DecisionResponse(answer.resourceDecisions[0])

    async def several(self, request: web.Request, asked: MultiRequest) -> MultiResponse:
        """One subject, several resources."""
        [answer] = await self._answer(request, (asked,))
        return answer

    async def bulk(self, request: web.Request, asked: BulkRequest) -> BulkResponse:
        """Several subjects, several resources each."""
        if not 1 <= len(asked.decisionRequests) <= MAX_REQUESTS:
            raise Problem("malformed_request", f"decisionRequests: 1 to {MAX_REQUESTS}")
        return BulkResponse(tuple(await self._answer(request, asked.decisionRequests)))

    async def entitlements(
        self, request: web.Request, asked: EntitlementsRequest
    ) -> EntitlementsResponse:
        """Every value that each subject holds, of the asker's tenant."""
        caller = await authenticate(self._surface, request)
        self._surface.gate.admit(caller.token.caller)
        tenant = caller.token.caller.tenant
        told: list[EntityEntitlements] = []
        for named in _subjects(caller, asked.entityIdentifier):
            try:
                fqns = await self._catalogue.holdings(tenant, named.subject)
            except PdpUnavailableError as error:
                raise Problem("pdp_unavailable") from error
            told.append(EntityEntitlements(named.id, {fqn: Actions() for fqn in fqns}))
        return EntitlementsResponse(tuple(told))

    async def _answer(
        self, request: web.Request, asked: Sequence[MultiRequest]
    ) -> list[MultiResponse]:
        """Ask everything at once, and deal the answers out."""
        call = _Call(await authenticate(self._surface, request))
        places = [[self._place(call, one, resource) for resource in one.resources] for one in asked]
        if not all(one.resources for one in asked):
            raise Problem("malformed_request", "resources: at least one")
        self._surface.gate.admit(call.caller.token.caller, len(call.asked) * QUESTION_BYTES)
        try:
            call.said = await self._catalogue.verdicts(call.asked) if call.asked else ()
        except PdpUnavailableError as error:
            raise Problem("pdp_unavailable") from error
        return [
            _response(
                [
                    _told(resource, [call.said[place] for place in found], one)
                    for resource, found in zip(one.resources, where, strict=True)
                ]
            )
            for one, where in zip(asked, places, strict=True)
        ]

    def _place(self, call: _Call, asked: MultiRequest, resource: Resource) -> range:
        """Put the questions about one resource into the call; none where nobody may permit it."""
        act = _ACTS.get(asked.action.name.lower())
        if act is None:
            raise Problem("malformed_request", f"action is one of: {', '.join(_ACTS)}")
        values = _values(resource)
        owners = {self._surface.gate.projection.owner_of(one.namespace) for one in values}
        owner = owners.pop() if len(owners) == 1 else None
        subjects = _subjects(call.caller, asked.entityIdentifier)
        home = call.caller.token.caller.tenant
        stated = any(named.subject.token is None for named in subjects)
        if owner is None or (stated and owner != home):
            return range(0)
        policy = write_policy(_NOBODY, values)
        return call.add([Asked(named.subject, act, owner, policy) for named in subjects])


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


def _subjects(caller: Authenticated, asked: EntityIdentifier) -> list[_Named]:
    """Whom a question is about.

    Raises:
        Problem: 400 for nobody, too many, or another kind; 403 for names without the scope.
    """
    if asked.token is not None and asked.token.jwt:
        return [_Named(asked.token.ephemeralId, Subject(asked.token.jwt))]
    if asked.withRequestToken:
        return [_Named("", Subject(caller.text))]
    chain = asked.entityChain.entities if asked.entityChain is not None else ()
    subjects = [one for one in chain if one.category != "CATEGORY_ENVIRONMENT"]
    if not 1 <= len(subjects) <= len(chain) <= MAX_ENTITIES:
        raise Problem("malformed_request", "entityIdentifier: a token, or 1 to 10 entities")
    if SCOPE not in caller.token.scopes:
        raise Problem("access_denied", f"asking about others by name needs the scope {SCOPE}")
    home = caller.token.caller.tenant
    return [_Named(one.ephemeralId, _stated(one, home)) for one in subjects]


def _stated(entity: Entity, home: str) -> Subject:
    """Somebody of the asker's own tenant, with the claims that the asker states."""
    value = (entity.claims or {}).get("value")
    claims = dict(value) if isinstance(value, dict) else {}
    sub = claims.get("sub")
    name = entity.userName or entity.clientId or entity.emailAddress
    name = name or (sub if isinstance(sub, str) else "")
    if not name:
        raise Problem("malformed_request", "an entity has a name, an address or the claim sub")
    if entity.emailAddress:
        claims["email"] = entity.emailAddress
    return Subject(None, name, home, claims)


def _told(resource: Resource, said: Sequence[Said], asked: MultiRequest) -> ResourceDecision:
    owed = tuple(dict.fromkeys(duty for one in said for duty in one.obligations))
    met = set(owed) <= set(asked.fulfillableObligationFqns)
    permit = bool(said) and all(one.permit for one in said) and met
    return ResourceDecision(resource.ephemeralId, PERMIT if permit else DENY, owed)


def _response(told: Sequence[ResourceDecision]) -> MultiResponse:
    return MultiResponse(all(one.decision == PERMIT for one in told), tuple(told))
