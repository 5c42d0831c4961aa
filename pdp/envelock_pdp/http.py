"""The AuthZEN API (Authorization API 1.0), with the signed form in `context.decisions`.

Two applications share one decider. The *public* one authenticates every caller by its own access
token and answers only about that caller. The *internal* one stands on a Unix socket and answers
processes of its own user: these are the registered enforcement points. They send the caller's token
as `context.subject_token`, state its address, and alone learn reasons and rules. The proof of a
bound token is verified and not spent: there is no ledger here, and a decision is of use only to
whoever holds the token's key.

Answer: `{"evaluations": [{"decision", "context": {"decision": place or null, "reason_admin"?,
"rules"?, "obligations"?, "error"?}}], "context": {"decisions": [JWS]}}`; for a single question
`{"decision", "context": {"decisions"?, "reason_admin"?, "rules"?, "obligations"?}}`. `error` is
`{"status", "code"}` of what kept one question from being decided.

What a caller asks is bounded before it is read: each subject has a token bucket, and a call costs
one, one more for each KiB and one for each question.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

from envelock_formats.canonical import Json
from envelock_formats.printable import printable
from envelock_pdp import NotInForceError, QuestionError, catalogue
from envelock_pdp.askers import Callers, Tokens, bearer, verify_askers
from envelock_pdp.attributes import Definition
from envelock_pdp.decide import MAX_RULES, Asker, Decided, Decider, Verdict
from envelock_pdp.inforce import InForce, Policies
from envelock_pdp.question import read_each, read_questions
from envelock_service.buckets import Buckets
from envelock_service.health import Health
from envelock_service.problem import STATUS, Problem
from envelock_service.server import Handler, health_response, identify, read_body, same_user

MAX_PUBLIC_BODY = 1024 * 1024
MAX_INTERNAL_BODY = 8 * 1024 * 1024
MAX_PUBLIC_EVALUATIONS = 100
MAX_INTERNAL_EVALUATIONS = 1000
EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
_JSON = frozenset({"application/json"})
_UNTIL = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}


@dataclass(frozen=True, slots=True)
class Surface:
    """What the handlers need.

    *url* is how clients reach the public application; *buckets* bounds what one subject asks there.
    """

    url: str
    decider: Decider
    policies: Policies
    tokens: Tokens
    callers: Callers
    buckets: Buckets
    jwks: Mapping[str, Json]
    request_ids: Callable[[], str]
    health: Health


def public_application(surface: Surface) -> web.Application:
    """The application for callers."""
    handlers = _Public(surface)
    app = web.Application(middlewares=[_identify(surface), _known_errors])
    app.router.add_get("/.well-known/authzen-configuration", handlers.configuration)
    app.router.add_get("/.well-known/jwks.json", handlers.keys)
    app.router.add_post(EVALUATION, handlers.evaluation)
    app.router.add_post(EVALUATIONS, handlers.evaluations)
    app.router.add_get("/v1/attributes", handlers.attributes)
    app.router.add_get("/healthz", handlers.health)
    return app


def internal_application(surface: Surface) -> web.Application:
    """The application for registered enforcement points, on a Unix socket."""

    async def evaluation(request: web.Request) -> web.Response:
        return await answer(request, several=False)

    async def evaluations(request: web.Request) -> web.Response:
        return await answer(request, several=True)

    async def answer(request: web.Request, *, several: bool) -> web.Response:
        body = await read_body(request, media_types=_JSON, max_bytes=MAX_INTERNAL_BODY)
        questions = read_each(
            body,
            several=several,
            max_bytes=MAX_INTERNAL_BODY,
            max_evaluations=MAX_INTERNAL_EVALUATIONS,
        )
        asked = await verify_askers(questions.asked, surface.tokens)
        decided = surface.decider.decide(asked, until=_UNTIL[questions.semantic])
        return _answer(decided, single=questions.single, told=True)

    async def in_force(_request: web.Request) -> web.Response:
        policies = surface.policies
        epochs: dict[str, Json] = {one.bundle.tenant: one.epoch for one in policies.all()}
        return _json({"epochs": epochs, "missing": list(policies.missing())})

    app = web.Application(middlewares=[_identify(surface), same_user, _known_errors])
    app.router.add_get("/healthz", in_force)
    app.router.add_post(EVALUATION, evaluation)
    app.router.add_post(EVALUATIONS, evaluations)
    catalogue.add_routes(app, surface.policies.of, surface.tokens)
    return app


class _Public:
    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    async def configuration(self, _request: web.Request) -> web.Response:
        """Authorization API 1.0 section 9: where everything is."""
        url = self._surface.url
        return _json(
            {
                "policy_decision_point": url,
                "access_evaluation_endpoint": url + EVALUATION,
                "access_evaluations_endpoint": url + EVALUATIONS,
                "jwks_uri": f"{url}/.well-known/jwks.json",
            }
        )

    async def keys(self, _request: web.Request) -> web.Response:
        """The public keys of decisions."""
        return _json(dict(self._surface.jwks))

    async def evaluation(self, request: web.Request) -> web.Response:
        """One question of the caller about itself."""
        return await self._evaluate(request, several=False)

    async def evaluations(self, request: web.Request) -> web.Response:
        """Several questions of the caller about itself."""
        return await self._evaluate(request, several=True)

    async def attributes(self, request: web.Request) -> web.Response:
        """What the caller's tenant has defined."""
        caller = await self._authenticate(request)
        return _json(_attributes(self._surface.policies.of(caller.caller.tenant)))

    async def health(self, _request: web.Request) -> web.Response:
        """Whether decisions can be made; if not, which part is missing and since when."""
        return health_response(self._surface.health)

    async def _evaluate(self, request: web.Request, *, several: bool) -> web.Response:
        asker = await self._authenticate(request)
        body = await read_body(request, media_types=_JSON, max_bytes=MAX_PUBLIC_BODY)
        self._charge(asker, len(body) / 1024)
        questions = read_questions(
            body,
            several=several,
            max_bytes=MAX_PUBLIC_BODY,
            max_evaluations=MAX_PUBLIC_EVALUATIONS,
        )
        self._charge(asker, len(questions.asked))
        if any(asked.subject != asker.caller.subject for asked in questions.asked):
            raise Problem("access_denied", "a caller asks about itself only")
        decided = self._surface.decider.decide(
            [(asked, asker) for asked in questions.asked], until=_UNTIL[questions.semantic]
        )
        return _answer(decided, single=questions.single, told=False)

    async def _authenticate(self, request: web.Request) -> Asker:
        callers = self._surface.callers
        found = await callers.authenticate(request.method, request.path, request.headers)
        asker = bearer(found.token, trusted_ip=False)
        self._charge(asker, 1)
        return asker

    def _charge(self, asker: Asker, cost: float) -> None:
        """Charge the subject's bucket; a subject is the same one with every token and key."""
        caller = asker.caller
        if not self._surface.buckets.take((caller.issuer, caller.tenant, caller.subject), cost):
            raise Problem("rate_limited")


def _identify(surface: Surface) -> Middleware:
    """Authorization API 1.0 section 10.1.4: a request id that came is sent back."""
    return identify(surface.request_ids, echo=True)


@web.middleware
async def _known_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except QuestionError as error:
        raise Problem("malformed_request", printable(str(error))) from error
    except NotInForceError as error:
        raise Problem("policy_stale") from error


def _answer(decided: Decided, *, single: bool, told: bool) -> web.Response:
    decisions: list[Json] = list(decided.decisions)
    if single:
        [verdict] = decided.verdicts
        if verdict.error is not None:
            raise Problem(verdict.error)
        context: dict[str, Json] = {"decisions": decisions} if decisions else {}
        return _json({"decision": verdict.permit, "context": context | _told(verdict, told=told)})
    evaluations: list[Json] = [
        {
            "decision": verdict.permit,
            "context": {"decision": verdict.decision, **_told(verdict, told=told)},
        }
        for verdict in decided.verdicts
    ]
    return _json({"evaluations": evaluations, "context": {"decisions": decisions}})


def _told(verdict: Verdict, *, told: bool) -> dict[str, Json]:
    """What is said beside the decision; the reason is for enforcement points alone."""
    context: dict[str, Json] = {}
    if verdict.error is not None:
        context["error"] = {"status": STATUS[verdict.error], "code": verdict.error}
    if told:
        context["reason_admin"] = {"en": verdict.reason}
        context["rules"] = list(verdict.rules[:MAX_RULES])
        if verdict.obligations:
            context["obligations"] = list(verdict.obligations)
    return context


def _attributes(found: InForce) -> dict[str, Json]:
    bundle = found.bundle

    def described(definition: Definition) -> dict[str, Json]:
        values: list[Json] = [
            {
                "value": value.value,
                "fqn": value.fqn,
                "short": value.short,
                "openable": bundle.attributes.openable(value),
            }
            for value in definition.all_values
        ]
        short = f"{definition.namespace}/{definition.name}"
        return {"fqn": definition.fqn, "short": short, "rule": definition.rule, "values": values}

    defined: list[Json] = [described(one) for one in bundle.attributes.definitions]
    return {"epoch": found.epoch, "contact": bundle.contact, "attributes": defined}


def _json(value: Json) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
