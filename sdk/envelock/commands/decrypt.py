"""`envelock decrypt`: open a sealed file."""

from contextlib import ExitStack
from pathlib import Path

import click

from envelock.client import Client
from envelock.commands import places, progress
from envelock.commands.console import Console
from envelock.commands.wording import naming, refusal, size_text
from envelock.errors import DeniedError, ReceiptError
from envelock.opening import unlock
from envelock.reader import Reader, SealedFile
from envelock_formats.canonical import Json


@click.command("decrypt")
@click.argument("file", metavar="FILE|-")
@click.option(
    "-o", "--out", metavar="OUT|-", help="Where to  [default: FILE without .tdf, stdin to stdout]"
)
@click.option(
    "--receipt",
    metavar="OUT",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the receipt of the release: envelock ledger verify OUT.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="A profile whose KAS has another share of the key, beside the `peers` of yours."
    " Repeatable.",
)
@click.option("--legacy", is_flag=True, help="Accept files of format 4.2.2 and older.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.pass_obj
def command(
    console: Console,
    file: str,
    out: str | None,
    receipt: Path | None,
    peers: tuple[str, ...],
    legacy: bool,  # noqa: FBT001 click passes flags as booleans
    force: bool,  # noqa: FBT001 as above
) -> None:
    """Open FILE, or stdin. Nothing comes out before its signature is verified.

    Each release is on record before the key is given out, and its receipt is verified here.

    \b
    Examples:
      envelock decrypt q3.pdf.tdf --as doctor
      envelock decrypt q3.pdf.tdf --as doctor -o - | pdftotext - -
      envelock decrypt q3.pdf.tdf --as doctor --receipt q3.receipt
      envelock decrypt q3.pdf.tdf --as doctor --peer lab
    """  # noqa: D301 click's own mark for text that keeps its lines
    ends = places.to_open(file, out, force=force)
    if receipt is not None:
        places.require_absent(receipt, force=force)
    with (
        naming(ends.label),
        ExitStack() as stack,
        SealedFile.open(ends.source, legacy=legacy) as sealed,
    ):
        client = stack.enter_context(console.client())
        others = [stack.enter_context(console.client_of(name)) for name in peers]
        reader = _opened(client.with_peers(*others), sealed, ends.label)
        if receipt is not None:
            _keep(console, receipt, reader, force=force)
        with progress.shown(console, "opening", reader.size) as told:
            size = reader.copy_to(ends.target, force=force, progress=told)
    if ends.out is not None:
        attrs: list[Json] = list(reader.attrs)
        kept: dict[str, Json] = {} if receipt is None else {"receipt": str(receipt)}
        value: dict[str, Json] = {"out": ends.out, "size": size, "attrs": attrs}
        console.done(value | kept, f"opened {ends.out}: {size_text(size)}")


def _opened(client: Client, sealed: SealedFile, label: str) -> Reader:
    try:
        unlocked = client.run(unlock(client.session, sealed))
    except DeniedError as error:
        raise refusal(client, "open", label, sealed.policy.attributes, error) from error
    return sealed.unlock(unlocked.dek, receipts=unlocked.receipts)


def _keep(console: Console, path: Path, reader: Reader, *, force: bool) -> None:
    """Keep the receipts: the first at *path*, those of other ledgers at `PATH.2` and so on."""
    if not reader.receipts:
        raise ReceiptError("the KAS gave no receipt", hint="leave out --receipt to open it anyway")
    for number, receipt in enumerate(reader.receipts, 1):
        place = path if number == 1 else path.with_name(f"{path.name}.{number}")
        if number > 1:
            places.require_absent(place, force=force)
            console.tell(f"receipt of another ledger: {place}")
        place.write_text(receipt, "utf-8")
