"""The PDP's client: questions of one turn travel together, and fail alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from envelock_formats.request import RequestedObject
from envelock_kas import authzen
from envelock_kas.authzen import AuthzenClient
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.pdp import Question, QuestionObject
from envelock_service.sockets import Address, bind


def question(name: str, *, policy: str = "e30=") -> Question:
    """A question about one object."""
    asked = RequestedObject(name, bytes(32), bytes(32))
    return Question("open", "clinic", bytes(32), [QuestionObject(asked, policy)], f"token-{name}")


@asynccontextmanager
async def pdp(folder: Path, answer: Callable[[list[dict]], object]) -> AsyncIterator[tuple]:
    """A PDP on a Unix socket that answers as a test wants; yields its client and the calls."""
    calls: list[int] = []

    async def evaluations(request: web.Request) -> web.Response:
        body = await request.json()
        asked = [body | item for item in body["evaluations"]]
        calls.append(len(asked))
        found = answer(asked)
        if isinstance(found, int):
            return web.Response(status=found)
        if found is None:
            await asyncio.sleep(60)
        return web.json_response(found)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/access/v1/evaluations", evaluations)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    path = folder / "pdp.sock"
    await web.SockSite(runner, bind(path)).start()
    address = Address(path)
    client = AuthzenClient(address.text, "kas")
    try:
        yield client, calls
    finally:
        await client.aclose()
        await runner.cleanup()
        address.close()


def permit(asked: list[dict]) -> object:
    """One decision for each asker."""
    verdicts = [
        {"decision": True, "context": {"decision": item["context"]["request"]}} for item in asked
    ]
    return {
        "evaluations": verdicts,
        "context": {"decisions": [f"jws-{n}" for n in range(len(asked))]},
    }


async def test_questions_of_one_turn_are_one_call(tmp_path: Path):
    """Each gets its own decision."""
    async with pdp(tmp_path, permit) as (client, calls):
        answers = await asyncio.gather(*(client.ask(question(f"o{n}")) for n in range(5)))

    assert calls == [5]
    assert [answer.decision for answer in answers] == [f"jws-{n}" for n in range(5)]


async def test_what_is_asked_while_the_pdp_is_busy_travels_together(tmp_path: Path):
    """No third call is begun; what waits is one call once another has ended."""
    async with pdp(tmp_path, permit) as (client, calls):
        asking = []
        for number in range(12):
            asking.append(asyncio.create_task(client.ask(question(f"o{number}"))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        answers = await asyncio.gather(*asking)

    assert calls[:2] == [1, 1]
    assert sum(calls) == 12
    assert len(calls) < 12
    assert all(answer.decision.startswith("jws-") for answer in answers)


async def test_one_bad_question_does_not_fail_its_neighbours(tmp_path: Path):
    """A call that is refused as a whole is asked again, question by question."""

    def pick(asked: list[dict]) -> object:
        bad = any(item["resource"]["id"] == "bad" for item in asked)
        return 400 if bad else permit(asked)

    async with pdp(tmp_path, pick) as (client, _):
        good, bad = await asyncio.gather(
            client.ask(question("good")), client.ask(question("bad")), return_exceptions=True
        )

    assert good.decision == "jws-0"
    assert isinstance(bad, PdpUnavailableError)


@pytest.mark.parametrize(
    "answer",
    [
        500,
        503,
        302,
        {},
        {"evaluations": [], "context": {"decisions": []}},
        {"evaluations": [{"decision": True, "context": {}}], "context": {"decisions": []}},
        {"evaluations": [{"decision": 1, "context": {}}], "context": {"decisions": []}},
        {
            "evaluations": [{"decision": True, "context": {"decision": 7}}],
            "context": {"decisions": ["x"]},
        },
    ],
)
async def test_garbage_is_no_answer(tmp_path: Path, answer: object):
    """Whatever does not fit is a PDP that is not there."""
    async with pdp(tmp_path, lambda _: answer) as (client, _):
        with pytest.raises(PdpUnavailableError):
            await client.ask(question("o"))


async def test_nobody_waits_for_ever_when_the_client_closes(tmp_path: Path):
    """Whoever waits hears that there is no answer."""
    async with pdp(tmp_path, lambda _: None) as (client, _):
        asking = asyncio.create_task(client.ask(question("o")))
        await asyncio.sleep(0.3)
        await client.aclose()

        with pytest.raises(PdpUnavailableError):
            await asyncio.wait_for(asking, 5)


async def test_whoever_waits_for_a_hung_pdp_waits_no_longer_than_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The wait for one's turn counts, and what nobody waits for is not asked."""
    monkeypatch.setattr(authzen, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(authzen, "MAX_EVALUATIONS", 1)
    loop = asyncio.get_running_loop()
    async with pdp(tmp_path, lambda _: None) as (client, calls):
        begun = loop.time()
        asking = [client.ask(question(f"o{number}")) for number in range(10)]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        waited = loop.time() - begun
        await asyncio.sleep(0.5)

    assert [type(answer) for answer in answers] == [PdpUnavailableError] * 10
    assert waited < 0.6
    assert calls == [1] * authzen.MAX_CALLS


async def test_large_questions_travel_in_several_calls(tmp_path: Path):
    """No call grows past what a PDP reads."""
    async with pdp(tmp_path, permit) as (client, calls):
        large = [question(f"o{n}", policy="A" * 2_000_000) for n in range(3)]
        await asyncio.gather(*(client.ask(one) for one in large))

    assert sum(calls) == 3
    assert len(calls) > 1


async def test_a_pdp_that_is_not_there_is_unavailable(tmp_path: Path):
    """No socket, no answer."""
    client = AuthzenClient(str(tmp_path / "none.sock"), "kas")

    with pytest.raises(PdpUnavailableError):
        await client.ask(question("o"))
    await client.aclose()


async def test_a_new_policy_travels_beside_the_former_one(tmp_path: Path):
    """To rebind, and only then: the PDP reads both texts itself."""
    seen: list[dict] = []

    def pick(asked: list[dict]) -> object:
        seen.extend(item["resource"]["properties"] for item in asked)
        return permit(asked)

    asked = RequestedObject("o", bytes(32), bytes(32), bytes(32))
    both = [QuestionObject(asked, "e30=", "e30K")]
    async with pdp(tmp_path, pick) as (client, _):
        await client.ask(Question("rebind", "clinic", bytes(32), both, "token"))
        await client.ask(question("o"))

    assert [item.get("new_policy") for item in seen] == ["e30K", None]
    assert [item["policy"] for item in seen] == ["e30=", "e30="]
