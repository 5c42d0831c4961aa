"""The composition root of a KAS worker: `python -m envelock_kas --data DIR --worker N`.

Several workers share one port; the kernel deals connections out. Worker 0 also serves the PDP on
`DIR/run/kas.sock` and destroys keys that are due. Prints one JSON line when it is ready, and one on
stderr when it cannot be.
"""

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from envelock_formats.canonical import Json
from envelock_kas.authzen import AuthzenClient
from envelock_kas.catalogue import PdpCatalogue
from envelock_kas.custody import Custody
from envelock_kas.custody.local import LocalCustody
from envelock_kas.keys.registry import RegistryError
from envelock_kas.opentdf.settings import OpenTdfSettings
from envelock_kas.pdp_keys import PinnedKeys
from envelock_kas.pdp_probe import PdpProbe
from envelock_kas.pdp_socket import PdpSocket
from envelock_kas.settings import (
    CustodySettings,
    KasSettings,
    require_algorithms,
    require_safe_address,
)
from envelock_kas.watching import Probes, Watch
from envelock_kas.worker import Parts, Worker
from envelock_ledger.errors import LedgerError
from envelock_ledger.note import VerifierKey
from envelock_ledger.remote import LedgerClient
from envelock_ledger.settings import WRITING_ROLE, socket_path
from envelock_service.callers import Callers
from envelock_service.loop import run
from envelock_service.metrics import operator_application, status_socket
from envelock_service.oidc import CallerSettings, TokenVerifier, with_development_issuer
from envelock_service.server import runner
from envelock_service.settings import FILE, DeploymentSettings, SettingsError, section
from envelock_service.sockets import Address, SocketError, bind, unbind

PDP_URL = "ENVELOCK_PDP_URL"
MIN_SECRET = 16


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    parser = argparse.ArgumentParser(prog="envelock_kas", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data directory")
    parser.add_argument("--worker", type=int, default=0, help="0 also keeps house")
    parser.add_argument("--listen", default="", help="HOST:PORT instead of the setting")
    parser.add_argument("--ledger-key", default="", help="the ledger's key instead of the setting")
    asked = parser.parse_args()
    try:
        run(serve(asked.data, asked.worker, asked.listen, asked.ledger_key))
    except (SettingsError, SocketError, LedgerError, RegistryError, OSError) as error:
        hint = getattr(error, "hint", None)
        print(json.dumps({"error": str(error), "next": hint}), file=sys.stderr)  # noqa: T201 the interface
        return int(getattr(error, "exit_code", 5))
    return 0


async def serve(data: Path, worker: int, listen: str, ledger_key: str) -> None:
    """Put a worker together, serve until a signal, and take it apart.

    Raises:
        SettingsError: A setting is unknown, missing or wrong.
        LedgerError, RegistryError: The ledger cannot be read.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = section(data / FILE, "kas", KasSettings)
    host, _, port = (listen or settings.listen).rpartition(":")
    require_safe_address(settings, host)
    async with AsyncExitStack() as stack:
        parts = await _parts(stack, data, settings, ledger_key, f"{host}:{port}")
        made = Worker(parts)
        await stack.enter_async_context(made.running(keeper=worker == 0))
        await stack.enter_async_context(_watching(made.watch))
        if worker == 0:
            await _serve_internal(stack, made.internal_app, data / "run" / "kas.sock")
        watch = made.watch
        operators = operator_application(
            watch.health, watch.meters.registry, time.time(), watch.shown
        )
        await _serve_internal(stack, operators, status_socket(data, f"kas-{worker}"))
        public = await _started(stack, made.app)
        site = web.TCPSite(
            public, host, int(port), reuse_port=True, ssl_context=tls_of(data, settings)
        )
        await site.start()
        print(json.dumps({"ready": "kas", "worker": worker}), flush=True)  # noqa: T201 the interface
        await stop.wait()


async def _parts(
    stack: AsyncExitStack, data: Path, settings: KasSettings, ledger_key: str, address: str
) -> Parts:
    deployment = section(data / FILE, "deployment", DeploymentSettings)
    callers = section(data / FILE, "callers", CallerSettings)
    callers = with_development_issuer(callers, deployment.environment)
    custody_settings = section(data / FILE, "custody", CustodySettings)
    custody = custody_of(data, custody_settings, deployment)
    stack.push_async_callback(custody.aclose)
    require_algorithms(settings, custody)
    ledger = LedgerClient(socket_path(data, WRITING_ROLE))
    stack.push_async_callback(ledger.aclose)
    pdp_socket = Address(data / "run" / "pdp.sock")
    stack.callback(pdp_socket.close)
    pdp = AuthzenClient(pdp_socket.text, settings.id)
    stack.push_async_callback(pdp.aclose)
    probed, beside = PdpSocket(pdp_socket.text), PdpSocket(pdp_socket.text)
    stack.push_async_callback(probed.aclose)
    stack.push_async_callback(beside.aclose)
    scheme = "https" if settings.tls_cert_file else "http"
    origins = [settings.url.rstrip("/"), f"{scheme}://{address}"]
    tokens = TokenVerifier(callers, time.time, time.monotonic)
    return Parts(
        settings=settings,
        ledger=ledger,
        ledger_key=VerifierKey.parse(ledger_key or settings.ledger_key),
        pdp=pdp,
        pdp_keys=PinnedKeys(data / settings.pdp_keys_file),
        callers=Callers(tokens, origins, time.time),
        custodies={custody.name: custody},
        custody=custody.name,
        grace_seconds=custody_settings.grace_seconds,
        configuration=_configuration(settings, callers, ledger_key or settings.ledger_key),
        clock=time.time,
        entropy=os.urandom,
        subject_secret=_secret(data / settings.subject_key_file),
        catalogue=PdpCatalogue(beside),
        probes=Probes(pdp=PdpProbe(probed), issuer=tokens.require_keys),
        opentdf=section(data / FILE, "opentdf", OpenTdfSettings),
    )


@asynccontextmanager
async def _watching(watch: Watch) -> AsyncIterator[None]:
    """Watch from now on, until the end of the context."""
    task = asyncio.create_task(watch.health.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def custody_of(data: Path, settings: CustodySettings, deployment: DeploymentSettings) -> Custody:
    """The custody that *settings* name.

    Raises:
        SettingsError: It does not fit the deployment.
    """
    if settings.kind == "local":
        if deployment.environment == "production":
            raise SettingsError(
                "the local custody does not run in production", "set kind in [custody] to pkcs11"
            )
        return LocalCustody(data / settings.directory, os.urandom)
    from envelock_kas.custody.pkcs11 import Pkcs11Custody  # noqa: PLC0415 an extra of its own

    return Pkcs11Custody(
        module=Path(settings.module),
        token_label=settings.token,
        pin_file=data / settings.pin_file,
        entropy=os.urandom,
        deadline_seconds=settings.deadline_seconds,
    )


def _configuration(
    settings: KasSettings, callers: CallerSettings, ledger_key: str
) -> dict[str, Json]:
    """What of `/.well-known/opentdf-configuration` never changes."""
    issuer = callers.issuers[0].issuer if callers.issuers else ""
    return {
        "platform_issuer": issuer,
        "supports_dpop": True,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "RS256"],
        "dpop_nonce_required": False,
        "health": {"endpoint": "/healthz"},
        "envelock": {
            "kas_id": settings.id,
            "url": settings.url,
            "aliases": list(settings.kas_aliases),
            "pdp": os.environ.get(PDP_URL, ""),
            "ledger_key": ledger_key,
        },
    }


def _secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: expected a secret in hex") from error
    if len(secret) < MIN_SECRET:
        raise SettingsError(f"{path}: a secret of at least {MIN_SECRET} bytes")
    return secret


def tls_of(data: Path, settings: KasSettings) -> ssl.SSLContext | None:
    """The server's TLS; None where it has none of its own.

    Raises:
        OSError: A file cannot be read, or certificate and key do not fit.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(data / settings.tls_cert_file, data / settings.tls_key_file)
    return context


async def _started(stack: AsyncExitStack, app: web.Application) -> web.AppRunner:
    made = runner(app)
    await made.setup()
    stack.push_async_callback(made.cleanup)
    return made


async def _serve_internal(stack: AsyncExitStack, app: web.Application, path: Path) -> None:
    internal = await _started(stack, app)
    bound = bind(path)
    stack.callback(unbind, bound, path)
    await web.SockSite(internal, bound).start()


if __name__ == "__main__":
    sys.exit(main())
