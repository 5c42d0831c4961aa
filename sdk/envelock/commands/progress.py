"""A bar on stderr while something long is sealed or opened, when a person is looking."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from envelock.commands.console import Console
from envelock.files import Progress

LONG_BYTES = 16 << 20


@contextmanager
def shown(console: Console, verb: str, size: int | None) -> Iterator[Progress | None]:
    """Show progress over *size* bytes (None: unknown); gives what to call, if anything."""
    short = size is not None and size < LONG_BYTES
    if console.json or short or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console as Terminal  # noqa: PLC0415 only for work that takes long
    from rich.progress import (  # noqa: PLC0415 as above
        BarColumn,
        DownloadColumn,
        TextColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415 as above

    columns = (
        TextColumn(verb),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Bar(*columns, console=Terminal(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=size)
        yield partial(_advance, bar.update, task)


def _advance(update: Callable[..., None], task: int, done: int) -> None:
    update(task, completed=done)
