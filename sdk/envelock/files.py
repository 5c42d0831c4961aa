"""Where bytes come from and go to: paths, file objects, pipes, memory.

A target path is written beside itself and renamed once complete, so it holds the whole or nothing.
A source is read as a stream for sealing, and at any offset for opening; a pipe that is to be opened
at any offset is first spooled, still sealed, into an unnamed file on disk.
"""

import contextlib
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from envelock.errors import ConfigError

Source: TypeAlias = bytes | bytearray | memoryview | PathLike[str] | BinaryIO
Target: TypeAlias = PathLike[str] | BinaryIO
Progress: TypeAlias = Callable[[int], None]  # bytes of plaintext done so far

MAX_RETURNED = 256 * 1024 * 1024  # bytes that are handed back instead of written
_SPOOL_STEP = 1 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class RandomAccess(Protocol):
    """Bytes at any offset; reads take no position and may run in several threads."""

    size: int

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill *buffer* from *offset*; returns fewer bytes only at the end."""
        ...

    def close(self) -> None: ...


def read_at(source: RandomAccess, offset: int, count: int) -> bytes:
    """*count* bytes at *offset*, fewer at the end; never allocates beyond the end."""
    buffer = bytearray(max(0, min(count, source.size - offset)))
    return bytes(buffer[: source.read_into(offset, memoryview(buffer))])


def chunks(source: Source, size: int) -> Iterator[memoryview]:
    """Read *source* from its position to its end in pieces of *size* bytes; the last is shorter.

    A piece is valid until the next is taken. A source without bytes yields nothing. Memory is
    sliced, not copied.

    Raises:
        TypeError: *source* is a `str`, or a file opened in text mode.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = _flat(source)
        yield from (view[start : start + size] for start in range(0, len(view), size))
        return
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_opened(source))
        buffer = memoryview(bytearray(size))
        while count := _fill(stream, buffer):
            yield buffer[:count]
            if count < size:
                return


def size_hint(source: Source) -> int | None:
    """Bytes that `chunks` will yield, when memory or a regular file at a path tells."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return memoryview(source).nbytes
    if isinstance(source, PathLike):
        found = Path(source).stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


def random_access(source: Source) -> RandomAccess:
    """Give *source* a read at any offset; a file object from its position to its end.

    Raises:
        TypeError: *source* is a `str`, or a file opened in text mode.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _Memory(_flat(source))
    _refuse_others(source)
    if isinstance(source, PathLike):
        stream: BinaryIO = Path(source).open("rb", buffering=0)  # noqa: SIM115 closed by _Descriptor or below
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return _Descriptor(stream, 0, owned=True)
        with stream:
            return _spooled(stream)
    if not source.seekable():
        return _spooled(source)
    if type(source) is io.FileIO or (
        type(source) is io.BufferedReader and type(source.raw) is io.FileIO
    ):
        return _Descriptor(source, source.tell(), owned=False)
    return _Seekable(source)


@contextlib.contextmanager
def output(target: Target, *, force: bool = False) -> Iterator["Sink"]:
    """Open *target* for writing; a path appears complete or not at all.

    Raises:
        ConfigError: The path exists and *force* is not set, or cannot be a file.
        TypeError: *target* is a `str`.
    """
    _refuse_others(target)
    if not isinstance(target, PathLike):
        yield Sink(target)
        target.flush()
        return
    path = Path(os.path.realpath(target))
    place = _Place.of(path)
    if place.is_stream:
        with path.open("wb", buffering=0) as stream:
            yield Sink(stream)
        return
    if place.mode is not None and not force:
        raise _exists(path)
    yield from _beside(path, place.mode, force=force)


class Sink:
    """Writes whole buffers to a file object that may take only a part of one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: memoryview | bytes) -> None:
        """Write all of *data*.

        Raises:
            BlockingIOError: The stream is in non-blocking mode and takes nothing.
        """
        rest = memoryview(data)
        while rest:
            count = self._stream.write(rest)
            if count is None:
                raise BlockingIOError("target is in non-blocking mode")
            rest = rest[count:]


@dataclass(frozen=True, slots=True)
class _Place:
    """What lies at a target path: nothing, a regular file with its mode, or a stream."""

    mode: int | None
    is_stream: bool

    @classmethod
    def of(cls, path: Path) -> "_Place":
        try:
            found = path.stat()
        except FileNotFoundError:
            return cls(None, is_stream=False)
        if stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"target {path} is a directory", hint="name a file in it")
        return cls(stat.S_IMODE(found.st_mode), is_stream=not stat.S_ISREG(found.st_mode))


def _beside(path: Path, mode: int | None, *, force: bool) -> Iterator[Sink]:
    """Write a temporary neighbour of *path*, make it durable, then give it the name."""
    partial = path.with_name(f".envelock-{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW
    descriptor = os.open(partial, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as stream:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield Sink(stream)
            os.fsync(descriptor)
        _name(partial, path, force=force)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _name(partial: Path, path: Path, *, force: bool) -> None:
    if force:
        partial.replace(path)
        return
    try:
        path.hardlink_to(partial)  # unlike a rename, fails when somebody else made the file
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:  # a file system without hard links
        partial.replace(path)
    else:
        partial.unlink()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"target {path} exists", code="target_exists", hint="pass force, or name another target"
    )


class _Memory:
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.size = len(view)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        part = self._view[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._view.release()


class _Descriptor:
    """A regular file, read by its descriptor; the position of the file object stays as it is."""

    def __init__(self, stream: BinaryIO, start: int, *, owned: bool) -> None:
        self._stream, self._start, self._owned = stream, start, owned
        self._descriptor = stream.fileno()
        self.size = max(0, os.fstat(self._descriptor).st_size - start)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer):
            count = os.preadv(self._descriptor, [buffer[done:]], self._start + offset + done)
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        if self._owned:
            self._stream.close()


class _Seekable:
    """Any other seekable file object; one thread at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._start = stream, stream.tell()
        self.size = max(0, stream.seek(0, os.SEEK_END) - self._start)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self._stream.seek(self._start + offset)
        return _fill(self._stream, buffer)

    def close(self) -> None:
        """The file object belongs to the caller."""


def _spooled(stream: BinaryIO) -> _Descriptor:
    # /tmp may be memory; a spool may be larger than that
    place = os.environ.get("TMPDIR") or next(filter(os.path.isdir, ["/var/tmp"]), None)  # noqa: S108 an unnamed file
    spool = tempfile.TemporaryFile(buffering=0, dir=place)  # noqa: SIM115 closed by _Descriptor
    buffer = memoryview(bytearray(_SPOOL_STEP))
    sink = Sink(spool)
    try:
        while count := _fill(stream, buffer):
            sink.write(buffer[:count])
        return _Descriptor(spool, 0, owned=True)
    except BaseException:
        spool.close()
        raise


def _opened(source: "PathLike[str] | BinaryIO") -> contextlib.AbstractContextManager[BinaryIO]:
    _refuse_others(source)
    if isinstance(source, PathLike):
        return Path(source).open("rb", buffering=0)
    return contextlib.nullcontext(source)


def _fill(stream: BinaryIO, buffer: memoryview) -> int:
    """Read until *buffer* is full or the stream ends; pipes give what they have at the moment."""
    done = 0
    while done < len(buffer):
        count = _read_some(stream, buffer[done:])
        if not count:
            break
        done += count
    return done


def _read_some(stream: BinaryIO, buffer: memoryview) -> int:
    readinto = getattr(stream, "readinto", None)
    if readinto is not None:
        count: int | None = readinto(buffer)
        if count is None:
            raise BlockingIOError("source is in non-blocking mode")
        return count
    data = stream.read(len(buffer))
    if data is None:
        raise BlockingIOError("source is in non-blocking mode")
    buffer[: len(data)] = data
    return len(data)


def _flat(source: bytes | bytearray | memoryview) -> memoryview:
    return memoryview(source).cast("B")


def _refuse_others(place: object) -> None:
    refuse_text(place)
    if isinstance(place, io.TextIOBase):
        raise TypeError("file is opened in text mode; open it in binary mode")
    if not isinstance(place, PathLike) and not hasattr(place, "seekable"):
        raise TypeError(f"neither bytes, path nor binary file: {type(place).__name__}")


def refuse_text(source: object) -> None:
    """Raise `TypeError` for a `str`, which could be meant as a path or as text."""
    if isinstance(source, str):
        raise TypeError("path or text? use Path(...) or .encode()")


def refuse_large(size: int | None) -> None:
    """Raise `ConfigError` when *size* bytes are too many to be returned in memory."""
    if size is not None and size > MAX_RETURNED:
        raise ConfigError(f"{size} bytes are too many to return", hint="pass out=")
