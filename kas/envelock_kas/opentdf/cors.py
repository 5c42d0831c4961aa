"""Cross-origin calls of web pages (WHATWG Fetch, section 3.3), for the origins in the settings.

No cookie means anything here, so credentials are never allowed; a page that calls needs a token.
"""

from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Middleware

from envelock_service.server import Handler

ALLOWED_HEADERS = (
    "authorization, connect-protocol-version, connect-timeout-ms, content-type, dpop,"
    " x-request-id, x-rewrap-additional-context, x-virtrupubkey"
)
SHOWN_HEADERS = "dpop-nonce, retry-after, www-authenticate, x-request-id"
MAX_AGE_SECONDS = 600


def cors(origins: Collection[str]) -> Middleware:
    """Middleware: lets pages of *origins* call; `*` stands for any."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin", "")
        allowed = "*" if "*" in origins else origin if origin in origins else ""
        if not origin or not allowed:
            return await handler(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response: web.StreamResponse = web.Response(status=204)
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
            response.headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)
        else:
            response = await handler(request)
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = SHOWN_HEADERS
        response.headers.add("Vary", "Origin")
        return response

    return middleware
