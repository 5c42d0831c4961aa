"""`envelock decrypt`: open a sealed file."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from envelock.client import Client
from envelock.commands import places, progress
from envelock.commands.asserting import demands_of
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
@click.option(
    "--require-assertion",
    "required",
    multiple=True,
    metavar="ID",
    help="An assertion that must be there and verify; its removal is noticed. Repeatable.",
)
@click.option(
    "--assertion-key",
    "keys",
    multiple=True,
    metavar="ID=KEY",
    help="Whose signature an assertion must bear: the file of a public key (PEM or DER), or"
    " secret:FILE for a shared secret of at least 32 bytes. Without it the file's own key will do,"
    " which everybody has who could open the file. Repeatable.",
)
@click.option(
    "--list-assertions",
    is_flag=True,
    help="Say which assertions verify, and open the file even where some do not.",
)
@click.option("--legacy", is_flag=True, help="Accept files of format 4.2.2 and older.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.pass_obj
def command(  # noqa: PLR0913 one for each option
    console: Console,
    *,
    file: str,
    out: str | None,
    receipt: Path | None,
    peers: tuple[str, ...],
    required: tuple[str, ...],
    keys: tuple[str, ...],
    list_assertions: bool,
    legacy: bool,
    force: bool,
) -> None:
    """Open FILE, or stdin. Nothing comes out before its signature is verified.

    Each release is on record before the key is given out, and its receipt is verified here.

    \b
    Examples:
      envelock decrypt q3.pdf.tdf --as doctor
      envelock decrypt q3.pdf.tdf --as doctor -o - | pdftotext - -
      envelock decrypt q3.pdf.tdf --as doctor --receipt q3.receipt
      envelock decrypt q3.pdf.tdf --as doctor --peer lab
      envelock decrypt q3.pdf.tdf --require-assertion marking --assertion-key marking=author.pem
    """  # noqa: D301 click's own mark for text that keeps its lines
    demands = demands_of(required, keys, listing=list_assertions)
    ends = places.to_open(file, out, force=force)
    if receipt is not None:
        places.require_absent(receipt, force=force)
    with (
        naming(ends.label),
        ExitStack() as stack,
        SealedFile.open(ends.source, legacy=legacy, demands=demands) as sealed,
    ):
        client = stack.enter_context(console.client())
        others = [stack.enter_context(console.client_of(name)) for name in peers]
        reader = _opened(client.with_peers(*others), sealed, ends.label)
        if receipt is not None:
            _keep(console, receipt, reader, force=force)
        if list_assertions and not console.json:
            for line in _checked(reader):
                console.tell(line)
        with progress.shown(console, "opening", reader.size) as told:
            size = reader.copy_to(ends.target, force=force, progress=told)
    if ends.out is not None:
        attrs: list[Json] = list(reader.attrs)
        kept: dict[str, Json] = {} if receipt is None else {"receipt": str(receipt)}
        value: dict[str, Json] = {"out": ends.out, "size": size, "attrs": attrs}
        line = f"opened {ends.out}: {size_text(size)}"
        console.done(value | kept | _values(reader), line)
        if reader.metadata is not None and not console.json:
            console.tell(f"metadata: {_text(reader.metadata)}")


def _opened(client: Client, sealed: SealedFile, label: str) -> Reader:
    try:
        unlocked = client.run(unlock(client.session, sealed))
    except DeniedError as error:
        raise refusal(client, "open", label, sealed.policy.attributes, error) from error
    return sealed.unlock(unlocked.dek, receipts=unlocked.receipts, metadata=unlocked.metadata)


def _checked(reader: Reader) -> Iterator[str]:
    for found in reader.assertions:
        yield f"assertion {found.id}: {found.problem or f'verified under the {found.signer}'}"


def _text(metadata: bytes) -> str:
    return metadata.decode(errors="backslashreplace")


def _values(reader: Reader) -> dict[str, Json]:
    """What the file says beside its content, as far as it says anything."""
    found: dict[str, Json] = {}
    if reader.assertions:
        found["assertions"] = [
            {"id": one.id, "verified": one.verified, "signer": one.signer, "problem": one.problem}
            for one in reader.assertions
        ]
    if reader.metadata is not None:
        found["metadata"] = _text(reader.metadata)
    return found


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
