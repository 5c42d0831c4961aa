"""The PDP over its Unix socket: AuthZEN evaluations with the signed form in `context`.

Whatever is asked in one turn of the event loop, or while `MAX_CALLS` calls are under way, travels
as one `/access/v1/evaluations` call: the busier the PDP is, the more each call carries. The answer
has one signed decision for each asker. The socket's peer is the PDP's own user, which is what makes
this KAS a registered enforcement point.
"""

import asyncio
import io
from collections.abc import Sequence
from http import HTTPStatus

import aiohttp
import msgspec
import orjson

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.pdp import Answer, Question, QuestionObject

MAX_ANSWER = 8 * 1024 * 1024
MAX_EVALUATIONS = 1000
MAX_CALLS = 2  # at the same time
MAX_BATCH = 4 * 1024 * 1024  # bytes of one call, roughly
TIMEOUT_SECONDS = 5.0  # of a question, the wait for its turn included; and of a call


class _Reason(msgspec.Struct, frozen=True):
    en: str


class _Verdict(msgspec.Struct, frozen=True):
    decision: int | None = None
    reason_admin: _Reason | None = None


class _Evaluation(msgspec.Struct, frozen=True):
    decision: bool
    context: _Verdict


class _Decisions(msgspec.Struct, frozen=True):
    decisions: tuple[str, ...]


class _Answer(msgspec.Struct, frozen=True):
    evaluations: tuple[_Evaluation, ...]
    context: _Decisions


class RefusedBatchError(Exception):
    """The PDP refused a call as a whole."""


class AuthzenClient:
    """Asks a PDP. One instance belongs to one event loop.

    Args:
        socket: The PDP's Unix socket, as `envelock_service.sockets.Address` makes it reachable.
        kas_id: This KAS, which becomes the audience of every decision.
    """

    def __init__(self, socket: str, kas_id: str) -> None:
        self._socket = socket
        self._kas_id = kas_id
        self._session: aiohttp.ClientSession | None = None
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ask(self, question: Question) -> Answer:
        loop = asyncio.get_running_loop()
        if not self._waiting and len(self._calls) < MAX_CALLS:
            loop.call_soon(self._send)
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await future
        except TimeoutError as error:
            raise PdpUnavailableError("no answer in time") from error

    async def aclose(self) -> None:
        """End calls under way and close the connection."""
        self._closed = True
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for _, future in self._waiting:
            _fail(future, "the connection is closed")
        if self._session is not None:
            await self._session.close()

    def _send(self) -> None:
        """Start calls for what waits, as far as there may be more of them.

        Whoever gave up while waiting is not asked for.
        """
        self._waiting = [asked for asked in self._waiting if not asked[1].done()]
        while self._waiting and len(self._calls) < MAX_CALLS:
            batch = self._next_batch()
            call = asyncio.get_running_loop().create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not self._closed:
            self._send()

    def _next_batch(self) -> list[tuple[Question, asyncio.Future[Answer]]]:
        """Take from the front of what waits: one question at least, and no more than fits."""
        size = count = taken = 0
        for question, _ in self._waiting:
            size, count = size + _weight(question), count + len(question.objects)
            if taken and (size > MAX_BATCH or count > MAX_EVALUATIONS):
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    async def _call(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        reason = "the call was ended"
        try:
            questions = [question for question, _ in batch]
            answers = _answers(questions, await self._post(_body(questions, self._kas_id)))
            for (_, future), answer in zip(batch, answers, strict=True):
                if answer is not None and not future.done():
                    future.set_result(answer)
            reason = "no decision for the request"
        except RefusedBatchError:
            reason = "the question was refused"
            if len(batch) > 1:  # one question may have spoilt it for the others
                await asyncio.gather(*(self._call([asked]) for asked in batch))
        except (aiohttp.ClientError, OSError, TimeoutError, FormatError) as error:
            reason = type(error).__name__
        finally:
            for _, future in batch:
                _fail(future, reason)

    async def _post(self, body: bytes) -> _Answer:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            connector = aiohttp.UnixConnector(path=self._socket, limit=8)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False
            )
        async with self._session.post(
            "http://pdp/access/v1/evaluations",
            data=io.BytesIO(body),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            if HTTPStatus.BAD_REQUEST <= response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise RefusedBatchError(f"status {response.status}")
            if response.status != HTTPStatus.OK:
                raise FormatError(f"status {response.status}")
            text = await _read(response)
        return decode(text, _Answer, max_bytes=MAX_ANSWER)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; `FormatError` as soon as it is longer than an answer can be."""
    text = bytearray()
    async for part in response.content.iter_any():
        text += part
        if len(text) > MAX_ANSWER:
            raise FormatError("the answer is too long")
    return bytes(text)


def _body(questions: Sequence[Question], kas_id: str) -> bytes:
    """The questions as one call; what several evaluations share stands at the top level."""
    contexts = [_context(number, question, kas_id) for number, question in enumerate(questions)]
    body: dict[str, Json] = {"subject": {"type": "user", "id": "token"}}
    alone = len(questions) == 1
    if alone:
        body |= {"action": {"name": questions[0].act}, "context": contexts[0]}
    evaluations: list[Json] = []
    for question, context in zip(questions, contexts, strict=True):
        own: dict[str, Json] = {"action": {"name": question.act}, "context": context}
        for item in question.objects:
            resource = _resource(question.tenant, item)
            evaluations.append({"resource": resource} if alone else {"resource": resource, **own})
    return orjson.dumps(body | {"evaluations": evaluations})


def _context(number: int, question: Question, kas_id: str) -> dict[str, Json]:
    """`request` keeps the questions of one call apart.

    Each has its own decision, since a decision is spent on one request.
    """
    context: dict[str, Json] = {
        "request": number,
        "kas_id": kas_id,
        "key_sha256": b64url(question.key_digest),
        "subject_token": question.subject_token,
    }
    if question.address is not None:
        context["ip"] = question.address
    return context


def _resource(tenant: str, item: QuestionObject) -> dict[str, Json]:
    properties: dict[str, Json] = {
        "policy": item.policy,
        "keys_sha256": b64url(item.asked.keys_sha256),
        "tenant": tenant,
    }
    if item.new_policy is not None:
        properties["new_policy"] = item.new_policy
    return {"type": "tdf", "id": item.asked.id, "properties": properties}


def _answers(questions: Sequence[Question], answer: _Answer) -> list[Answer | None]:
    """Deal the evaluations out to the questions, in order."""
    if len(answer.evaluations) != sum(len(question.objects) for question in questions):
        raise FormatError("another number of evaluations")
    dealt: list[Answer | None] = []
    start = 0
    for question in questions:
        part = answer.evaluations[start : start + len(question.objects)]
        start += len(question.objects)
        dealt.append(_answer(question, part, answer.context.decisions))
    return dealt


def _answer(
    question: Question, part: Sequence[_Evaluation], decisions: Sequence[str]
) -> Answer | None:
    indexes = {evaluation.context.decision for evaluation in part}
    index = indexes.pop() if len(indexes) == 1 else None
    if index is None or not 0 <= index < len(decisions):
        return None
    reasons = {
        item.asked.id: evaluation.context.reason_admin.en
        for item, evaluation in zip(question.objects, part, strict=True)
        if evaluation.context.reason_admin is not None
    }
    return Answer(decisions[index], reasons)


def _weight(question: Question) -> int:
    """Bytes that a question takes in a call, roughly."""
    each = len(question.subject_token) + 600
    return sum(each + len(item.policy) + len(item.new_policy or "") for item in question.objects)


def _fail(future: asyncio.Future[Answer], reason: str) -> None:
    if not future.done():
        future.set_exception(PdpUnavailableError(reason))
