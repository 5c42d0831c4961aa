"""Announcing over the KAS's Unix socket."""

import asyncio

import pytest
from aiohttp import web
from pdp.world import bundle

from envelock_formats.framing import b64url
from envelock_pdp import EpochsUnavailableError, RollbackError
from envelock_pdp.epochs import Epoch, KasEpochs
from envelock_service import sockets
from envelock_service.server import runner

BUNDLE = bundle(head='sharing = ["globex"]\n')


class Kas:
    """The other end: keeps what it was told, answers what it is set to."""

    def __init__(self):
        self.told, self.status, self.body = [], 200, b'{"epoch":7,"record":41,"later":1}'

    async def announce(self, request):
        """Answer as set."""
        self.told.append(await request.json())
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def kas(tmp_path):
    """A KAS's internal socket below *tmp_path*."""
    serving, told = web.Application(), Kas()
    serving.router.add_post("/internal/v1/policies", told.announce)
    path = tmp_path / "kas.sock"
    bound, running = sockets.bind(path), runner(serving)
    await running.setup()
    await web.SockSite(running, bound).start()
    yield told
    await running.cleanup()
    sockets.unbind(bound, path)


async def test_announces_all_of_it(kas, tmp_path):
    """Tenant, digest, namespaces, sharing, and whether an operator confirmed."""
    epoch = await KasEpochs(tmp_path / "kas.sock").announce(BUNDLE, confirm=True)

    assert epoch == Epoch(7, 41)
    assert kas.told == [
        {
            "tenant": "clinic",
            "bundle": b64url(BUNDLE.digest),
            "namespaces": ["clinic.example"],
            "sharing": ["globex"],
            "confirm": True,
        }
    ]


async def test_a_rollback_is_told_from_other_conflicts(kas, tmp_path):
    """Only `policy_rollback` asks for an operator."""
    kas.status, kas.body = 409, b'{"code":"policy_rollback"}'
    with pytest.raises(RollbackError):
        await KasEpochs(tmp_path / "kas.sock").announce(BUNDLE, confirm=False)
    kas.body = b'{"code":"conflict"}'

    with pytest.raises(EpochsUnavailableError):
        await KasEpochs(tmp_path / "kas.sock").announce(BUNDLE, confirm=False)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"{}"), (200, b'{"epoch":"7","record":1}'), (503, b"{}"), (302, b""), (409, b"?")],
)
async def test_an_answer_that_is_none_is_no_epoch(kas, tmp_path, status, body):
    """Whatever is not understood is tried again later."""
    kas.status, kas.body = status, body

    with pytest.raises(EpochsUnavailableError):
        await KasEpochs(tmp_path / "kas.sock").announce(BUNDLE, confirm=False)


async def test_nobody_there_is_no_epoch(tmp_path):
    """Neither without a socket nor with a dead one."""
    path = tmp_path / "kas.sock"
    with pytest.raises(EpochsUnavailableError):
        await KasEpochs(path).announce(BUNDLE, confirm=False)
    sockets.bind(path).close()

    with pytest.raises(EpochsUnavailableError):
        await asyncio.wait_for(KasEpochs(path).announce(BUNDLE, confirm=False), 5)
