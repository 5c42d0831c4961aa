"""A real deployment for tests: `envelock up` on free ports, in a directory that is removed again.

```python
from envelock.testing import server

with server() as running:
    sealed = running.client("doctor").encrypt(b"negative", attrs="clearance=secret")
```
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from envelock.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from envelock.client import Client

STOP_SECONDS = 20.0
_ERRORS_SHOWN = 2000  # characters at the end of what the servers said
_SETTINGS = '[deployment]\nenvironment = "development"\n\n[kas]\nurl = {}\n'


class _Ready(msgspec.Struct, frozen=True):
    url: str
    issuer: str
    pdp: str
    data: str
    ledger_key: str


@dataclass(frozen=True, slots=True)
class Server:
    """Where everything is, and clients for the people of its policies."""

    url: str
    issuer: str
    pdp: str
    data: Path  # its data directory, with a profile for each person in `profiles/`
    ledger_key: str
    _clients: ExitStack = field(repr=False)

    def client(self, name: str) -> "Client":
        """A client that acts as *name*, such as `doctor`; it is closed with the server.

        Raises:
            ConfigError: The policies know nobody of that name.
        """
        from envelock.client import Client  # noqa: PLC0415 loaded when a client is wanted

        profile = self.data / "profiles" / f"{name}.toml"
        if not profile.is_file():
            known = ", ".join(sorted(file.stem for file in profile.parent.glob("*.toml")))
            raise ConfigError(f"nobody is called {name!r}", hint=f"there are: {known}")
        return self._clients.enter_context(Client(profile=profile))


@contextmanager
def server(
    policies: "Path | str | None" = None,
    *,
    workers: int = 1,
    kas_url: str | None = None,
    settings: str | None = None,
    environment: Mapping[str, str] = {},
    folder: Path | None = None,
    listen: str = "127.0.0.1:0",
) -> Iterator[Server]:
    """Run `envelock up` until the block ends.

    Args:
        policies: A bundle, or a folder of them; the shipped `clinic` when None.
        workers: KAS processes.
        kas_url: What files name the KAS by. Servers that seal one file together need one each, such
            as `https://kas.lab.example`: nobody connects to it.
        settings: The whole of `envelock.toml`, when the usual one will not do; then *kas_url* is
            not used.
        environment: Variables for the servers, beside this process's own.
        folder: Where its directory is made; the usual place for temporary files when None.
        listen: `HOST:PORT` of the KAS. With a port of its own, files name the KAS by where it is,
            unless *kas_url* or *settings* say otherwise: stock clients ask there.

    Raises:
        UnavailableError: It does not start; the message ends with what it said.
    """
    with ExitStack() as stack:
        home = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="envelock-", dir=folder))
        )
        data, said = home / "data", home / "stderr"
        if settings is None and kas_url is not None:
            settings = _SETTINGS.format(json.dumps(kas_url))
        if settings is not None:
            data.mkdir(mode=0o700)
            (data / "envelock.toml").write_text(settings, "utf-8")
        command = [sys.executable, "-m", "envelock", "up", "--json", "--data", str(data)]
        command += ["--listen", listen, "--workers", str(workers)]
        if policies is not None:
            command += ["--policies", str(Path(policies).absolute())]
        errors = stack.enter_context(said.open("wb"))
        process = stack.enter_context(_running(command, errors.fileno(), environment))
        ready = _ready(process, said)
        clients = stack.enter_context(ExitStack())
        yield Server(ready.url, ready.issuer, ready.pdp, data, ready.ledger_key, clients)


@contextmanager
def _running(
    command: list[str], errors: int, added: Mapping[str, str]
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run *command* without the environment's own profiles; stop it in order."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ENVELOCK_")}
    environment |= added
    with subprocess.Popen(  # noqa: S603 our own command
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        start_new_session=True,  # Ctrl-C in a test run reaches us first
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(process: "subprocess.Popen[bytes]", said: Path) -> _Ready:
    """Wait for the ready line; `up` gives up by itself when a part of it does not start."""
    line = process.stdout.readline() if process.stdout is not None else b""
    try:
        return msgspec.json.decode(line, type=_Ready)
    except msgspec.DecodeError as error:
        tail = said.read_text("utf-8", errors="replace")[-_ERRORS_SHOWN:]
        raise UnavailableError(f"envelock up did not start: {tail or 'it said nothing'}") from error
