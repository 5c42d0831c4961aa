"""A PDP that lies, babbles, dawdles or falls silent: no key, a record of it, no unwrap, recovery.

The PDP here is a real one on a real socket as far as the KAS can see; each test says what is wrong
with its answer.
"""

import asyncio
import contextlib
import gzip
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from kas.world import KAS_ID, Person, World, running_world

from envelock_formats.decision import DecidedObject
from envelock_formats.framing import b64url
from envelock_formats.request import policy_sha256
from envelock_kas.authzen import AuthzenClient
from envelock_service.problem import Problem
from envelock_service.sockets import Address, bind

DEADLINE = 0.5  # seconds, in place of the real one
HUGE = 1 << 20  # bytes of one piece
MAX_READ = 64 << 20  # bytes of an endless answer that may be on their way when a KAS hangs up

Question = dict[str, Any]
Answering = Callable[["FakePdp", web.Request, Question], Awaitable[web.StreamResponse]]


@dataclass
class FakePdp:
    """Answers on a Unix socket: honestly, or as *answering* says."""

    world: World
    answering: Answering | None = None
    sent: int = 0  # bytes of endless answers
    decided: list[str] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a call; a test that says how asks about one object."""
        asked = await request.json()
        questions = [asked | one for one in asked["evaluations"]]
        if self.answering is not None:
            return await self.answering(self, request, questions[0])
        return web.json_response(self.answer(*map(self.sign, questions)))

    def sign(self, question: Question, *, permit: bool = True, **changes: object) -> str:
        """A decision on *question*; *changes* override what it says."""
        context, resource = question["context"], question["resource"]
        person = self.world.pdp.people[context["subject_token"]]
        decided = DecidedObject(
            resource["id"],
            b64url(policy_sha256(resource["properties"]["policy"])),
            resource["properties"]["keys_sha256"],
            permit=permit,
        )
        self.world.pdp.changes = changes
        tenant, digest = resource["properties"]["tenant"], context["key_sha256"]
        signed = self.world.pdp.sign(person.caller, (decided,), "open", tenant, digest)
        self.world.pdp.changes = {}
        self.decided.append(signed)
        return signed

    @staticmethod
    def answer(*decisions: str) -> dict[str, object]:
        """The answer that carries *decisions*."""
        verdicts = [{"decision": True, "context": {"decision": n}} for n in range(len(decisions))]
        return {"evaluations": verdicts, "context": {"decisions": decisions}}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A KAS in one process."""
    async with running_world(tmp_path) as found:
        yield found


@pytest.fixture
async def pdp(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakePdp]:
    """The PDP that this KAS asks."""
    monkeypatch.setattr("envelock_kas.authzen.TIMEOUT_SECONDS", DEADLINE)
    fake = FakePdp(world)
    app = web.Application()
    app.router.add_post("/access/v1/evaluations", fake.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    path = tmp_path / "pdp.sock"
    await web.SockSite(runner, bind(path)).start()
    address = Address(path)
    client = AuthzenClient(address.text, KAS_ID)
    world.worker.surface.release._decisions._pdp = client  # noqa: SLF001 the PDP that is asked
    yield fake
    await client.aclose()
    await runner.cleanup()
    address.close()


def claims(**changes: object) -> Answering:
    """A decision that says something else than it should."""

    async def answering(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
        return web.json_response(fake.answer(fake.sign(question, **changes)))

    return answering


def text(change: Callable[[str], str]) -> Answering:
    """A decision whose text is changed after it was signed."""

    async def answering(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
        return web.json_response(fake.answer(change(fake.sign(question))))

    return answering


def body(content: bytes, *, status: int = 200, **headers: str) -> Answering:
    """An answer that is just bytes."""

    async def answering(_: FakePdp, __: web.Request, ___: Question) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=content, status=status, headers=named)

    return answering


def late(**seconds: float) -> dict[str, object]:
    """Times of a decision, relative to now."""
    now = int(time.time())
    return {claim: now + int(offset) for claim, offset in seconds.items()}


async def signed_by_another_key(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
    """The right claims under a key that nobody pinned."""
    genuine, fake.world.pdp.key = fake.world.pdp.key, ec.generate_private_key(ec.SECP256R1())
    try:
        return web.json_response(fake.answer(fake.sign(question)))
    finally:
        fake.world.pdp.key = genuine


async def of_another_question(fake: FakePdp, _: web.Request, __: Question) -> web.Response:
    """A decision that was right for the question before."""
    return web.json_response(fake.answer(fake.decided[0]))


async def for_another_caller(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
    """A permit that is somebody else's."""
    other = fake.world.person("mallory")
    context = question["context"] | {"subject_token": f"token-of-{other.subject}@{other.tenant}"}
    return web.json_response(fake.answer(fake.sign(question | {"context": context})))


async def for_another_key(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
    """A permit to seal to another client key."""
    context = question["context"] | {"key_sha256": b64url(os.urandom(32))}
    return web.json_response(fake.answer(fake.sign(question | {"context": context})))


async def of_a_later_index(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
    """An answer that points at a decision that is not there."""
    answer = fake.answer(fake.sign(question))
    return web.json_response(answer | {"context": {"decisions": []}})


async def twice(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
    """One answer too many."""
    answer = fake.answer(fake.sign(question))
    return web.json_response(answer | {"evaluations": answer["evaluations"] * 2})  # type: ignore[operator]


async def silence(_: FakePdp, __: web.Request, ___: Question) -> web.Response:
    """No answer at all."""
    await asyncio.sleep(60)
    return web.Response()


async def hung_up(_: FakePdp, request: web.Request, __: Question) -> web.Response:
    """The connection ends instead of an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def endless(fake: FakePdp, request: web.Request, _: Question) -> web.StreamResponse:
    """An answer that does not end."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while fake.sent < 4 * MAX_READ:
            await response.write(bytes(HUGE))
            fake.sent += HUGE
    return response


async def dripping(fake: FakePdp, request: web.Request, question: Question) -> web.StreamResponse:
    """The right answer, a byte at a time."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for byte in orjson.dumps(fake.answer(fake.sign(question))):
            await response.write(bytes([byte]))
            await asyncio.sleep(0.05)
    return response


FAULTS: dict[str, Answering] = {
    "signed by another key": signed_by_another_key,
    "with an altered signature": text(lambda jws: jws[:-8] + ("A" * 8)),
    "with altered claims": text(
        lambda jws: ".".join([jws.split(".")[0], "e30", jws.split(".")[2]])
    ),
    "without a signature": text(lambda jws: jws.rpartition(".")[0] + "."),
    "that is no decision": text(lambda _: "permit"),
    "of another question": of_another_question,
    "for another caller": for_another_caller,
    "for another client key": for_another_key,
    "for another action": claims(act="seal"),
    "for another tenant": claims(tenant="bolt", policy=None),
    "for another KAS": claims(aud="another-kas"),
    "of another issuer": claims(iss="another-pdp"),
    "of another subject": claims(sub="mallory"),
    "of another home": claims(sub_tenant="bolt"),
    "for a token that is not bound": claims(cnf=None),
    "that has expired": claims(**late(iat=-70, nbf=-70, exp=-10)),
    "of tomorrow": claims(**late(iat=86_400, nbf=86_400, exp=86_460)),
    "that lasts for an hour": claims(**late(exp=3_600)),
    "that names no decision": of_a_later_index,
    "with one verdict too many": twice,
    "of garbage": body(os.urandom(300)),
    "of nothing": body(b""),
    "of another shape": body(b'{"decision":true}'),
    "with a name twice": body(b'{"evaluations":[],"evaluations":[],"context":{"decisions":[]}}'),
    "as deep as it goes": body(b"[" * 100_000),
    "of a web page": body(b"<html>permit</html>", Content_Type="text/html"),
    "with an error": body(b"{}", status=500),
    "from elsewhere": body(b"", status=307, Location="http://127.0.0.1:9/access/v1/evaluations"),
    "of nine megabytes": body(b" " * (9 << 20) + b"{}"),
    "that inflates": body(gzip.compress(bytes(256 << 20), 1), Content_Encoding="gzip"),
    "without an end": endless,
    "in drops": dripping,
    "of silence": silence,
    "that is cut off": hung_up,
}


@dataclass(frozen=True)
class Fared:
    """How a release fared whose decision was not what it should be, and the one after it."""

    code: str = "pdp_unavailable"
    in_time: bool = True
    operations: int = 0  # of the custody
    reason: str = "pdp"
    recovered: bool = True
    read: bool = True  # no more than a KAS may take in


async def fared(world: World, pdp: FakePdp, answering: Answering) -> Fared:
    """Ask for a release while the PDP answers so; then honestly again."""
    doctor, sealed = world.person("doctor"), await world.seal()
    before, asked = world.custody.operations.total(), time.monotonic()
    pdp.answering, pdp.sent = answering, 0
    with pytest.raises(Problem) as caught:
        await world.request(doctor, sealed).send()
    took, after = time.monotonic() - asked, world.custody.operations.total()
    pdp.answering = None
    reason = str((await world.records("error"))[-1]["rsn"])
    opened = await world.request(doctor, sealed).send()
    return Fared(
        code=caught.value.code,
        in_time=took < DEADLINE + 2,
        operations=after - before,
        reason=reason.partition(":")[0],
        recovered=opened.shares == [sealed.share],
        read=pdp.sent <= MAX_READ,
    )


async def test_no_answer_but_the_right_one_releases(world: World, pdp: FakePdp):
    """It counts as no answer: 503 soon, on record, no custody operation, and then it recovers."""
    await world.request(world.person("doctor"), await world.seal()).send()
    found = {fault: await fared(world, pdp, answering) for fault, answering in FAULTS.items()}

    assert {fault: how for fault, how in found.items() if how != Fared()} == {}
    assert len(await world.records("error")) == len(FAULTS)
    assert len(await world.records("release")) == len(FAULTS) + 1


async def test_the_signed_decision_counts_and_not_the_words_beside_it(world: World, pdp: FakePdp):
    """`decision: true` next to a signed denial is a denial."""
    doctor, sealed = world.person("doctor"), await world.seal()

    async def deny(fake: FakePdp, _: web.Request, question: Question) -> web.Response:
        return web.json_response(fake.answer(fake.sign(question, permit=False)))

    pdp.answering = deny
    opened = await world.request(doctor, sealed).send()

    assert opened.statuses == ["fail"]
    assert opened.shares == []
    assert not world.custody.operations
    assert await world.records("release") == []


async def test_a_pdp_that_stops_while_many_ask_starves_nobody_for_long(world: World, pdp: FakePdp):
    """Fifty callers hear within the deadline that there is no decision, and are served later."""
    people = [world.person(f"doctor-{number}") for number in range(50)]
    sealed = await world.seal()

    async def ask(person: Person) -> str:
        try:
            await world.request(person, sealed).send()
        except Problem as problem:
            return problem.code
        return "released"

    pdp.answering = silence
    asked = time.monotonic()
    codes = [await asyncio.gather(*map(ask, people))]
    took = time.monotonic() - asked
    pdp.answering = None
    codes += [[await ask(person) for person in people]]

    assert codes == [["pdp_unavailable"] * 50, ["released"] * 50]
    assert took < 4 * DEADLINE + 2
