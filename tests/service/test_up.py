"""`envelock up` refuses what would not be safe, with what to do next."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faults.deployment import await_restart, processes

from envelock.testing import server
from envelock_service.up import ready_lines

DEVELOPMENT = '[deployment]\nenvironment = "development"\n'
PRODUCTION = '[deployment]\nenvironment = "production"\n'


def up(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `envelock up` where it is expected to refuse."""
    command = [sys.executable, "-m", "envelock", "up", "--data", str(data), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def prepared(folder: Path, settings: str) -> Path:
    """A data directory with settings of a test's making."""
    data = folder / "data"
    data.mkdir()
    (data / "envelock.toml").write_text(settings)
    return data


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        (PRODUCTION, (), "local custody does not run in production"),
        (DEVELOPMENT + "[kas]\nlisen = 1\n", (), "lisen"),
        (DEVELOPMENT + "[kaz]\n", (), "unknown section"),
        (DEVELOPMENT, ("--listen", "0.0.0.0:0"), "needs TLS"),
        (
            DEVELOPMENT + "[kas]\nbehind_proxy = true\nurl = 'http://kas.example'\n",
            ("--listen", "0.0.0.0:0"),
            "is not https",
        ),
        (DEVELOPMENT, ("--listen", "nowhere"), "expected HOST:PORT"),
        (DEVELOPMENT + "[kas]\ntemplate = '{nope}'\n", (), "unknown field"),
    ],
)
def test_refuses_unsafe_and_unknown_settings(tmp_path: Path, settings, arguments, said):
    """Exit 2, one clear line, no traceback."""
    listen = arguments or ("--listen", "127.0.0.1:0")
    done = up(prepared(tmp_path, settings), *listen)

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ledger_without_its_anchor_does_not_start(tmp_path: Path):
    """Exit 6: what was recorded may have been rolled back, and only an operator can say."""
    with server() as running:
        anchor = running.data / "anchor"
        copy = tmp_path / "data"
        for path in running.data.rglob("*"):
            target = copy / path.relative_to(running.data)
            if path.is_file() and anchor not in path.parents:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    done = up(copy, "--listen", "127.0.0.1:0")

    assert done.returncode == 6, done.stderr
    assert "anchor" in done.stderr


def test_the_decision_points_port_stays_ours_when_it_dies():
    """Nobody else can take it meanwhile; the next process answers there."""
    with server() as running:
        host, port = urlsplit(running.pdp).hostname, urlsplit(running.pdp).port
        [gone] = processes(running.data, "envelock_pdp")
        os.kill(gone, signal.SIGKILL)
        refused = set()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            with socket.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                refused.add(_bind(thief, host, port))
        await_restart(running.data, "envelock_pdp", 1, gone)
        keys = _when_it_answers(f"{running.pdp}/.well-known/jwks.json")

    assert refused == {errno.EADDRINUSE}
    assert b"kid" in keys


def test_first_steps_are_shown_with_test_identities_only():
    """Without a development issuer there is no doctor to try it as."""
    ready = {"url": "http://127.0.0.1:1", "issuer": "http://127.0.0.1:2"}

    assert len(ready_lines(ready)) == 4
    assert len(ready_lines(ready | {"issuer": ""})) == 1


def _bind(thief: socket.socket, host: str, port: int) -> int:
    """The error of taking the port; 0 when it was to be had."""
    try:
        thief.bind((host, port))
    except OSError as error:
        return error.errno
    return 0


def _when_it_answers(url: str) -> bytes:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310 ours
                return answer.read()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
