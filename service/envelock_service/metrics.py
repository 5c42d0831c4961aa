"""What a server tells its operators: `/status` and `/metrics`, on a Unix socket of its own.

Each process has `run/status-NAME.sock`, which admits processes of its own user. Metrics are in the
text format of Prometheus. Several processes are told in one answer by `gathered`, each sample with
the label `process`; `up` serves that on a loopback address when `[deployment] metrics` names one.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from envelock_formats.canonical import Json
from envelock_service.health import Health
from envelock_service.resident import resident_bytes
from envelock_service.server import identify, same_user
from envelock_service.sockets import Address, SocketError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX, SUFFIX = "status-", ".sock"
ASK_SECONDS = 2.0
MAX_ANSWER = 4 << 20  # bytes
PROCESS = "process"


def status_socket(data: Path, name: str) -> Path:
    """The socket of the process *name* in the data directory *data*."""
    return data / "run" / f"{PREFIX}{name}{SUFFIX}"


def status_sockets(data: Path) -> dict[str, Path]:
    """Every such socket, by the name of its process; those of the dead may be among them."""
    found = sorted((data / "run").glob(f"{PREFIX}*{SUFFIX}"))
    return {path.name.removeprefix(PREFIX).removesuffix(SUFFIX): path for path in found}


def operator_application(
    health: Health,
    registry: CollectorRegistry,
    started: float,
    show: Callable[[], Mapping[str, Json]],
) -> web.Application:
    """The application for operators.

    Args:
        health: What is told of the server's parts.
        registry: What is told as metrics, beside the parts.
        started: When the process began, in unix seconds.
        show: What else `/status` tells.
    """
    registry.register(_Parts(health))

    async def status(_request: web.Request) -> web.Response:
        parts: list[Json] = [dict(state.shown()) for state in health.parts()]
        about: dict[str, Json] = {
            "pid": os.getpid(),
            "started": int(started),
            "rss_bytes": resident_bytes(),
            "parts": parts,
        }
        return _json(about | dict(show()))

    async def metrics(_request: web.Request) -> web.Response:
        text = generate_latest(registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(middlewares=[identify(_request_id), same_user])
    app.router.add_get("/status", status)
    app.router.add_get("/metrics", metrics)
    return app


def _request_id() -> str:
    return f"r-{secrets.token_hex(8)}"


async def fetch(path: Path, what: str) -> bytes | None:
    """What the process at the socket *path* answers to `GET` *what*; None when nothing in time."""
    try:
        address = Address(path)
    except SocketError:
        return None
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    connector = aiohttp.UnixConnector(path=address.text)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://process{what}") as response,
        ):
            size = response.content_length or 0
            if response.status != HTTPStatus.OK or size > MAX_ANSWER:
                return None
            return await response.content.readexactly(size)
    except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    finally:
        address.close()


async def gathered(data: Path) -> bytes:
    """The metrics of every process of the data directory *data*, each with its name as a label.

    A process that does not answer is told as `envelock_process_up` 0.
    """
    found = status_sockets(data)
    texts = await asyncio.gather(*(fetch(path, "/metrics") for path in found.values()))
    registry = CollectorRegistry()
    registry.register(_Gathered(dict(zip(found, texts, strict=True))))
    return generate_latest(registry)


def metrics_application(data: Path) -> web.Application:
    """The application that tells `gathered` of *data* to whoever reaches it."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await gathered(data), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


class _Parts:
    """A collector: the parts of a server."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Two gauges for each part."""
        works = GaugeMetricFamily("envelock_part_up", "Whether a part works", labels=["part"])
        since = GaugeMetricFamily(
            "envelock_part_since_seconds", "When it began to, or to fail", labels=["part"]
        )
        for state in self._health.parts():
            works.add_metric([state.name], float(state.up))
            since.add_metric([state.name], int(state.since))
        yield works
        yield since


class _Gathered:
    """A collector: what several processes told, in families."""

    def __init__(self, texts: Mapping[str, bytes | None]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Families of all, every sample with the name of its process."""
        alive = GaugeMetricFamily("envelock_process_up", "Whether it answers", labels=[PROCESS])
        families: dict[str, Metric] = {}
        for process, text in self._texts.items():
            alive.add_metric([process], float(text is not None))
            for told in text_string_to_metric_families((text or b"").decode()):
                family = families.setdefault(
                    told.name, Metric(told.name, told.documentation, told.type)
                )
                for sample in told.samples:
                    labels = {PROCESS: process, **sample.labels}
                    family.samples.append(sample._replace(labels=labels))
        yield alive
        yield from families.values()


def _json(value: Mapping[str, Json]) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
