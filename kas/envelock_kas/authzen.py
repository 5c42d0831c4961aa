"""The PDP over its Unix socket: AuthZEN evaluations with the signed form in `context`.

Whatever is asked in one turn of the event loop travels as one `/access/v1/evaluations` call; the
answer carries one signed decision for each asker. The socket's peer is the PDP's own user, which is
what makes this KAS a registered enforcement point.
"""

import asyncio
import io
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import aiohttp
import msgspec
import orjson

from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.pdp import Answer, Question

MAX_ANSWER = 8 * 1024 * 1024
MAX_EVALUATIONS = 1000
MAX_BATCH = 4 * 1024 * 1024  # bytes of one call, roughly
TIMEOUT_SECONDS = 5.0


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

    async def ask(self, question: Question) -> Answer:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        return await future

    async def aclose(self) -> None:
        """End calls under way and close the connection."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch: list[tuple[Question, asyncio.Future[Answer]]] = []
        size = count = 0
        for asked in waiting:
            weight = _weight(asked[0])
            full = size + weight > MAX_BATCH or count + len(asked[0].objects) > MAX_EVALUATIONS
            if batch and full:
                self._start(batch)
                batch, size, count = [], 0, 0
            batch.append(asked)
            size, count = size + weight, count + len(asked[0].objects)
        self._start(batch)

    def _start(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        call = asyncio.get_running_loop().create_task(self._call(batch))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

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
    evaluations = [
        item
        for number, question in enumerate(questions)
        for item in _evaluations(number, question, kas_id)
    ]
    return orjson.dumps({"evaluations": evaluations})


def _evaluations(number: int, question: Question, kas_id: str) -> list[Mapping[str, Json]]:
    """One evaluation for each object.

    `request` keeps the questions of one call apart: each has its own decision,
    since a decision is spent on one request.
    """
    context: dict[str, Json] = {
        "request": number,
        "kas_id": kas_id,
        "key_sha256": b64url(question.key_digest),
        "subject_token": question.subject_token,
    }
    if question.address is not None:
        context["ip"] = question.address
    return [
        {
            "subject": {"type": "user", "id": "token"},
            "action": {"name": question.act},
            "resource": {
                "type": "tdf",
                "id": item.asked.id,
                "properties": {
                    "policy": item.policy,
                    "keys_sha256": b64url(item.asked.keys_sha256),
                    "tenant": question.tenant,
                },
            },
            "context": context,
        }
        for item in question.objects
    ]


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
    return sum(each + len(item.policy) for item in question.objects)


def _fail(future: asyncio.Future[Answer], reason: str) -> None:
    if not future.done():
        future.set_exception(PdpUnavailableError(reason))
