"""How a caller's question is read: after the caller is known, and paid for by its size."""

from typing import TypeVar

import msgspec
from aiohttp import web

from envelock_kas.http import Surface, admitted
from envelock_kas.opentdf.connect import Method
from envelock_service.callers import Authenticated

T = TypeVar("T", bound=msgspec.Struct)


async def question_of(
    surface: Surface, request: web.Request, method: Method[T]
) -> tuple[Authenticated, T]:
    """The caller, and what it asks.

    Raises:
        Problem: 401, 403 on record, 429; or 400, 413, 415 for the message.
    """
    caller = await admitted(surface, request)
    body = await method.body(request)
    surface.gate.admit(caller.token.caller, len(body))
    return caller, method.understand(request, body)
