"""Whatever stops releases is told: which part, since when, and again when it works."""

import contextlib
import http.client
import json
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from faults.deployment import PLAIN, kill, processes, run
from faults.test_stopped import stopped

import envelock_policies
from envelock.testing import Server, server

TOLD_SECONDS = 5.0
BACK_SECONDS = 20.0


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One deployment that every test breaks and mends."""
    with server(workers=2) as started:
        await_parts(started, set())
        yield started


def told(running: Server) -> dict[str, int]:
    """The parts that `/healthz` of the KAS says are down, and since when."""
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        found = json.load(answer)
    if answer.status == 200:
        assert found == {"status": "ok"}
        return {}
    assert (answer.status, found["status"]) == (503, "unavailable")
    assert all(set(part) == {"name", "state", "since"} for part in found["parts"])
    return {part["name"]: part["since"] for part in found["parts"]}


def await_parts(running: Server, parts: set[str], *, seconds: float = BACK_SECONDS) -> float:
    """Wait until every worker says that just these are down; how long it took."""
    begun, said = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        # Each connection may reach another worker; several in a row reach both.
        said = said + 1 if set(told(running)) == parts else 0
        if said == 8:
            return time.monotonic() - begun
        if not said:
            time.sleep(0.05)
    raise AssertionError(f"expected {parts}, told {told(running)}")


def status(running: Server) -> tuple[int, str, float]:
    """Exit code, output and duration of `envelock status --json`."""
    begun = time.monotonic()
    done = run(running, "status", "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, time.monotonic() - begun


def metrics(running: Server) -> str:
    """The metrics of all processes."""
    return run(running, "status", "--metrics").stdout


@contextmanager
def moved(path: Path) -> Iterator[None]:
    """*path* is not there until the end of the block."""
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@contextmanager
def broken_bundle(running: Server) -> Iterator[None]:
    """A second bundle that does not load."""
    folder = running.data / "policies" / "broken"
    folder.mkdir()
    (folder / "bundle.toml").write_text("?")
    try:
        yield
    finally:
        # A folder that was seen stays watched: put a bundle there that loads.
        shutil.rmtree(folder)
        shutil.copytree(Path(envelock_policies.path("saas")) / "acme", folder)


@contextmanager
def full(running: Server) -> Iterator[None]:
    """No file of the ledger can grow beyond a page."""
    [pid] = processes(running.data, "envelock_ledger")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


FAULTS: dict[str, tuple[set[str], Callable[[Server], object]]] = {
    "ledger stopped": ({"ledger"}, lambda s: stopped(*processes(s.data, "envelock_ledger"))),
    "ledger full": ({"ledger"}, full),
    "anchor missing": ({"ledger"}, lambda s: moved(s.data / "anchor" / "ledger.anchor")),
    "database missing": ({"ledger"}, lambda s: moved(s.data / "ledger" / "ledger.db")),
    "pdp stopped": ({"pdp"}, lambda s: stopped(*processes(s.data, "envelock_pdp"))),
    "policy missing": ({"policy"}, broken_bundle),
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_name_and_time_and_ends_by_itself(running: Server, fault: str):
    """By `/healthz`, by `envelock status` and by the metrics, within seconds."""
    parts, breaking = FAULTS[fault]
    client = running.client("doctor")
    sealed = client.encrypt(PLAIN, attrs="clearance=secret")
    client.decrypt(sealed)
    began = time.time()
    with breaking(running):  # type: ignore[attr-defined]
        took = await_parts(running, parts, seconds=TOLD_SECONDS)
        since = told(running)
        code, output, waited = status(running)
        gauges = metrics(running)
    await_parts(running, set())
    opened, after = client.decrypt(sealed), status(running)[0]

    assert took < TOLD_SECONDS
    assert all(abs(moment - began) < TOLD_SECONDS + 1 for moment in since.values())
    assert (code, after) == (5, 0)
    assert waited < 10
    down = {(part["part"], part["state"]) for part in json.loads(output)["down"]}
    assert parts <= {name for name, _ in down}
    for name in parts:
        assert f'envelock_part_up{{part="{name}",process="kas-0"}} 0.0' in gauges
    assert opened == PLAIN


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_processes_that_die_are_told_and_come_back(running: Server):
    """A part that is started anew is up again without anybody's help."""
    for module in ("envelock_ledger", "envelock_pdp"):
        kill(running.data, module)
    await_parts(running, set())
    client = running.client("doctor")

    assert client.decrypt(client.encrypt(PLAIN, attrs="clearance=secret")) == PLAIN


def test_nothing_secret_or_personal_is_in_status_and_metrics(running: Server):
    """Neither names a subject, an object, a token or a key's material."""
    client = running.client("doctor")
    sealed = client.encrypt(PLAIN, attrs="clearance=secret")
    client.decrypt(sealed)
    shown = metrics(running) + status(running)[1]
    secrets = [path.read_text() for path in (running.data / "secrets").iterdir() if path.is_file()]

    assert "doctor" not in shown
    assert not [secret for secret in secrets if secret.strip() in shown]
    assert "clinic" not in metrics(running)


@contextmanager
def issuer(port: int) -> Iterator[None]:
    """An issuer that has no key and says so."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = f"http://127.0.0.1:{port}"
            discovery = {"issuer": url, "jwks_uri": f"{url}/jwks"}
            self.send_response(200)
            self.end_headers()
            wanted = {"keys": []} if self.path == "/jwks" else discovery
            self.wfile.write(json.dumps(wanted).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", port), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_an_issuer_whose_keys_were_never_seen_is_told():
    """Its tokens prove nobody; once its keys were fetched it may go away again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    issuers = f'issuers = [{{issuer = "http://127.0.0.1:{port}", tenant = "clinic"}}]'
    settings = f'[deployment]\nenvironment = "development"\n[callers]\n{issuers}\n'
    with server(settings=settings) as running:
        took = await_parts(running, {"issuer"}, seconds=TOLD_SECONDS)
        code, output, _ = status(running)
        with issuer(port):
            await_parts(running, set())
        await_parts(running, set())

    assert took < TOLD_SECONDS
    assert code == 5
    assert {one["process"] for one in json.loads(output)["down"]} == {"kas-0", "pdp"}
