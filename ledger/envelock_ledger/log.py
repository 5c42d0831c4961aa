"""An opened ledger: one batch at a time, and questions about what is anchored."""

from collections.abc import Sequence
from dataclasses import replace

from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.commitments import Opening
from envelock_ledger.entry import Committed, Outcome, Repeated
from envelock_ledger.erasing import Census
from envelock_ledger.errors import DamageError, LedgerUsageError
from envelock_ledger.merkle import Prover, leaf_hash
from envelock_ledger.note import Signer
from envelock_ledger.place import Opened
from envelock_ledger.proof import Consistency, Receipt
from envelock_ledger.sequence import Prepared, RepeatOf, Sequenced, Verdict
from envelock_ledger.store import Batch, Head, Row, Store
from envelock_ledger.store.disclosure import Disclosed, Disclosures

TOPIC_PAGE = 1000  # receipts
RECORD_PAGE = 200  # records of at most 64 KiB, so that a page fits a frame


class Log:
    """What passed the start gate, in the hands of one thread.

    After an error in `append` the object must be closed and thrown away.
    """

    def __init__(self, opened: Opened, signer: Signer) -> None:
        self._files, self._signer = opened, signer
        self._head, self.note = opened.head, opened.note
        self._prover = self._new_prover()

    @property
    def size(self) -> int:
        """Records, all anchored."""
        return self._head.size

    @property
    def head(self) -> Head:
        """Where the log ends."""
        return self._head

    @property
    def store(self) -> Store:
        """The records."""
        return self._files.store

    @property
    def disclosures(self) -> Disclosures:
        """What opens hidden fields."""
        return self._files.disclosures

    def census(self) -> Census:
        """The openings: what was found when the files were opened, and erased since."""
        found, erased = self._files.census, self.disclosures.erased()
        return replace(
            found,
            kept=self.disclosures.size() - erased,
            erased=erased,
            recorded=found.recorded + erased - found.erased,
        )

    def append(self, entries: Sequence[Prepared], now_us: int) -> list[Outcome]:
        """Decide on *entries*, make what was accepted durable, and return what became of each.

        Raises:
            LedgerUnavailableError: The outcome is unknown.
            DamageError: What was read back is not what was written.
        """
        sequencer = self._files.sequencer
        sequencer.shed()
        verdicts = sequencer.sequence(entries, now_us)
        work = sequencer.take()
        rows: Sequence[Row] = ()
        if work is not None:
            self._commit(*work)
            rows = work[0].rows
        recent = {row.number: row for row in rows}
        pairs = zip(entries, verdicts, strict=True)
        return [self._outcome(entry, verdict, recent) for entry, verdict in pairs]

    def fences(self, names: Sequence[str]) -> dict[str, int]:
        """Numbers of fences; one that was never moved has 0."""
        fences = self._files.sequencer.fences
        return {name: fences.get(name, 0) for name in names}

    def find(self, record_id: str) -> Receipt | None:
        """Receipt of the record with this id; None when there is none."""
        index = self.store.find([record_id]).get(record_id)
        return None if index is None else self.prove(index)

    def prove(self, index: int, seen: int | None = None) -> Receipt:
        """Receipt of the record at *index*, with what still opens it.

        Raises:
            LedgerUsageError: There is no such record.
        """
        if not 0 <= index < self.size:
            raise LedgerUsageError(f"no record {index}: the ledger has {self.size}")
        row = next(self.store.rows(index, index + 1), None)
        if row is None or row.number != index:
            raise DamageError(f"record {index} is missing", index=index, column="idx")
        return self._receipt(row, self.disclosures.read(index), seen)

    def topic(self, name: str, since: int) -> list[Receipt]:
        """Receipts of a topic's records from *since* on, in order, one page."""
        return [self.prove(index) for index in self.store.topic(name, since, TOPIC_PAGE)]

    def records(self, start: int, stop: int) -> list[bytes]:
        """Bytes of records `start <= index < stop`, one page at most."""
        stop = min(stop, self.size, start + RECORD_PAGE)
        return [row.body for row in self.store.rows(start, stop)]

    def tidy(self, *, idle: bool) -> None:
        """Housekeeping of the store."""
        self.store.tidy(idle=idle)

    def close(self) -> None:
        """Close every file."""
        self._files.close()

    def _commit(self, batch: Batch, disclosed: Sequence[Disclosed]) -> None:
        files = self._files
        files.disclosures.write(disclosed)
        files.store.write(batch)
        if not batch.rows:
            return  # names were spent and nothing recorded: the tree is what it was
        self._read_back(batch)
        head = batch.head
        note = Checkpoint(self._signer.verifier.name, head.size, head.root).sign(self._signer)
        files.anchor.append(note)
        self._head, self.note = head, note
        self._prover = self._new_prover()

    def _read_back(self, batch: Batch) -> None:
        """Hash again what the database holds now, before a signature vouches for it."""
        head = batch.head
        stored = self.store.rows(head.prior, head.size)
        leaves = [leaf_hash(row.body) for row in stored]
        if leaves != [row.leaf for row in batch.rows]:
            raise DamageError(f"records {head.prior}-{head.size - 1} were not stored as written")

    def _new_prover(self) -> Prover:
        files = self._files
        prover = Prover(self.size, files.nodes.node, files.sequencer.growth.levels)
        if prover.root != self._head.root:
            raise DamageError(f"two roots over {self.size} records")
        return prover

    def _outcome(self, prepared: Prepared, verdict: Verdict, recent: dict[int, Row]) -> Outcome:
        entry = prepared.entry
        match verdict:
            case Sequenced(index):
                return Committed(self._receipt(recent[index], entry.openings, entry.seen))
            case RepeatOf(index):
                return Repeated(self.prove(index, entry.seen))
            case _:
                return verdict

    def _receipt(self, row: Row, openings: Sequence[Opening], seen: int | None) -> Receipt:
        consistency = None
        if seen is not None and 0 < seen <= self.size:
            consistency = Consistency(seen, self._prover.consistency(seen))
        return Receipt(
            index=row.number,
            record=row.body,
            openings={o.field: (o.salt, o.value) for o in openings},
            path=self._prover.inclusion(row.number),
            checkpoint=self.note,
            consistency=consistency,
        )
