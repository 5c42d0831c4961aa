"""A worker watches what releases need, and counts without telling of whom."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from kas.world import World, running_world
from prometheus_client import generate_latest

from envelock_kas import watching
from envelock_kas.meters import REASONS, reason_class
from envelock_kas.records import Origin
from envelock_kas.watching import InForce, Probes
from envelock_kas.worker import Worker
from envelock_ledger.errors import LedgerUnavailableError
from envelock_service import health
from envelock_service.problem import Problem


class FakePdp:
    """Says what is in force, or fails; permits nothing by itself."""

    def __init__(self) -> None:
        self.in_force = InForce({"clinic": 1})
        self.earlier: InForce | None = None  # what it says when it is asked first
        self.asked = 0
        self.trouble = ""

    async def __call__(self) -> InForce:
        """Answer the probe."""
        if self.trouble:
            raise OSError(self.trouble)
        self.asked += 1
        return self.earlier if self.earlier and self.asked == 1 else self.in_force

    async def keys(self) -> None:
        """Have the issuers' keys."""
        if self.trouble:
            raise OSError(self.trouble)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A KAS in one process."""
    async with running_world(tmp_path) as found:
        yield found


@pytest.fixture
def pdp() -> FakePdp:
    """What the probes ask."""
    return FakePdp()


@pytest.fixture
async def worker(world: World, pdp: FakePdp) -> Worker:
    """A worker that probes everything, and finds that all of it works."""
    made = Worker(replace(world.parts, probes=Probes(pdp=pdp, issuer=pdp.keys)))
    await made.projection.catch_up()
    await made.watch.health.look()
    await made.watch.health.look()
    return made


def down(worker: Worker) -> dict[str, str]:
    """What is down, and why."""
    return {state.name: state.detail for state in worker.watch.health.down()}


def told(worker: Worker) -> str:
    """The metrics."""
    return generate_latest(worker.watch.meters.registry).decode()


async def test_everything_that_works_is_up(worker: Worker):
    """All five parts."""
    names = [state.name for state in worker.watch.health.parts()]

    assert down(worker) == {}
    assert names == ["ledger", "custody", "pdp", "policy", "issuer"]


async def test_each_part_is_told_by_its_own_name(worker: Worker, world: World, pdp: FakePdp):
    """What the PDP's silence hides of the policy is not told as the policy's fault."""
    pdp.trouble = "refused"
    await worker.watch.health.look()
    silent = down(worker)
    pdp.trouble = ""
    await worker.watch.health.look()
    await world.ledger.aclose()
    await worker.watch.health.look()

    assert set(silent) == {"pdp", "issuer"}
    assert set(down(worker)) == {"ledger"}


async def test_a_policy_is_up_as_soon_as_it_is_in_force(worker, pdp, monkeypatch):
    """A deployment that has just become ready says so at once, not a round later."""
    monkeypatch.setattr(health, "PAUSE_SECONDS", 60.0)
    pdp.in_force = InForce({}, ["clinic"])
    task = asyncio.create_task(worker.watch.health.watch())
    await asyncio.sleep(0.1)  # the first round of each part is over, and most pause for long
    missing = down(worker)
    pdp.in_force = InForce({"clinic": 1})
    for _ in range(500):
        await asyncio.sleep(0.02)
        if not down(worker):
            break
    task.cancel()

    assert missing == {"policy": "not in force: clinic"}
    assert down(worker) == {}


@pytest.mark.parametrize(
    ("in_force", "detail"),
    [
        (InForce({"clinic": 1}, ["bolt"]), "not in force: bolt"),
        (InForce({}), "no policy is in force"),
        (InForce({"clinic": 2}), "clinic: the PDP is at epoch 2, the ledger at 1"),
    ],
)
async def test_a_policy_that_is_missing_or_stale_is_told(
    worker, pdp, monkeypatch, in_force, detail
):
    """A stale one after a moment, since the two cannot learn of a change at once."""
    monkeypatch.setattr(watching, "LAG_SECONDS", 0.0)
    pdp.in_force = in_force
    for _ in range(3):
        await worker.watch.health.look()
    found = down(worker)
    pdp.in_force = InForce({"clinic": 1})
    for _ in range(2):
        await worker.watch.health.look()

    assert found == {"policy": detail}
    assert down(worker) == {}


async def test_what_the_pdp_said_long_ago_is_not_held_against_it(worker, world, pdp, monkeypatch):
    """While it is used it is not probed: before its epoch is found wrong, it is asked."""
    monkeypatch.setattr(watching, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(watching, "SOON_SECONDS", 0.0)
    await world.announce("clinic", b"another bundle")
    await worker.projection.catch_up()
    pdp.in_force = InForce({"clinic": 2})
    pdp.earlier = InForce({"clinic": 1})
    found = []
    for _ in range(3):
        pdp.asked = 0
        await worker.watch.health.look()
        found.append(down(worker))

    assert worker.watch.epochs() == {"clinic": 2}
    assert found == [{}] * 3


async def test_a_pdp_that_lies_is_down_until_it_is_honest(worker: Worker, world: World):
    """Its probe is answered all the while."""
    request = world.request(world.person("doctor"), await world.seal())
    world.pdp.changes = {"iss": "another"}
    with pytest.raises(Problem):
        await request.send(worker)
    await worker.watch.health.look()
    lying = down(worker)
    world.pdp.changes = {}
    await request.send(worker)

    assert set(lying) == {"pdp"}
    assert lying["pdp"].startswith("false answer")
    assert down(worker) == {}


async def test_callers_cannot_take_a_part_down(worker: Worker, world: World):
    """A decision that does not fit, brought along by its caller, says nothing of the PDP."""
    doctor, sealed = world.person("doctor"), await world.seal()
    with pytest.raises(Problem):
        await world.request(doctor, sealed, decision="e30.e30.e30").send(worker)

    assert down(worker) == {}


async def test_a_token_that_expires_on_the_way_is_not_the_pdps_fault(worker: Worker, world: World):
    """No decision outlives it, so its caller could have every one of them come too late."""
    now = int(time.time())
    world.pdp.changes = {"iat": now - 1, "nbf": now - 1, "exp": now}
    request = world.request(world.person("doctor"), await world.seal())
    caller = request.person.authenticated()
    caller = replace(caller, token=replace(caller.token, expires=now))
    with pytest.raises(Problem, match="pdp_unavailable"):
        await worker.surface.release(caller, request.token, Origin("r-test"))

    assert down(worker) == {}


async def test_an_append_of_unknown_outcome_counts_at_once(worker: Worker, world: World):
    """Also while probes, which append nothing, succeed."""
    request = world.request(world.person("doctor"), await world.seal())
    genuine = world.ledger.append

    async def forgetful(_entries):
        raise LedgerUnavailableError("disk full")

    world.ledger.append = forgetful  # type: ignore[method-assign]
    with pytest.raises(Problem):
        await request.send(worker)
    await worker.watch.health.look()
    found = down(worker)
    world.ledger.append = genuine  # type: ignore[method-assign]
    await request.send(worker)

    assert found == {"ledger": "disk full"}
    assert down(worker) == {}


async def test_the_custody_is_tried_with_a_key_that_is_in_use(worker: Worker, world: World):
    """Finding the key is not enough: an operation is done with it."""
    await world.seal()
    await worker.projection.catch_up()
    before = world.custody.operations["agree"]
    await worker.watch.health.look()

    assert world.custody.operations["agree"] == before + 1


async def test_counts_what_was_recorded_by_words_of_ours(worker: Worker, world: World):
    """Releases, refusals by class, latencies; no subject, tenant or object."""
    world.pdp.reasons["mallory"] = "entitlement: clearance"
    sealed = await world.seal()
    await world.request(world.person("doctor"), sealed).send(worker)
    await world.request(world.person("mallory"), sealed).send(worker)
    text = told(worker)

    assert 'envelock_records_total{type="release"} 1.0' in text
    assert 'envelock_refusals_total{reason="entitlement"} 1.0' in text
    assert "envelock_append_seconds_count 2.0" in text
    assert 'envelock_custody_seconds_count{operation="agree"} 1.0' in text
    assert "envelock_ledger_records" in text
    assert not [word for word in ("doctor", "mallory", "clinic", sealed.id) if word in text]


@pytest.mark.parametrize("reason", ["", "x" * 300, 'mine"} 1\nevil 2', "entitlements: all"])
def test_no_reason_makes_a_label_of_its_own(reason: str):
    """Reasons quote what callers send; classes are ours."""
    assert reason_class(reason) == "other"
    assert reason_class("entitlement: clearance") in REASONS


async def test_codes_that_are_none_make_no_label(worker: Worker):
    """Requests that proved nobody are counted by codes of problems alone."""
    worker.counts |= {"invalid_token": 3, "made up": 4}

    assert 'envelock_unauthenticated_total{code="invalid_token"} 3.0' in told(worker)
    assert "made up" not in told(worker)
