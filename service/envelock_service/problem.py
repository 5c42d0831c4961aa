"""Errors at the edge: one table entry for each, turned into RFC 9457 problem documents.

Rooms raise `Problem`; nothing inside knows HTTP. A body never says why beyond its `code`: the
reason is in the ledger, under the request id that the body and `X-Request-ID` carry.
"""

from collections.abc import Mapping

import orjson
from aiohttp import web

STATUS: Mapping[str, int] = {
    "malformed_request": 400,
    "bad_request": 400,
    "policy_malformed": 400,
    "invalid_token": 401,
    "invalid_dpop_proof": 401,
    "access_denied": 403,
    "decision_mismatch": 403,
    "kek_disabled": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "decision_replayed": 409,
    "policy_rollback": 409,
    "kek_destroyed": 410,
    "too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "internal": 500,
    "not_implemented": 501,
    "ledger_unavailable": 503,
    "hsm_unavailable": 503,
    "pdp_unavailable": 503,
    "policy_stale": 503,
    "issuer_unavailable": 503,
}
_RETRY_AFTER_SECONDS = "1"


class Problem(Exception):  # noqa: N818 RFC 9457 calls it a problem
    """A refusal that may be shown to the caller.

    Args:
        code: A key of `STATUS`.
        detail: One sentence that is safe to show; never a secret, never why access was denied.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return STATUS[self.code]


def problem_response(problem: Problem, request_id: str) -> web.Response:
    """Render *problem* as `application/problem+json`."""
    body = {
        "type": "about:blank",
        "title": problem.code.replace("_", " "),
        "status": problem.status,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.detail:
        body["detail"] = problem.detail
    return web.Response(
        status=problem.status,
        body=orjson.dumps(body),
        content_type="application/problem+json",
        headers=headers_for(problem),
    )


def headers_for(problem: Problem) -> dict[str, str]:
    """The headers that go with the status: a challenge for 401, a delay for 429 and 503."""
    if problem.status == web.HTTPUnauthorized.status_code:
        return {"WWW-Authenticate": f'DPoP error="{problem.code}", algs="ES256 EdDSA RS256"'}
    if problem.status in {429, 503}:
        return {"Retry-After": _RETRY_AFTER_SECONDS}
    return {}
