"""What verification found, as lines for people and as one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from envelock_formats.canonical import Json
from envelock_formats.printable import printable
from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.erasing import Census
from envelock_ledger.errors import DamageError, LedgerError, ProofError
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt, VerifiedRecord
from envelock_ledger.record import NO_TENANT, parse
from envelock_ledger.show import minute
from envelock_ledger.store import Store
from envelock_ledger.verify import Tally, check_genesis, compare_tables, examine

COPY_OPEN = "later records; that others got this same log; hidden subjects"
RECEIPT_OPEN = "all other records; that others got this same log; that it is about your request"


@dataclass(frozen=True, slots=True)
class Since:
    """An earlier checkpoint, verified, and what its file is called."""

    name: str
    checkpoint: Checkpoint


@dataclass(slots=True)
class Report:
    """Grows line by line; `failed` is set by the first thing that does not hold."""

    lines: list[str] = field(default_factory=list)
    value: dict[str, Json] = field(default_factory=lambda: {"ok": True})
    failed: LedgerError | None = None
    not_shown: list[Json] = field(default_factory=list)

    def ok(self, text: str, found: Mapping[str, Json]) -> None:
        """Something holds."""
        self.lines.append(f"ok    {text}")
        self.value.update(found)

    def fail(self, error: LedgerError) -> None:
        """Something does not hold; nothing after it was looked at."""
        self.failed = error
        self.lines.append(f"FAIL  {error}")
        self.value.update({"ok": False, "error": str(error)})
        if isinstance(error, DamageError) and error.index is not None:
            self.value.update({"index": error.index, "column": error.column})

    def open(self, text: str) -> None:
        """What this cannot conclude."""
        self.lines.append(f"open  not shown: {text}")
        self.not_shown.append(text)
        self.value["not_shown"] = list(self.not_shown)


def _uncounted(_: Tally) -> None:
    return None


def verify_store(
    store: Store,
    note: str,
    key: VerifierKey,
    since: Since | None,
    openings: Callable[[Tally], Census | None] = _uncounted,
) -> Report:
    """Verify the records that *note* covers, and everything beside them.

    Args:
        store: The records.
        note: A signed checkpoint.
        key: The log's pinned key.
        since: An earlier checkpoint that the log must extend.
        openings: Counts what opens hidden fields; None where that is not at hand.
    """
    report = Report()
    try:
        checkpoint = open_checkpoint(note, key)
        tally = _records(store, checkpoint, key, since)
        _report_records(report, tally, key)
        if since is not None:
            _extends(report, since, tally)
        if (census := openings(tally)) is not None:
            _report_openings(report, census)
    except LedgerError as error:
        report.fail(error)
    report.open(COPY_OPEN)
    return report


def verify_receipt(receipt: Receipt, key: VerifierKey, since: Since | None) -> Report:
    """Verify one receipt."""
    report = Report()
    try:
        found = receipt.verify(key)
        size = found.checkpoint.size
        report.ok(
            f"record {found.index} of {size}: leaf, path, root {_short(found.checkpoint.root)},"
            f" {_opened(found)}",
            {"index": found.index, "size": size, "root": found.checkpoint.root.hex()},
        )
        report.ok(f"checkpoint signed by {key.key_id.hex()}", {"origin": key.name})
        if since is not None:
            found.check_extends(since.checkpoint.size, since.checkpoint.root)
            _report_extends(report, since)
    except LedgerError as error:
        report.fail(error)
    report.open(RECEIPT_OPEN)
    return report


def _records(store: Store, checkpoint: Checkpoint, key: VerifierKey, since: Since | None) -> Tally:
    head = store.head()
    if head is None or head.size < checkpoint.size:
        raise DamageError(f"the checkpoint covers {checkpoint.size} records, fewer are here")
    sizes = {checkpoint.size} | ({since.checkpoint.size} if since is not None else set())
    tally = examine(store, head.size, sizes)
    if tally.roots[checkpoint.size] != checkpoint.root:
        raise DamageError(f"root of {checkpoint.size} records is not the one that was signed")
    compare_tables(store, head, tally)
    check_genesis(store, key)
    return tally


def _report_records(report: Report, tally: Tally, key: VerifierKey) -> None:
    tenants = len(tally.tenants.keys() - {NO_TENANT})
    chains = f"{tenants} tenant chain{'' if tenants == 1 else 's'}"
    report.ok(
        f"records 0-{tally.size - 1}: leaves, chain, root {_short(tally.root)}, {chains}",
        {"size": tally.size, "root": tally.root.hex(), "tenants": tenants},
    )
    signer = key.key_id.hex()
    report.ok(
        f"checkpoint of {minute(tally.sequenced_us)}, signed by {signer}",
        {"origin": key.name, "sequenced_us": tally.sequenced_us},
    )


def _opened(found: VerifiedRecord) -> str:
    hidden = parse(found.raw).envelope.commitments
    text = f"{len(found.openings)} of {len(hidden)} hidden fields opened"
    closed = ", ".join(sorted(hidden.keys() - found.openings.keys()))
    return f"{text} (erased or not shown: {printable(closed)})" if closed else text


def _report_openings(report: Report, census: Census) -> None:
    census.check()
    if census.erased:
        text = f"openings erased on record: {census.erased}; none is missing"
        report.ok(text, {"erased": census.erased})


def _extends(report: Report, since: Since, tally: Tally) -> None:
    earlier = since.checkpoint
    if earlier.size > tally.size:
        raise ProofError(f"{since.name} has {earlier.size} records, here are {tally.size}")
    if tally.roots[earlier.size] != earlier.root:
        raise ProofError(f"not an extension of {since.name}: its {earlier.size} records differ")
    _report_extends(report, since)


def _report_extends(report: Report, since: Since) -> None:
    size = since.checkpoint.size
    report.ok(
        f"extends {since.name} ({size} records): nothing removed or rewritten",
        {"extends": size},
    )


def _short(root: bytes) -> str:
    return f"{root.hex()[:6]}..."
