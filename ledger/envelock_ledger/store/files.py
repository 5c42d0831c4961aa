"""Files that must stay what they are while they are open."""

import fcntl
import os
from pathlib import Path

from envelock_ledger.errors import DamageError, LedgerUnavailableError, LedgerUsageError

FILE_MODE = 0o600
FOLDER_MODE = 0o700


class Pinned:
    """Notices that a path no longer names the file that was opened there.

    A database whose file was unlinked or replaced still accepts commits, and nobody will ever read
    them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._look()

    def check(self) -> None:
        """Raise `LedgerUnavailableError` when the path names another file, or none."""
        if self._look() != self._identity:
            raise LedgerUnavailableError(
                f"{self._path} was replaced while it was open",
                "put the original file back, or follow the recovery procedure",
            )

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - twice per batch, and a Path costs more
        except OSError:
            return (0, 0, 0)
        return (found.st_dev, found.st_ino, found.st_nlink)


class Lock:
    """An exclusive lock on a folder, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock at *path*, creating the file.

        Raises:
            LedgerUnavailableError: Another process holds it.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise LedgerUnavailableError(
                f"another process owns the ledger in {path.parent}",
                "use its socket, or stop it first",
            ) from error

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


def sync_folder(path: Path) -> None:
    """Make names that were created, renamed or removed in *path* durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create *path*, and what is missing above it, for the owner alone; durably.

    Its name is made durable also when it is there: whoever created it may have died before that.
    """
    if not path.is_dir():
        if not path.parent.is_dir():
            make_folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
    sync_folder(path.parent)


def create_or_refuse(path: Path, *, create: bool) -> None:
    """Make sure that a file is at *path*: an empty one when it is to be created.

    Raises:
        DamageError: It is missing, and it is not time to create it.
    """
    if path.exists():
        return
    if not create:
        raise DamageError(
            f"{path} is missing", "put the original back, or follow the recovery procedure"
        )
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))


def write_new(path: Path, content: bytes) -> None:
    """Create *path* with *content*, for the owner alone: whole and durable, or not at all.

    Raises:
        FileExistsError: It exists.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    settle(partial, path)


def refuse_existing(path: Path) -> None:
    """Raise `LedgerUsageError` when something is at *path*."""
    if os.path.lexists(path):
        raise LedgerUsageError(f"{path} exists", "name a new file")


def settle(partial: Path, path: Path) -> None:
    """Give a finished file its name, durably; `FileExistsError` when the name is taken."""
    os.link(partial, path)  # unlike a rename, this refuses to replace
    partial.unlink()
    sync_folder(path.parent)
