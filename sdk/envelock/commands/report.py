"""How a command ends: one `error:` or `refused:` line, one `next:` line, and the exit code.

0 done; 1 unexpected, or a policy case that failed; 2 usage or configuration; 3 denied; 4 the file;
5 unavailable; 6 a receipt, the ledger or a pinned key does not verify; 130 interrupted.
"""

import errno
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import click

from envelock.commands.console import as_json, write_line
from envelock.errors import DeniedError
from envelock_formats.printable import printable

UNEXPECTED, USAGE, UNAVAILABLE, INTERRUPTED = 1, 2, 5, 130
DEBUG = "ENVELOCK_DEBUG"
_OPTIONAL = "pip install 'envelock[all]'"
_HINTS = {
    errno.ENOENT: "check the name; nothing was written",
    errno.EACCES: "check who may read and write it",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "make room, then run it again",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What a failed command says."""

    exit_code: int
    code: str
    message: str
    hint: str | None = None
    request_id: str | None = None
    word: str = "error"


def report(error: BaseException, *, as_object: bool) -> int:
    """Print what went wrong on stderr, and return the exit code.

    Args:
        error: What a command raised.
        as_object: One JSON object instead of lines.
    """
    if os.environ.get(DEBUG) == "1":
        sys.excepthook(type(error), error, error.__traceback__)
    ending = ending_of(error)
    for line in _lines(ending) if not as_object else [_object(ending)]:
        write_line(sys.stderr, line)
    return ending.exit_code


def ending_of(error: BaseException) -> Ending:
    """What *error* means to a person.

    Errors of every room carry `exit_code`, and `code`, `hint` and `request_id` where they have
    them; what carries none is unexpected, and shown by its kind alone.
    """
    match error:
        case click.ClickException():
            return _usage(error)
        case ModuleNotFoundError(name=str(name)) if not name.startswith("envelock"):
            return Ending(USAGE, "not_installed", f"this needs the package {name}", _OPTIONAL)
        case ConnectionError() | TimeoutError():
            message = f"no answer: {error.strerror or type(error).__name__}"
            return Ending(UNAVAILABLE, "unavailable", message, "is the server running? try again")
        case OSError() if error.errno is not None:
            return _file(error)
    exit_code = getattr(error, "exit_code", None)
    if not isinstance(exit_code, int):
        message = f"unexpected {type(error).__name__}: {error}" if str(error) else repr(error)
        hint = f"set {DEBUG}=1 for the traceback, and report it"
        return Ending(UNEXPECTED, "unexpected", message, hint)
    return Ending(
        exit_code,
        str(getattr(error, "code", "error")),
        str(error),
        getattr(error, "hint", None),
        getattr(error, "request_id", None),
        "refused" if isinstance(error, DeniedError) else "error",
    )


def _usage(error: click.ClickException) -> Ending:
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else "envelock"
    return Ending(USAGE, "usage", error.format_message(), f"{path} --help")


def _file(error: OSError) -> Ending:
    reason = error.strerror or type(error).__name__
    message = f"{error.filename}: {reason}" if error.filename else reason
    return Ending(USAGE, "file", message, _HINTS.get(error.errno or 0))


def _lines(ending: Ending) -> Iterable[str]:
    yield f"{ending.word}: {printable(ending.message)}"
    if ending.hint:
        yield f"next: {printable(ending.hint)}"


def _object(ending: Ending) -> str:
    return as_json(
        {
            "error": ending.message,
            "code": ending.code,
            "next": ending.hint,
            "request_id": ending.request_id,
            "exit_code": ending.exit_code,
        }
    )
