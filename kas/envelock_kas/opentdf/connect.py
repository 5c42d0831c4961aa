"""Connect unary over HTTP, JSON codec: requests in, answers and errors out.

https://connectrpc.com/docs/protocol, sections "Unary-Request" and "Error-End-Stream". Clients tell
errors apart by the words in `message`, so those stay as the platform that they were made for writes
them; ours are beside it, in members that others pass over.
"""

from typing import TypeVar

import msgspec
import orjson
from aiohttp import web

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_service.problem import Problem, headers_for
from envelock_service.server import REQUEST_ID, read_body

T = TypeVar("T")
MEDIA_TYPES = frozenset({"application/json"})
_CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    405: "unimplemented",
    409: "already_exists",
    410: "failed_precondition",
    413: "resource_exhausted",
    415: "invalid_argument",
    429: "resource_exhausted",
    500: "internal",
    501: "unimplemented",
    503: "unavailable",
}
_WORDS = {
    "invalid_argument": "InvalidArgument desc = bad request",
    "permission_denied": "PermissionDenied desc = forbidden",
}


class PublicKeyRequest(msgspec.Struct, frozen=True):
    """`kas.AccessService/PublicKey`."""

    algorithm: str = ""
    fmt: str = ""
    v: str = ""


class RewrapRequest(msgspec.Struct, frozen=True):
    """`kas.AccessService/Rewrap`."""

    signedRequestToken: str  # noqa: N815 the protocol's own name


async def read_message(request: web.Request, shape: type[T]) -> T:
    """Read the message of a request.

    Raises:
        Problem: 400, 413 or 415.
    """
    body = await read_body(request, media_types=MEDIA_TYPES)
    try:
        return decode(body or b"{}", shape, max_bytes=len(body) + 2)
    except FormatError as error:
        raise Problem("malformed_request", str(error)) from error


def answer(message: msgspec.Struct) -> web.Response:
    """A message as an answer."""
    return web.Response(body=msgspec.json.encode(message), content_type="application/json")


def connect_error(request: web.Request, problem: Problem) -> web.Response:
    """A problem in the protocol's own form."""
    code = _CODES[problem.status]
    text = problem.detail or problem.code
    if (words := _WORDS.get(code)) is not None:
        text = f"request error\nrpc error: code = {words}: {text}"
    body: dict[str, Json] = {
        "code": code,
        "message": text,
        "reason": problem.code,
        "request_id": request[REQUEST_ID],
    }
    return web.Response(
        status=problem.status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers=headers_for(problem),
    )
