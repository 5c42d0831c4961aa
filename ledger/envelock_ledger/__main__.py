"""The ledger's process: `python -m envelock_ledger --data DIR`.

Prints one JSON line when it is ready, and one on stderr when it cannot be, or when openings of its
records are missing. SIGTERM ends it cleanly:
what was accepted is finished and answered first.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from envelock_ledger.clock import system_clock
from envelock_ledger.erasing import Census
from envelock_ledger.errors import DamageError, LedgerError, LedgerUnavailableError
from envelock_ledger.operating import listen
from envelock_ledger.place import found
from envelock_ledger.serve import Server
from envelock_ledger.settings import OPERATING_ROLE, LedgerSettings, load, socket_path
from envelock_ledger.store.files import Lock, make_folder
from envelock_ledger.writer import Writer
from envelock_service.loop import run
from envelock_service.settings import SettingsError
from envelock_service.sockets import SocketError, bind, unbind

SCRATCH = "copies"
SWITCH_SECONDS = 0.0001
GENERATIONS = (20_000, 50, 100)


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    parser = argparse.ArgumentParser(prog="envelock_ledger", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data directory")
    data: Path = parser.parse_args().data
    try:
        settings = load(data)
        run(serve(data, settings))
    except (LedgerError, SettingsError, SocketError) as error:
        print(json.dumps({"error": str(error), "next": error.hint}), file=sys.stderr)  # noqa: T201 - the interface
        return error.exit_code
    except OSError as error:
        print(json.dumps({"error": str(error), "next": None}), file=sys.stderr)  # noqa: T201 - the interface
        return LedgerUnavailableError.exit_code
    return 0


async def serve(data: Path, settings: LedgerSettings) -> None:
    """Open the ledger, serve it on a socket for every role, and close it at a signal.

    Raises:
        LedgerError: The start gate was not passed.
        SocketError: A socket cannot be bound.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    place = settings.place(data)
    make_folder(place.folder)
    async with AsyncExitStack() as stack:
        stack.callback(Lock(place.lock).release)
        signer = found(place, os.urandom)
        writer = await Writer.start(place, signer, system_clock())
        stack.push_async_callback(writer.aclose)
        scratch = place.folder / SCRATCH
        make_folder(scratch)
        for left in scratch.iterdir():
            left.unlink()
        server = Server(writer, scratch)
        for role in settings.named_roles():
            path = socket_path(data, role.name)
            bound = bind(path)
            stack.callback(unbind, bound, path)
            await server.listen(bound, role)
        stack.push_async_callback(server.aclose)
        operate = socket_path(data, OPERATING_ROLE)
        bound = bind(operate)
        stack.callback(unbind, bound, operate)
        operators = await listen(bound, writer)
        stack.callback(operators.close)
        ready = {
            "ready": "ledger",
            "ledger_key": str(signer.verifier),
            "size": await writer.size(),
        }
        _warn(await writer.ask(lambda log: log.census()))
        _tune()
        print(json.dumps(ready), flush=True)  # noqa: T201 - the interface
        await stop.wait()


def _warn(census: Census) -> None:
    """Say on stderr when openings are gone that nobody erased; nothing depends on them."""
    try:
        census.check()
    except DamageError as error:
        print(json.dumps({"warning": str(error), "next": error.hint}), file=sys.stderr)  # noqa: T201 - the interface


def _tune() -> None:
    """Fit the interpreter to one busy thread and one event loop.

    The loop must not wait five milliseconds for a thread that hashes, and the collector need not
    visit a million kept names for every batch.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(*GENERATIONS)


if __name__ == "__main__":
    sys.exit(main())
