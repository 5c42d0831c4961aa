"""What bounds every request of every server here, and what every answer carries.

Headers and an idle connection have `RECEIVE_SECONDS` to arrive whole, bodies as long again; a body
is read to a cap and unpacked, where gzip is accepted, to the same cap. Each answer carries an
`X-Request-ID`, and a problem says the same one. It is made here, and one that a client sends is not
believed; only a server whose protocol wants the client's sent back takes it over, and such a server
keeps no record under it.
"""

import asyncio
import logging
import os
import re
import zlib
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from envelock_service.health import Health
from envelock_service.oidc import IssuerUnavailableError
from envelock_service.problem import Problem, problem_response
from envelock_service.sockets import peer_uid

RECEIVE_SECONDS = 10.0
MAX_BODY = 8 * 1024 * 1024
MAX_HEADER_LINE = 20 * 1024
REQUEST_ID = web.RequestKey("request_id", str)
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)


def runner(app: web.Application, *, receive_seconds: float = RECEIVE_SECONDS) -> web.AppRunner:
    """An aiohttp runner with the limits of this module.

    *receive_seconds* is how long a connection may take to send a request's headers, and to send
    nothing at all.
    """
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=receive_seconds,
        lingering_time=1.0,
        max_field_size=MAX_HEADER_LINE,
        max_line_size=MAX_HEADER_LINE,
        handle_signals=False,
        shutdown_timeout=RECEIVE_SECONDS,
    )


def identify(
    request_ids: Callable[[], str],
    render: Callable[[web.Request, Problem], web.StreamResponse] | None = None,
    *,
    echo: bool = False,
) -> Middleware:
    """Middleware: gives each request an id and turns every error into an answer.

    Args:
        request_ids: Makes a fresh request id.
        render: Renders a problem where a path's protocol has its own form of errors.
        echo: Take over a well-formed `X-Request-ID` of the client instead.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("X-Request-ID", "") if echo else ""
        request[REQUEST_ID] = given if _GIVEN_ID.match(given) else request_ids()
        try:
            response = await handler(request)
        except Problem as problem:
            response = _rendered(request, problem, render)
        except IssuerUnavailableError:
            response = _rendered(request, Problem("issuer_unavailable"), render)
        except web.HTTPException as error:
            response = _rendered(request, _from_status(error.status), render)
        except Exception:  # noqa: BLE001 the edge: whatever it is, the caller gets 500 and no detail
            _log.exception("request %s failed", request[REQUEST_ID])
            response = _rendered(request, Problem("internal"), render)
        response.headers["X-Request-ID"] = request[REQUEST_ID]
        return response

    return middleware


async def read_body(
    request: web.Request,
    *,
    media_types: frozenset[str],
    max_bytes: int = MAX_BODY,
    receive_seconds: float = RECEIVE_SECONDS,
) -> bytes:
    """Read the body of *request*, unpacked when it is gzip.

    Raises:
        Problem: 413 for more than *max_bytes*, packed or not; 415 for another type or encoding;
            400 for a body that does not unpack or does not arrive in time.
    """
    if request.content_type not in media_types:
        raise Problem("unsupported_media_type")
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding not in {"identity", "gzip"}:
        raise Problem("unsupported_media_type")
    if (request.content_length or 0) > max_bytes:
        raise Problem("too_large")
    if request.content.is_eof():
        body = await _read(request, max_bytes)  # it is here already
    else:
        body = await _read_in_time(request, max_bytes, receive_seconds)
    return unpacked(body, max_bytes) if encoding == "gzip" else body


async def _read_in_time(request: web.Request, max_bytes: int, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, max_bytes)
    except TimeoutError as error:
        raise Problem("malformed_request", "the body did not arrive in time") from error


async def _read(request: web.Request, max_bytes: int) -> bytes:
    received = bytearray()
    async for chunk in request.content.iter_any():
        received += chunk
        if len(received) > max_bytes:
            raise Problem("too_large")
    return bytes(received)


def unpacked(body: bytes, max_bytes: int) -> bytes:
    """Unpack one gzip member.

    Raises:
        Problem: 413 for more than *max_bytes*, 400 for what is not one member.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Problem("malformed_request", "the body is not gzip") from error
    if len(plain) > max_bytes:
        raise Problem("too_large")
    if not unpacker.eof or unpacker.unused_data:
        raise Problem("malformed_request", "the body is not one gzip member")
    return plain


def _rendered(
    request: web.Request,
    problem: Problem,
    render: Callable[[web.Request, Problem], web.StreamResponse] | None,
) -> web.StreamResponse:
    if render is not None:
        return render(request, problem)
    return problem_response(problem, request[REQUEST_ID])


def _from_status(status: int) -> Problem:
    by_status = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    return Problem(by_status.get(status, "malformed_request"))


def health_response(health: Health) -> web.Response:
    """The answer of `/healthz`: 200, or 503 with the parts that are down and since when."""
    status = 503 if health.down() else 200
    return web.json_response(health.answer(), status=status, headers={"Cache-Control": "no-store"})


@web.middleware
async def same_user(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware for Unix sockets: the process at the other end runs as our own user.

    SECURITY: mode 0600 of the socket says so already; the kernel's word also covers a socket that
    was handed on.
    """
    connection = request.get_extra_info("socket")
    if connection is None or peer_uid(connection) != os.geteuid():
        raise Problem("access_denied")
    return await handler(request)
