"""What the protocol core asks of the outside, as values: the core itself does no I/O.

Each operation is a generator. It yields a `Call`, a `Pause` or `TokenWanted`, and is sent a
`Reply`, nothing, or a token; its return value is the result. `drive` runs one over blocking I/O;
the async client does the same with `await`.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import msgspec

from envelock.errors import (
    DeniedError,
    EnvelockError,
    FormatError,
    NotAuthenticatedError,
    UnavailableError,
)

T = TypeVar("T")
TokenSource: TypeAlias = str | Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. No redirect is followed; the answer is read to a cap."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer; status 0 means that none came, and *body* says why in words."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        """The server's name for the request, which is in its record."""
        return self.headers.get("x-request-id")


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before going on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TokenWanted:
    """The caller's own token, where it brings its own: *source* is the token, or what gives it."""

    source: TokenSource = field(repr=False)


Step: TypeAlias = Call | Pause | TokenWanted
Steps: TypeAlias = Generator[Step, Reply | str | None, T]


def call(request: Call) -> Steps[Reply]:
    """Make one call."""
    reply = yield request
    if not isinstance(reply, Reply):
        raise TypeError("a call is answered by a reply")
    return reply


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The operation ended, with its result."""

    value: T


def advance(steps: Steps[T], answer: Reply | str | None) -> Step | Done[T]:
    """Send *answer* and run *steps* up to what it asks next.

    This is where the core computes, and reads and writes what a profile keeps: it may take a
    while, but waits for nobody outside this machine.
    """
    try:
        return steps.send(answer)
    except StopIteration as ended:
        return Done(ended.value)


def drive(
    steps: Steps[T],
    send: Callable[[Call], Reply],
    sleep: Callable[[float], None],
) -> T:
    """Run *steps* over blocking I/O."""
    answer: Reply | str | None = None
    while True:
        match step := advance(steps, answer):
            case Done(value):
                return value
            case Call():
                answer = send(step)
            case Pause(seconds):
                sleep(seconds)
                answer = None
            case TokenWanted(source):
                given = source if isinstance(source, str) else source()
                answer = given if isinstance(given, str) else None


class _Problem(msgspec.Struct, frozen=True):
    """What of an error's body is of use: RFC 9457's members, or Connect's."""

    code: str = ""
    reason: str = ""
    detail: str = ""
    message: str = ""
    request_id: str | None = None
    error: str = ""


def error_of(reply: Reply, what: str) -> EnvelockError:
    """The error for a reply that is not a success; *what* names what was asked."""
    problem = _problem(reply)
    code = problem.reason or problem.code or problem.error or "error"
    request_id = problem.request_id or reply.request_id
    match reply.status:
        case 401:
            return NotAuthenticatedError(
                f"{what}: the server does not take the token",
                code=code,
                request_id=request_id,
                hint="log in again, or check the clock of this machine",
            )
        case 403 | 404 | 409 | 410:
            detail = f": {problem.detail}" if problem.detail else ""
            return DeniedError(f"{what}: refused{detail}", code=code, request_id=request_id)
        case 400 | 413 | 415:
            detail = problem.detail or problem.message or code
            return FormatError(f"{what}: {detail}", code=code, request_id=request_id)
        case 0:
            return UnavailableError(
                f"{what}: no answer ({reply.body.decode(errors='replace')})",
                hint="is the server running? try again",
            )
        case _:
            return UnavailableError(
                f"{what}: the server cannot answer now ({code})",
                code=code,
                request_id=request_id,
                hint="try again; if it lasts, tell the operator the request id",
                retry_after=_seconds(reply.headers.get("retry-after")),
            )


def _problem(reply: Reply) -> _Problem:
    try:
        return msgspec.json.decode(reply.body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Problem()


def _seconds(text: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is passed over."""
    digits = text is not None and text.isascii() and text.isdigit()
    return float(text) if text is not None and digits else None
