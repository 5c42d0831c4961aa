"""`envelock ledger`: what an auditor and an operator type."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from envelock_formats.canonical import Json
from envelock_ledger.errors import LedgerUsageError

if TYPE_CHECKING:
    from envelock_ledger.note import VerifierKey
    from envelock_ledger.record import Record
    from envelock_ledger.report import Report, Since
    from envelock_ledger.source import Source

PAGE = 200  # records read at once
UNPINNED = "whose key this is: the log named it itself (pin it with --ledger-key)"


class Console(Protocol):
    """What the root command hands to its groups: global options, and the way to print."""

    data: Path
    profile: str | None

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* as JSON, or *lines* for people."""

    def object_ids(self, path: Path) -> list[str]:
        """Ids under which records may name the sealed file at *path*."""
        ...


_FROM = click.option(
    "--from",
    "copy",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Read a snapshot or an export instead of the ledger of the data directory.",
)


@click.group("ledger")
def command() -> None:
    """Verify, read and copy the ledger."""


@command.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--ledger-key", metavar="KEY", help="The log's verifier key: NAME+HEXID+BASE64.")
@click.option(
    "--since",
    metavar="CHECKPOINT",
    type=click.Path(path_type=Path),
    help="Also show that the log extends this earlier checkpoint.",
)
@click.pass_context
def verify(
    context: click.Context, path: Path | None, ledger_key: str | None, since: Path | None
) -> None:
    """Verify a snapshot, an export or a receipt, or the ledger of the data directory.

    Every record is hashed again. Exit code 6 when anything does not hold.
    """
    from envelock_ledger.report import verify_receipt, verify_store  # noqa: PLC0415 - quick --help
    from envelock_ledger.source import open_source, pinned_key, read_receipt  # noqa: PLC0415 - same

    console: Console = context.obj
    key = pinned_key(console.data, console.profile, ledger_key)
    receipt = None if path is None else read_receipt(path)
    if receipt is not None:
        known = _required(key)
        _finish(context, verify_receipt(receipt, known, _since(since, known)))
        return
    with open_source(console.data, path) as source:
        known = _known(key, source, path)
        stored, earlier = source.stored(), _since(since, known)
        report = verify_store(stored, source.note, known, earlier, source.census)
    if key is None:
        report.open(UNPINNED)
    _finish(context, report)


@command.command()
@click.argument("which", required=False, metavar="[INDEX|REQUEST_ID]")
@_FROM
@click.option(
    "--file",
    "sealed",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Only records about this sealed file.",
)
@click.pass_obj
def show(console: Console, which: str | None, copy: Path | None, sealed: Path | None) -> None:
    """List records, or show one in full. Nothing is verified: that is `verify`."""
    from envelock_ledger.show import full, line, names_object  # noqa: PLC0415 - quick --help
    from envelock_ledger.source import open_source  # noqa: PLC0415 - same

    wanted = None if sealed is None else console.object_ids(sealed)
    with open_source(console.data, copy) as source:
        records = [
            record
            for record in _chosen(source, which)
            if wanted is None or names_object(record, wanted)
        ]
    if which is not None and not records:
        raise LedgerUsageError(f"no record {which!r}", "list them: envelock ledger show")
    text: Iterable[str] = map(line, records)
    if which is not None:
        text = (one for record in records for one in full(record))
    console.emit({"records": [record.fields for record in records]}, text)


@command.command()
@click.argument("index", type=click.IntRange(min=0))
@_FROM
@click.pass_obj
def prove(console: Console, index: int, copy: Path | None) -> None:
    """Print the receipt of a record: proof that it is in the log."""
    from envelock_ledger.source import open_source  # noqa: PLC0415 - quick --help

    with open_source(console.data, copy) as source:
        text = source.prove(index).text()
    console.emit({"receipt": text}, text.splitlines())


@command.command()
@_FROM
@click.pass_obj
def checkpoint(console: Console, copy: Path | None) -> None:
    """Print the latest signed checkpoint. Keep it: `verify --since` needs it."""
    from envelock_ledger.source import open_source  # noqa: PLC0415 - quick --help

    with open_source(console.data, copy) as source:
        note = source.note
    console.emit({"checkpoint": note}, note.splitlines())


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_obj
def snapshot(console: Console, out: Path) -> None:
    """Write a copy for an auditor: every record, nothing that opens hidden fields."""
    from envelock_ledger.source import open_source  # noqa: PLC0415 - quick --help

    with open_source(console.data, None) as source:
        source.snapshot(out)
    console.emit({"snapshot": str(out)}, [f"wrote {out}: check it with envelock ledger verify"])


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@_FROM
@click.pass_obj
def export(console: Console, out: Path, copy: Path | None) -> None:
    """Write every record as a line of text: a copy that is verified without this program."""
    from envelock_ledger.exporting import write_export  # noqa: PLC0415 - quick --help
    from envelock_ledger.source import open_source  # noqa: PLC0415 - same

    with open_source(console.data, copy) as source:
        size = write_export(source.stored(), source.note, out)
    hint = f"check it with ledger_verify.py export {out}, or envelock ledger verify {out}"
    console.emit({"export": str(out), "size": size}, [f"wrote {out}, {size} records: {hint}"])


@command.command("erase-subject")
@click.argument("issuer")
@click.argument("subject")
@click.option("--reason", metavar="TEXT", default="", help="Why; it is in the ledger for ever.")
@click.pass_obj
def erase_subject(console: Console, issuer: str, subject: str, reason: str) -> None:
    """Forget who hides behind a subject's records, for good; that it was done is recorded.

    Chain, tree, checkpoints and receipts verify as before.
    """
    from envelock_ledger.operating import erase  # noqa: PLC0415 - quick --help

    erased = erase(console.data, [issuer, subject], reason)
    some = f"{erased.openings} record{'' if erased.openings == 1 else 's'}"
    acts = ", ".join(map(str, erased.records))
    lines = [
        f"erased the openings of {some}; on record: {acts}",
        "not reached: receipts, backups, and whatever was disclosed before",
    ]
    if not erased.openings:
        lines = ["nothing erased: no opening names this subject"]
    console.emit({"openings": erased.openings, "records": list(erased.records)}, lines)


def _chosen(source: "Source", which: str | None) -> "Iterator[Record]":
    from envelock_ledger.record import parse  # noqa: PLC0415 - quick --help
    from envelock_ledger.show import names_request  # noqa: PLC0415 - same

    if which is not None and which.isascii() and which.isdigit():
        yield from map(parse, source.records(int(which), int(which) + 1))
        return
    for start in range(0, source.size, PAGE):
        for record in map(parse, source.records(start, start + PAGE)):
            if which is None or names_request(record, which):
                yield record


def _since(path: Path | None, key: "VerifierKey") -> "Since | None":
    from envelock_ledger.checkpoint import open_checkpoint  # noqa: PLC0415 - quick --help
    from envelock_ledger.report import Since  # noqa: PLC0415 - same
    from envelock_ledger.source import read_receipt  # noqa: PLC0415 - same

    if path is None:
        return None
    receipt = read_receipt(path)
    note = path.read_text("utf-8", errors="replace") if receipt is None else receipt.checkpoint
    return Since(path.name, open_checkpoint(note, key))


def _required(key: "VerifierKey | None") -> "VerifierKey":
    if key is None:
        raise LedgerUsageError(
            "no log key to verify with",
            "give --ledger-key; the ledger's owner publishes it, and `envelock up` prints it",
        )
    return key


def _known(key: "VerifierKey | None", source: "Source", path: Path | None) -> "VerifierKey":
    """The pinned key; for one's own data directory, failing that, the one the log names."""
    from envelock_ledger.source import key_in_genesis  # noqa: PLC0415 - quick --help

    return key_in_genesis(source) if key is None and path is None else _required(key)


def _finish(context: click.Context, report: "Report") -> None:
    console: Console = context.obj
    console.emit(report.value, report.lines)
    if report.failed is not None:
        context.exit(report.failed.exit_code)
