"""`envelock login`: write a profile, after trying it."""

import json
import os
import secrets
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from envelock.addresses import private_origin
from envelock.commands.console import Console
from envelock.errors import ConfigError, ReceiptError
from envelock.exchange import Steps, drive
from envelock.profile import (
    DEFAULT,
    Profile,
    ProfileValues,
    config_directory,
)
from envelock.session import Configuration, Session
from envelock.transport import SyncTransport
from envelock_ledger.errors import LedgerError
from envelock_ledger.note import VerifierKey

MODE = 0o600
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """The profile that is written: its name, its file, and what stands there so far."""

    name: str
    file: Path
    values: ProfileValues


@click.command("login")
@click.option("--url", help="The KAS, such as https://kas.clinic.example.")
@click.option("--client-id", help="Who you are to the token issuer.")
@click.option(
    "--client-secret-file",
    metavar="F",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file with your secret; the profile holds its path only.",
)
@click.option("--token-endpoint", metavar="URL", help="Where your secret may go for tokens.")
@click.option("--ledger-key", metavar="KEY", help="The ledger's key: NAME+HEXID+BASE64.")
@click.pass_obj
def command(
    console: Console,
    url: str | None,
    client_id: str | None,
    client_secret_file: Path | None,
    token_endpoint: str | None,
    ledger_key: str | None,
) -> None:
    """Write the profile NAME of --as (or `default`), after trying it.

    The ledger's key and the token endpoint are pinned: printed on first use, or given. A server
    that shows others later is refused, and the profile stays as it is. Repeat with one option to
    change one thing.

    \b
    Examples:
      envelock login --url https://kas.clinic.example --client-id anna --client-secret-file s.txt
      envelock login --as lab --ledger-key envelock-7c1f+5d2e8b0c+AY3k...
    """  # noqa: D301 click's own mark for text that keeps its lines
    place = _place(console, os.environ)
    values = _merged(place.values, url, client_id, client_secret_file)
    if token_endpoint is not None:
        values = msgspec.structs.replace(values, token_endpoint=token_endpoint)
    values, configuration = _tried(values, place.name)
    announced = configuration.envelock.ledger_key if configuration.envelock is not None else ""
    pinned = _pinned(place, ledger_key, announced)
    _write(place.file, msgspec.structs.replace(values, ledger_key=pinned))
    if not token_endpoint and not place.values.token_endpoint:
        console.tell(f"token endpoint {values.token_endpoint}")
        console.tell("pinned on first use: your secret was sent there, and goes nowhere else")
    if pinned and not ledger_key and not place.values.ledger_key:
        console.tell(f"ledger key {pinned}")
        console.tell("pinned on first use: compare it with the one that the ledger's owner shows")
    console.done(
        {
            "profile": place.name,
            "file": str(place.file),
            "token_endpoint": values.token_endpoint,
            "ledger_key": pinned,
        },
        f"wrote {place.file}: {values.client_id} at {values.url}",
    )


def _place(console: Console, environment: Mapping[str, str]) -> Place:
    name = console.profile or DEFAULT
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"profile name {name!r}", hint="use letters, digits, - and _")
    if (shadow := console.data / "profiles" / f"{name}.toml").is_file():
        raise ConfigError(
            f"`envelock up` keeps a profile {name!r} in {shadow}, which would come first",
            hint="choose another name with --as NAME",
        )
    file = config_directory(environment) / f"{name}.toml"
    try:
        return Place(name, file, msgspec.convert(_toml(file), ProfileValues))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{file}: {error}", hint="correct it, or remove it") from error


def _toml(file: Path) -> dict[str, object]:
    return tomllib.loads(file.read_text("utf-8")) if file.exists() else {}


def _merged(
    known: ProfileValues, url: str | None, client_id: str | None, secret: Path | None
) -> ProfileValues:
    """What was given, over what the profile has.

    Raises:
        ConfigError: Something is missing, or the URL is none that secrets may go to.
    """
    values = msgspec.structs.replace(
        known,
        url=url or known.url,
        client_id=client_id or known.client_id,
        client_secret_file=str(secret.resolve()) if secret else known.client_secret_file,
    )
    for option, value in (
        ("--url", values.url),
        ("--client-id", values.client_id),
        ("--client-secret-file", values.client_secret_file),
    ):
        if not value:
            raise ConfigError(f"{option} is missing", hint="envelock login --help")
    return msgspec.structs.replace(values, url=private_origin(values.url))


def _tried(values: ProfileValues, name: str) -> tuple[ProfileValues, Configuration]:
    """Ask the KAS what it is, and the issuer for a token; returns *values* with the issuer pinned.

    Raises:
        ConfigError: The KAS names another token endpoint than the pinned one.
        EnvelockError: One of them does not answer, or does not know the client.
    """
    transport = SyncTransport()

    def run(steps: Steps[T]) -> T:
        return drive(steps, transport.send, time.sleep)

    try:
        configuration = run(_session(values, name).configuration())
        named = configuration.idp.token_endpoint
        pinned = msgspec.structs.replace(values, token_endpoint=values.token_endpoint or named)
        run(_session(pinned, name).credentials.token(named))
    finally:
        transport.close()
    return pinned, configuration


def _session(values: ProfileValues, name: str) -> Session:
    profile = Profile(values, name)
    return Session(profile, brought=None, ledger_key=None, entropy=os.urandom)


def _pinned(place: Place, given: str | None, announced: str) -> str:
    """The key to pin: all that are named must be one.

    Raises:
        ReceiptError: They differ, or it is no key.
    """
    named = {key for key in (place.values.ledger_key, given, announced) if key}
    if len(named) > 1:
        raise ReceiptError(
            f"the ledger key of {place.name!r} is not the one that was"
            f" {'pinned' if place.values.ledger_key else 'given'}; nothing was changed",
            code="ledger_key",
            hint=f"ask the ledger's owner; if the ledger is new, remove {place.file} first",
        )
    key = next(iter(named), "")
    try:
        if key:
            VerifierKey.parse(key)
    except LedgerError as error:
        raise ReceiptError(f"ledger key: {error}", code="ledger_key") from error
    return key


def _write(file: Path, values: ProfileValues) -> None:
    """Write a profile of mode 0600, whole or not at all."""
    text = "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in msgspec.to_builtins(values).items()
        if value
    )
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)
