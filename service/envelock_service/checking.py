"""`envelock up --check`: everything that can be found out before the start, changing nothing.

Each room checks its own in a process of its own, so that what one lacks, such as the library of an
HSM, keeps none of the others from being checked.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from envelock_service.findings import Finding, Findings, read_findings
from envelock_service.settings import FILE, DeploymentSettings, SettingsError, section
from envelock_service.sockets import SocketError, connect

CHECK_SECONDS = 30.0
REACH_SECONDS = 0.5


async def findings_of(data: Path, listen: str, policies: Path) -> list[Finding]:
    """Everything that was found for the data directory *data*, in a fixed order."""
    findings = Findings(SettingsError, SocketError, OSError)
    if not (data / FILE).exists():
        findings.add("data", "ok", f"{data} is made at the first start, for development")
        _check_port(findings, listen)
        return findings.found
    with findings.check("settings", f"{data / FILE} is well-formed"):
        section(data / FILE, "deployment", DeploymentSettings)
    _check_port(findings, listen)
    _check_secrets(findings, data)
    at = ("--data", str(data))
    rooms = await asyncio.gather(
        _room("envelock_ledger", *at),
        _room("envelock_pdp", *at, "--policies", str(policies)),
        _room("envelock_kas", *at, "--listen", listen),
    )
    return [*findings.found, *(one for room in rooms for one in room)]


def shown(found: Sequence[Finding]) -> Iterator[str]:
    """A table of the findings, with what to do next under what is not well."""
    width = max(len(one.name) for one in found)
    for one in found:
        yield f"{one.state:<4}  {one.name:<{width}}  {one.detail}"
        if one.state != "ok" and one.next:
            yield f"      {'':<{width}}  next: {one.next}"
    failed = sum(one.state == "fail" for one in found)
    warned = sum(one.state == "warn" for one in found)
    yield f"{len(found)} checks, {failed} failed, {warned} to look at; nothing was started"


def report(context: click.Context, found: Sequence[Finding]) -> None:
    """Print the findings and end with 2 if one of them failed."""
    failed = any(one.state == "fail" for one in found)
    context.obj.emit({"ok": not failed, "checks": msgspec.to_builtins(found)}, shown(found))
    if failed:
        context.exit(SettingsError.exit_code)


async def _room(module: str, *arguments: str) -> Sequence[Finding]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{module}.check", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            output, errors = await process.communicate()
        return read_findings(output)
    except TimeoutError:
        process.kill()
        await process.wait()
        return [Finding(module, "fail", f"its checks did not end in {CHECK_SECONDS:.0f} s")]
    except msgspec.MsgspecError:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        return [Finding(module, "fail", f"its checks ended early: {' '.join(last)}"[:300])]


def _check_port(findings: Findings, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    hint = "choose another port, or stop whoever has it: envelock status"
    with findings.check("port", f"{listen} is free", hint):
        if not host or not port.isdigit():
            raise SettingsError(f"--listen {listen}: expected HOST:PORT")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host.strip("[]"), int(port)))
            tried.listen()


def _check_secrets(findings: Findings, data: Path) -> None:
    """Secrets are the owner's alone, and nobody serves the sockets yet."""
    with findings.check("sockets", "nobody serves them", "it runs already: envelock status"):
        for path in sorted((data / "run").glob("*.sock")):
            try:
                connect(path, REACH_SECONDS).close()
            except SocketError:
                continue
            raise SocketError(f"{path} is served")
    with findings.check("secrets", "readable by their owner alone", "chmod -R go= DIR/secrets"):
        for path in (data / "secrets", *sorted((data / "secrets").glob("*"))):
            if path.exists() and (path.stat().st_mode & 0o077 or not os.access(path, os.R_OK)):
                raise SettingsError(f"{path} is open to others, or not readable")
