"""The REST API of operators: `/v1/keys`, `/v1/subjects`, `/v1/tenants`.

Key paths stand in the URL as they are (`/v1/keys/acme:patients`). Every change is a POST and needs
the scope `envelock:keys`; an operator sees and changes its own tenant only.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec
from aiohttp import web

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_formats.keyid import KeyPath
from envelock_formats.request import Caller
from envelock_kas.http import JSON, Surface, authenticate, origin_of
from envelock_kas.keys.lifecycle import Actor, Change, Changed, Lifecycle, Wraps
from envelock_kas.keys.registry import KeyVersion, Registry
from envelock_kas.projection import Projection
from envelock_ledger.entry import Once
from envelock_service.callers import Authenticated
from envelock_service.problem import Problem
from envelock_service.server import read_body

T = TypeVar("T")
SCOPE = "envelock:keys"
_CHANGES: Mapping[str, Change] = {
    "suspend": "suspend",
    "resume": "resume",
    "destroy": "destroy",
    "cancel": "cancel",
}


class CreateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/keys/PATH`."""

    wraps: Wraps = "offline"


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/keys/PATH/CHANGE`. `confirm` repeats the path, for a destruction."""

    below: bool = False
    confirm: str = ""


class StandingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/subjects` and `POST /v1/tenants`.

    A subject is one of the operator's own issuer unless `issuer` names another.
    """

    standing: Literal["shut", "open"]
    subject: str = ""
    issuer: str = ""


class Operators:
    """Routes and handlers."""

    def __init__(self, surface: Surface, lifecycle: Lifecycle, projection: Projection) -> None:
        self._surface = surface
        self._lifecycle = lifecycle
        self._projection = projection

    def routes(self, app: web.Application) -> None:
        """Add the routes to *app*."""
        app.router.add_get("/v1/keys", self.listed)
        app.router.add_get("/v1/keys/{path}", self.shown)
        app.router.add_post("/v1/keys/{path}", self.create)
        app.router.add_post("/v1/keys/{path}/rotate", self.rotate)
        app.router.add_post("/v1/keys/{path}/{change:suspend|resume|destroy|cancel}", self.change)
        app.router.add_post("/v1/subjects", self.subject)
        app.router.add_post("/v1/tenants", self.tenant)

    async def listed(self, request: web.Request) -> web.Response:
        """Every key of the operator's tenant."""
        caller, _ = await self._operator(request)
        await self._projection.catch_up()
        registry = self._projection.registry
        paths = registry.paths(caller.token.caller.tenant)
        versions = [version for path in paths for version in registry.versions(path)]
        return web.json_response({"keys": [_view(registry, found) for found in versions]})

    async def shown(self, request: web.Request) -> web.Response:
        """One path, all versions."""
        caller, _ = await self._operator(request)
        path = _path(request, caller)
        await self._projection.catch_up()
        registry = self._projection.registry
        if not (versions := registry.versions(path)):
            raise Problem("not_found", f"no key {path}")
        return web.json_response({"keys": [_view(registry, found) for found in versions]})

    async def create(self, request: web.Request) -> web.Response:
        """Make the first key of a path."""
        caller, actor = await self._operator(request)
        body = await _body(request, CreateBody)
        await self._projection.catch_up()
        path = _path(request, caller)
        return self._answer(await self._lifecycle.create(path, body.wraps, actor))

    async def rotate(self, request: web.Request) -> web.Response:
        """Make a new version."""
        caller, actor = await self._operator(request)
        await self._projection.catch_up()
        return self._answer(await self._lifecycle.rotate(_path(request, caller), actor))

    async def change(self, request: web.Request) -> web.Response:
        """Suspend, resume, destroy, cancel."""
        caller, actor = await self._operator(request)
        body = await _body(request, ChangeBody)
        path, change = _path(request, caller), request.match_info["change"]
        if change == "destroy" and body.confirm != path.text:
            raise Problem("malformed_request", f"repeat the path in confirm to destroy {path}")
        await self._projection.catch_up()
        known = _CHANGES[change]
        changed = await self._lifecycle.change(path, known, below=body.below, actor=actor)
        return self._answer(changed)

    async def subject(self, request: web.Request) -> web.Response:
        """Shut out a subject of the operator's tenant, or let it in again."""
        caller, actor = await self._operator(request)
        body = await _body(request, StandingBody)
        own = caller.token.caller
        if not body.subject:
            raise Problem("malformed_request", "subject is missing")
        subject = Caller(body.issuer or own.issuer, body.subject, own.tenant, "")
        record = await self._surface.administration.set_subject(subject, body.standing, actor)
        return web.json_response({"record": record, "standing": body.standing})

    async def tenant(self, request: web.Request) -> web.Response:
        """Close the operator's own tenant, or open it again."""
        caller, actor = await self._operator(request)
        body = await _body(request, StandingBody)
        tenant = caller.token.caller.tenant
        record = await self._surface.administration.set_tenant(tenant, body.standing, actor)
        return web.json_response({"record": record, "standing": body.standing})

    async def _operator(self, request: web.Request) -> tuple[Authenticated, Actor]:
        caller = await authenticate(self._surface, request)
        if SCOPE not in caller.token.scopes:
            self._surface.count("access_denied")
            raise Problem("access_denied", f"operating on keys needs the scope {SCOPE}")
        proof = caller.proof
        spends = (Once(proof.name, None, proof.expires),) if proof is not None else ()
        return caller, Actor(origin_of(request), caller.token.caller, spends)

    def _answer(self, changed: Changed) -> web.Response:
        registry = self._projection.registry
        keys = [_view(registry, version) for version in changed.versions]
        return web.json_response({"keys": keys, "record": changed.record})


def _path(request: web.Request, caller: Authenticated) -> KeyPath:
    path = KeyPath(request.match_info["path"])
    if path.tenant != caller.token.caller.tenant:
        raise Problem("access_denied", f"{path} is not a key of your tenant")
    return path


async def _body(request: web.Request, shape: type[T]) -> T:
    text = await read_body(request, media_types=JSON) if request.can_read_body else b""
    try:
        return decode(text or b"{}", shape)
    except FormatError as error:
        raise Problem("malformed_request", str(error)) from error


def _view(registry: Registry, version: KeyVersion) -> dict[str, Json]:
    """A version for people and machines: its record, without handles of the custody."""
    return {
        "id": str(version.id),
        "path": version.path,
        "version": version.version,
        "state": str(version.state),
        "wraps": version.wraps,
        "custody": version.custody,
        "algorithms": [key.alg for key in version.keys],
        "destroy_at": version.destroy_at,
        "record": registry.introduced(version.id),
    }
