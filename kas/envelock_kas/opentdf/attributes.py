"""`policy.attributes.AttributesService`: definitions, and the keys that attributes are mapped to.

A caller sees the attributes of its own tenant, and of tenants that share with it. The keys are
those of the owner, since whoever owns the namespace owns the object.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from aiohttp import web

from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_kas.catalogue import Catalogue, DefinedAttribute, KeyScope
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.http import Surface
from envelock_kas.opentdf import opentdf_pb2 as pb
from envelock_kas.opentdf.asking import question_of
from envelock_kas.opentdf.connect import Method
from envelock_kas.opentdf.kaskeys import KasKeys, SimpleKasKey
from envelock_service.problem import Problem

MAX_FQNS = 250
MAX_BYTES = 256 * 1024  # of a request
RULES = {
    "allOf": "ATTRIBUTE_RULE_TYPE_ENUM_ALL_OF",
    "anyOf": "ATTRIBUTE_RULE_TYPE_ENUM_ANY_OF",
    "hierarchy": "ATTRIBUTE_RULE_TYPE_ENUM_HIERARCHY",
}


class FqnsRequest(msgspec.Struct, frozen=True):
    """The FQNs of values."""

    fqns: tuple[str, ...] = ()


class Namespace(msgspec.Struct, frozen=True):
    """A namespace."""

    id: str
    name: str
    fqn: str
    active: bool = True


class Attribute(msgspec.Struct, frozen=True):
    """A definition. It does not list its values, of which there may be thousands."""

    id: str
    namespace: Namespace
    name: str
    rule: str
    fqn: str
    active: bool = True
    kasKeys: tuple[SimpleKasKey, ...] = ()  # noqa: N815 the protocol's own name


class Value(msgspec.Struct, frozen=True):
    """One value."""

    id: str
    value: str
    fqn: str
    active: bool = True
    kasKeys: tuple[SimpleKasKey, ...] = ()  # noqa: N815 the protocol's own name


class AttributeAndValue(msgspec.Struct, frozen=True):
    """What one FQN names."""

    attribute: Attribute
    value: Value


class AttributeValues(msgspec.Struct, frozen=True):
    """By FQN, as it was asked."""

    fqnAttributeValues: dict[str, AttributeAndValue]  # noqa: N815 the protocol's own name


class KeyMapping(msgspec.Struct, frozen=True):
    """The rule of the definition, and the keys that count for one value."""

    rule: str
    keys: tuple[SimpleKasKey, ...]


class KeyMappings(msgspec.Struct, frozen=True):
    """By FQN, as it was asked."""

    fqnKeyMappings: dict[str, KeyMapping]  # noqa: N815 the protocol's own name


def _fqns(message: pb.GetAttributeValuesByFqnsRequest) -> FqnsRequest:
    return FqnsRequest(tuple(message.fqns[: MAX_FQNS + 1]))


ATTRIBUTE_VALUES = Method(
    "/policy.attributes.AttributesService/GetAttributeValuesByFqns",
    FqnsRequest,
    pb.GetAttributeValuesByFqnsRequest,
    pb.GetAttributeValuesByFqnsResponse,
    _fqns,
    safe=True,
    max_bytes=MAX_BYTES,
)
KEY_MAPPINGS = Method(
    "/policy.attributes.AttributesService/GetKeyMappingsByFqns",
    FqnsRequest,
    pb.GetKeyMappingsByFqnsRequest,
    pb.GetKeyMappingsByFqnsResponse,
    _fqns,
    safe=True,
    max_bytes=MAX_BYTES,
)


_Definitions: TypeAlias = dict[tuple[str, str], tuple[DefinedAttribute, frozenset[str]]]


@dataclass(frozen=True, slots=True)
class Found:
    """A value that was asked for, and its definition."""

    asked: str
    value: AttributeValue
    definition: DefinedAttribute
    owner: str

    @property
    def scope(self) -> KeyScope | None:
        """The key that objects asking for the value are sealed under."""
        return self.definition.keys.get(self.value.value) or self.definition.key


class Attributes:
    """The procedures of `policy.attributes.AttributesService`."""

    def __init__(self, surface: Surface, keys: KasKeys, catalogue: Catalogue) -> None:
        self._surface = surface
        self._keys = keys
        self._catalogue = catalogue

    def routes(self, app: web.Application) -> None:
        """Add the routes."""
        ATTRIBUTE_VALUES.serve(app, self.attribute_values)
        KEY_MAPPINGS.serve(app, self.key_mappings)

    async def attribute_values(self, request: web.Request) -> web.Response:
        """Definitions and values, with the keys mapped to each."""
        told: dict[str, AttributeAndValue] = {}
        for found in await self._find(request, ATTRIBUTE_VALUES):
            definition = found.definition
            general = await self._mapped(request, found.owner, definition.key)
            own = definition.keys.get(found.value.value)
            value = _value(found.value, await self._mapped(request, found.owner, own))
            told[found.asked] = AttributeAndValue(_attribute(found, general), value)
        return ATTRIBUTE_VALUES.answer(request, AttributeValues(told))

    async def key_mappings(self, request: web.Request) -> web.Response:
        """Only what a client needs that plans how to split a key."""
        told: dict[str, KeyMapping] = {}
        for found in await self._find(request, KEY_MAPPINGS):
            keys = await self._mapped(request, found.owner, found.scope)
            told[found.asked] = KeyMapping(RULES[found.definition.rule], keys)
        return KEY_MAPPINGS.answer(request, KeyMappings(told))

    async def _find(self, request: web.Request, method: Method[FqnsRequest]) -> Sequence[Found]:
        """What the FQNs of a request name; it is read once its caller is known.

        Raises:
            Problem: 400 for none, too many, or what is no FQN; 404 for a value that is not defined,
                or not for the caller to see.
        """
        caller, question = await question_of(self._surface, request, method)
        if not 1 <= len(question.fqns) <= MAX_FQNS:
            raise Problem("malformed_request", f"fqns: 1 to {MAX_FQNS}")
        home, defined = caller.token.caller.tenant, dict[str, _Definitions]()
        return [await self._one(fqn, home, defined) for fqn in dict.fromkeys(question.fqns)]

    async def _one(self, fqn: str, home: str, defined: dict[str, _Definitions]) -> Found:
        """Look one value up; *defined* keeps what was read, by owner."""
        try:
            value = AttributeValue.parse_fqn(fqn)
        except FormatError as error:
            raise Problem("malformed_request", str(error)) from error
        projection = self._surface.gate.projection
        owner = projection.owner_of(value.namespace)
        state = projection.policy(owner) if owner is not None else None
        unknown = Problem("not_found", f"{value.short} is not defined")
        if owner is None or state is None or home not in {owner, *state.current.sharing}:
            raise unknown
        if owner not in defined:
            defined[owner] = await self._read(owner, state.current.epoch)
        definition, values = defined[owner].get((value.namespace, value.name), (None, ()))
        if definition is None or value.value not in values:
            raise unknown
        return Found(fqn, value, definition, owner)

    async def _read(self, owner: str, epoch: int) -> _Definitions:
        try:
            found = await self._catalogue.definitions(owner, epoch)
        except PdpUnavailableError as error:
            raise Problem("pdp_unavailable") from error
        return {(one.namespace, one.name): (one, frozenset(one.values)) for one in found}

    async def _mapped(
        self, request: web.Request, owner: str, scope: KeyScope | None
    ) -> tuple[SimpleKasKey, ...]:
        if scope is None:
            return ()
        origin = self._surface.origin_of(request)
        return (self._keys.simple(await self._keys.published(owner, origin, scope)),)


def _attribute(found: Found, keys: tuple[SimpleKasKey, ...]) -> Attribute:
    definition, value = found.definition, found.value
    namespace = f"https://{definition.namespace}"
    return Attribute(
        id=_id(value.definition),
        namespace=Namespace(_id(namespace), definition.namespace, namespace),
        name=definition.name,
        rule=RULES[definition.rule],
        fqn=value.definition,
        kasKeys=keys,
    )


def _value(value: AttributeValue, keys: tuple[SimpleKasKey, ...]) -> Value:
    return Value(_id(value.fqn), value.value, value.fqn, kasKeys=keys)


def _id(name: str) -> str:
    """A UUID for a name: clients expect one, and the name alone identifies here."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))
