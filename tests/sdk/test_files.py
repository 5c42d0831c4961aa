"""Sources and targets: whatever bytes come from or go to."""

import contextlib
import gzip
import io
import os
import stat
import threading
from pathlib import Path

import pytest

from envelock.errors import ConfigError
from envelock.files import Sink, chunks, output, random_access, read_at, size_hint

DATA = bytes(range(256)) * 40


class ReadOnly:
    """A binary file object with `read` alone, that gives seven bytes at a time."""

    def __init__(self, data):
        """Start at the first byte."""
        self.inner = io.BytesIO(data)

    def read(self, count):
        """At most seven bytes."""
        return self.inner.read(min(count, 7))

    def seekable(self):
        """Never."""
        return False


class Piecemeal(io.RawIOBase):
    """A target that takes three bytes at a time, or none when it is stuck."""

    def __init__(self, *, stuck=False):
        """Nothing taken yet."""
        self.taken, self.stuck = b"", stuck

    def writable(self):
        """Always."""
        return True

    def write(self, data):
        """Take three bytes."""
        if self.stuck:
            return None
        self.taken += bytes(data[:3])
        return min(3, len(data))


def piped(data):
    """The reading end of a pipe that somebody writes *data* into, bit by bit."""
    reading, writing = os.pipe()

    def write():
        with os.fdopen(writing, "wb", buffering=0) as stream:
            for start in range(0, len(data), 1000):
                stream.write(data[start : start + 1000])

    threading.Thread(target=write).start()
    return os.fdopen(reading, "rb", buffering=0)


@contextlib.contextmanager
def given_fifo(path):
    """A named pipe at *path* that somebody writes DATA into."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(DATA,))
    writer.start()
    yield path
    writer.join()


def given_gzip(path):
    """A stream whose descriptor is not its bytes."""
    path.write_bytes(gzip.compress(DATA))
    return gzip.open(path)


SHAPES = {
    "bytes": lambda _: contextlib.nullcontext(DATA),
    "bytearray": lambda _: contextlib.nullcontext(bytearray(DATA)),
    "memoryview": lambda _: contextlib.nullcontext(memoryview(DATA)),
    "path": lambda place: contextlib.nullcontext(place / "source"),
    "file": lambda place: (place / "source").open("rb", buffering=0),
    "buffered": lambda place: (place / "source").open("rb"),
    "bytesio": lambda _: io.BytesIO(DATA),
    "pipe": lambda _: piped(DATA),
    "read alone": lambda _: contextlib.nullcontext(ReadOnly(DATA)),
    "gzip": lambda place: given_gzip(place / "zipped"),
    "fifo": lambda place: given_fifo(place / "fifo"),
}


@pytest.fixture(params=SHAPES)
def source(request, tmp_path):
    """DATA, in every shape that a source may have."""
    (tmp_path / "source").write_bytes(DATA)
    with SHAPES[request.param](tmp_path) as shaped:
        yield shaped


def test_every_source_is_read_in_whole_pieces(source):
    """Short reads are filled up: all pieces but the last have the size asked for."""
    pieces = [bytes(piece) for piece in chunks(source, 1000)]

    assert b"".join(pieces) == DATA
    assert {len(piece) for piece in pieces[:-1]} == {1000}


def test_every_source_is_read_at_any_offset(source):
    """Pipes are spooled, files are read in place; nothing is read beyond the end."""
    opened = random_access(source)

    assert opened.size == len(DATA)
    assert read_at(opened, 5000, 100) == DATA[5000:5100]
    assert read_at(opened, len(DATA) - 1, 100) == DATA[-1:]
    assert read_at(opened, len(DATA) + 10, 1 << 60) == b""
    opened.close()


def test_a_file_object_is_read_from_its_position(tmp_path):
    """What was read before is not part of the source, and the caller's file stays open."""
    path = tmp_path / "source"
    path.write_bytes(b"header" + DATA)
    for stream in (path.open("rb", buffering=0), path.open("rb"), io.BytesIO(b"header" + DATA)):
        with stream:
            stream.seek(6)
            opened = random_access(stream)
            assert read_at(opened, 0, opened.size) == DATA
            opened.close()
            stream.seek(6)

            assert b"".join(bytes(piece) for piece in chunks(stream, 999)) == DATA
            assert not stream.closed


def test_tells_sizes_only_where_they_are_certain(tmp_path):
    """Memory and regular files at a path have a size; streams have none."""
    path = tmp_path / "source"
    path.write_bytes(DATA)

    assert size_hint(DATA) == size_hint(path) == len(DATA)
    assert size_hint(memoryview(b"12345678").cast("I")) == 8
    assert size_hint(io.BytesIO(DATA)) is None
    assert size_hint(Path("/dev/null")) is None


def test_refuses_what_could_be_path_or_text():
    """A `str` is ambiguous, a text file is not bytes, a number is neither."""
    for wrong, words in (("x", "path or text"), (io.StringIO("x"), "text mode"), (3, "neither")):
        with pytest.raises(TypeError, match=words):
            list(chunks(wrong, 10))
        with pytest.raises(TypeError, match=words):
            random_access(wrong)
        with pytest.raises(TypeError, match=words), output(wrong):
            pass


def test_writes_all_to_a_target_that_takes_a_little():
    """Partial writes are continued, and a target that takes nothing is an error."""
    target = Piecemeal()
    Sink(target).write(DATA)

    assert target.taken == DATA
    with pytest.raises(BlockingIOError):
        Sink(Piecemeal(stuck=True)).write(b"x")


def interrupted(target, error):
    """Write a part of *target*, then fail."""
    with output(target, force=True) as sink:
        sink.write(DATA)
        raise error


def overtaken(target):
    """Write *target* while somebody else makes it."""
    with output(target) as sink:
        sink.write(DATA)
        target.write_bytes(b"old")


def test_a_path_appears_complete_or_not_at_all(tmp_path):
    """W24: nothing stands at the path until all is written, and nothing is left after an error."""
    target = tmp_path / "target"
    with output(target) as sink:
        sink.write(DATA)
        assert not target.exists()
    assert target.read_bytes() == DATA

    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(tmp_path / "other", error)

    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_target_stays_without_force(tmp_path):
    """Without force the call fails before anything is written, and in a race at the end."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(ConfigError, match="exists") as caught, output(target):
        pass
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError, match="exists"):
        overtaken(tmp_path / "race")

    assert target.read_bytes() == (tmp_path / "race").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_force_replaces_content_and_keeps_mode(tmp_path):
    """A replaced file keeps its permissions; on an error it keeps its content."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o600)
    with pytest.raises(OSError, match="disk"):
        interrupted(target, OSError("disk"))
    assert target.read_bytes() == b"old"

    with output(target, force=True) as sink:
        sink.write(DATA)

    assert target.read_bytes() == DATA
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    """The file behind a symbolic link is replaced, the link is not."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")

    with output(tmp_path / "link", force=True) as sink:
        sink.write(DATA)

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == DATA


def test_devices_are_written_and_directories_refused(tmp_path):
    """A device is never replaced by a file."""
    with output(Path("/dev/null")) as sink:
        sink.write(DATA)

    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(ConfigError, match="directory"), output(tmp_path, force=True):
        pass
    with pytest.raises(FileNotFoundError), output(tmp_path / "missing" / "x"):
        pass


def test_a_file_object_gets_everything_and_stays_open(tmp_path):
    """A buffered target is flushed."""
    with (tmp_path / "target").open("wb") as stream:
        with output(stream) as sink:
            sink.write(b"x")

        assert (tmp_path / "target").read_bytes() == b"x"
        assert not stream.closed
