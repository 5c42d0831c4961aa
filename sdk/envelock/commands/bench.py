"""`envelock bench`: what this machine can do, with what it is up against."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envelock.errors import UnavailableError

if TYPE_CHECKING:
    from envelock.commands.console import Console
    from envelock.commands.measuring import Figure
    from envelock.testing import Server
    from envelock_formats.canonical import Json

MEGABYTE = 1_000_000
ATTRIBUTE = "clearance=secret"
_ROUNDS = click.option(
    "--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Measurements."
)
_SECONDS = click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Length of a round.",
)


@click.group("bench")
def command() -> None:
    """Measure this machine: releases, appends, decisions, files.

    Everything runs in a scratch directory beside the data directory, on the same disk, and is
    removed again; your ledger and your keys are not touched. Run it while nothing else runs.

    \b
    How to read it: each line has the median of the rounds, then the lowest and the highest. A
    spread of more than a tenth means that something else was running. `floor` is what the machine
    asks for the dearest single step: no setting makes a release cheaper than that.

    \b
    Examples:
      envelock bench append
      envelock bench release --readers 16 --json
    """  # noqa: D301 click's own mark for text that keeps its lines


@command.command()
@_ROUNDS
@_SECONDS
@click.pass_obj
def append(console: "Console", rounds: int, seconds: float) -> None:
    """Records a second that become durable, from one caller and from 64 at once.

    One caller waits for every fsync of a batch; 64 share them. If the second line is not many times
    the first, the disk is not the limit. Example: envelock bench append
    """
    from envelock.commands.measuring import Figure, fsync_cost  # noqa: PLC0415 only while measuring

    with _scratch(console) as folder:
        told = _lines_of(
            "envelock_ledger.bench",
            ("--folder", str(folder), "--rounds", str(rounds), "--seconds", str(seconds)),
            _bar(console, "append", rounds * 2),
        )
        figures: list[Figure] = []
        for in_flight in dict.fromkeys(str(one["in_flight"]) for one in told):
            mine = [one for one in told if str(one["in_flight"]) == in_flight]
            name = f"{in_flight} in flight"
            figures.append(Figure(f"appends, {name}", "/s", _all(mine, "per_second")))
            figures.append(Figure(f"time of one, {name}", "ms", _all(mine, "milliseconds")))
        _report(console, "append", figures, [fsync_cost(folder)])


@command.command()
@_ROUNDS
@click.option("--policies", type=click.Path(path_type=Path, exists=True), help="A bundle.")
@click.pass_obj
def decide(console: "Console", rounds: int, policies: Path | None) -> None:
    """Decisions a second on one core, under your own bundles and their cases.

    Nothing is signed here: a signature, which is in the floor, comes to each call of the decision
    point. Example: envelock bench decide --policies ./policies/acme
    """
    from envelock.commands.measuring import Figure, signature_costs  # noqa: PLC0415 as above

    given = policies or console.data / "policies"
    where = ("--policies", str(given)) if given.exists() else ()
    bar = _bar(console, "decide", rounds)
    told = _lines_of("envelock_pdp.bench", (*where, "--rounds", str(rounds)), bar)
    figures = [
        Figure(f"{bundle}: {column[0]}", column[1], _all(mine, column[2]))
        for bundle in dict.fromkeys(str(one["bundle"]) for one in told)
        for mine in [[one for one in told if one["bundle"] == bundle]]
        for column in (("decisions", "/s", "per_second"), ("one decision", "us", "microseconds"))
    ]
    _report(console, "decide", figures, signature_costs())


@command.command()
@_ROUNDS
@_SECONDS
@click.option("--readers", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), help="KAS processes; one for each core.")
@click.pass_obj
def release(
    console: "Console", rounds: int, seconds: float, readers: int, workers: int | None
) -> None:
    """Keys a second that a whole deployment releases to clients in Python.

    The clients are the SDK in threads of this one process. They share this machine with the
    servers, verify every receipt, and are often the limit: it is what an application sees, and
    less than the servers can do. The custody is of the kind that your settings name: for `pkcs11`
    a SoftHSM token of its own, so the speed of your HSM is not in it.
    """
    from envelock.commands.measuring import Figure, fsync_cost, signature_costs  # noqa: PLC0415 as above

    with _scratch(console) as folder, _deployment(console, folder, workers) as server:
        client = server.client("doctor")
        sealed = client.encrypt(b"x", attrs=ATTRIBUTE)
        client.decrypt(sealed)
        rates, times = [], []
        advance = _bar(console, "release", rounds)
        for _ in range(rounds):
            latencies = _opened(server, sealed, readers, seconds)
            rates.append(len(latencies) / seconds)
            times.append(sorted(latencies)[len(latencies) // 2] * 1000)
            advance()
        figures = [
            Figure(f"releases, {readers} readers", "/s", tuple(rates)),
            Figure("time of one", "ms", tuple(times)),
        ]
        _report(console, "release", figures, [fsync_cost(folder), *signature_costs()])


@command.command()
@_ROUNDS
@click.option("--size", type=click.IntRange(1, 4096), default=64, show_default=True, help="In MB.")
@click.pass_obj
def file(console: "Console", rounds: int, size: int) -> None:
    """Megabytes a second that are sealed and opened, release included.

    The floor is a plain copy of the same file on the same disk, through the page cache. Small files
    cost a release each, whatever their size. Example: envelock bench file --size 512
    """
    from envelock.commands.measuring import Figure, copy_speed  # noqa: PLC0415 as above

    with _scratch(console) as folder, _deployment(console, folder, 1) as server:
        plain, sealed, opened = folder / "plain", folder / "sealed.tdf", folder / "opened"
        with plain.open("wb") as writing:
            for _ in range(size):
                writing.write(os.urandom(MEGABYTE))
        client = server.client("doctor")
        client.decrypt(client.encrypt(b"x", attrs=ATTRIBUTE))
        speeds: dict[str, list[float]] = {"sealed": [], "opened": []}
        advance = _bar(console, "file", rounds)
        for _ in range(rounds):
            begun = time.perf_counter()
            client.encrypt(plain, sealed, attrs=ATTRIBUTE, force=True)
            between = time.perf_counter()
            client.decrypt(sealed, opened, force=True)
            speeds["sealed"].append(size / (between - begun))
            speeds["opened"].append(size / (time.perf_counter() - between))
            advance()
        figures = [
            Figure(f"{size} MB {name}", "MB/s", tuple(all_)) for name, all_ in speeds.items()
        ]
        _report(console, "file", figures, [copy_speed(plain, rounds)])


def _opened(server: "Server", sealed: bytes, readers: int, seconds: float) -> list[float]:
    """Latencies of everything that *readers* opened in so many seconds."""
    latencies: list[float] = []
    failed: list[Exception] = []
    client = server.client("doctor")
    until = time.perf_counter() + seconds

    def read() -> None:
        try:
            while (begun := time.perf_counter()) < until:
                client.decrypt(sealed)
                latencies.append(time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001 it is raised again by whoever measures
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return latencies


@contextmanager
def _scratch(console: "Console") -> Iterator[Path]:
    """A folder on the disk of the data directory, or of what is to be its parent."""
    above = console.data.absolute()
    while not above.is_dir():
        above = above.parent
    with tempfile.TemporaryDirectory(prefix=".envelock-bench-", dir=above) as folder:
        yield Path(folder)


@contextmanager
def _deployment(console: "Console", folder: Path, workers: int | None) -> "Iterator[Server]":
    """A deployment in *folder*, its custody of the kind that the settings name."""
    from envelock.testing import server  # noqa: PLC0415 as above

    settings = '[deployment]\nenvironment = "development"\n'
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        if _custody_kind(console.data) == "pkcs11":
            token = _lines_of("envelock_service.softhsm", ("--data", str(folder)), lambda: None)[0]
            settings += f'[kas]\nurl = "http://127.0.0.1:8080"\n\n{token["settings"]}'
            environment = {"SOFTHSM2_CONF": str(token["SOFTHSM2_CONF"])}
        count = workers or os.cpu_count() or 1
        yield stack.enter_context(
            server(workers=count, settings=settings, environment=environment, folder=folder)
        )


def _custody_kind(data: Path) -> str:
    import tomllib  # noqa: PLC0415 as above

    try:
        settings = tomllib.loads((data / "envelock.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return "local"
    return str(settings.get("custody", {}).get("kind", "local"))


def _lines_of(
    module: str, arguments: Sequence[str], advance: Callable[[], None]
) -> "list[dict[str, Json]]":
    """What a room's own program told, as it measured: one object a line.

    Raises:
        UnavailableError: It failed; the message ends with what it said.
    """
    command_line = [sys.executable, "-m", module, *arguments]
    found = []
    with subprocess.Popen(  # noqa: S603 our own command
        command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            found.append(json.loads(line))
            advance()
        said = process.stderr.read() if process.stderr is not None else ""
    if process.returncode or not found:
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise UnavailableError(f"{module} could not measure: {last[0]}")
    return found


def _bar(console: "Console", verb: str, steps: int) -> Callable[[], None]:
    """What to call after each step: it draws a bar on stderr, when a person is looking."""
    if console.json or not sys.stderr.isatty():
        return lambda: None
    done = itertools.count(1)

    def advance() -> None:
        number = next(done)
        end = "\n" if number == steps else ""
        sys.stderr.write(f"\r{verb} [{'#' * number}{'.' * (steps - number)}]{end}")
        sys.stderr.flush()

    return advance


def _all(told: "Iterable[dict[str, Json]]", name: str) -> tuple[float, ...]:
    return tuple(float(str(one[name])) for one in told)


def _report(
    console: "Console", what: str, figures: "Sequence[Figure]", floor: "Sequence[Figure]"
) -> None:
    from envelock.commands.measuring import table  # noqa: PLC0415 as above

    value: dict[str, Json] = {
        "bench": what,
        "figures": [one.value() for one in figures],
        "floor": [one.value() for one in floor],
        "generator": "Python, in this machine's own processes",
        "cores": os.cpu_count() or 1,
    }
    lines = [*table(figures), "floor", *(f"  {line}" for line in table(floor))]
    console.emit(value, [*lines, f"median, lowest and highest round; {value['cores']} cores"])
