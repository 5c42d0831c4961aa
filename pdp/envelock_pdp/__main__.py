"""`python -m envelock_pdp --data DIR`: the decision point as a process.

Reads `DIR/envelock.toml`, section `[pdp]` for itself and `[callers]` for tokens. Listens on
loopback for callers and on `DIR/run/pdp.sock` for enforcement points; asks for epochs at
`DIR/run/kas.sock`; keeps its keys in `DIR/secrets` and publishes them in `DIR/pdp/jwks.json`.
Prints one JSON line when it is ready, everything else on stderr. SIGTERM ends it.
"""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import orjson
import uvloop
from aiohttp import web

from envelock_formats.canonical import Json
from envelock_pdp import PdpError
from envelock_pdp.decide import Decider
from envelock_pdp.epochs import KasEpochs
from envelock_pdp.http import Surface, internal_application, public_application
from envelock_pdp.inforce import Policies
from envelock_pdp.settings import PdpSettings
from envelock_pdp.sign import load_keys, publish_keys
from envelock_pdp.watching import MeteredDecider, Meters, watched
from envelock_service import sockets
from envelock_service.buckets import Buckets
from envelock_service.callers import Callers
from envelock_service.health import Health
from envelock_service.metrics import operator_application, status_socket
from envelock_service.oidc import CallerSettings, TokenVerifier, with_development_issuer
from envelock_service.server import runner
from envelock_service.settings import DeploymentSettings, SettingsError, section

READY_SECONDS = 5.0
KAS_SECONDS = 2.0  # how long the first announcement waits for the KAS to be there


def main() -> int:
    """Run until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m envelock_pdp")
    parser.add_argument("--data", type=Path, required=True, help="the data directory")
    parser.add_argument("--policies", default="", help="a bundle or a folder of them")
    parser.add_argument("--listen", default="", help="HOST:PORT instead of the setting")
    parser.add_argument(
        "--reserved", action="store_true", help="share the port with whoever keeps it for us"
    )
    asked = parser.parse_args()
    folder: Path = asked.data
    logging.basicConfig(stream=sys.stderr, format="pdp: %(message)s", level=logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(serve(folder.resolve(), asked.policies, asked.listen, reserved=asked.reserved))
    except (PdpError, SettingsError, sockets.SocketError) as error:
        say(f"error: {error}")
        if error.hint:
            say(f"next: {error.hint}")
        return error.exit_code
    return 0


async def serve(folder: Path, bundles: str, listen: str, *, reserved: bool) -> None:
    """Serve the data directory *folder* until SIGTERM or SIGINT.

    *bundles* and *listen* stand in for the settings `policies` and `listen` unless they are empty.
    *reserved* says that a process of our user holds the port for us with SO_REUSEPORT.

    Raises:
        SettingsError, PdpError, SocketError: It cannot start.
    """
    settings = section(folder / "envelock.toml", "pdp", PdpSettings)
    settings = msgspec.structs.replace(
        settings, policies=bundles or settings.policies, listen=listen or settings.listen
    )
    callers = with_development_issuer(
        section(folder / "envelock.toml", "callers", CallerSettings),
        section(folder / "envelock.toml", "deployment", DeploymentSettings).environment,
    )
    keys = load_keys(folder / "secrets")
    publish_keys(keys, folder / "pdp" / "jwks.json")
    epochs = KasEpochs(folder / "run" / "kas.sock")
    policies = Policies(folder / settings.policies, epochs, settings.confirm_rollback, say)
    tokens = TokenVerifier(callers, time.time, time.monotonic)
    health, meters = watched(policies, tokens.require_keys), Meters()
    meters.follow(policies)
    decider = Decider(
        policies,
        keys,
        issuer=settings.issuer,
        lifetime_seconds=settings.decision_seconds,
        clock=time.time,
        entropy=os.urandom,
    )
    async with AsyncExitStack() as stack:
        public = _listen(settings, reserved=reserved)
        stack.callback(public.close)
        url = _url(public)
        surface = Surface(
            url=settings.origins[0] if settings.origins else url,
            decider=MeteredDecider(decider, meters),
            policies=policies,
            tokens=tokens,
            callers=Callers(tokens, (*settings.origins, url), time.time),
            buckets=Buckets(settings.subject_per_second, settings.subject_burst, time.monotonic),
            jwks=keys.jwks(),
            request_ids=lambda: f"r-{secrets.token_hex(8)}",
            health=health,
        )
        await _start(stack, public_application(surface), public)
        path = folder / "run" / "pdp.sock"
        internal = sockets.bind(path)
        stack.callback(sockets.unbind, internal, path)
        await _start(stack, internal_application(surface), internal)
        await _tell_operators(stack, surface, meters, status_socket(folder, "pdp"))
        await epochs.arrived(KAS_SECONDS)
        await _work(policies, health, url)


async def _tell_operators(
    stack: AsyncExitStack, surface: Surface, meters: Meters, path: Path
) -> None:
    def shown() -> dict[str, Json]:
        policies = surface.policies
        epochs: dict[str, Json] = {one.bundle.tenant: one.epoch for one in policies.all()}
        return {"epochs": epochs, "missing": list(policies.missing()), "url": surface.url}

    bound = sockets.bind(path)
    stack.callback(sockets.unbind, bound, path)
    app = operator_application(surface.health, meters.registry, time.time(), shown)
    await _start(stack, app, bound)


def say(line: str) -> None:
    """Print one line for the operator."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def _work(policies: Policies, health: Health, url: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(policies.run())
        announcing = group.create_task(_announce_ready(policies, url))
        looking = group.create_task(health.watch())
        await stopped.wait()
        looking.cancel()
        watching.cancel()
        announcing.cancel()


async def _announce_ready(policies: Policies, url: str) -> None:
    """Print the ready line once every bundle is in force, or after a while with what is missing."""
    deadline = time.monotonic() + READY_SECONDS
    while not policies.all() or policies.missing():
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(0.02)
    bundles = [{"tenant": found.bundle.tenant, "epoch": found.epoch} for found in policies.all()]
    ready: dict[str, object] = {"ready": "pdp", "url": url, "bundles": bundles}
    if missing := policies.missing():
        ready["missing"] = missing
    sys.stdout.write(orjson.dumps(ready).decode() + "\n")
    sys.stdout.flush()


def _listen(settings: PdpSettings, *, reserved: bool) -> socket.socket:
    host, port = settings.address
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server(
            (host, int(port)), family=family, backlog=sockets.BACKLOG, reuse_port=reserved
        )
    except OSError as error:
        raise SettingsError(f"[pdp] listen {settings.listen}: {error.strerror}") from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _start(stack: AsyncExitStack, app: web.Application, listening: socket.socket) -> None:
    running = runner(app)
    await running.setup()
    stack.push_async_callback(running.cleanup)
    await web.SockSite(running, listening).start()


if __name__ == "__main__":
    sys.exit(main())
