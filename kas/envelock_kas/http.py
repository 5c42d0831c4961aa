"""The KAS over HTTP: thin handlers, and the one table from errors to problems.

Connect unary at the root of the host, a small REST API beside it, and on a Unix socket of its own
what the PDP announces.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from envelock_formats import jose
from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_formats.keyid import KeyIdError
from envelock_formats.wire import PublishedKey
from envelock_kas.admin import Administration, Announcement, RollbackError
from envelock_kas.context import Context
from envelock_kas.decisions import PdpKeys
from envelock_kas.errors import (
    CustodyError,
    KeyExistsError,
    StaleError,
    TransitionError,
)
from envelock_kas.gate import Gate
from envelock_kas.issue import Issue
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.keys.registry import RegistryError
from envelock_kas.naming import DEFAULT_DATASET, Naming
from envelock_kas.opentdf.connect import (
    PublicKeyRequest,
    RewrapRequest,
    answer,
    connect_error,
    read_message,
)
from envelock_kas.publish import Publisher
from envelock_kas.rebind import Rebind
from envelock_kas.records import Origin
from envelock_kas.release import Release
from envelock_ledger.errors import LedgerError
from envelock_service.callers import Authenticated, Callers
from envelock_service.health import Health
from envelock_service.problem import Problem, problem_response
from envelock_service.server import (
    REQUEST_ID,
    Handler,
    health_response,
    identify,
    read_body,
    same_user,
)

CONNECT_PREFIX = "/kas.AccessService/"
JSON = frozenset({"application/json"})
MAX_USER_AGENT = 256


@dataclass(frozen=True, slots=True)
class Surface:
    """Everything that the handlers call."""

    callers: Callers
    gate: Gate
    release: Release
    issue: Issue
    rebind: Rebind
    publisher: Publisher
    naming: Naming
    administration: Administration
    pdp_keys: PdpKeys
    configuration: Mapping[str, Json]
    request_ids: Callable[[], str]
    count: Callable[[str], None]
    health: Health
    behind_proxy: bool = False

    def origin_of(self, request: web.Request) -> Origin:
        """Request id, peer address and user agent; nothing that a header says of an address.

        Behind a proxy the peer is the proxy, so no address is known.
        """
        agent = request.headers.get("User-Agent", "").encode("utf-8", "replace").decode()
        address = None if self.behind_proxy else request.remote
        return Origin(request[REQUEST_ID], address, agent[:MAX_USER_AGENT] or None)


def application(surface: Surface, routes: Callable[[web.Application], None]) -> web.Application:
    """The public application; *routes* adds those of `/v1/keys` and its like."""
    app = web.Application(middlewares=[identify(surface.request_ids, render), known_errors])
    handlers = Handlers(surface)
    app.router.add_post(f"{CONNECT_PREFIX}Rewrap", handlers.rewrap)
    app.router.add_post(f"{CONNECT_PREFIX}PublicKey", handlers.public_key)
    app.router.add_get("/.well-known/opentdf-configuration", handlers.well_known)
    app.router.add_get("/.well-known/jwks.json", handlers.keys_of_pdp)
    app.router.add_get("/v1/publickeys", handlers.published_key)
    app.router.add_post("/v1/datakeys", handlers.data_keys)
    app.router.add_post("/v1/rebind", handlers.rebind)
    app.router.add_get("/healthz", handlers.health)
    routes(app)
    return app


def internal_application(
    administration: Administration, request_ids: Callable[[], str]
) -> web.Application:
    """The application on the Unix socket, for the PDP."""

    async def announce(request: web.Request) -> web.Response:
        body = await read_body(request, media_types=JSON)
        try:
            announced = decode(body, Announcement)
            return answer(await administration.announce(announced))
        except FormatError as error:
            raise Problem("malformed_request", str(error)) from error
        except RollbackError as error:
            raise Problem("policy_rollback") from error

    app = web.Application(middlewares=[identify(request_ids), same_user, known_errors])
    app.router.add_post("/internal/v1/policies", announce)
    return app


class Handlers:
    """One method for each route."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    async def rewrap(self, request: web.Request) -> web.Response:
        """`kas.AccessService/Rewrap`: release keys."""
        caller = await self._authenticate(request)
        token = await self._request_token(request, caller, "open")
        return answer(await self._surface.release(caller, token, self._surface.origin_of(request)))

    async def public_key(self, request: web.Request) -> web.Response:
        """`kas.AccessService/PublicKey`: the caller's tenant's key for new objects."""
        message = await read_message(request, PublicKeyRequest)
        published = await self._published(request, DEFAULT_DATASET, message.algorithm)
        return web.json_response({"publicKey": published.pem, "kid": published.kid})

    async def published_key(self, request: web.Request) -> web.Response:
        """`GET /v1/publickeys?dataset=&algorithm=`."""
        query = request.query
        dataset = query.get("dataset") or DEFAULT_DATASET
        return answer(await self._published(request, dataset, query.get("algorithm", "")))

    async def data_keys(self, request: web.Request) -> web.Response:
        """`POST /v1/datakeys`: data keys made and wrapped online."""
        caller = await self._authenticate(request)
        token = await self._request_token(request, caller, "seal")
        return answer(await self._surface.issue(caller, token, self._surface.origin_of(request)))

    async def rebind(self, request: web.Request) -> web.Response:
        """`POST /v1/rebind`: another policy on the key of one object."""
        caller = await self._authenticate(request)
        token = await self._request_token(request, caller, "rebind")
        return answer(await self._surface.rebind(caller, token, self._surface.origin_of(request)))

    async def well_known(self, _request: web.Request) -> web.Response:
        """Where everything is, for clients."""
        return web.json_response(dict(self._surface.configuration))

    async def keys_of_pdp(self, _request: web.Request) -> web.Response:
        """The keys whose decisions this KAS honours."""
        keys = self._surface.pdp_keys.current()
        return web.json_response(
            {"keys": [jose.public_jwk(key) | {"kid": kid} for kid, key in keys.items()]}
        )

    async def health(self, _request: web.Request) -> web.Response:
        """Whether this worker can release anything; if not, which part is missing since when."""
        return health_response(self._surface.health)

    async def _request_token(self, request: web.Request, caller: Authenticated, act: str) -> str:
        """The token in the message; what is no message is refused on record, like its contents."""
        try:
            return (await read_message(request, RewrapRequest)).signedRequestToken
        except Problem as problem:
            gate, tenant = self._surface.gate, caller.token.caller.tenant
            gate.admit(caller.token.caller)
            context = Context(caller, self._surface.origin_of(request), act, tenant)
            await gate.recorder.refuse(context, f"malformed: {problem}")
            raise

    async def _published(self, request: web.Request, dataset: str, algorithm: str) -> PublishedKey:
        """Steps 2, 4 and 5 of a release, then the key; a path that has none gets its first."""
        surface = self._surface
        caller = await self._authenticate(request)
        tenant = caller.token.caller.tenant
        context = Context(caller, surface.origin_of(request), "publish", tenant)
        surface.gate.admit(context.caller)
        await surface.gate.require_open(context, tenant, ())
        path = surface.naming.path(tenant, dataset)
        known = surface.gate.projection.registry.newest(path)
        if known is None and not surface.gate.guard.admit_new_path(context.caller):
            raise Problem("rate_limited", "too many new key paths; seal under one that exists")
        actor = Actor(context.origin, context.caller, judged=surface.gate.fences(context))
        try:
            return await surface.publisher.publish(path, algorithm, actor)
        except LookupError as error:
            raise Problem("not_found", f"no key for algorithm {algorithm[:40]!r}") from error
        except TransitionError as error:
            # Key states are told only to callers whom a decision permits.
            await surface.gate.recorder.refuse(context, str(error))
            raise Problem("conflict", f"nothing is sealed under {path} now") from error

    async def _authenticate(self, request: web.Request) -> Authenticated:
        return await authenticate(self._surface, request)


async def authenticate(surface: Surface, request: web.Request) -> Authenticated:
    """The caller of *request*; unauthenticated noise is counted, never recorded.

    Raises:
        Problem: 401.
    """
    try:
        return await surface.callers.authenticate(request.method, request.path, request.headers)
    except Problem as problem:
        surface.count(problem.code)
        raise


def render(request: web.Request, problem: Problem) -> web.StreamResponse:
    """A problem in the form that the path's protocol has."""
    if request.path.startswith(CONNECT_PREFIX):
        return connect_error(request, problem)
    return problem_response(problem, request[REQUEST_ID])


@web.middleware
async def known_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn the rooms' errors into problems: the one table."""
    try:
        return await handler(request)
    except tuple(PROBLEMS) as error:
        code = next(code for kind, code in PROBLEMS.items() if isinstance(error, kind))
        shown = isinstance(error, SHOWN)
        raise Problem(code, str(error) if shown else "") from error


# The first that fits counts. A message is shown only where it helps and tells no secret.
PROBLEMS: Mapping[type[Exception], str] = {
    KeyIdError: "malformed_request",
    KeyExistsError: "conflict",
    TransitionError: "conflict",
    StaleError: "policy_stale",
    CustodyError: "hsm_unavailable",
    RegistryError: "ledger_unavailable",
    LedgerError: "ledger_unavailable",
}
SHOWN = (KeyIdError, KeyExistsError, TransitionError)
