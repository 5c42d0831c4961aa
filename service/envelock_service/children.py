"""Processes that are started, watched, restarted when they die, and stopped in order."""

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

READY_SECONDS = 20.0
STOP_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 5.0
STEADY_SECONDS = 10.0
FOR_GOOD = 6  # exit code that no restart mends: the ledger does not verify
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


class ChildError(Exception):
    """A child refused to start; its own error line has been printed.

    Args:
        message: What happened.
        exit_code: The child's, which becomes ours.
    """

    code = "child"
    hint = "see the error of the process above"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Child:
    """One process, `python -m MODULE ARGUMENTS`. One task owns it."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    drained: asyncio.Task[None] | None = None

    async def start(self) -> Mapping[str, object]:
        """Start the process and wait for its ready line; returns what that says.

        Raises:
            ChildError: It ended, or was not ready in time.
        """
        self.starts += 1
        try:
            self.process = await self._spawn()
        except OSError as error:
            raise ChildError(f"{self.name} cannot be started: {error.strerror}", 5) from error
        output = self.process.stdout
        if output is None:
            raise ChildError(f"{self.name} has no output", 1)
        try:
            line = await asyncio.wait_for(output.readline(), READY_SECONDS)
        except TimeoutError as error:
            await self.stop()
            raise ChildError(f"{self.name} was not ready in {READY_SECONDS:.0f} s", 5) from error
        if not line:
            raise ChildError(f"{self.name} did not start", await self.process.wait())
        self.drained = asyncio.create_task(_drain(output))
        ready: dict[str, object] = json.loads(line)
        return ready

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    async def stop(self) -> None:
        """Ask the process to end; make it after `STOP_SECONDS`."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            _log.warning("%s did not stop in time and is killed", self.name)
            process.kill()
            await process.wait()

    async def watch(self, told: Callable[[str], None]) -> None:
        """Restart the process whenever it ends, with back-off; ends only by cancellation.

        It has started once, so whatever keeps it from starting again, such as a port that somebody
        else took meanwhile, may pass.

        Raises:
            ChildError: The ledger does not verify.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            pause = await self._lived(pause)
            code = self.process.returncode if self.process else None
            told(f"{self.name} ended ({_reason(code)}); started again in {pause:.1f} s")
            await asyncio.sleep(pause)
            try:
                await self.start()
                told(f"{self.name} is up again")
            except ChildError as error:
                if error.exit_code == FOR_GOOD:
                    raise
                told(str(error))

    async def _lived(self, pause: float) -> float:
        """Wait for the end; returns the next pause, short again after a long life."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if self.process is not None:
            await self.process.wait()
        if loop.time() - begun > STEADY_SECONDS:
            return FIRST_PAUSE_SECONDS
        return min(2 * pause, LAST_PAUSE_SECONDS)


def _end_with_parent() -> None:
    """In the child: have the kernel send SIGTERM when the parent is gone, however it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _drain(output: asyncio.StreamReader) -> None:
    while await output.read(1 << 16):
        pass


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"
