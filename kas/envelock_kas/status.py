"""`envelock status`: whether keys are released, and if not, what is missing since when."""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click
import msgspec

from envelock_formats.canonical import Json

if TYPE_CHECKING:
    from envelock_kas.standing import Down, Ledger, Process, Standing

UNAVAILABLE = 5  # exit code
MEGABYTE = 1 << 20


class Shown(Protocol):
    """What the root command hands to every command."""

    @property
    def data(self) -> Path:
        """The data directory."""
        ...

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* as JSON, or *lines* for people."""
        ...


@click.command("status")
@click.option("--metrics", is_flag=True, help="Print the metrics of all processes instead.")
@click.pass_context
def command(context: click.Context, metrics: bool) -> None:  # noqa: FBT001 click passes flags so
    """Show whether keys are released here; if not, what is missing, since when, what to do next.

    Asks every process on its socket in the data directory, for two seconds each, and needs none of
    them. Exit code 0 when everything works, 5 when not. Counts are those since each worker began.

    \b
    Examples:
      envelock status
      envelock status --json
      envelock status --metrics > /var/lib/node_exporter/envelock.prom
    """  # noqa: D301 click's own mark for text that keeps its lines
    from envelock_kas.standing import standing  # noqa: PLC0415 keeps `envelock --help` fast
    from envelock_service.metrics import gathered  # noqa: PLC0415 as above

    shown: Shown = context.obj
    if metrics:
        sys.stdout.write(asyncio.run(gathered(shown.data)).decode())
        return
    found = asyncio.run(standing(shown.data.absolute()))
    shown.emit(msgspec.to_builtins(found), _lines(found))
    if not found.releases:
        context.exit(UNAVAILABLE)


def _lines(found: "Standing") -> Iterator[str]:
    yield from _verdict(found)
    yield ""
    yield from table(
        ("process", "pid", "up since", "memory", "parts down"),
        [_process(process) for process in found.processes],
    )
    yield ""
    yield f"custody   {found.custody or 'not known'}"
    epochs = ", ".join(f"{tenant} epoch {epoch}" for tenant, epoch in found.epochs.items())
    yield f"policy    {epochs or 'none in force, or not known'}"
    yield from _ledger(found.ledger)
    yield f"records   {_counts(found.records)}"
    yield f"refusals  {_counts(found.refusals)}"
    yield f"unproved  {_counts(found.unauthenticated)}"
    yield f"looked in {found.data}/run"


def _verdict(found: "Standing") -> Iterator[str]:
    if found.releases:
        yield "releases  yes: every part works"
        return
    yield "releases  NO, or not everywhere"
    told: dict[tuple[str, str], list[Down]] = {}
    for one in found.down:
        told.setdefault((one.part, one.detail), []).append(one)
    for (part, detail), who in told.items():
        names = ", ".join(one.process for one in who)
        began = [one.since for one in who if one.since is not None]
        since = f" since {moment(min(began))}" if began else ""
        said = names if part in {"process", names} else f"{part} (as {names} found)"
        yield f"down{since}: {said}: {detail}"
        yield f"next: {who[0].next}"


def _process(process: "Process") -> tuple[str, ...]:
    told = process.told
    if told is None:
        pid, state = process.pid, "silent" if process.pid else "gone"
        return process.name, "-" if pid is None else str(pid), "-", "-", state
    down = [part.name for part in told.parts if part.state != "up"]
    memory = f"{told.rss_bytes / MEGABYTE:.0f} MB"
    return process.name, str(told.pid), moment(told.started), memory, ", ".join(down) or "none"


def _ledger(found: "Ledger | None") -> Iterator[str]:
    if found is None:
        yield "ledger    does not answer"
        return
    yield f"ledger    {found.size} records, root {found.root}"
    yield (
        f"          checkpoint {found.checkpoint_age_seconds:.0f} s old,"
        f" {found.queued_bytes} bytes queued, {found.free_bytes // MEGABYTE} MB free"
    )
    where = "on the SAME file system as the ledger: a restore would take both back"
    if not found.anchor_on_same_device:
        where = "on a file system of its own"
    yield f"anchor    {where}; {found.anchor_free_bytes // MEGABYTE} MB free"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table whose columns are as wide as they must be."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).strip()


def moment(seconds: float) -> str:
    """A moment in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counted.items()) or "none"
