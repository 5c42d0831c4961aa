"""What processes tell of themselves is read with limits."""

from pathlib import Path

from aiohttp import web

from envelock_service import metrics
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
