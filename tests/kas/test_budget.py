"""No symmetric key wraps more often than it may: counted before, for all workers, over restarts."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from kas.test_rebind import INTERNAL, asking, policy, rebound
from kas.test_release import replaced
from kas.world import SECRET, CountingCustody, Person, World, another_worker, path, running_world

from envelock_formats.framing import b64url
from envelock_formats.wire import SealAnswer, SealBody, write_request_token
from envelock_formats.wrap import public_pem
from envelock_kas.keys import budget
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.keys.states import State
from envelock_kas.records import Origin
from envelock_kas.worker import Worker
from envelock_ledger.entry import Entry, Outcome
from envelock_ledger.errors import LedgerUnavailableError
from envelock_service.problem import Problem

LIMIT = 1000
RANGE = 64
OPERATOR = Actor(Origin("r-operator"))


class PerKeyCustody(CountingCustody):
    """Counts what each key wrapped."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.wraps: Counter[str] = Counter()

    async def wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        self.wraps[handle] += 1
        return await super().wrap(handle, dek, aad)


@pytest.fixture
def custody(tmp_path: Path) -> PerKeyCustody:
    """Where the keys lie."""
    return PerKeyCustody(tmp_path / "counted")


@pytest.fixture
async def world(
    tmp_path: Path, custody: PerKeyCustody, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A KAS whose symmetric keys wrap a thousand times each."""
    monkeypatch.setattr(budget, "RANGE", RANGE)
    async with running_world(tmp_path, custody=custody) as running:
        lowered = msgspec.structs.replace(running.parts.settings, max_wraps=LIMIT)
        running.parts = replace(running.parts, settings=lowered)
        running.worker = await another_worker(running)
        yield running


async def issued(
    world: World, person: Person, count: int, worker: Worker | None = None
) -> SealAnswer:
    """*count* data keys."""
    key = ec.generate_private_key(ec.SECP256R1())
    nonce = b64url(os.urandom(16))
    body = SealBody(public_pem(key.public_key()), policy(SECRET), nonce, count, "vault")
    token = write_request_token(body, person.key, now=int(time.time()))
    issue = (worker or world.worker).surface.issue
    return await issue(person.authenticated(), token, Origin("r-seal"))


async def test_a_range_is_recorded_before_its_first_wrap(world: World, custody: PerKeyCustody):
    """One record for each range: which key, and how often it may have wrapped by now."""
    doctor = world.person("doctor")
    kid = (await issued(world, doctor, 50)).kid
    await issued(world, doctor, 14)
    first = await world.records("key.wraps")
    await issued(world, doctor, 1)
    [_, second] = await world.records("key.wraps")
    types = [record["typ"] for record in await world.records()]

    assert [(record["kid"], record["upto"]) for record in first] == [(kid, RANGE)]
    assert (second["upto"], second["moves"]) == (2 * RANGE, {f"wraps:{kid}": 2})
    assert types.index("key.wraps") < types.index("issue")
    assert list(custody.wraps.values()) == [65]


async def test_a_key_that_is_used_up_is_rotated(world: World, custody: PerKeyCustody):
    """After a thousand wraps the next version wraps, and the former one still opens."""
    doctor = world.person("doctor")
    sealed = await world.seal_online(doctor)
    answers = [await issued(world, doctor, 37) for _ in range(27)]  # 999 more
    last = await issued(world, doctor, 1)
    opened = await world.request(doctor, sealed).send()
    former, newest = world.worker.projection.registry.versions(path(last.kid.rsplit(":", 1)[0]))
    [rotated] = [one for one in await world.records("key.lifecycle") if one["op"] == "rotate"]

    assert {answer.kid for answer in answers} == {str(former.id)}
    assert last.kid == str(newest.id)
    assert (former.state, newest.state) == (State.DEPRECATED, State.ACTIVE)
    assert opened.shares == [sealed.share]
    assert "sub" not in rotated.get("c", {})  # it was nobody's wish
    assert list(custody.wraps.values()) == [LIMIT, 1]


async def test_workers_share_one_count(world: World, custody: PerKeyCustody):
    """Two at once, one of them replaced on the way; what a worker had left is not used again."""
    chance = random.Random(1)  # noqa: S311 sizes of requests
    doctor = world.person("doctor")
    workers = [world.worker, await another_worker(world)]
    refused: set[str] = set()
    for _ in range(12):
        workers[chance.randrange(2)] = await another_worker(world)
        sizes = [chance.randint(1, 60) for _ in range(6)]
        calls = [issued(world, doctor, n, workers[place % 2]) for place, n in enumerate(sizes)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        refused |= {one.code for one in told if isinstance(one, Problem)}
        assert all(isinstance(one, SealAnswer | Problem) for one in told)
    reserved = {one["kid"]: one["upto"] for one in await world.records("key.wraps")}

    assert refused <= {"policy_stale"}  # the key was rotated on the way: ask again
    assert len(custody.wraps) > 1
    assert max(custody.wraps.values()) <= LIMIT
    assert max(reserved.values()) == LIMIT


async def test_two_workers_at_the_end_make_one_new_version(world: World):
    """Both find it used up, and one of them rotates."""
    doctor = world.person("doctor")
    other = await another_worker(world)
    for _ in range(LIMIT // 50):
        await issued(world, doctor, 50)
    answers = await asyncio.gather(issued(world, doctor, 9), issued(world, doctor, 9, other))

    assert {answer.kid.rsplit(":", 1)[1] for answer in answers} == {"v2"}


async def test_a_worker_that_was_behind_rotates_nothing_again(world: World):
    """It learns at once that the key is used up, and that there is another."""
    doctor = world.person("doctor")
    behind = await another_worker(world)
    first = (await issued(world, doctor, 1, behind)).kid
    while (newest := (await issued(world, doctor, 50)).kid) == first:
        pass
    answer = await issued(world, doctor, 64, behind)

    assert answer.kid == newest
    assert len(world.worker.projection.registry.versions(path(newest.rsplit(":", 1)[0]))) == 2


async def test_requests_at_once_share_a_range(world: World):
    """A worker reserves once for everybody who waits for it."""
    doctor = world.person("doctor")
    await asyncio.gather(*(issued(world, doctor, 4) for _ in range(16)))

    assert len(await world.records("key.wraps")) == 1


async def test_what_cannot_be_counted_is_not_wrapped(world: World, custody: PerKeyCustody):
    """The ledger takes no reservation: 503, and the custody is not asked."""
    doctor = world.person("doctor")
    await issued(world, doctor, 60)
    append = world.ledger.append

    async def failing(entries: list[Entry]) -> list[Outcome]:
        if any(b'"key.wraps"' in entry.body for entry in entries):
            raise LedgerUnavailableError("the disk is full")
        return await append(entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.ledger, "append", failing)
        with pytest.raises(Problem, match="ledger_unavailable"):
            await issued(world, doctor, 5)
    wraps = custody.wraps.total()
    await issued(world, doctor, 5)

    assert wraps == 60
    assert custody.wraps.total() == 65


async def test_a_reservation_of_unknown_outcome_is_lost(world: World, custody: PerKeyCustody):
    """It may be on record: the next one comes after it, and nothing is wrapped twice."""
    doctor = world.person("doctor")
    append = world.ledger.append

    async def silent(entries: list[Entry]) -> list[Outcome]:
        outcomes = await append(entries)
        if any(b'"key.wraps"' in entry.body for entry in entries):
            raise LedgerUnavailableError("no answer in time")
        return outcomes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.ledger, "append", silent)
        with pytest.raises(Problem, match="ledger_unavailable"):
            await issued(world, doctor, 5)
    await issued(world, doctor, 5)
    reserved = [record["upto"] for record in await world.records("key.wraps")]

    assert reserved == [RANGE, 2 * RANGE]
    assert custody.wraps.total() == 5


async def test_rebinding_is_counted_too(world: World, custody: PerKeyCustody):
    """It wraps under the newest version, or the next when that is used up."""
    doctor = world.person("doctor")
    sealed = await world.seal_online(doctor)
    for _ in range(27):
        await issued(world, doctor, 37)
    new = await rebound(world, doctor, sealed, policy(INTERNAL))
    opened = await world.request(doctor, new).send()

    assert (new.keys[0].kid or "").endswith(":v2")
    assert opened.shares == [sealed.share]
    assert list(custody.wraps.values()) == [LIMIT, 1]


async def test_what_was_never_wrapped_online_makes_no_key(world: World):
    """An online wrap that names a path without keys opens nothing, and has nothing made."""
    doctor = world.person("doctor")
    sealed = await world.seal_online(doctor)
    before = len(await world.records())
    named = replaced(sealed, kid="clinic:vault:v1")
    with pytest.raises(Problem):
        await asking(world, doctor, named, policy(INTERNAL)).send()
    [denied] = (await world.records())[before:]

    assert denied["typ"] == "denied"
    assert denied["objs"][0]["kid"] == "clinic:vault:v1"


async def test_a_suspended_key_is_not_rotated(world: World):
    """Used up or not, it stays shut."""
    doctor = world.person("doctor")
    for _ in range(LIMIT // 50):
        kid = (await issued(world, doctor, 50)).kid
    shut = path(kid.rsplit(":", 1)[0])
    await world.worker.lifecycle.change(shut, "suspend", below=False, actor=OPERATOR)
    with pytest.raises(Problem, match="conflict"):
        await issued(world, doctor, 1)

    assert len(world.worker.projection.registry.versions(shut)) == 1


async def test_health_wraps_once(world: World, custody: PerKeyCustody):
    """Its looks are not counted, so they must not add up."""
    await issued(world, world.person("doctor"), 1)
    for _ in range(5):
        await world.worker.watch.health.look()

    assert custody.wraps.total() == 2
    assert custody.operations["unwrap"] == 5
