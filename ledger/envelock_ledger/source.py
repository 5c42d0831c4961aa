"""Where the command line reads from: a copy, a stopped ledger, or the process that runs it."""

import asyncio
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from envelock_ledger.anchor import read_anchor
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.copying import Copy
from envelock_ledger.erasing import Census, take_census
from envelock_ledger.errors import DamageError, LedgerUnavailableError, LedgerUsageError, ProofError
from envelock_ledger.exporting import import_export, is_export
from envelock_ledger.merkle import Prover
from envelock_ledger.nodes import StoredNodes
from envelock_ledger.note import Note, VerifierKey
from envelock_ledger.operating import Count, Counted, ask
from envelock_ledger.place import Place
from envelock_ledger.proof import HEADER, Receipt
from envelock_ledger.record import parse
from envelock_ledger.remote import LedgerClient
from envelock_ledger.settings import OPERATING_ROLE, READING_ROLE, load, socket_path
from envelock_ledger.store import Head, Store
from envelock_ledger.store.files import Lock
from envelock_ledger.store.sqlite import SqliteStore
from envelock_ledger.verify import Tally


class Source(Protocol):
    """Records and the signed checkpoint over them; nothing is verified."""

    note: str  # signed checkpoint
    size: int  # records that it covers

    def records(self, start: int, stop: int) -> list[bytes]:
        """Bytes of records `start <= index < stop`."""

    def prove(self, index: int) -> Receipt:
        """Receipt of the record at *index*, without openings."""

    def snapshot(self, path: Path) -> None:
        """Write a copy to *path*."""

    def stored(self) -> Store:
        """All of it as a store, to be verified."""

    def census(self, tally: Tally) -> Census | None:
        """The openings, held against the records in *tally*; None of a copy, which has none."""


class Stored:
    """A database file that nobody writes."""

    def __init__(self, store: Store, note: str, place: Place | None = None) -> None:
        """Read *store* up to the size that *note* names; openings are those of *place*."""
        self.note, self._store, self._place = note, store, place
        self._checkpoint = claimed(note)
        self.size = self._checkpoint.size

    def records(self, start: int, stop: int) -> list[bytes]:
        """Bytes of records `start <= index < stop`."""
        return [row.body for row in self._store.rows(start, min(stop, self.size))]

    def prove(self, index: int) -> Receipt:
        """Receipt of the record at *index*, without openings."""
        if not 0 <= index < self.size:
            raise LedgerUsageError(f"no record {index}: there are {self.size}")
        try:
            prover = Prover(self.size, StoredNodes(self._store).node)
            path = prover.inclusion(index)
        except IndexError as error:
            raise DamageError("records are missing", "run: envelock ledger verify") from error
        [record] = self.records(index, index + 1)
        return Receipt(index=index, record=record, openings={}, path=path, checkpoint=self.note)

    def snapshot(self, path: Path) -> None:
        """Write a copy to *path*."""
        head = Head(self.size, 0, self._checkpoint.root)
        copy = Copy(self._store, head, self.note, path)
        try:
            while not copy.step():
                pass
        except BaseException:
            copy.abandon()
            raise

    def stored(self) -> Store:
        """All of it as a store, to be verified."""
        return self._store

    def census(self, tally: Tally) -> Census | None:
        """The openings, held against the records in *tally*."""
        if self._place is None:
            return None
        with closing(self._place.open_disclosures(create=False)) as disclosures:
            return take_census(self._store, tally, disclosures)


class Live:
    """The process that runs the ledger, asked over the socket of its reading role."""

    def __init__(self, socket: Path, operating: Path, stack: ExitStack) -> None:
        self._runner = stack.enter_context(asyncio.Runner())
        self._stack, self._socket, self._operating = stack, socket, operating
        self._client = self._runner.run(self._connect())
        stack.callback(lambda: self._runner.run(self._client.aclose()))
        self.note = self._runner.run(self._client.head())
        self.size = claimed(self.note).size

    async def _connect(self) -> LedgerClient:
        return LedgerClient(self._socket)

    def records(self, start: int, stop: int) -> list[bytes]:
        """Bytes of records `start <= index < stop`."""
        found: list[bytes] = []
        while start + len(found) < stop:
            page = self._runner.run(self._client.records(start + len(found), stop))
            if not page:
                break
            found += page
        return found

    def prove(self, index: int) -> Receipt:
        """Receipt of the record at *index*, without openings."""
        return self._runner.run(self._client.prove(index))

    def snapshot(self, path: Path) -> None:
        """Write a copy to *path*."""
        self._runner.run(self._client.snapshot(path))

    def stored(self) -> Store:
        """A snapshot, fetched for this occasion, as a store."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="envelock-")))
        self.snapshot(folder / "ledger")
        store = SqliteStore.read(folder / "ledger")
        self._stack.callback(store.close)
        self.note = store.checkpoint() or self.note
        self.size = claimed(self.note).size
        return store

    def census(self, tally: Tally) -> Census | None:  # noqa: ARG002 - the process has its own
        """The openings, as the process found them when it started."""
        answer = self._runner.run(ask(self._operating, Count()))
        return answer.census if isinstance(answer, Counted) else None


@contextmanager
def open_source(data: Path, path: Path | None) -> Iterator[Source]:
    """Open the copy at *path*, or the ledger of the data directory *data*.

    While its process lives, the ledger is asked through its socket; otherwise its lock is taken and
    its files are read.

    Raises:
        LedgerUsageError: There is nothing to read.
        LedgerUnavailableError: Something else holds the lock and does not answer.
        DamageError: It is not a ledger.
    """
    with ExitStack() as stack:
        if path is not None:
            yield _copy(path, stack)
            return
        socket = socket_path(data, READING_ROLE)
        place = load(data).place(data)
        if not place.database.exists():
            raise LedgerUsageError(
                f"no ledger in {data}", "name a copy, or the data directory with --data"
            )
        if socket.exists() and _held(place.lock):
            yield Live(socket, socket_path(data, OPERATING_ROLE), stack)
            return
        stack.callback(Lock(place.lock).release)
        store = SqliteStore.read(place.database)
        stack.callback(store.close)
        yield Stored(store, read_anchor(place.anchor).note, place)


def read_receipt(path: Path) -> Receipt | None:
    """The receipt in the file at *path*; None when it holds something else.

    Raises:
        LedgerUsageError: There is no such file.
        ProofError: It begins as a receipt and is none.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(HEADER)) != HEADER.encode():
                return None
            file.seek(0)
            return Receipt.parse(file.read().decode())
    except OSError as error:
        raise LedgerUsageError(f"{path}: {error.strerror}", "name a file that exists") from error
    except UnicodeDecodeError as error:
        raise ProofError(f"{path}: not a receipt") from error


def pinned_key(data: Path, profile: str | None, given: str | None) -> VerifierKey | None:
    """The log's key as it was given, or as the profiles of *data* pin it; None when none does.

    Raises:
        LedgerUsageError: Profiles pin different keys, and none was chosen.
        ProofError: A key is malformed.
    """
    if given is not None:
        return VerifierKey.parse(given)
    pattern = "*.toml" if profile is None else f"{profile}.toml"
    keys = {key for file in sorted((data / "profiles").glob(pattern)) if (key := _key_in(file))}
    if len(keys) > 1:
        raise LedgerUsageError("profiles pin different log keys", "choose one with --ledger-key")
    return VerifierKey.parse(keys.pop()) if keys else None


def key_in_genesis(source: Source) -> VerifierKey:
    """The key that the log itself names, which proves nothing about who wrote it."""
    try:
        fields = parse(source.records(0, 1)[0]).fields
        return VerifierKey.parse(str(fields.get("ledger_key")))
    except (IndexError, ProofError) as error:
        raise DamageError("record 0 names no log key") from error


def claimed(note: str) -> Checkpoint:
    """The checkpoint in a signed note, nothing verified."""
    return Checkpoint.parse(Note.parse(note).text)


def _key_in(file: Path) -> str | None:
    try:
        key = tomllib.loads(file.read_text("utf-8")).get("ledger_key")
    except (OSError, ValueError) as error:
        raise LedgerUsageError(f"{file}: {error}", "correct the profile") from error
    return key if isinstance(key, str) else None


def _copy(path: Path, stack: ExitStack) -> Stored:
    if is_export(path):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="envelock-")))
        import_export(path, folder / "ledger")
        path = folder / "ledger"
    store = SqliteStore.read(path)
    stack.callback(store.close)
    note = store.checkpoint()
    if note is None:
        raise LedgerUsageError(
            f"{path} is a live database, not a copy of one",
            "make a copy: envelock ledger snapshot OUT",
        )
    return Stored(store, note)


def _held(lock: Path) -> bool:
    try:
        Lock(lock).release()
    except LedgerUnavailableError:
        return True
    return False
