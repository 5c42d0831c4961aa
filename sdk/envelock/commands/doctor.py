"""`envelock doctor`: what is wrong with a sealed file, who refuses it, and what can be repaired."""

from collections.abc import Iterator
from pathlib import Path

import click

from envelock.commands import places, progress
from envelock.commands.console import Console
from envelock.doctor import Repaired, Report, examine, repair
from envelock.errors import ConfigError
from envelock_formats.canonical import Json

_THE_FILE = 4  # exit code
_HEADS = ("finding", "refused by", "repair", "where and what")


@click.command("doctor")
@click.argument("file", metavar="FILE|-")
@click.option("--repair", "repairing", is_flag=True, help="Write a repaired file to OUT.")
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to, with --repair; never FILE itself.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.pass_context
def command(
    context: click.Context, *, file: str, repairing: bool, out: Path | None, force: bool
) -> None:
    """Say what is wrong with FILE, and which readers refuse it for that.

    No server is asked and no key is needed. The readers are envelock, the Go SDK and otdfctl (go),
    the web SDK, the Java SDK, otdf-python, and the KAS of the OpenTDF platform. --repair rewrites
    what needs no key: the zip, sizes that were left out, members that some readers demand. What is
    signed or bound to the key is never touched. Exit code 4 where a reader refuses the file.

    \b
    Examples:
      envelock doctor web.tdf
      envelock doctor web.tdf --repair -o web-fixed.tdf
      envelock doctor web.tdf --json
    """  # noqa: D301 click's own mark for text that keeps its lines
    console: Console = context.obj
    if repairing is (out is None):
        raise ConfigError("--repair and -o OUT go together", hint="envelock doctor --help")
    source = places.named_source(file)
    size = source.stat().st_size if isinstance(source, Path) else None
    if out is None:
        with progress.shown(console, "reading", size) as told:
            report = examine(source, progress=told)
        console.emit(_value(file, report), _lines(file, report))
    else:
        if not isinstance(source, Path):
            raise ConfigError("--repair needs a file, not a pipe")
        places.require_absent(out, force=force)
        with progress.shown(console, "repairing", size) as told:
            done = repair(source, out, force=force, progress=told)
        report = done.report
        changed: list[Json] = list(done.changed)
        console.emit(_value(str(out), report) | {"repaired": changed}, _repaired(str(out), done))
    if not report.healthy:
        context.exit(_THE_FILE)


def _value(file: str, report: Report) -> dict[str, Json]:
    return {
        "file": file,
        "healthy": report.healthy,
        "refused_by": list(report.refused_by),
        "findings": [
            {
                "code": found.code,
                "where": found.where,
                "what": found.what,
                "refused_by": list(found.refused_by),
                "repair": found.repairable,
            }
            for found in report.findings
        ],
    }


def _lines(file: str, report: Report) -> Iterator[str]:
    if report.healthy:
        yield f"{file}: no reader is known to refuse it     READ, NOT VERIFIED (decrypt verifies)"
    else:
        yield f"{file}: refused by {', '.join(report.refused_by)}"
    if not report.findings:
        return
    rows = [
        (
            found.code,
            ", ".join(found.refused_by) or "nobody",
            "yes" if found.repairable else "no",
            f"{found.where}: {found.what}",
        )
        for found in report.findings
    ]
    widths = [max(len(row[column]) for row in (_HEADS, *rows)) for column in range(3)]
    for row in (_HEADS, *rows):
        first = (text.ljust(width) for text, width in zip(row, widths, strict=False))
        yield "  ".join((*first, row[3]))


def _repaired(out: str, done: Repaired) -> Iterator[str]:
    yield from (f"repaired: {what}" for what in done.changed)
    yield from _lines(out, done.report)
