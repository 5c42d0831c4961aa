"""The messages of `authorization.v2.AuthorizationService`; `authorizing.py` answers them."""

from typing import Any

import msgspec

from envelock_kas.opentdf import opentdf_pb2 as pb
from envelock_kas.opentdf.connect import Method

PERMIT, DENY = "DECISION_PERMIT", "DECISION_DENY"


class Token(msgspec.Struct, frozen=True):
    """An access token."""

    ephemeralId: str = ""  # noqa: N815 the protocol's own name
    jwt: str = ""


class Entity(msgspec.Struct, frozen=True):
    """Somebody, as the asker states them; `claims` is an `Any` that holds a `Struct`."""

    ephemeralId: str = ""  # noqa: N815 the protocol's own name
    emailAddress: str = ""  # noqa: N815 the protocol's own name
    userName: str = ""  # noqa: N815 the protocol's own name
    clientId: str = ""  # noqa: N815 the protocol's own name
    claims: dict[str, Any] | None = None
    category: str = "CATEGORY_UNSPECIFIED"


class EntityChain(msgspec.Struct, frozen=True):
    """All of its subjects must be permitted."""

    ephemeralId: str = ""  # noqa: N815 the protocol's own name
    entities: tuple[Entity, ...] = ()


class EntityIdentifier(msgspec.Struct, frozen=True):
    """One of these."""

    token: Token | None = None
    withRequestToken: bool = False  # noqa: N815 the protocol's own name
    entityChain: EntityChain | None = None  # noqa: N815 the protocol's own name
    registeredResourceValueFqn: str | None = None  # noqa: N815 the protocol's own name


class Action(msgspec.Struct, frozen=True):
    """By name."""

    name: str = ""


class Fqns(msgspec.Struct, frozen=True):
    """FQNs of values."""

    fqns: tuple[str, ...] = ()


class Resource(msgspec.Struct, frozen=True):
    """Something that has attribute values."""

    ephemeralId: str = ""  # noqa: N815 the protocol's own name
    attributeValues: Fqns | None = None  # noqa: N815 the protocol's own name
    registeredResourceValueFqn: str | None = None  # noqa: N815 the protocol's own name


class DecisionRequest(msgspec.Struct, frozen=True):
    """`GetDecision`."""

    entityIdentifier: EntityIdentifier  # noqa: N815 the protocol's own name
    resource: Resource
    action: Action = Action()
    fulfillableObligationFqns: tuple[str, ...] = ()  # noqa: N815 the protocol's own name


class MultiRequest(msgspec.Struct, frozen=True):
    """`GetDecisionMultiResource`."""

    entityIdentifier: EntityIdentifier  # noqa: N815 the protocol's own name
    resources: tuple[Resource, ...]
    action: Action = Action()
    fulfillableObligationFqns: tuple[str, ...] = ()  # noqa: N815 the protocol's own name


class BulkRequest(msgspec.Struct, frozen=True):
    """`GetDecisionBulk`."""

    decisionRequests: tuple[MultiRequest, ...]  # noqa: N815 the protocol's own name


class EntitlementsRequest(msgspec.Struct, frozen=True):
    """`GetEntitlements`; values below a held one are always told."""

    entityIdentifier: EntityIdentifier  # noqa: N815 the protocol's own name


class ResourceDecision(msgspec.Struct, frozen=True):
    """What was said of one resource."""

    ephemeralResourceId: str  # noqa: N815 the protocol's own name
    decision: str
    requiredObligations: tuple[str, ...] = ()  # noqa: N815 the protocol's own name


class DecisionResponse(msgspec.Struct, frozen=True):
    """`GetDecision`."""

    decision: ResourceDecision


class MultiResponse(msgspec.Struct, frozen=True):
    """`GetDecisionMultiResource`."""

    allPermitted: bool  # noqa: N815 the protocol's own name
    resourceDecisions: tuple[ResourceDecision, ...]  # noqa: N815 the protocol's own name


class BulkResponse(msgspec.Struct, frozen=True):
    """`GetDecisionBulk`."""

    decisionResponses: tuple[MultiResponse, ...]  # noqa: N815 the protocol's own name


class Actions(msgspec.Struct, frozen=True):
    """What may be done: whoever holds a value may read."""

    actions: tuple[Action, ...] = (Action("read"),)


class EntityEntitlements(msgspec.Struct, frozen=True):
    """What one entity may read, by FQN."""

    ephemeralId: str  # noqa: N815 the protocol's own name
    actionsPerAttributeValueFqn: dict[str, Actions]  # noqa: N815 the protocol's own name


class EntitlementsResponse(msgspec.Struct, frozen=True):
    """`GetEntitlements`."""

    entitlements: tuple[EntityEntitlements, ...]


GET_DECISION = Method(
    "/authorization.v2.AuthorizationService/GetDecision",
    DecisionRequest,
    pb.GetDecisionRequest,
    pb.GetDecisionResponse,
)
GET_MULTI = Method(
    "/authorization.v2.AuthorizationService/GetDecisionMultiResource",
    MultiRequest,
    pb.GetDecisionMultiResourceRequest,
    pb.GetDecisionMultiResourceResponse,
)
GET_BULK = Method(
    "/authorization.v2.AuthorizationService/GetDecisionBulk",
    BulkRequest,
    pb.GetDecisionBulkRequest,
    pb.GetDecisionBulkResponse,
)
GET_ENTITLEMENTS = Method(
    "/authorization.v2.AuthorizationService/GetEntitlements",
    EntitlementsRequest,
    pb.GetEntitlementsRequest,
    pb.GetEntitlementsResponse,
)
