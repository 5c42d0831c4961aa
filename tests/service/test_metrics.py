"""What processes tell of themselves is read with limits."""

import os
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from envelock_service import metrics
from envelock_service.health import Health
from envelock_service.sockets import bind


async def test_an_answer_is_read_up_to_its_limit_only(tmp_path: Path, monkeypatch):
    """A process that says too much is one that says nothing."""

    async def told(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * int(request.query["size"]))

    monkeypatch.setattr(metrics, "MAX_ANSWER", 1000)
    app = web.Application()
    app.router.add_get("/metrics", told)
    runner = web.AppRunner(app)
    await runner.setup()
    path = tmp_path / "status-odd.sock"
    await web.SockSite(runner, bind(path)).start()
    try:
        fits = await metrics.fetch(path, "/metrics?size=1000")
        too_long = await metrics.fetch(path, "/metrics?size=1001")
    finally:
        await runner.cleanup()

    assert fits == b"x" * 1000
    assert too_long is None


@pytest.mark.parametrize("what", ["/status", "/metrics"])
async def test_another_user_at_the_status_socket_is_refused(tmp_path: Path, monkeypatch, what):
    """A plain 403, whoever handed the socket on; the kernel's word is made to differ here."""
    monkeypatch.setattr("envelock_service.server.peer_uid", lambda _peer: os.geteuid() + 1)
    app = metrics.operator_application(
        Health([], time.time, time.monotonic), CollectorRegistry(), 0.0, dict
    )
    runner = web.AppRunner(app)
    await runner.setup()
    path = tmp_path / "status-odd.sock"
    await web.SockSite(runner, bind(path)).start()
    connector = aiohttp.UnixConnector(path=str(path))
    try:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://process{what}") as response,
        ):
            answer = await response.json(content_type=None)
    finally:
        await runner.cleanup()

    assert (response.status, answer["code"]) == (403, "access_denied")
