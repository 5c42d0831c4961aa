"""Connect unary over HTTP: requests in, answers and errors out, as JSON or as protobuf.

https://connectrpc.com/docs/protocol, sections "Unary-Request", "Unary-Get-Request" and
"Error-End-Stream". Inside, a message is a struct in protobuf's JSON mapping, whichever codec it
came in; `opentdf.proto` has the field numbers. An error is JSON always. Clients tell errors apart
by the words in `message`, so those stay as the platform that they were made for writes them; ours
are beside it, in members that others pass over.
"""

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import orjson
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_service.problem import Problem, headers_for
from envelock_service.server import REQUEST_ID, read_body, unpacked

T = TypeVar("T", bound=msgspec.Struct)
JSON, PROTO = "application/json", "application/proto"
MEDIA_TYPES = frozenset({JSON, PROTO})
SMALL = 16 * 1024  # bytes of a message, unpacked, where strangers send it
_CODEC = web.RequestKey("codec", str)
_PATH = re.compile(r"/(?:[a-z0-9_]+\.)+[A-Z][A-Za-z0-9]*/[A-Za-z0-9]+\Z")
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


class Empty(msgspec.Struct, frozen=True):
    """A message of which nothing is read."""


def nothing(_message: Message) -> Empty:
    """Read a message of which nothing is read."""
    return Empty()


@dataclass(frozen=True, slots=True)
class Method(Generic[T]):
    """One procedure: its path, and the shapes of what it takes and gives.

    *reads* turns a protobuf message into the struct; *json* a JSON text, where the strict parser
    alone will not do. *write* turns an answer into protobuf where the general way is too slow. A
    *safe* one has no side effects, so that clients may use GET.
    """

    path: str
    takes: type[T]
    wire_takes: type[Message]
    wire_gives: type[Message]
    reads: Callable[[Any], T]
    safe: bool = False
    write: Callable[[Any], Message] | None = None
    json: Callable[[bytes], T] | None = None
    max_bytes: int = SMALL

    async def body(self, request: web.Request) -> bytes:
        """The message as it came, unpacked; notes its codec.

        Raises:
            Problem: 400, 413 or 415.
        """
        if request.method == "GET":
            request[_CODEC], body = _from_query(request.query)
        else:
            body = await read_body(request, media_types=MEDIA_TYPES, max_bytes=self.max_bytes)
            request[_CODEC] = request.content_type
        return body

    async def read(self, request: web.Request) -> T:
        """Read the message of a request.

        Raises:
            Problem: 400, 413 or 415.
        """
        return self.understand(request, await self.body(request))

    def understand(self, request: web.Request, body: bytes) -> T:
        """The message in *body*, in the codec that it came in.

        Raises:
            Problem: 400.
        """
        try:
            return self.parse(request[_CODEC], body)
        except FormatError as error:
            raise Problem("malformed_request", str(error)) from error

    def parse(self, codec: str, body: bytes) -> T:
        """Read a message that came in *codec*.

        Raises:
            FormatError: It is none of this procedure.
        """
        if codec == JSON:
            if self.json is not None:
                return self.json(body)
            return decode(body or b"{}", self.takes, max_bytes=self.max_bytes)
        message = self.wire_takes()
        try:
            message.ParseFromString(body)
        except (DecodeError, UnicodeDecodeError) as error:
            raise FormatError("not a message of this procedure") from error
        return self.reads(message)

    def answer(self, request: web.Request, given: msgspec.Struct) -> web.Response:
        """*given* as an answer, in the codec that the request came in."""
        codec = request.get(_CODEC, JSON)
        if codec == JSON:
            return web.Response(body=msgspec.json.encode(given), content_type=JSON)
        if self.write is not None:
            message = self.write(given)
        else:
            message = self.wire_gives()
            json_format.ParseDict(msgspec.to_builtins(given), message)
        return web.Response(body=message.SerializeToString(), content_type=PROTO)

    def route(
        self, app: web.Application, handler: Callable[[web.Request, T], Awaitable[msgspec.Struct]]
    ) -> None:
        """Have *handler* answer this procedure."""

        async def handle(request: web.Request) -> web.Response:
            return self.answer(request, await handler(request, await self.read(request)))

        self.serve(app, handle)

    def serve(
        self, app: web.Application, handle: Callable[[web.Request], Awaitable[web.Response]]
    ) -> None:
        """Have *handle*, which reads and answers by itself, serve this procedure."""
        app.router.add_post(self.path, handle)
        if self.safe:
            app.router.add_get(self.path, handle, allow_head=False)


def is_procedure(path: str) -> bool:
    """Whether a path is one of Connect: `/package.Service/Method`."""
    return _PATH.match(path) is not None


def answer(message: msgspec.Struct) -> web.Response:
    """A message as JSON, where nothing but that is spoken."""
    return web.Response(body=msgspec.json.encode(message), content_type=JSON)


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
        content_type=JSON,
        headers=headers_for(problem),
    )


def _from_query(query: Mapping[str, str]) -> tuple[str, bytes]:
    """Codec and message of a GET.

    Raises:
        Problem: 400, 413 or 415.
    """
    codec = {"json": JSON, "proto": PROTO}.get(query.get("encoding", ""))
    packing = query.get("compression", "identity")
    if codec is None or packing not in {"", "identity", "gzip"}:
        raise Problem("unsupported_media_type")
    text = query.get("message", "")
    if len(text) > SMALL:
        raise Problem("too_large")
    body = text.encode()
    if query.get("base64") == "1":
        try:
            body = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError as error:
            raise Problem("malformed_request", "message is not base64url") from error
    return codec, unpacked(body, SMALL) if packing == "gzip" else body
