"""A server whose files name it by where it is, with a key of every kind that is asked for."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from interop.clients import Person

from envelock.testing import Server, server

TENANT = "clinic"
SECRET = "https://clinic.example/attr/clearance/value/secret"
MINE = "records"  # the dataset of who names none


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running server, its people, and the dataset of each kind of key."""

    running: Server
    datasets: dict[str, str]  # by algorithm; those that the server has
    refused: dict[str, str]  # by algorithm, what it said

    def person(self, name: str) -> Person:
        """Somebody of the policies, by client id."""
        secret = (self.running.data / "secrets" / f"client-{name}.secret").read_text().strip()
        return Person(self.running.url, self.running.issuer, name, secret)


@contextmanager
def deployment(algorithms: Sequence[str] = (), workers: int = 1) -> Iterator[Deployment]:
    """Run a server until the block ends; the dataset of all has a key of each of *algorithms*."""
    with server(listen=f"127.0.0.1:{free_port()}", workers=workers) as running:
        datasets, refused = {}, {}
        for algorithm in algorithms:
            dataset = algorithm.replace(":", "-")
            said = _keys(running, "create", _path(dataset), algorithm)
            if said:
                refused[algorithm] = said
            else:
                datasets[algorithm] = dataset
        if datasets:
            refused |= _several(running, list(datasets))
        yield Deployment(running, datasets, refused)


def _several(running: Server, algorithms: list[str]) -> dict[str, str]:
    """A key of each kind for those who name no dataset: stock clients."""
    said = _keys(running, "create", _path(MINE), *algorithms)
    return {MINE: said} if said else {}


def _path(dataset: str) -> str:
    return f"{TENANT}:{dataset}:{time.strftime('%Y-%m', time.gmtime())}"


def _keys(running: Server, command: str, path: str, *algorithms: str) -> str:
    """Run `envelock keys`; what it said when it refused."""
    words = [sys.executable, "-m", "envelock", "keys", command, path, "--as", "operator", "--json"]
    for algorithm in algorithms:
        words += ["--algorithm", algorithm]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ENVELOCK_")}
    environment = {**inherited, "ENVELOCK_DATA": str(running.data)}
    done = subprocess.run(
        words, env=environment, capture_output=True, check=False, timeout=60, text=True
    )
    if done.returncode == 0:
        return ""
    try:
        return str(json.loads(done.stderr)["message"])
    except (ValueError, KeyError):
        return done.stderr.strip()[-300:] or "it said nothing"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
