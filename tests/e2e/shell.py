"""A person at a shell: runs `envelock` as a process, and compares output with a transcript."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def value(self) -> dict:
        return json.loads(self.out)

    @property
    def problem(self) -> dict:
        return json.loads(self.err)


@dataclass
class Shell:
    """One directory, one environment, one `envelock`."""

    directory: Path
    environment: dict = field(default_factory=dict)
    program: tuple = (sys.executable, "-m", "envelock")

    def __call__(self, line: str, *more: object, stdin: bytes = b"") -> Ended:
        """Run `envelock LINE`, split at spaces, then *more* as they are."""
        done = subprocess.run(
            [*self.program, *line.split(), *map(str, more)],
            input=stdin,
            capture_output=True,
            cwd=self.directory,
            env=self.full_environment,
            check=False,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr.decode())

    @property
    def full_environment(self) -> dict:
        own = {name: text for name, text in os.environ.items() if not name.startswith("ENVELOCK")}
        return own | {"XDG_CONFIG_HOME": str(self.directory / "config")} | self.environment


def reads(text: str, transcript: str) -> bool:
    """Whether *text* is *transcript*, line by line; `...` there stands for anything in a line."""
    shown, wanted = text.splitlines(), transcript.strip("\n").splitlines()
    if len(shown) != len(wanted):
        return False
    return all(map(_like, wanted, shown))


def _like(wanted: str, shown: str) -> bool:
    return re.fullmatch(re.escape(wanted).replace(r"\.\.\.", ".+"), shown) is not None
