"""The operators' API for command groups that know no SDK: answers as JSON, refusals in words."""

from collections.abc import Mapping

from envelock.client import Client
from envelock.errors import ConfigError, DeniedError, FormatError, UnavailableError
from envelock_formats import errors as formats
from envelock_formats.canonical import Json, parse_object

MAX_ANSWER = 16 * 1024 * 1024
WRONG_ASK = frozenset({"conflict", "not_found", "malformed_request", "method_not_allowed"})


def operate(client: Client, method: str, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
    """Make one call and return its answer.

    Raises:
        ConfigError: What was asked does not fit the state of things; nothing was changed.
        DeniedError: The caller is not an operator, or not of this tenant.
        UnavailableError: No answer, or not one in JSON.
    """
    try:
        answer = client.run(client.session.operate(method, path, body))
        return parse_object(answer, max_bytes=MAX_ANSWER)
    except (DeniedError, FormatError) as error:
        raise _told(error, path) from error
    except formats.FormatError as error:
        raise UnavailableError(f"{path}: the server's answer is malformed") from error


def _told(error: DeniedError | FormatError, path: str) -> ConfigError | DeniedError:
    """The server's words alone: the path and the status are of no use to a person."""
    words = str(error).removeprefix(f"{path}: ").removeprefix("refused").removeprefix(": ")
    if error.code in WRONG_ASK:
        return ConfigError(words or error.code, code=error.code, request_id=error.request_id)
    return DeniedError(
        words or "only an operator of the tenant may do this",
        code=error.code,
        request_id=error.request_id,
        hint="act as an operator: --as operator",
    )
