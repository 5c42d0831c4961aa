"""The messages of `authorization.v2.AuthorizationService`; `authorizing.py` answers them."""

from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from envelock_formats.canonical import MAX_DEPTH, Json
from envelock_formats.errors import FormatError
from envelock_kas.opentdf import opentdf_pb2 as pb
from envelock_kas.opentdf.connect import Method

PERMIT, DENY = "DECISION_PERMIT", "DECISION_DENY"
MAX_BYTES = 512 * 1024  # of a request
MAX_FQNS = 20  # of a resource
MAX_REQUESTS = 200
MAX_ENTITIES = 10
MAX_QUESTIONS = 1000  # of one call: one for each entity and resource
MAX_CLAIMS = 64 * 1024  # bytes


class Token(msgspec.Struct, frozen=True):
    """An access token."""

    ephemeralId: str = ""  # noqa: N815 the protocol's own name
    jwt: str = ""

    def __repr__(self) -> str:
        return f"Token({self.ephemeralId!r})"  # SECURITY: no token stands in a traceback


class Entity(msgspec.Struct, frozen=True):
    """Somebody, as the asker states them; `claims` is an `Any` that holds a `Struct`."""

    ephemeralId: str = ""  # noqa: N815 the protocol's own name
    emailAddress: str = ""  # noqa: N815 the protocol's own name
    userName: str = ""  # noqa: N815 the protocol's own name
    clientId: str = ""  # noqa: N815 the protocol's own name
    claims: dict[str, Any] | None = None
    category: str = "CATEGORY_UNSPECIFIED"

    def __repr__(self) -> str:
        return f"Entity({self.ephemeralId!r})"  # SECURITY: nor what is said of somebody


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


_CATEGORIES = {number: name for name, number in pb.Entity.Category.items()}


def _resource(message: pb.Resource) -> Resource:
    """A resource; of one value more than may be asked for, so that it is refused as too many."""
    has = message.HasField("attribute_values")
    values = Fqns(tuple(message.attribute_values.fqns[: MAX_FQNS + 1])) if has else None
    registered = message.registered_resource_value_fqn or None
    return Resource(message.ephemeral_id, values, registered)


def _identifier(message: pb.EntityIdentifier) -> EntityIdentifier:
    chain = message.entity_chain.entities[: MAX_ENTITIES + 1]
    return EntityIdentifier(
        token=Token(message.token.ephemeral_id, message.token.jwt),
        withRequestToken=message.with_request_token.value,
        entityChain=EntityChain(
            message.entity_chain.ephemeral_id, tuple(_entity(one) for one in chain)
        ),
        registeredResourceValueFqn=message.registered_resource_value_fqn or None,
    )


def _entity(message: pb.Entity) -> Entity:
    """An entity; claims in another message than `Struct` are refused.

    Raises:
        FormatError: They are, or they are malformed, too long or nested too deep.
    """
    claims: dict[str, Any] | None = None
    if message.HasField("claims"):
        found = Struct()
        try:
            if len(message.claims.value) > MAX_CLAIMS or not message.claims.Unpack(found):
                raise FormatError("claims: expected a google.protobuf.Struct of 64 KiB at most")
        except DecodeError as error:
            raise FormatError("claims: not a google.protobuf.Struct") from error
        claims = {"value": _json(found, MAX_DEPTH)}
    return Entity(
        ephemeralId=message.ephemeral_id,
        emailAddress=message.email_address,
        userName=message.user_name,
        clientId=message.client_id,
        claims=claims,
        category=_CATEGORIES.get(message.category, ""),
    )


def _json(message: Struct, depth: int) -> dict[str, Json]:
    """A `Struct` as JSON, as deep as JSON itself may be."""
    return {name: _value(value, depth - 1) for name, value in message.fields.items()}


def _value(message: Value, depth: int) -> Json:
    if depth <= 0:
        raise FormatError("claims: nested too deep")
    match message.WhichOneof("kind"):
        case "struct_value":
            return _json(message.struct_value, depth)
        case "list_value":
            return [_value(one, depth - 1) for one in message.list_value.values]
        case "number_value":
            return message.number_value
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case _:
            return None


def _several(message: pb.GetDecisionMultiResourceRequest) -> MultiRequest:
    if len(message.resources) > MAX_QUESTIONS:
        raise FormatError(f"resources: at most {MAX_QUESTIONS}")
    return MultiRequest(
        _identifier(message.entity_identifier),
        tuple(_resource(one) for one in message.resources),
        Action(message.action.name),
        tuple(message.fulfillable_obligation_fqns),
    )


def _one(message: pb.GetDecisionRequest) -> DecisionRequest:
    return DecisionRequest(
        _identifier(message.entity_identifier),
        _resource(message.resource),
        Action(message.action.name),
        tuple(message.fulfillable_obligation_fqns),
    )


def _bulk(message: pb.GetDecisionBulkRequest) -> BulkRequest:
    if len(message.decision_requests) > MAX_REQUESTS:
        raise FormatError(f"decisionRequests: at most {MAX_REQUESTS}")
    return BulkRequest(tuple(_several(one) for one in message.decision_requests))


GET_DECISION = Method(
    "/authorization.v2.AuthorizationService/GetDecision",
    DecisionRequest,
    pb.GetDecisionRequest,
    pb.GetDecisionResponse,
    _one,
    max_bytes=MAX_BYTES,
)
GET_MULTI = Method(
    "/authorization.v2.AuthorizationService/GetDecisionMultiResource",
    MultiRequest,
    pb.GetDecisionMultiResourceRequest,
    pb.GetDecisionMultiResourceResponse,
    _several,
    max_bytes=MAX_BYTES,
)
GET_BULK = Method(
    "/authorization.v2.AuthorizationService/GetDecisionBulk",
    BulkRequest,
    pb.GetDecisionBulkRequest,
    pb.GetDecisionBulkResponse,
    _bulk,
    max_bytes=MAX_BYTES,
)
GET_ENTITLEMENTS = Method(
    "/authorization.v2.AuthorizationService/GetEntitlements",
    EntitlementsRequest,
    pb.GetEntitlementsRequest,
    pb.GetEntitlementsResponse,
    lambda message: EntitlementsRequest(_identifier(message.entity_identifier)),
    max_bytes=MAX_BYTES,
)
