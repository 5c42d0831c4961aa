"""Words that several commands share: sizes, what a file asks, and how a refusal reads."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from envelock.client import Client
from envelock.errors import DeniedError, EnvelockError, SealedFileError
from envelock.exchange import Steps
from envelock.sealing import openable
from envelock.session import Attributes, Session
from envelock_formats.canonical import parse_object
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import from_b64url

_STEP = 1024
_UNITS = ("B", "kB", "MB", "GB", "TB")
REFUSED = ": refused: "  # the server's own words follow
KEY_WORDS = {"kek_disabled": "its key is suspended", "kek_destroyed": "its key is destroyed"}


def size_text(size: int) -> str:
    """Bytes for people: `64.0 MB`, in steps of 1024."""
    if size < _STEP:
        return f"{size} B"
    value, unit = float(size), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.1f} {_UNITS[unit]}"


def asks_text(values: Iterable[AttributeValue], known: Attributes | None = None) -> str:
    """What a file asks, in the shortest form that *known* attributes leave unambiguous."""
    return ", ".join(_shortest(value, known) for value in values) or "nothing"


def attributes_of(client: Client) -> Attributes | None:
    """What the caller's tenant can ask for; None when it cannot be looked up."""
    try:
        return client.run(client.session.attributes())
    except EnvelockError:
        return None


def unopenable(client: Client, values: Sequence[AttributeValue]) -> str | None:
    """A warning of what nobody could open, as far as that can be looked up; None when all is well.

    It is a courtesy: sealing needs no decision point.
    """
    if not values:
        return "warning: no --attr: only a rule can permit anybody to open this"
    try:
        if client.run(openable(client.session, values)):
            return None
    except EnvelockError:
        return None
    asks = asks_text(values, attributes_of(client))
    return f"warning: no mapping or rule of your tenant could open what asks for {asks}"


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except SealedFileError as error:
        raise type(error)(
            f"{label}: {error}",
            code=error.code,
            hint=error.hint,
            request_id=error.request_id,
            server=error.server,
        ) from error


def refusal(
    client: Client, verb: str, label: str, asked: Iterable[AttributeValue], error: DeniedError
) -> DeniedError:
    """The refusal as a person reads it: who, what, what was asked for, and whom to talk to.

    Args:
        client: Who was refused.
        verb: `open`, `seal` or `rebind`.
        label: What people call the file.
        asked: What it asks, or would.
        error: The refusal as the server gave it.
    """
    known = attributes_of(client)
    told = str(error).partition(REFUSED)[2]
    why = KEY_WORDS.get(error.code) or told or f"file asks: {asks_text(asked, known)}"
    contact = known.contact if known is not None and known.contact else "your operator"
    if error.server is not None:
        why = f"{why}; refused by {error.server}"
        if error.server != client.session.url:
            contact = "its operator"
    quoted = f"request {error.request_id}" if error.request_id else "the time"
    return DeniedError(
        f"{who(client)} may not {verb} {label} ({why})",
        code=error.code,
        hint=f"quote {quoted} to {contact}; the reason is only in the ledger",
        request_id=error.request_id,
        server=error.server,
    )


def who(client: Client) -> str:
    """`NAME@TENANT` as the caller's own token says, else the profile's name."""
    try:
        return client.run(_named(client.session))
    except (EnvelockError, FormatError, IndexError):
        return client.session.profile.name


def _named(session: Session) -> Steps[str]:
    configuration = yield from session.configuration()
    token = yield from session.credentials.token(configuration.idp.token_endpoint)
    # SECURITY: nothing is verified: the token is the caller's own, and this is only shown to it.
    claims = parse_object(from_b64url(token.text.split(".")[1]))
    name, tenant = claims.get("sub"), claims.get("tenant")
    if isinstance(name, str) and isinstance(tenant, str):
        return f"{name}@{tenant}"
    return session.profile.name


def _shortest(value: AttributeValue, known: Attributes | None) -> str:
    if known is None:
        return value.short
    tail = value.short.partition("/")[2]
    every = (info for attribute in known.attributes for info in attribute.values)
    fits = [info.fqn for info in every if info.short.partition("/")[2] == tail]
    return tail if fits == [value.fqn] else value.short
