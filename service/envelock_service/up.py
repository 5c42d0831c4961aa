"""`envelock up`: a whole deployment on one machine, from one data directory.

Starts the ledger, the development issuer, then the KAS workers and the PDP together; restarts what
dies; stops all in the reverse order. The first one on a data directory holds its lock.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
from aiohttp import web

from envelock_formats.canonical import Json
from envelock_service.children import Child, ChildError
from envelock_service.cores import forbid_core_dumps
from envelock_service.datadir import DataDirectory
from envelock_service.issuer import Issuer, fresh_token_id, require_development
from envelock_service.metrics import metrics_application, status_sockets
from envelock_service.oidc import DEVELOPMENT_ISSUER, CallerSettings
from envelock_service.server import runner
from envelock_service.settings import DeploymentSettings, SettingsError, section

DEFAULT_LISTEN = "127.0.0.1:8080"
LOOPBACK = "127.0.0.1"
FIRST_STEPS = (  # with the test identities, so in development only
    "try    echo hi | envelock encrypt - --as doctor --attr clearance=secret -o hi.tdf",
    "       envelock decrypt hi.tdf --as doctor -o -    # --as accountant: refused; then:",
    "       envelock ledger show",
)


class Shown(Protocol):
    """What the root command hands to every command."""

    data: Path
    json: bool

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* as JSON, or *lines* for people."""
        ...


class RunningError(Exception):
    """Another `up` holds the data directory."""

    exit_code = 2
    code = "running"

    def __init__(self, data: Path, pid: str) -> None:
        super().__init__(f"{data} is in use: `envelock up` runs there as process {pid}")
        self.hint = f"use it as it is, or stop it with: kill {pid}"


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked on the command line."""

    data: Path
    listen: str
    policies: Path
    workers: int


@click.command("up")
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, help="HOST:PORT of the KAS.")
@click.option("--policies", type=click.Path(path_type=Path), help="A bundle, or a folder of them.")
@click.option("--workers", type=click.IntRange(1, 64), help="KAS processes; one for each core.")
@click.option("--check", is_flag=True, help="Test settings, custody and all else; start nothing.")
@click.pass_context
def command(
    context: click.Context,
    listen: str,
    policies: Path | None,
    workers: int | None,
    check: bool,  # noqa: FBT001 click passes flags so
) -> None:
    """Start ledger, PDP, KAS and a token issuer for development, and keep them running.

    \b
    The first start makes the data directory: settings, keys, the `clinic` policies, test identities
    (doctor, accountant, operator, auditor) and a profile for each. Stop it with Ctrl-C.

    \b
    Examples:
      envelock up
      envelock up --data ./demo --listen 127.0.0.1:0 --json
      envelock up --policies ./policies/acme --workers 2
      envelock up --check
    """  # noqa: D301 click's own mark for text that keeps its lines
    shown: Shown = context.obj
    data = shown.data.absolute()
    folder = policies.absolute() if policies is not None else data / "policies"
    if check:
        from envelock_service import checking  # noqa: PLC0415 only here

        checking.report(context, asyncio.run(checking.findings_of(data, listen, folder)))
        return
    options = Options(data, listen, folder, workers or os.cpu_count() or 1)
    forbid_core_dumps()  # this process signs tokens, in development
    asyncio.run(Deployment(options, shown).run())


class Deployment:
    """The processes of one data directory."""

    def __init__(self, options: Options, shown: Shown) -> None:
        self._options = options
        self._shown = shown
        self._directory = DataDirectory(options.data, os.urandom)
        self._children: list[Child] = []

    async def run(self) -> None:
        """Run until a signal.

        Raises:
            RunningError: Another one runs on the same data directory.
            SettingsError, ChildError: Something refuses to start.
        """
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._prepare()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_lock(self._options.data))
            asked = self._options.data / "run" / "kas.sock"  # the PDP waits for it
            for left in (asked, *status_sockets(self._options.data).values()):
                left.unlink(missing_ok=True)  # of processes that were killed
            stack.push_async_callback(self._stop)
            await self._start(stack)
            watching = asyncio.create_task(self._watch())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    def _prepare(self) -> None:
        options = self._options
        new = self._directory.prepare(options.listen, options.policies, default_bundle())
        if new and not self._shown.json:
            click.echo(f"created {options.data} (DEVELOPMENT: local keys, test identities)")

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        data = str(self._options.data)
        ledger_key = str(
            (await self._child("ledger", "envelock_ledger", "--data", data))["ledger_key"]
        )
        settings = self._directory.settings
        environment = section(settings, "deployment", DeploymentSettings).environment
        production = environment == "production"
        await self._start_metrics(stack)
        issuer = "" if production else await self._start_issuer(stack, environment)
        address = _reserved(stack, self._options.listen)
        pdp_address = _reserved(stack, f"{LOOPBACK}:0")
        told = {DEVELOPMENT_ISSUER: issuer, "ENVELOCK_PDP_URL": f"http://{pdp_address}"}
        pdp = await self._start_servers(address, pdp_address, ledger_key, told)
        if not production:
            people = self._directory.identities(self._options.policies)
            self._directory.write_profiles(people, f"http://{address}", issuer, ledger_key)
        self._announce(f"http://{address}", issuer, str(pdp.get("url")), ledger_key)

    async def _start_servers(
        self, address: str, pdp_address: str, ledger_key: str, told: dict[str, str]
    ) -> dict[str, object]:
        """Start a KAS worker and the PDP together, then all other workers.

        Returns the PDP's ready line. The first worker tries what all workers need, so that what is
        wrong with it is told once.
        """
        base = ("--data", str(self._options.data))
        worker = ("--listen", address, "--ledger-key", ledger_key, "--worker")
        policies = ("--policies", str(self._options.policies))
        listen = ("--listen", pdp_address, "--reserved")

        async def work(number: int) -> dict[str, object]:
            arguments = (*base, *worker, str(number))
            return await self._child(f"kas-{number}", "envelock_kas", *arguments, env=told)

        _, pdp = await _together(
            work(0), self._child("pdp", "envelock_pdp", *base, *policies, *listen, env=told)
        )
        await _together(*(work(number) for number in range(1, self._options.workers)))
        return pdp

    async def _child(
        self, name: str, module: str, *arguments: str, env: dict[str, str] | None = None
    ) -> dict[str, object]:
        child = Child(name, (module, *arguments), env or {})
        self._children.append(child)
        return dict(await child.start())

    async def _start_issuer(self, stack: contextlib.AsyncExitStack, environment: str) -> str:
        """Serve development tokens from this process, on a loopback port of its own."""
        callers = section(self._directory.settings, "callers", CallerSettings)
        require_development(environment, LOOPBACK)
        bound = socket.create_server((LOOPBACK, 0))
        url = f"http://{LOOPBACK}:{bound.getsockname()[1]}"
        policies = self._options.policies
        issuer = Issuer(
            url=url,
            audience=callers.audience,
            key=self._directory.issuer_key(),
            identities=lambda client_id: self._directory.identities(policies).get(client_id),
            clock=time.time,
            token_ids=lambda: fresh_token_id(os.urandom),
        )
        served = runner(issuer.app())
        await served.setup()
        stack.push_async_callback(served.cleanup)
        await web.SockSite(served, bound).start()
        return url

    async def _start_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        """Serve the metrics of all processes, where the settings name an address for it."""
        listen = section(self._directory.settings, "deployment", DeploymentSettings).metrics
        if not listen:
            return
        host, _, port = listen.rpartition(":")
        served = runner(metrics_application(self._options.data))
        await served.setup()
        stack.push_async_callback(served.cleanup)
        try:
            await web.TCPSite(served, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise SettingsError(
                f"[deployment] metrics {listen}: {error.strerror}", "choose another port"
            ) from error

    async def _watch(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(child.watch(_tell))
        except* ChildError as refused:
            raise refused.exceptions[0] from None

    async def _stop(self) -> None:
        """Stop who asks before who is asked, the ledger last: what was accepted is recorded."""
        for module in ("envelock_kas", "envelock_pdp", "envelock_ledger"):
            stopping = [child for child in self._children if child.arguments[0] == module]
            await asyncio.gather(*(child.stop() for child in stopping))

    def _announce(self, url: str, issuer: str, pdp: str, ledger_key: str) -> None:
        ready = {"url": url, "issuer": issuer, "pdp": pdp}
        ready |= {"data": str(self._options.data), "ledger_key": ledger_key}
        self._shown.emit({"ready": True, **ready}, ready_lines(ready))
        sys.stdout.flush()


async def _together(*starts: Coroutine[None, None, dict[str, object]]) -> list[dict[str, object]]:
    """Await all *starts*; the first that fails ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start) for start in starts]
    except* ChildError as refused:
        raise refused.exceptions[0] from None
    return [task.result() for task in tasks]


def ready_lines(ready: Mapping[str, str]) -> tuple[str, ...]:
    """What people see when all is up; first steps only where the test identities have an issuer."""
    line = "ready  " + "  ".join(f"{name} {value}" for name, value in ready.items())
    return (line, *(FIRST_STEPS if ready["issuer"] else ()))


def default_bundle() -> Path:
    """The bundle that a new data directory begins with."""
    import envelock_policies  # noqa: PLC0415 data, looked up once

    return Path(envelock_policies.path("clinic"))


@contextlib.contextmanager
def _lock(data: Path) -> Iterator[None]:
    """Hold `run/up.lock`; it has our pid for whoever comes second."""
    path = data / "run" / "up.lock"
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunningError(data, file.read().strip() or "unknown") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _reserved(stack: contextlib.AsyncExitStack, listen: str) -> str:
    """HOST:PORT with the port resolved and kept for our processes, who share it."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"--listen {listen}: expected HOST:PORT")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind((host.strip("[]"), int(port)))
    except OSError as error:
        raise SettingsError(
            f"--listen {listen}: {error.strerror}", "choose another port; 0 takes a free one"
        ) from error
    return f"{host}:{held.getsockname()[1]}"


def _tell(line: str) -> None:
    click.echo(line, err=True)
