"""I8: secrets are nowhere but where they must be."""

import asyncio
import base64
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.deployment import RECOVERY_SECONDS, await_restart, processes

from envelock import Client, DeniedError, TamperedError, UnavailableError
from envelock.exchange import Call
from envelock.sealing import planned
from envelock.testing import Server, server
from envelock.transport import SyncTransport
from envelock.writer import seal_bytes
from envelock_service.metrics import fetch, status_sockets

MODULES = ("envelock_kas", "envelock_pdp", "envelock_ledger")
WHERE_KEYS_LIVE = {"keys", "secrets"}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One deployment for all tests of this module."""
    with server(workers=2) as found:
        yield found


def spellings(secret: bytes) -> list[bytes]:
    """A secret as it could turn up: raw, hex, base64 in its kinds."""
    return [
        secret,
        secret.hex().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
    ]


def used(running: Server) -> list[bytes]:
    """Make every kind of request, and return the secrets that took part."""
    client: Client = running.client("doctor")
    secrets: list[bytes] = []
    for online in (False, True):
        ready = client.run(planned(client.session, "clearance=secret", None, online=online))
        secrets += spellings(ready.dek)
        sealed = seal_bytes(b"the plaintext of a patient", ready)
        client.decrypt(sealed)
        with pytest.raises(DeniedError):
            running.client("accountant").decrypt(sealed)
        with pytest.raises(TamperedError):
            client.decrypt(sealed[:50] + bytes([sealed[50] ^ 1]) + sealed[51:])
    configuration = client.run(client.session.configuration())
    token = client.run(client.session.credentials.token(configuration.idp.token_endpoint))
    secrets += [b"the plaintext of a patient", token.text.encode()]
    for folder in WHERE_KEYS_LIVE:
        for path in (running.data / folder).iterdir():
            secrets += spellings(path.read_bytes().strip())
    return [secret for secret in secrets if len(secret) > 8]


def found(content: bytes, secrets: list[bytes]) -> bool:
    """Whether any secret stands in *content*."""
    return any(secret in content for secret in secrets)


def test_no_secret_is_in_files_logs_arguments_or_environments(running: Server):
    """Data keys, KEKs, tokens, client secrets and plaintext: in none of them."""
    secrets = used(running)
    files = [
        path
        for path in running.data.parent.rglob("*")
        if path.is_file() and not WHERE_KEYS_LIVE & {parent.name for parent in path.parents}
    ]
    leaks = [str(path) for path in files if found(path.read_bytes(), secrets)]
    for module in MODULES:
        for pid in processes(running.data, module):
            for name in ("cmdline", "environ"):
                place = Path("/proc") / str(pid) / name
                leaks += [str(place)] if found(place.read_bytes(), secrets) else []

    assert any(path.name == "stderr" for path in files)
    assert any(path.name == "ledger.db" for path in files)
    assert leaks == []


def test_the_ledger_names_nobody(running: Server):
    """Subjects are commitments in the records; their openings lie in a file of their own."""
    used(running)
    records = b"".join(path.read_bytes() for path in (running.data / "ledger").glob("ledger.db*"))
    openings = b"".join(path.read_bytes() for path in (running.data / "ledger").glob("disc*"))

    assert b"accountant" not in records
    assert b"127.0.0.1" not in records
    assert b"accountant" in openings


def test_what_is_told_and_counted_holds_no_secret(running: Server):
    """Answers to denials and errors, and the metrics of every process."""
    secrets = used(running)
    client = running.client("doctor")
    configuration = client.run(client.session.configuration())
    token = client.run(client.session.credentials.token(configuration.idp.token_endpoint)).text
    shown = [*secrets, token.encode()]
    said = b""
    for headers in ({"Authorization": f"Bearer {token}"}, {"Authorization": f"DPoP {token}x"}):
        for body in (b"{", b'{"signedRequestToken":"' + token.encode() + b'"}'):
            sent = {"Content-Type": "application/json", "DPoP": token, **headers}
            transport = SyncTransport()
            reply = transport.send(
                Call("POST", f"{running.url}/kas.AccessService/Rewrap", sent, body)
            )
            transport.close()
            said += reply.body + repr(reply.headers).encode()
    sockets = status_sockets(running.data)
    for socket in sockets.values():
        said += asyncio.run(fetch(socket, "/metrics")) or b""

    assert b"invalid_token" in said
    assert b"envelock_" in said
    assert len(sockets) >= 3
    assert not found(said, shown)


def crashed(command: list[str], folder: Path) -> list[str]:
    """The core files that a process of ours would leave there when it aborts."""
    subprocess.run(command, cwd=folder, check=False)
    return sorted(file.name for file in folder.glob("core*"))


def decrypted_soon(client: Client, sealed: bytes) -> None:
    """Open a file as soon as everything is there again."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            client.decrypt(sealed)
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def test_a_crash_leaves_no_core(tmp_path: Path, monkeypatch):
    """T71: aborted at work, whatever limits the servers were started with, none writes memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    monkeypatch.chdir(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        control = tmp_path / "control"
        control.mkdir()
        if not crashed([sys.executable, "-c", "import os; os.abort()"], control):
            pytest.skip("this machine writes no core files to where a process runs")
        with server() as found_running:
            client = found_running.client("doctor")
            sealed = client.encrypt(b"x", attrs="clearance=secret")
            for module in MODULES:
                [pid, *_] = processes(found_running.data, module)
                limits = Path(f"/proc/{pid}/limits").read_text()
                os.kill(pid, signal.SIGABRT)
                await_restart(found_running.data, module, 1, pid)
                assert re.search(r"Max core file size +0 +0", limits)
            decrypted_soon(client, sealed)
            left = [file for file in tmp_path.rglob("core*") if control not in file.parents]
            left += list(found_running.data.parent.rglob("core*"))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))

    assert left == []


def test_a_leak_would_be_found():
    """The search itself finds a secret in each of its spellings."""
    secret = os.urandom(32)

    assert all(found(b"x" + one + b"y", spellings(secret)) for one in spellings(secret))
