"""`envelock demo`: the whole story on this machine, in ten steps, as a person would type it.

Keys live in SoftHSM where it is installed with its Python library, else in the local custody.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import click

from envelock_formats.canonical import Json
from envelock_service.datadir import write_private
from envelock_service.settings import FILE, SettingsError
from envelock_service.softhsm import make_token
from envelock_service.story import MEGABYTE, Story, StoryError, Told

DEFAULT_MEGABYTES = 64
STEPS = 10
_SETTINGS = """\
[deployment]
environment = "development"

[kas]
url = "http://127.0.0.1:8080"      # stands in every file that is sealed here

"""
_LOCAL = '[custody]\nkind = "local"\n'


class Shown(Protocol):
    """What the root command hands to every command."""

    @property
    def data(self) -> Path: ...

    @property
    def data_given(self) -> bool: ...

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* as JSON, or *lines* for people."""
        ...


@click.command("demo")
@click.option(
    "--size",
    "megabytes",
    type=click.IntRange(1, 4096),
    default=DEFAULT_MEGABYTES,
    show_default=True,
    help="Megabytes of the file that is sealed.",
)
@click.pass_context
def command(context: click.Context, megabytes: int) -> None:
    """Show the whole story on this machine: seal, open, refuse, rotate, suspend, tamper, verify.

    Everything is made anew in a directory of its own (--data, or a temporary one) and kept there.
    Exit code 1 when a step is not as expected.

    \b
    Examples:
      envelock demo
      envelock demo --data ./demo --size 512
    """  # noqa: D301 click's own mark for text that keeps its lines
    shown: Shown = context.obj
    directory = _directory(shown)
    token = make_token(directory / "data", os.urandom)
    settings = _SETTINGS + (_LOCAL if token is None else token.settings)
    write_private(directory / "data" / FILE, settings.encode())
    story = Story(directory, token, megabytes)
    _write_file(story.plain, megabytes)
    begun = time.monotonic()
    expected = _tell(story, shown)
    seconds = time.monotonic() - begun
    shown.emit(
        {"expected": expected, "steps": STEPS, "seconds": int(seconds), "data": str(directory)},
        [
            f"{expected} of {STEPS} as expected, {seconds:.0f} s; everything kept in {directory}",
            f"look  envelock ledger show --data {directory / 'data'}",
        ],
    )
    if expected != STEPS:
        context.exit(1)


def _directory(shown: Shown) -> Path:
    """A directory that is ours alone.

    Raises:
        SettingsError: The one that was named is in use: keys in it would be suspended.
    """
    directory = shown.data if shown.data_given else Path(mkdtemp(prefix="envelock-demo-"))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SettingsError(f"{directory} is not empty", "name a new directory with --data")
    (directory / "data").mkdir(mode=0o700, parents=True)
    return directory.absolute()


def _write_file(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MEGABYTE))


def _tell(story: Story, shown: Shown) -> int:
    """Tell every step as it happens; returns how many were as expected."""
    expected = 0
    with ExitStack() as stack:

        def services_up() -> Told:
            return stack.enter_context(story.services())

        for number, step in enumerate((services_up, *story.steps), start=1):
            expected += _show(shown, number, step)
            if not expected:
                break  # without services there is no story
    return expected


def _show(shown: Shown, number: int, step: Callable[[], Told]) -> bool:
    begun = time.monotonic()
    try:
        told, good = step(), True
    except StoryError as error:
        name = getattr(step, "__name__", "step").replace("_", " ")
        told, good = Told(f"FAIL {name}", str(error)), False
    seconds = time.monotonic() - begun
    line = f"{number:2}/{STEPS}  {told.what:<40} {_duration(seconds):>7}   {told.detail}"
    value: dict[str, Json] = {"step": number, "what": told.what, "detail": told.detail}
    shown.emit(value | {"milliseconds": int(seconds * 1000), "ok": good}, [line.rstrip()])
    return good


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
