"""What enforcement points read of a bundle: its definitions, their keys, and who holds which value.

None of it decides anything. `GET /internal/v1/attributes?tenant=NAME` tells the definitions;
`POST /internal/v1/entitlements` with `{"tenant", "subject_token"}`, or `{"tenant", "subject",
"claims"}` as somebody states them, tells the values that the subject holds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson
from aiohttp import web

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_pdp.askers import Tokens
from envelock_pdp.attributes import Definition, KeyScope
from envelock_pdp.evaluate import Bundle
from envelock_pdp.inforce import InForce
from envelock_service.oidc import UnauthenticatedError
from envelock_service.problem import Problem
from envelock_service.server import read_body

ATTRIBUTES = "/internal/v1/attributes"
ENTITLEMENTS = "/internal/v1/entitlements"
MAX_QUESTION = 256 * 1024


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: str
    subject_token: str | None = None
    subject: str = ""
    home: str = ""
    claims: dict[str, Any] = {}  # msgspec knows no recursive types


def add_routes(app: web.Application, in_force: Callable[[str], InForce], tokens: Tokens) -> None:
    """Add the two routes; *in_force* finds a tenant's bundle, or raises `NotInForceError`."""

    async def attributes(request: web.Request) -> web.Response:
        found = in_force(request.query.get("tenant", ""))
        defined: list[Json] = [_told(one) for one in found.bundle.attributes.definitions]
        return _json({"epoch": found.epoch, "attributes": defined})

    async def entitlements(request: web.Request) -> web.Response:
        body = await read_body(request, media_types=frozenset({"application/json"}))
        try:
            asked = decode(body, _Question, max_bytes=MAX_QUESTION)
        except FormatError as error:
            raise Problem("malformed_request", str(error)) from error
        held: list[Json] = list(await _held(in_force(asked.tenant).bundle, asked, tokens))
        return _json({"fqns": held})

    app.router.add_get(ATTRIBUTES, attributes)
    app.router.add_post(ENTITLEMENTS, entitlements)


async def _held(bundle: Bundle, asked: _Question, tokens: Tokens) -> tuple[str, ...]:
    home, claims = asked.home, dict(asked.claims) | {"sub": asked.subject}
    if asked.subject_token is not None:
        try:
            token = await tokens.verify(asked.subject_token)
        except UnauthenticatedError as error:
            raise Problem("invalid_token") from error
        home, claims = token.caller.tenant, dict(token.claims)
    if home != bundle.tenant and home not in bundle.sharing:
        return ()
    return holdings(bundle, claims | {"tenant": home})


def holdings(bundle: Bundle, claims: Mapping[str, object]) -> tuple[str, ...]:
    """The FQNs of every value that the subject of *claims* holds, in the order of the bundle."""
    return tuple(value.fqn for value in bundle.attributes.held(claims))


def _told(definition: Definition) -> dict[str, Json]:
    keys: dict[str, Json] = {value: _scope(scope) for value, scope in definition.keys.items()}
    told: dict[str, Json] = {
        "namespace": definition.namespace,
        "name": definition.name,
        "rule": definition.rule,
        "values": list(definition.values),
        "keys": keys,
    }
    return told if definition.key is None else told | {"key": _scope(definition.key)}


def _scope(scope: KeyScope) -> dict[str, Json]:
    return {"dataset": scope.dataset, "domain": scope.domain}


def _json(value: Json) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
