"""The KAS over HTTP: thin handlers, and the one table from errors to problems.

Connect unary at the root of the host, a small REST API beside it, and on a Unix socket of its own
what the PDP announces.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from envelock_formats import jose
from envelock_formats.canonical import decode
from envelock_formats.errors import FormatError
from envelock_formats.keyid import KeyIdError
from envelock_formats.wire import (
    MAX_MESSAGE,
    PublishedKey,
    RewrapRequest,
    read_request_message,
)
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
from envelock_kas.opentdf.connect import answer, connect_error, is_procedure
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


def application(
    surface: Surface,
    routes: Sequence[Callable[[web.Application], None]],
    middlewares: Sequence[Middleware] = (),
) -> web.Application:
    """The public application.

    Args:
        surface: What the handlers call.
        routes: Each adds the routes of another part.
        middlewares: Seen by every request before anything else.
    """
    own = (identify(surface.request_ids, render), known_errors)
    app = web.Application(middlewares=[*middlewares, *own])
    handlers = Handlers(surface)
    app.router.add_get("/.well-known/jwks.json", handlers.keys_of_pdp)
    app.router.add_get("/v1/publickeys", handlers.published_key)
    app.router.add_post("/v1/datakeys", handlers.data_keys)
    app.router.add_post("/v1/rebind", handlers.rebind)
    app.router.add_get("/healthz", handlers.health)
    for add in routes:
        add(app)
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

    async def published_key(self, request: web.Request) -> web.Response:
        """`GET /v1/publickeys?dataset=&algorithm=`."""
        query = request.query
        dataset = query.get("dataset") or DEFAULT_DATASET
        caller = await authenticate(self._surface, request)
        algorithm = query.get("algorithm", "")
        return answer(await published(self._surface, request, caller, dataset, algorithm))

    async def data_keys(self, request: web.Request) -> web.Response:
        """`POST /v1/datakeys`: data keys made and wrapped online."""
        caller, token = await token_of(self._surface, request, "seal", read_token_message)
        return answer(await self._surface.issue(caller, token, self._surface.origin_of(request)))

    async def rebind(self, request: web.Request) -> web.Response:
        """`POST /v1/rebind`: another policy on the key of one object."""
        caller, token = await token_of(self._surface, request, "rebind", read_token_message)
        return answer(await self._surface.rebind(caller, token, self._surface.origin_of(request)))

    async def keys_of_pdp(self, _request: web.Request) -> web.Response:
        """The keys whose decisions this KAS honours."""
        keys = self._surface.pdp_keys.current()
        return web.json_response(
            {"keys": [jose.public_jwk(key) | {"kid": kid} for kid, key in keys.items()]}
        )

    async def health(self, _request: web.Request) -> web.Response:
        """Whether this worker can release anything; if not, which part is missing since when."""
        return health_response(self._surface.health)


async def admitted(surface: Surface, request: web.Request, size: int = 0) -> Authenticated:
    """The caller of a request that only asks, neither shut out nor asking too much.

    Args:
        surface: What the handlers call.
        request: The request.
        size: Bytes that it counts as, for the rate.

    Raises:
        Problem: 401, 403 on record, or 429.
    """
    caller = await authenticate(surface, request)
    surface.gate.admit(caller.token.caller, size)
    tenant = caller.token.caller.tenant
    context = Context(caller, surface.origin_of(request), "ask", tenant)
    await surface.gate.require_open(context, tenant, ())
    return caller


async def read_token_message(request: web.Request) -> RewrapRequest:
    """The message around a request token, as JSON.

    Raises:
        Problem: 400, 413 or 415.
    """
    body = await read_body(request, media_types=JSON, max_bytes=MAX_MESSAGE)
    try:
        return read_request_message(body)
    except FormatError as error:
        raise Problem("malformed_request", str(error)) from error


async def token_of(
    surface: Surface,
    request: web.Request,
    act: str,
    read: Callable[[web.Request], Awaitable[RewrapRequest]],
) -> tuple[Authenticated, str]:
    """The caller, and the request token in the message that *read* reads.

    What is no message is refused on record, like its contents.

    Raises:
        Problem: 401, or what *read* raises.
    """
    caller = await authenticate(surface, request)
    try:
        return caller, (await read(request)).signedRequestToken
    except Problem as problem:
        gate, tenant = surface.gate, caller.token.caller.tenant
        gate.admit(caller.token.caller)
        context = Context(caller, surface.origin_of(request), act, tenant)
        await gate.recorder.refuse(context, f"malformed: {problem}")
        raise


async def published(
    surface: Surface, request: web.Request, caller: Authenticated, dataset: str, algorithm: str
) -> PublishedKey:
    """Steps 4 and 5 of a release, then the key; a path that has none gets its first.

    Raises:
        Problem: Refused; the refusal is on record.
    """
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
    if is_procedure(request.path):
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
