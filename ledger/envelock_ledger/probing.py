"""Whether the places of the ledger still take what an append would write.

Nothing is appended for it: a scratch file is written, made durable and removed beside the records
and beside the anchor. Whoever asks while that is done shares it, so a disk that hangs holds one
thread and no more.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from envelock_ledger.errors import LedgerUnavailableError
from envelock_ledger.place import Place
from envelock_ledger.store.files import FILE_MODE
from envelock_service.resident import resident_bytes

SCRATCH = ".probe"
SCRATCH_BYTES = 64 << 10
FRESH_SECONDS = 0.5  # how long a success answers for those who come after it
_HINT = "mend the disk or its mount, or put the file back; nothing has to be started anew"


class Prober:
    """Probes the files of one ledger; belongs to an event loop.

    Args:
        place: Where they are.
        clock_us: Microseconds since 1970.
    """

    def __init__(self, place: Place, clock_us: Callable[[], int]) -> None:
        self._place = place
        self._started = clock_us() // 1_000_000
        self._probing: asyncio.Future[None] | None = None
        self._succeeded = float("-inf")  # monotonic seconds

    def numbers(self) -> dict[str, int]:
        """About this process and its disks: when it began is in unix seconds."""
        place = self._place
        return {
            "anchor_free_bytes": _free(place.anchor.parent),
            "anchor_on_same_device": int(on_one_device(place)),
            "free_bytes": _free(place.folder),
            "pid": os.getpid(),
            "rss_bytes": resident_bytes(),
            "started": self._started,
        }

    async def require_room(self) -> None:
        """Raise `LedgerUnavailableError` unless files are there and can grow."""
        if time.monotonic() - self._succeeded < FRESH_SECONDS:
            return
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(asyncio.to_thread(require_room, self._place))
        await asyncio.shield(self._probing)
        self._succeeded = time.monotonic()


def require_room(place: Place) -> None:
    """Raise `LedgerUnavailableError` unless records and anchor are there and can grow."""
    for path in (place.database, place.anchor):
        if not path.exists():
            raise LedgerUnavailableError(f"{path} is missing", _HINT)
    for folder in {place.database.parent, place.anchor.parent}:
        _write(folder / SCRATCH)


def on_one_device(place: Place) -> bool:
    """Whether records and anchor are on one file system; folders to come are on that above them."""
    return _device(place.anchor.parent) == _device(place.folder)


def _write(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            if os.write(descriptor, bytes(SCRATCH_BYTES)) != SCRATCH_BYTES:
                raise LedgerUnavailableError(f"{path.parent}: no space left", _HINT)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
    except OSError as error:
        raise LedgerUnavailableError(f"{path.parent}: {error.strerror}", _HINT) from error


def _free(folder: Path) -> int:
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize
    return 0


def _device(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.stat().st_dev
