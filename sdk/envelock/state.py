"""What was learned through a profile: it lies beside it, in files of mode 0600 without secrets.

`NAME.heads.json` maps the key of each pinned ledger to the newest head seen, `[size, root in
base64]`. Nothing else tells that a ledger was rolled back, so a file that cannot be read is an
error. `NAME.state.json` holds answers with their time; it is a cache, and counts as empty when it
cannot be read. Without a profile's file both live in memory.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from envelock.errors import ConfigError, ReceiptError
from envelock_formats.canonical import Json, encode, parse_object
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, from_b64

MAX_FILE = 4 * 1024 * 1024
MAX_CACHED = 200
MODE = 0o600


class Head(NamedTuple):
    """The size and root of a ledger at some time."""

    size: int
    root: bytes


class Heads:
    """The newest head of each pinned ledger; may be used from several threads and processes."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._memory: dict[str, Json] = {}
        self._lock = threading.Lock()

    def newest(self, ledger_key: str) -> Head | None:
        """The newest head that was seen under *ledger_key*; None when none was.

        Raises:
            ReceiptError: The file of heads cannot be read.
        """
        return self._head(self._read(), ledger_key)

    def advance(self, ledger_key: str, since: Head | None, head: Head) -> None:
        """Keep *head*, which was proven to extend *since*, when *since* is what is kept now.

        Raises:
            ReceiptError: The file of heads cannot be read.
            ConfigError: It cannot be written.
        """
        if head == since:
            return
        with self._lock, _turn(self._file):
            values = self._read()
            if self._head(values, ledger_key) == since:
                values[ledger_key] = [head.size, b64(head.root)]
                self._write(values)

    def _head(self, values: dict[str, Json], ledger_key: str) -> Head | None:
        try:
            match values.get(ledger_key):
                case None:
                    return None
                case [int(size), str(root)] if size > 0:
                    return Head(size, from_b64(root))
        except FormatError as error:
            raise self._lost("malformed") from error
        raise self._lost("malformed")

    def _read(self) -> dict[str, Json]:
        if self._file is None:
            return dict(self._memory)
        try:
            return parse_object(self._file.read_bytes(), max_bytes=MAX_FILE)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._lost(str(error.strerror)) from error
        except FormatError as error:
            raise self._lost("malformed") from error

    def _write(self, values: dict[str, Json]) -> None:
        if self._file is None:
            self._memory = values
            return
        try:
            _replace(self._file, encode(values))
        except OSError as error:
            raise ConfigError(
                f"{self._file}: {error.strerror}",
                hint="the newest head of the ledger is kept beside the profile: make it writable",
            ) from error

    def _lost(self, why: str) -> ReceiptError:
        return ReceiptError(
            f"{self._file}: {why}, so nobody can tell whether the ledger was rolled back",
            code="heads",
            hint="restore the file; or have an auditor verify the ledger, then remove it",
        )


class Cache:
    """Answers that are kept for a while, at most `MAX_CACHED`; the oldest are dropped."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._memory: dict[str, Json] = {}
        self._lock = threading.Lock()

    def get(self, name: str, *, now: int, seconds: int) -> Json:
        """What was put under *name* less than *seconds* ago; None when there is nothing."""
        match self._read().get(name):
            case {"at": int(at), "value": value} if 0 <= now - at < seconds:
                return value
            case _:
                return None

    def put(self, name: str, value: Json, *, now: int) -> None:
        """Keep *value*; where the file cannot be written nothing is kept."""
        with suppress(OSError, ConfigError), self._lock, _turn(self._file):
            others = [item for item in self._read().items() if item[0] != name]
            others.sort(key=_time, reverse=True)
            entry: Json = {"at": now, "value": value}
            self._write({name: entry, **dict(others[: MAX_CACHED - 1])})

    def _read(self) -> dict[str, Json]:
        if self._file is None:
            return self._memory
        try:
            return parse_object(self._file.read_bytes(), max_bytes=MAX_FILE)
        except (OSError, FormatError):
            return {}

    def _write(self, values: dict[str, Json]) -> None:
        if self._file is None:
            self._memory = values
        else:
            _replace(self._file, encode(values))


def _time(item: tuple[str, Json]) -> int:
    """When an entry was made; what is no entry is older than all."""
    match item[1]:
        case {"at": int(at)}:
            return at
        case _:
            return -1


def _replace(file: Path, text: bytes) -> None:
    """Write *file* whole; called in the turn of this process."""
    fresh = file.with_name(f".{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(text)
    fresh.replace(file)


@contextmanager
def _turn(file: Path | None) -> Iterator[None]:
    """Threads and processes take turns to change *file*."""
    if file is None:
        yield
        return
    try:
        descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, MODE)
    except OSError as error:
        raise ConfigError(
            f"{file.with_suffix('.lock')}: {error.strerror}",
            hint="the newest head of the ledger is kept beside the profile: make it writable",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
