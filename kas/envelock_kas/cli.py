"""`envelock keys`: what an operator types. Every change is one record in the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

import click

from envelock_formats.canonical import Json
from envelock_kas.algorithms import OfflineAlgorithm

if TYPE_CHECKING:
    from envelock_formats.keyid import KeyPath

_OF_OTHERS = 0o077  # of a file's mode
_TABLE_WIDTH = 1000  # characters; a pipe gets whole lines
_BELOW = click.option("--below", is_flag=True, help="And every key below it.")
_PATH = click.argument("path", metavar="PATH")
_ALGORITHM = click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    type=click.Choice(get_args(OfflineAlgorithm)),
    help="One key of this kind; repeatable, and clients seal to the first.",
)


class Console(Protocol):
    """What the root command hands to its groups: a way to the server, and the way to print."""

    def tell(self, line: str) -> None:
        """Print *line* for people on stderr."""

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* as JSON, or *lines* for people."""

    def operate(self, method: str, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
        """Call the operators' API as the chosen profile, and return its answer."""
        ...


class KeysUsageError(Exception):
    """What was typed cannot be meant; nothing was sent."""

    exit_code = 2
    code = "usage"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@click.group("keys")
def command() -> None:
    """List, rotate, suspend and destroy keys of your tenant, as an operator.

    A PATH names what a key protects, such as clinic:records:2026-11; its first part is the tenant.

    \b
    Examples:
      envelock keys list --as operator
      envelock keys rotate clinic:records:2026-11 --as operator
      envelock keys suspend clinic:records --below --as operator
    """  # noqa: D301 click's own mark for text that keeps its lines


@command.command("list")
@click.pass_obj
def list_keys(console: Console) -> None:
    """List every key of your tenant.

    Example: envelock keys list --as operator
    """
    answer = console.operate("GET", "/v1/keys", {})
    console.emit(answer, _table(_keys(answer)))


@command.command()
@_PATH
@click.pass_obj
def show(console: Console, path: str) -> None:
    """Show one key, all versions.

    Example: envelock keys show clinic:records:2026-11 --as operator
    """
    answer = console.operate("GET", _url(path), {})
    console.emit(answer, _table(_keys(answer)))


@command.command()
@_PATH
@click.option("--online", is_flag=True, help="For keys that the KAS makes; cannot be changed.")
@_ALGORITHM
@click.pass_obj
def create(console: Console, path: str, online: bool, algorithms: tuple[str, ...]) -> None:
    """Make the first version of a key. A first use does that by itself.

    \b
    Examples:
      envelock keys create clinic:notes --online --as operator
      envelock keys create clinic:archive:2026-11 --algorithm ec:secp384r1 --as operator
    """  # noqa: D301 click's own mark for text that keeps its lines
    if online and algorithms:
        raise KeysUsageError(
            "--online and --algorithm exclude each other; nothing was changed",
            "keys for online sealing are aes:256, and never leave the KAS",
        )
    body: dict[str, Json] = {"wraps": "online" if online else "offline"}
    _change(console, _url(path), body | _named(algorithms), path)


@command.command()
@_PATH
@_ALGORITHM
@click.pass_obj
def rotate(console: Console, path: str, algorithms: tuple[str, ...]) -> None:
    """Make a new version; the former one still opens what it sealed. No file is rewritten.

    The new version has keys of the same kinds, unless others are named.

    \b
    Examples:
      envelock keys rotate clinic:records:2026-11 --as operator
      envelock keys rotate clinic:records:2026-11 --algorithm rsa:4096 --as operator
    """  # noqa: D301 click's own mark for text that keeps its lines
    _change(console, f"{_url(path)}/rotate", _named(algorithms), path, "; no file rewritten")


@command.command("import")
@_PATH
@click.option("--kid", required=True, help="What files name the key by, such as r1.")
@click.option(
    "--private-key",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of a key of an --algorithm of `keys create`, without a passphrase.",
)
@click.option("--legacy", is_flag=True, help="Try it for files that name no key, too.")
@click.option("--active", is_flag=True, help="Seal new data under it, too.")
@click.pass_obj
def take_over(
    console: Console, path: str, kid: str, file: Path, legacy: bool, active: bool
) -> None:
    """Take over a key of an OpenTDF KAS: what that KAS sealed opens here, by policy and on record.

    The key goes into the custody of the KAS, by TLS or on the KAS's own host; the file stays as it
    is: remove it when everything opens. PATH is for such keys; nothing new is sealed under it.

    \b
    Examples:
      envelock keys import clinic:moved --kid r1 --private-key kas-private.pem --as operator
      envelock keys import clinic:moved --kid e1 --private-key kas-ec-private.pem --legacy
    """  # noqa: D301 click's own mark for text that keeps its lines
    if file.stat().st_mode & _OF_OTHERS:
        console.tell(f"warning: other users may read {file}; chmod 600 {file}")
    body: dict[str, Json] = {
        "kid": kid,
        "private_key": _private_key(file),
        "legacy": legacy,
        "active": active,
    }
    _change(console, f"{_url(path)}/import", body, path, f"; opens what names {kid}")


@command.command()
@_PATH
@_BELOW
@click.pass_obj
def suspend(console: Console, path: str, below: bool) -> None:
    """Stop a key from opening and sealing anything, on every server, from the next record on.

    Example: envelock keys suspend clinic:records --below --as operator
    """
    _change(console, f"{_url(path)}/suspend", {"below": below}, path)


@command.command()
@_PATH
@_BELOW
@click.pass_obj
def resume(console: Console, path: str, below: bool) -> None:
    """Let a suspended key work again.

    Example: envelock keys resume clinic:records --below --as operator
    """
    _change(console, f"{_url(path)}/resume", {"below": below}, path)


@command.command()
@_PATH
@click.option("--confirm", is_flag=True, help="Yes: what was sealed under it will be lost.")
@_BELOW
@click.pass_obj
def destroy(console: Console, path: str, confirm: bool, below: bool) -> None:
    """Destroy a key after the grace period; until then `cancel` saves it.

    Example: envelock keys destroy clinic:records:2020-01 --confirm --as operator
    """
    url = _url(path)
    if not confirm:
        raise KeysUsageError(
            f"destroying {path} loses what was sealed under it; nothing was changed",
            f"if that is meant: envelock keys destroy {path} --confirm",
        )
    hint = f"; save it with: envelock keys cancel {path}"
    _change(console, f"{url}/destroy", {"below": below, "confirm": path}, path, hint)


@command.command()
@_PATH
@_BELOW
@click.pass_obj
def cancel(console: Console, path: str, below: bool) -> None:
    """Save a key from its scheduled destruction.

    Example: envelock keys cancel clinic:records:2020-01 --as operator
    """
    _change(console, f"{_url(path)}/cancel", {"below": below}, path)


def _private_key(file: Path) -> str:
    """Base64 of the PKCS#8 DER of the key in a PEM file."""
    from envelock_formats.errors import (  # noqa: PLC0415 keeps `--help` fast
        FormatError,
        UnsupportedAlgorithmError,
    )
    from envelock_formats.framing import b64  # noqa: PLC0415 as above
    from envelock_formats.privatekey import pkcs8_of, read_private_pem  # noqa: PLC0415 as above

    try:
        key = read_private_pem(file.read_bytes())
    except UnsupportedAlgorithmError as error:
        raise KeysUsageError(
            f"{file} holds {error}; nothing was changed", "see envelock keys import --help"
        ) from error
    except (OSError, FormatError) as error:
        raise KeysUsageError(
            f"{file} is not a private key in PEM without a passphrase; nothing was changed",
            f"convert it: openssl pkey -in {file} -out key.pem",
        ) from error
    return b64(pkcs8_of(key))


def _named(algorithms: Sequence[str]) -> dict[str, Json]:
    return {"algorithms": list(algorithms)} if algorithms else {}


def _url(path: str) -> str:
    return f"/v1/keys/{_checked(path)}"


def _checked(path: str) -> "KeyPath":
    from envelock_formats.keyid import KeyIdError, KeyPath  # noqa: PLC0415 keeps `--help` fast

    try:
        return KeyPath(path)
    except KeyIdError as error:
        raise KeysUsageError(str(error), "list them: envelock keys list") from error


def _change(
    console: Console, url: str, body: Mapping[str, Json], path: str, more: str = ""
) -> None:
    answer = console.operate("POST", url, body)
    console.emit(answer, [f"{_changed(path, _keys(answer))}, record {answer.get('record')}{more}"])


def _changed(path: str, keys: Sequence[Mapping[str, Json]]) -> str:
    """`v1 deprecated (still opens), v2 active`; ids in full where more than *path* was changed."""
    alone = all(key.get("path") == path for key in keys)
    names = [f"v{key.get('version')}" if alone else str(key.get("id")) for key in keys]
    return ", ".join(f"{name} {_state(key)}" for name, key in zip(names, keys, strict=True))


def _state(key: Mapping[str, Json]) -> str:
    match key.get("state"), key.get("destroy_at"):
        case "deprecated", _:
            return "deprecated (still opens)"
        case "pending-destruction", int(seconds):
            return f"destroyed after {_day(seconds)}"
        case state, _:
            return str(state)


def _day(seconds: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 keeps `envelock --help` fast

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def _keys(answer: Mapping[str, Json]) -> list[dict[str, Json]]:
    found = answer.get("keys")
    return [key for key in found if isinstance(key, dict)] if isinstance(found, list) else []


def _table(keys: Sequence[Mapping[str, Json]]) -> Iterable[str]:
    """The lines of a table; text of the server goes into it as it is, and is escaped in print."""
    from rich import box  # noqa: PLC0415 keeps `envelock --help` fast
    from rich.console import Console as Terminal  # noqa: PLC0415 as above
    from rich.table import Table  # noqa: PLC0415 as above
    from rich.text import Text  # noqa: PLC0415 as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("key", "state", "sealing", "custody", "algorithms", "record", "imported as"):
        table.add_column(name, overflow="fold", no_wrap=name == "key")
    for key in keys:
        algorithms = key.get("algorithms")
        named = ", ".join(map(str, algorithms)) if isinstance(algorithms, list) else ""
        cells = (key.get("id"), _state(key), key.get("wraps"), key.get("custody"), named)
        imported = f"{key['kid']}{' (legacy)' if key.get('legacy') else ''}" if "kid" in key else ""
        table.add_row(*(Text(str(cell)) for cell in (*cells, key.get("record"), imported)))
    terminal = Terminal(no_color=True)
    width = terminal.width if terminal.is_terminal else _TABLE_WIDTH
    plain = Terminal(width=width, no_color=True, force_terminal=False)
    with plain.capture() as captured:
        plain.print(table)
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]
