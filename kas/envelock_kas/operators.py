"""The REST API of operators: `/v1/keys`, `/v1/subjects`, `/v1/tenants`.

Key paths stand in the URL as they are (`/v1/keys/acme:patients`). Every change is a POST and needs
the scope `envelock:keys`; an operator sees and changes its own tenant only.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
from aiohttp import web

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_formats.framing import from_b64
from envelock_formats.keyid import KeyPath
from envelock_formats.privatekey import read_private_key
from envelock_formats.request import Caller
from envelock_kas.algorithms import OfflineAlgorithm
from envelock_kas.context import Context
from envelock_kas.http import JSON, Surface, authenticate
from envelock_kas.keys.foreign import ForeignKey
from envelock_kas.keys.lifecycle import Actor, Changed, Lifecycle, Wraps
from envelock_kas.keys.registry import KeyVersion, Registry
from envelock_kas.keys.transitions import Change
from envelock_service.problem import Problem
from envelock_service.server import read_body

T = TypeVar("T")
SCOPE = "envelock:keys"
_OF_PROXIES = ("Forwarded", "X-Forwarded-For", "Via", "X-Real-IP")
_CHANGES: Mapping[str, Change] = {
    "suspend": "suspend",
    "resume": "resume",
    "destroy": "destroy",
    "cancel": "cancel",
}


class CreateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/keys/PATH`; without algorithms those of the settings."""

    wraps: Wraps = "offline"
    algorithms: tuple[OfflineAlgorithm, ...] = ()


class RotateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/keys/PATH/rotate`; without algorithms those of the former version."""

    algorithms: tuple[OfflineAlgorithm, ...] = ()


class ImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/keys/PATH/import`: a key of another KAS, which called it `kid`.

    `private_key` is base64 of its PKCS#8 DER. With `legacy` it is also tried for files that name no
    key; with `active` new data is sealed under it.
    """

    kid: str
    private_key: str
    legacy: bool = False
    active: bool = False

    def __repr__(self) -> str:
        return f"ImportBody(kid={self.kid!r})"  # SECURITY: a key stands in no traceback or log


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

    def __init__(self, surface: Surface, lifecycle: Lifecycle) -> None:
        self._surface = surface
        self._lifecycle = lifecycle
        self._registry = surface.gate.projection.registry

    def routes(self, app: web.Application) -> None:
        """Add the routes to *app*."""
        app.router.add_get("/v1/keys", self.listed)
        app.router.add_get("/v1/keys/{path}", self.shown)
        app.router.add_post("/v1/keys/{path}", self.create)
        app.router.add_post("/v1/keys/{path}/rotate", self.rotate)
        app.router.add_post("/v1/keys/{path}/{change:suspend|resume|destroy|cancel}", self.change)
        app.router.add_post("/v1/keys/{path}/import", self.take_over)
        app.router.add_post("/v1/subjects", self.subject)
        app.router.add_post("/v1/tenants", self.tenant)

    async def listed(self, request: web.Request) -> web.Response:
        """Every key of the operator's tenant."""
        operator = await self._operator(request)
        paths = self._registry.paths(operator.tenant)
        versions = [version for path in paths for version in self._registry.versions(path)]
        return web.json_response({"keys": [_view(self._registry, found) for found in versions]})

    async def shown(self, request: web.Request) -> web.Response:
        """One path, all versions."""
        path = await self._path(request, await self._operator(request))
        if not (versions := self._registry.versions(path)):
            raise Problem("not_found", f"no key {path}")
        return web.json_response({"keys": [_view(self._registry, found) for found in versions]})

    async def create(self, request: web.Request) -> web.Response:
        """Make the first key of a path."""
        operator = await self._operator(request)
        body = await _body(request, CreateBody)
        path = await self._path(request, operator)
        _require_distinct(body.algorithms)
        if body.algorithms and body.wraps == "online":
            raise Problem("malformed_request", "what is sealed online is wrapped by aes:256 alone")
        changed = await self._lifecycle.create(path, body.wraps, operator.actor, body.algorithms)
        return self._answer(changed)

    async def rotate(self, request: web.Request) -> web.Response:
        """Make a new version."""
        operator = await self._operator(request)
        body = await _body(request, RotateBody)
        path = await self._path(request, operator)
        _require_distinct(body.algorithms)
        newest = self._registry.newest(path)
        if body.algorithms and newest is not None and newest.wraps == "online":
            raise Problem("malformed_request", "what is sealed online is wrapped by aes:256 alone")
        return self._answer(await self._lifecycle.rotate(path, operator.actor, body.algorithms))

    async def take_over(self, request: web.Request) -> web.Response:
        """Take over a key of another KAS: from then on it opens what that KAS sealed."""
        operator = await self._operator(request)
        self._require_private(request)
        body = await _body(request, ImportBody)
        path = await self._path(request, operator)
        try:
            private = read_private_key(from_b64(body.private_key))
            foreign = ForeignKey(body.kid, private, body.legacy, body.active)
        except FormatError as error:
            raise Problem("malformed_request", str(error)) from error
        return self._answer(await self._lifecycle.take_over(path, foreign, operator.actor))

    def _require_private(self, request: web.Request) -> None:
        """Take no private key through a proxy, which would see it.

        Without one, the server listens by TLS or on loopback alone. A proxy on this machine shows
        itself by what it adds; one that hides is the deployment's own doing.
        """
        peer = request.remote or ""
        passed = any(name in request.headers for name in _OF_PROXIES)
        local = bool(peer) and ipaddress.ip_address(peer.partition("%")[0]).is_loopback
        if self._surface.behind_proxy and (passed or not local):
            raise Problem("access_denied", "private keys are imported on the host of the KAS")

    async def change(self, request: web.Request) -> web.Response:
        """Suspend, resume, destroy, cancel."""
        operator = await self._operator(request)
        body = await _body(request, ChangeBody)
        path, change = await self._path(request, operator), request.match_info["change"]
        if change == "destroy" and body.confirm != path.text:
            raise Problem("malformed_request", f"repeat the path in confirm to destroy {path}")
        changed = await self._lifecycle.change(
            path, _CHANGES[change], below=body.below, actor=operator.actor
        )
        return self._answer(changed)

    async def subject(self, request: web.Request) -> web.Response:
        """Shut out a subject of the operator's tenant, or let it in again."""
        operator = await self._operator(request)
        body = await _body(request, StandingBody)
        if not body.subject:
            raise Problem("malformed_request", "subject is missing")
        issuer = body.issuer or operator.context.caller.issuer
        subject = Caller(issuer, body.subject, operator.tenant, "")
        record = await self._surface.administration.set_subject(
            subject, body.standing, operator.actor
        )
        return web.json_response({"record": record, "standing": body.standing})

    async def tenant(self, request: web.Request) -> web.Response:
        """Close the operator's own tenant, or open it again."""
        operator = await self._operator(request, reopens=True)
        body = await _body(request, StandingBody)
        record = await self._surface.administration.set_tenant(
            operator.tenant, body.standing, operator.actor
        )
        return web.json_response({"record": record, "standing": body.standing})

    async def _operator(self, request: web.Request, *, reopens: bool = False) -> "Operator":
        """The caller as an operator; every refusal of an authenticated caller is on record."""
        authenticated = await authenticate(self._surface, request)
        origin = self._surface.origin_of(request)
        context = Context(authenticated, origin, "operate", authenticated.token.caller.tenant)
        await self._surface.gate.require_operator(context, SCOPE, reopens=reopens)
        return Operator(context, Actor(origin, context.caller, context.proof, context.judged))

    async def _path(self, request: web.Request, operator: "Operator") -> KeyPath:
        path = KeyPath(request.match_info["path"])
        if path.tenant != operator.tenant:
            await self._surface.gate.recorder.refuse(
                operator.context, "operator: key of another tenant"
            )
            raise Problem("access_denied", f"{path} is not a key of your tenant")
        return path

    def _answer(self, changed: Changed) -> web.Response:
        keys = [_view(self._registry, version) for version in changed.versions]
        return web.json_response({"keys": keys, "record": changed.record})


@dataclass(frozen=True, slots=True)
class Operator:
    """A caller that may operate on the keys of its tenant."""

    context: Context
    actor: Actor

    @property
    def tenant(self) -> str:
        """The tenant, and the only one."""
        return self.context.caller.tenant


async def _body(request: web.Request, shape: type[T]) -> T:
    text = await read_body(request, media_types=JSON) if request.can_read_body else b""
    try:
        return decode(text or b"{}", shape)
    except FormatError as error:
        raise Problem("malformed_request", str(error)) from error


def _require_distinct(algorithms: Sequence[str]) -> None:
    """A version holds at most one key of an algorithm."""
    if len(set(algorithms)) != len(algorithms):
        raise Problem("malformed_request", "an algorithm stands twice")


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
        **({"kid": version.kid, "legacy": version.legacy} if version.kid is not None else {}),
    }
