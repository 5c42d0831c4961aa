"""`envelock encrypt`: seal a file or a stream."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from envelock.client import Client
from envelock.commands import places, progress
from envelock.commands.asserting import assertions_of
from envelock.commands.console import Console
from envelock.commands.wording import asks_text, attributes_of, refusal, size_text, unopenable
from envelock.errors import DeniedError
from envelock.files import size_hint
from envelock.sealing import resolve
from envelock_formats.canonical import Json
from envelock_formats.fqn import AttributeValue


@click.command("encrypt")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("-o", "--out", metavar="OUT|-", help="Where to  [default: FILE.tdf, stdin to stdout]")
@click.option(
    "--attr",
    "names",
    multiple=True,
    metavar="NAME",
    help="What the file asks of who opens it: NAME=VALUE or NAMESPACE/NAME=VALUE. Repeatable.",
)
@click.option("--dataset", metavar="NAME", help="Which of the tenant's keys to seal under.")
@click.option("--online", is_flag=True, help="Let the KAS make the key, so nobody can rewrap it.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAMES",
    help="Split the key: one share at the KAS of this profile, or of one of several joined by"
    " commas. Repeatable: all shares are needed to open.",
)
@click.option(
    "--assertion",
    "assertions",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A statement to bind to the content, as JSON: id, statement {format, schema, value}."
    " Repeatable.",
)
@click.option(
    "--assertion-key",
    "keys",
    multiple=True,
    metavar="ID=KEY",
    help="What signs an assertion: the file of a private key (PEM or DER), or secret:FILE for a"
    " shared secret of at least 32 bytes  [default: the file's own key]",
)
@click.option("--metadata", metavar="TEXT", help="Encrypted beside the key; `decrypt` shows it.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.pass_obj
def command(  # noqa: PLR0913 one for each option
    console: Console,
    *,
    file: str | None,
    out: str | None,
    names: tuple[str, ...],
    dataset: str | None,
    online: bool,
    splits: tuple[str, ...],
    assertions: tuple[Path, ...],
    keys: tuple[str, ...],
    metadata: str | None,
    force: bool,
) -> None:
    """Seal FILE, or stdin, so that only those open it whom the policy permits.

    \b
    Examples:
      envelock encrypt q3.pdf --as doctor --attr clearance=secret
      envelock encrypt labs.csv --as doctor --attr department=cardiology --dataset labs -o out.tdf
      pg_dump db | envelock encrypt --as doctor --attr clearance=secret > db.tdf
      envelock encrypt q3.pdf --as doctor --attr clearance=secret --split doctor --split lab,backup
      envelock encrypt q3.pdf --attr clearance=secret --assertion marking.json
    """  # noqa: D301 click's own mark for text that keeps its lines
    stated = assertions_of(assertions, keys)
    ends = places.to_seal(file, out, force=force)
    size = size_hint(ends.source)
    with ExitStack() as stack:
        client = stack.enter_context(console.client())
        over = _splits(console, splits, stack)
        values = client.run(resolve(client.session, names))
        if (warning := unopenable(client, values)) is not None:
            console.tell(warning)
        try:
            with progress.shown(console, "sealing", size) as told:
                sealed = client.encrypt(
                    ends.source,
                    ends.target,
                    attrs=[value.fqn for value in values],
                    dataset=dataset,
                    online=online,
                    splits=over,
                    assertions=stated,
                    metadata=metadata,
                    force=force,
                    progress=told,
                )
        except DeniedError as error:
            raise refusal(client, "seal", ends.label, values, error) from error
        line = f"sealed {ends.out}: {size_text(sealed.size)}, asks {_asks(client, values)}"
    if ends.out is not None:
        found: list[Json] = [value.fqn for value in values]
        value: dict[str, Json] = {"out": ends.out, "attrs": found, "size": sealed.size}
        console.done(value | {"sealed_size": sealed.sealed_size}, line)


def _splits(console: Console, splits: Sequence[str], stack: ExitStack) -> list[list[Client]] | None:
    """The clients that `--split` names, opened for the time of *stack*; None when it names none."""
    if not splits:
        return None
    return [
        [stack.enter_context(console.client_of(name)) for name in names.split(",")]
        for names in splits
    ]


def _asks(client: Client, values: Sequence[AttributeValue]) -> str:
    return asks_text(values, attributes_of(client) if values else None)
