"""`envelock rebind`: another policy for a sealed file."""

from contextlib import ExitStack
from pathlib import Path

import click

from envelock.client import Client
from envelock.commands import places, progress
from envelock.commands.console import Console
from envelock.commands.wording import asks_text, attributes_of, naming, refusal, unopenable
from envelock.errors import DeniedError, ReceiptError
from envelock.rebinding import Rebound
from envelock.sealing import resolve
from envelock_formats.canonical import Json
from envelock_formats.fqn import AttributeValue

FORMER_COPIES = "note: copies of the former file still open for whom the former policy permits"


@click.command("rebind")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--attr",
    "names",
    multiple=True,
    metavar="NAME",
    help="What the file asks from now on: NAME=VALUE or NAMESPACE/NAME=VALUE. Repeatable.",
)
@click.option(
    "--receipt",
    metavar="OUT",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the receipt of the record: envelock ledger verify OUT.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="A profile whose KAS has another share of the key, beside the `peers` of yours."
    " Repeatable.",
)
@click.option("--force", is_flag=True, help="Replace an existing receipt.")
@click.pass_obj
def command(
    console: Console,
    file: Path,
    names: tuple[str, ...],
    receipt: Path | None,
    peers: tuple[str, ...],
    force: bool,  # noqa: FBT001 click passes flags as booleans
) -> None:
    """Give FILE another policy. It is not opened, and rewritten in its place.

    The policy must permit you to rebind it, as it is and as it will be. A file that was sealed with
    --online opens under the new policy alone, whoever has copies of the former one; of any other
    file the former copies open as before. If this is cut short, run the same again.

    \b
    Examples:
      envelock rebind q3.pdf.tdf --as archivist --attr clearance=internal
      envelock rebind q3.pdf.tdf --as archivist --attr clearance=internal --receipt q3.receipt
    """  # noqa: D301 click's own mark for text that keeps its lines
    if receipt is not None:
        places.require_absent(receipt, force=force)
    with naming(str(file)), ExitStack() as stack:
        client = stack.enter_context(console.client())
        others = [stack.enter_context(console.client_of(name)) for name in peers]
        values = client.run(resolve(client.session, names))
        if (warning := unopenable(client, values)) is not None:
            console.tell(warning)
        done = _rebound(console, client.with_peers(*others), file, values)
        _tell(console, client, file, done, receipt)


def _rebound(
    console: Console, client: Client, file: Path, values: tuple[AttributeValue, ...]
) -> Rebound:
    size = file.stat().st_size if file.is_file() else None
    try:
        with progress.shown(console, "rewriting", size) as told:
            return client.rebind(file, attrs=[value.fqn for value in values], progress=told)
    except DeniedError as error:
        raise refusal(client, "rebind", str(file), values, error) from error


def _tell(
    console: Console, client: Client, file: Path, done: Rebound, receipt: Path | None
) -> None:
    attrs: list[Json] = list(done.attrs)
    former: list[Json] = list(done.former)
    value: dict[str, Json] = {"file": str(file), "attrs": attrs, "former": former}
    value["online"] = done.online
    if receipt is not None:
        if done.receipt is None:
            raise ReceiptError("the KAS gave no receipt", hint="the file is rewritten all the same")
        receipt.write_text(done.receipt, "utf-8")
        value["receipt"] = str(receipt)
    known = attributes_of(client)
    asks, asked = (
        asks_text(map(AttributeValue.parse_fqn, found), known)
        for found in (done.attrs, done.former)
    )
    console.done(value, f"rebound {file}: asks {asks}, no longer {asked}")
    if not done.online:
        console.tell(FORMER_COPIES)
