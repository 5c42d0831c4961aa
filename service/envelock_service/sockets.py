"""Unix sockets between processes of one deployment.

A socket's file has mode 0600, and the server asks the kernel who is at the other end. A socket
address holds at most 107 bytes; for a longer path the folder is opened and the socket named through
`/proc/self/fd`, which any client library takes as a path.
"""

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_ADDRESS = 107  # bytes of a path in a socket address
SOCKET_MODE = 0o600
BACKLOG = 512
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED


class SocketError(Exception):
    """A socket that cannot be bound or reached; the message names its path."""

    exit_code = 5
    code = "socket"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Address:
    """A path that fits a socket address, valid until `close`.

    `text` is what to hand to a client library, such as aiohttp's `UnixConnector`.
    """

    def __init__(self, path: Path) -> None:
        """Shorten *path* when it must be; its folder has to exist.

        Raises:
            SocketError: The folder cannot be opened.
        """
        self._descriptor: int | None = None
        self.text = str(path)
        if len(os.fsencode(path)) <= MAX_ADDRESS:
            return
        try:
            self._descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SocketError(f"{path.parent}: {error.strerror}") from error
        self.text = f"/proc/self/fd/{self._descriptor}/{path.name}"
        if len(os.fsencode(self.text)) > MAX_ADDRESS:
            self.close()
            raise SocketError(f"{path}: the name of the socket is too long")

    def close(self) -> None:
        """Give the folder back; sockets that are connected stay so."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def bind(path: Path) -> socket.socket:
    """Bind a listening, non-blocking stream socket at *path*, mode 0600.

    The folder is created for the owner alone. A file that a dead server left is replaced; one that
    still answers is not. Remove the file with `unbind` when the server ends.

    Raises:
        SocketError: Another server answers there, something else is in the way, or the path cannot
            be used.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # SECURITY: the mode is set before there is a file; after `bind` anybody could be quicker.
        os.fchmod(bound.fileno(), SOCKET_MODE)
        with _address(path) as address:
            bound.bind(address)
        bound.listen(BACKLOG)
        bound.setblocking(False)  # noqa: FBT003 - the name of the method says it
    except OSError as error:
        bound.close()
        raise SocketError(f"{path}: {error.strerror}") from error
    except SocketError:
        bound.close()
        raise
    return bound


def unbind(bound: socket.socket, path: Path) -> None:
    """Close a bound socket and remove its file."""
    bound.close()
    path.unlink(missing_ok=True)


def connect(path: Path, timeout_seconds: float) -> socket.socket:
    """Connect a blocking stream socket to *path*.

    Raises:
        SocketError: Nobody listens there, or not in time.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_seconds)
    try:
        with _address(path) as address:
            client.connect(address)
    except OSError as error:
        client.close()
        reason = error.strerror or "no answer in time"
        raise SocketError(f"{path}: {reason}", "start the server, or name its folder") from error
    except SocketError:
        client.close()
        raise
    return client


def peer_uid(connected: socket.socket) -> int:
    """User id of the process at the other end when it connected."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def peer_pid(connected: socket.socket) -> int:
    """Process id of whoever listened at the other end, also when it is stopped."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} is not a socket", "remove it, or name another folder")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            probe.connect(address)
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from error
    else:
        raise SocketError(f"{path}: another server answers there", "stop it first")
    finally:
        probe.close()


@contextmanager
def _address(path: Path) -> Iterator[str]:
    address = Address(path)
    try:
        yield address.text
    finally:
        address.close()
