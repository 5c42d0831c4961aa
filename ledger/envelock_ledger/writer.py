"""Group commit: the one place that appends.

One thread owns the files. It takes everything that queued up while it was busy and commits it as
one batch: whoever waits alone is answered after one round of fsyncs, and many that wait share it,
so there is no timer to tune. The order of a batch is the crash rule of the ledger:

1. openings are committed, 2. records are committed, 3. what was stored is read back and hashed
again, 4. one checkpoint is signed, 5. its anchor line is made durable, 6. answers are given.

INVARIANT: nobody is shown a record at or beyond the anchored size; reads wait for their turn
between two batches. After any error in steps 1 to 5 the files are closed, everybody who waits
learns that the outcome is unknown, and the start gate is passed again before anything else is done.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from envelock_ledger.copying import Copy
from envelock_ledger.entry import Entry, Outcome
from envelock_ledger.errors import DamageError, LedgerError, LedgerUnavailableError
from envelock_ledger.log import Log
from envelock_ledger.note import Signer
from envelock_ledger.place import Place, open_ledger
from envelock_ledger.probing import Prober
from envelock_ledger.proof import Receipt
from envelock_ledger.sequence import Prepared, prepare

MAX_WAITING_BYTES = 64 << 20  # of records in the queue; beyond it callers are refused at once
MAX_BATCH_BYTES = 8 << 20
FIRST_PAUSE = 0.05  # seconds before the files are opened again after an error
LONGEST_PAUSE = 5.0
_CLOSED = "the ledger is closed"

T = TypeVar("T")
Done = Callable[[Any], None]  # takes the answer, or a `LedgerError`; called on the loop
Settled = list[tuple[Done, object]]


@dataclass(slots=True)
class Append:
    """Entries that wait for a batch."""

    entries: list[Prepared]
    done: Done
    weight: int  # bytes that it asks to store, about


@dataclass(slots=True)
class Read:
    """A question that is answered between two batches."""

    ask: Callable[[Log], object]
    done: Done


@dataclass(slots=True)
class Snapshot:
    """A copy that is to be made between batches."""

    path: Path
    done: Done
    copy: Copy | None = field(default=None)


@dataclass(slots=True)
class Stop:
    """The end of the queue."""


Job = Append | Read | Snapshot | Stop


class Writer:
    """The ledger in this process; `start` opens it, and one event loop uses it.

    Args:
        place: Its files; the caller holds the lock on them.
        signer: The log's key.
        clock_us: Microseconds since 1970.
    """

    def __init__(self, place: Place, signer: Signer, clock_us: Callable[[], int]) -> None:
        self._place, self._signer, self._clock = place, signer, clock_us
        self._queue: SimpleQueue[list[Job]] = SimpleQueue()
        self._coming: list[Job] = []  # of this turn of the loop
        self._loop = asyncio.get_running_loop()
        self._waiting = 0  # bytes; changed on the loop alone
        self._closing = self._ended = False
        self._prober = Prober(place, clock_us)
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        # Everything below is the thread's.
        self._log: Log | None = None
        self._snapshots: deque[Snapshot] = deque()
        self._settled: Settled = []
        self._pause, self._again_at = FIRST_PAUSE, 0.0
        self._fault = LedgerUnavailableError(_CLOSED)
        self._batches = self._appended = self._faults = 0  # since the start; read by `probe`

    @classmethod
    async def start(cls, place: Place, signer: Signer, clock_us: Callable[[], int]) -> "Writer":
        """Pass the start gate, and begin.

        Raises:
            LedgerError: The gate was not passed.
        """
        writer = cls(place, signer, clock_us)
        writer._log = await asyncio.to_thread(writer._open)
        writer._thread.start()
        return writer

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Append *entries*; one outcome each, in order.

        Raises:
            RecordError: An entry is malformed; then none of this call was appended.
            LedgerUnavailableError: The queue is full, or the outcome is unknown.
        """
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        self.submit([prepare(entry) for entry in entries], _settling(future))
        return await future

    def submit(self, entries: list[Prepared], done: Done) -> None:
        """As `append`, for entries that were prepared; *done* gets outcomes or a `LedgerError`."""
        weight = sum([len(prepared.entry.body) for prepared in entries])
        if self._waiting and self._waiting + weight > MAX_WAITING_BYTES:
            done(LedgerUnavailableError("too many records wait for the ledger"))
            return
        self._waiting += weight
        self._put(Append(entries, done, weight))

    async def fences(self, names: Sequence[str]) -> dict[str, int]:
        """Numbers of fences; one that was never moved has 0."""
        return await self.ask(lambda log: log.fences(names))

    async def find(self, record_id: str) -> Receipt | None:
        """Receipt of the record with this id; None when there is none."""
        return await self.ask(lambda log: log.find(record_id))

    async def prove(self, index: int, seen: int | None = None) -> Receipt:
        """Receipt of the record at *index*, at the present size.

        Raises:
            LedgerUsageError: There is no such record.
        """
        return await self.ask(lambda log: log.prove(index, seen))

    async def topic(self, name: str, since: int) -> list[Receipt]:
        """Receipts of a topic's records from index *since* on, in order, at most 1,000."""
        return await self.ask(lambda log: log.topic(name, since))

    async def head(self) -> str:
        """The latest signed checkpoint."""
        return await self.ask(lambda log: log.note)

    async def records(self, start: int, stop: int) -> list[bytes]:
        """Bytes of records `start <= index < stop`, at most 200; fewer where the log ends."""
        return await self.ask(lambda log: log.records(start, stop))

    async def size(self) -> int:
        """How many records there are."""
        return await self.ask(lambda log: log.size)

    async def probe(self) -> dict[str, int]:
        """Find out whether a record could be appended; numbers about the ledger.

        Raises:
            LedgerError: It could not, and why.
        """
        size, signed_us = await self.ask(lambda log: (log.size, log.head.sequenced_us))
        await self._prober.require_room()
        return {
            **self._prober.numbers(),
            "batches": self._batches,
            "appended": self._appended,
            "faults": self._faults,
            "queued_bytes": self._waiting,
            "signed_us": signed_us,
            "size": size,
        }

    async def snapshot(self, path: Path) -> None:
        """Write a copy without openings to *path*, which must not exist.

        Raises:
            LedgerError: The copy could not be made; nothing is left of it.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._put(Snapshot(path, _settling(future)))
        await future

    async def ask(self, question: Callable[[Log], T]) -> T:
        """Run *question* on the writer's thread, between two batches."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(Read(question, _settling(future)))
        return await future

    async def aclose(self) -> None:
        """Finish what waits, then close the files."""
        if not self._closing:
            self._closing = True
            self._coming.append(Stop())
            self._hand_over()
        await asyncio.to_thread(self._thread.join)

    def _put(self, job: Append | Read | Snapshot) -> None:
        if self._closing or self._ended:
            job.done(LedgerUnavailableError(_CLOSED))
            return
        if not self._coming:
            self._loop.call_soon(self._hand_over)
        self._coming.append(job)

    def _hand_over(self) -> None:
        """Wake the thread once for everything of this turn, or it would take the first alone."""
        if self._coming:
            self._queue.put(self._coming)
            self._coming = []
        if self._ended:  # of an error, since it was accepted: nobody reads the queue any more
            self._refuse(self._drain(), LedgerUnavailableError(_CLOSED))

    def _settle(self, settled: Settled, weight: int) -> None:
        self._waiting -= weight
        for done, result in settled:
            done(result)

    # From here on: the writer's thread.

    def _run(self) -> None:
        jobs: list[Job] = []
        ended = False
        try:
            while not ended:
                jobs = self._take()
                ended = any(isinstance(job, Stop) for job in jobs)
                self._serve(jobs)
                self._copy_some()
        finally:
            # SECURITY: also after an error that nobody foresaw, callers must not wait for ever,
            # nor may the files be used again by this thread.
            self._ended = True
            if self._log is not None:
                self._log.close()
            self._abandon()
            self._refuse([*jobs, *self._snapshots, *self._drain()], LedgerUnavailableError(_CLOSED))

    def _take(self) -> list[Job]:
        """Everything that waits, up to the size of a batch; waits itself when nothing does."""
        if self._snapshots and self._queue.empty():
            return []
        jobs = self._queue.get()
        while not self._queue.empty() and _weight(jobs) < MAX_BATCH_BYTES:
            jobs += self._queue.get()
        return jobs

    def _drain(self) -> list[Job]:
        jobs: list[Job] = []
        with suppress(Empty):
            while True:
                jobs += self._queue.get_nowait()
        return jobs

    def _serve(self, jobs: list[Job]) -> None:
        """Do *jobs*. Each leaves the list as it is answered, so that none is answered twice."""
        log = self._log or self._reopen()
        if log is None:
            self._refuse(jobs, self._fault)
            jobs.clear()
            return
        appends = [job for job in jobs if isinstance(job, Append)]
        try:
            if appends:
                self._commit(log, appends)
            waiting = [job for job in jobs if isinstance(job, Read | Snapshot)]
            jobs[:] = waiting
            for job in waiting:
                self._answer(log, job)
                jobs.pop(0)
            log.tidy(idle=self._queue.empty())
        except LedgerError as error:
            self._poison(error)
            self._refuse(jobs, self._fault)
            jobs.clear()

    def _commit(self, log: Log, appends: Sequence[Append]) -> None:
        entries = [prepared for append in appends for prepared in append.entries]
        outcomes = log.append(entries, self._clock())
        self._batches, self._appended = self._batches + 1, self._appended + len(entries)
        settled: Settled = []
        start = 0
        for append in appends:
            stop = start + len(append.entries)
            settled.append((append.done, outcomes[start:stop]))
            start = stop
        self._give(settled, _weight(appends))

    def _answer(self, log: Log, job: Read | Snapshot) -> None:
        if isinstance(job, Snapshot):
            self._snapshots.append(job)
            return
        try:
            answer = job.ask(log)
        except (DamageError, LedgerUnavailableError):
            raise
        except LedgerError as error:
            self._give([(job.done, error)])
        else:
            self._give([(job.done, answer)])

    def _copy_some(self) -> None:
        """Go on with the first snapshot; its failure is its caller's alone."""
        if not self._snapshots or self._log is None:
            return
        job, log = self._snapshots[0], self._log
        try:
            if job.copy is None:
                job.copy = Copy(log.store, log.head, log.note, job.path)
            if not job.copy.step():
                return
        except LedgerError as error:
            if job.copy is not None:
                job.copy.abandon()
            self._give([(job.done, error)])
        else:
            self._give([(job.done, None)])
        self._snapshots.popleft()

    def _give(self, settled: Settled, weight: int = 0) -> None:
        if settled and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, settled, weight)

    def _refuse(self, jobs: Sequence[Job], error: LedgerError) -> None:
        refused: Settled = [(job.done, error) for job in jobs if not isinstance(job, Stop)]
        self._give(refused, _weight(jobs))

    def _open(self) -> Log:
        return Log(open_ledger(self._place, self._signer, self._clock()), self._signer)

    def _poison(self, error: LedgerError) -> None:
        self._faults += 1
        if self._log is not None:
            self._log.close()
        self._abandon()
        self._refuse(self._snapshots, LedgerUnavailableError(str(error)))
        self._snapshots.clear()
        self._log, self._again_at = None, time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._fault = LedgerUnavailableError(
            f"ledger is closed after an error: {error}", error.hint
        )

    def _abandon(self) -> None:
        """Remove what was copied so far."""
        for job in self._snapshots:
            if job.copy is not None:
                with suppress(OSError, LedgerError):
                    job.copy.abandon()

    def _reopen(self) -> Log | None:
        """Pass the start gate again, unless that was tried a moment ago."""
        if time.monotonic() < self._again_at:
            return None
        try:
            self._log = self._open()
        except LedgerError as error:
            self._poison(error)
        else:
            self._pause = FIRST_PAUSE
        return self._log


def _weight(jobs: Sequence[Job]) -> int:
    """Bytes that *jobs* ask to store, about."""
    return sum([job.weight for job in jobs if isinstance(job, Append)])


def _settling(future: "asyncio.Future[Any]") -> Done:
    def done(result: object) -> None:
        if future.done():
            return  # whoever waited has given up
        if isinstance(result, LedgerError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return done
