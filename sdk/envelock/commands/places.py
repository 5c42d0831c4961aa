"""Where a command reads and writes: files, stdin and stdout, and what a terminal may get."""

import codecs
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from envelock.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on

SUFFIX = ".tdf"
STREAM = "-"
_LINES = frozenset("\n\r\t")


@dataclass(frozen=True, slots=True)
class Ends:
    """What is read, what is written, and what people call the former."""

    source: Path | BinaryIO
    target: Path | BinaryIO
    label: str

    @property
    def out(self) -> str | None:
        """The path that is written; None for stdout."""
        return str(self.target) if isinstance(self.target, Path) else None


def to_seal(file: str | None, out: str | None, *, force: bool) -> Ends:
    """The ends of `encrypt`: a file becomes its name with `.tdf`, stdin goes to stdout.

    Raises:
        ConfigError: The target exists and *force* is not set, or it is a terminal.
    """
    if file is None and sys.stdin.isatty():
        raise ConfigError("nothing to seal", hint="name a file, or pipe something in")
    source, label = _source(file or STREAM)
    target = _target(out, source, f"{label}{SUFFIX}", force=force)
    if not isinstance(target, Path) and sys.stdout.isatty():
        raise ConfigError(
            "sealed bytes are not for a terminal", hint="name a file with -o OUT, or pipe it on"
        )
    return Ends(source, target, label)


def to_open(file: str, out: str | None, *, force: bool) -> Ends:
    """The ends of `decrypt`: a file loses its `.tdf`, stdin goes to stdout.

    Raises:
        ConfigError: The target exists and *force* is not set, or nothing says what it is called.
    """
    source, label = _source(file)
    if out is None and isinstance(source, Path) and not label.endswith(SUFFIX):
        raise ConfigError(
            f"{label} does not end in {SUFFIX}",
            hint="name the target: -o OUT, or -o - for stdout",
        )
    target = _target(out, source, label.removesuffix(SUFFIX), force=force)
    if not isinstance(target, Path) and sys.stdout.isatty():
        return Ends(source, cast("BinaryIO", TerminalText(target)), label)
    return Ends(source, target, label)


def named_source(file: str) -> Path | BinaryIO:
    """A path, or stdin for `-`."""
    return _source(file)[0]


def require_absent(path: Path, *, force: bool) -> None:
    """Refuse a file that exists, before anything is asked of a server.

    Raises:
        ConfigError: It exists and *force* is not set.
    """
    if path.is_file() and not force:
        raise ConfigError(
            f"{path} exists", code="target_exists", hint="pass --force, or name another with -o OUT"
        )


class TerminalText(io.RawIOBase):
    """Lets text through to a terminal, and refuses the first bytes that are none.

    SECURITY: what was sealed by others could hold sequences that act on a terminal.
    """

    def __init__(self, terminal: BinaryIO) -> None:
        super().__init__()
        self._terminal = terminal
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: "Buffer", /) -> int:
        """Write text.

        Raises:
            ConfigError: It is not plain text.
        """
        piece = bytes(data)
        try:
            text = self._decode(piece)
        except UnicodeDecodeError as error:
            raise _not_text() from error
        if not all(letter.isprintable() or letter in _LINES for letter in text):
            raise _not_text()
        self._terminal.write(text.encode())
        return len(piece)

    def flush(self) -> None:
        """Hand on what was written."""
        self._terminal.flush()


def _not_text() -> ConfigError:
    return ConfigError(
        "the content is not plain text, so it is not for a terminal",
        hint="write it to a file with -o OUT, or pipe it on",
    )


def _source(file: str) -> tuple[Path | BinaryIO, str]:
    if file == STREAM:
        return sys.stdin.buffer, "stdin"
    return Path(file), file


def _target(
    out: str | None, source: Path | BinaryIO, default: str, *, force: bool
) -> Path | BinaryIO:
    if out == STREAM or (out is None and not isinstance(source, Path)):
        return sys.stdout.buffer
    path = Path(default if out is None else out)
    require_absent(path, force=force)
    return path
