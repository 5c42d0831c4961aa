"""What a check before the start found, and how it travels from the rooms that check."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One check: `fail` keeps the deployment from starting or from releasing; `warn` does not."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    next: str = ""


class Findings:
    """Findings in the order of the checks.

    Args:
        expected: What a check may raise; each has a message for people, and perhaps a hint.
    """

    def __init__(self, *expected: type[Exception]) -> None:
        self.found: list[Finding] = []
        self._expected = expected

    @contextmanager
    def check(self, name: str, good: str, next_step: str = "") -> Iterator[None]:
        """Run the block as the check *name*; what it raises is the finding, else *good*."""
        try:
            yield
        except self._expected as error:
            hint = getattr(error, "hint", None) or next_step
            self.add(name, "fail", str(error) or type(error).__name__, hint)
        else:
            self.add(name, "ok", good)

    def add(
        self, name: str, state: Literal["ok", "warn", "fail"], detail: str, next_step: str = ""
    ) -> None:
        """Add a finding."""
        self.found.append(Finding(name, state, detail, next_step))

    def print(self) -> None:
        """Hand them over, as one line of JSON on stdout."""
        sys.stdout.write(msgspec.json.encode(self.found).decode() + "\n")


def read_findings(line: bytes) -> Sequence[Finding]:
    """What `print` wrote; `msgspec.MsgspecError` for anything else."""
    return msgspec.json.decode(line, type=list[Finding])
