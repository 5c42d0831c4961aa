"""`envelock inspect`: what a sealed file says of itself, nothing of it verified."""

import click

from envelock.commands import places
from envelock.commands.asserting import stated_lines, stated_values
from envelock.commands.console import Console
from envelock.commands.wording import asks_text, naming, size_text
from envelock.opening import ledger_id
from envelock.reader import SealedFile
from envelock_formats.canonical import Json
from envelock_formats.errors import FormatError
from envelock_formats.framing import from_b64
from envelock_formats.online import is_online
from envelock_formats.tdf.keyaccess import KeyAccess
from envelock_formats.tdf.manifest import SCHEMA_VERSION
from envelock_formats.wrap import WRAPPED, algorithm_of_wrap

NOT_VERIFIED = "READ, NOT VERIFIED (decrypt verifies)"


@click.command("inspect")
@click.argument("file", metavar="FILE|-")
@click.pass_obj
def command(console: Console, file: str) -> None:
    """Show what FILE says of itself: its key, what it asks, its id in the ledger, its assertions.

    No server is asked and nothing is verified: a file can say anything until it is opened.

    \b
    Examples:
      envelock inspect q3.pdf.tdf
      envelock inspect q3.pdf.tdf --json
    """  # noqa: D301 click's own mark for text that keeps its lines
    source = places.named_source(file)
    with naming(file), SealedFile.open(source, legacy=True) as sealed:
        console.emit(_value(sealed), _lines(sealed))


def ids_of(sealed: SealedFile) -> list[str]:
    """Every id under which the ledger may know *sealed*, the likeliest first.

    Clients send all key access objects of one server, or each by itself.
    """
    keys = sealed.key_access
    at_one = [[key for key in keys if key.url == url] for url in dict.fromkeys(k.url for k in keys)]
    return list(dict.fromkeys(map(ledger_id, [*at_one, list(keys), *([key] for key in keys)])))


def _value(sealed: SealedFile) -> dict[str, Json]:
    policy = sealed.policy
    return {
        "verified": False,
        "version": _version(sealed),
        "size": sealed.size,
        "segments": len(sealed.manifest.segments),
        "keys": [
            {"kid": key.kid, "url": key.url, "algorithm": _algorithm(key), "split": key.split}
            for key in sealed.key_access
        ],
        "asks": [value.fqn for value in policy.attributes],
        "dissem": list(policy.dissem),
        "object": ids_of(sealed)[0],
        "assertions": stated_values(sealed),
        "metadata": any(key.encryptedMetadata for key in sealed.key_access),
    }


def _lines(sealed: SealedFile) -> list[str]:
    policy, count = sealed.policy, len(sealed.manifest.segments)
    plural = "" if count == 1 else "s"
    head = f"OpenTDF {_version(sealed)}, {size_text(sealed.size)}, {count} segment{plural}"
    return [
        f"{head:<41} {NOT_VERIFIED}",
        *(
            f"key     {key.kid or 'unnamed'} at {key.url} ({_algorithm(key)})"
            + (f" split {key.split}" if key.split else "")
            for key in sealed.key_access
        ),
        f"asks    {asks_text(policy.attributes)}   dissem {', '.join(policy.dissem) or 'none'}",
        f"object  {ids_of(sealed)[0]}",
        *stated_lines(sealed),
    ]


def _version(sealed: SealedFile) -> str:
    return "4.2.2 or older" if sealed.manifest.legacy else SCHEMA_VERSION


def _algorithm(key: KeyAccess) -> str:
    """The algorithm of the key that a share is wrapped to, as far as the wrap shows it."""
    if key.type == WRAPPED and is_online(from_b64(key.wrappedKey)):
        return "aes:256, online"
    try:
        return algorithm_of_wrap(key)
    except FormatError:
        return key.type
