"""What is expected of each cell, and the document that is made of all."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from interop.cells import EVERY, Cell
from interop.clients import NOT_RUN, OK, REFUSED, Installed

_WORDS_SHOWN = 170
_OLD_READER = "it reads files of 4.2.2 and older: later ones have their hashes in another form"
_NAME = "the crate names the manifest `manifest.json`, and this reader knows `0.manifest.json` only"
_STRICT = (
    "its files leave out sizes of full segments and have members that otdf-python does not know"
)
_LEGACY = "the crate reads 4.3.0 only, and these files are of 4.2.2"
_EMPTY = "the crate takes a file without segments, as these are, for one of another form"
_UNCHECKED = "otdf-python verifies neither root signature nor segment hashes"
# Refused by the reader's or writer's own doing: (kind of key, writer, reader, size) by what it is.
_SIZES: dict[tuple[str, str, str], str] = {
    ("envelock", "opentdf-client", ""): _OLD_READER,
    ("go", "opentdf-client", ""): _OLD_READER,
    ("otdf-python", "opentdf-client", ""): _OLD_READER,
    ("opentdf-rs", "opentdf-client", ""): _NAME,
    ("opentdf-rs", "otdf-python", ""): _NAME,
    ("opentdf-client", "otdf-python", ""): _STRICT,
    ("opentdf-client", "opentdf-rs", ""): _LEGACY,
    ("otdf-python", "opentdf-rs", "0"): _EMPTY,
    ("opentdf-rs", "opentdf-rs", "0"): _EMPTY,
}
_OPENED_BY_PYTHON = {
    "root signature altered",
    "segment hash altered",
    "two segments swapped",
    "last segment cut off",
}
_TOLD = {
    "Java SDK": "no registry that is reached here serves it; its requests are replayed by"
    " `tests/interop/test_shapes.py`",
    "JavaScript SDK, current": "likewise; its predecessor is served, and its requests are replayed",
    "otdfctl": "likewise; it is the Go SDK with a command line",
}


def expected(cell: Cell) -> tuple[str, str]:
    """The state that *cell* should have, and why where that is not `ok`."""
    if cell.table == "sizes":
        _, *pair = cell.row
        for size in ("", cell.column):
            if why := _SIZES.get((pair[0], pair[1], size)):
                return REFUSED, why
    if cell.table == "refusals":
        (fault,), reader = cell.row, cell.column
        return (OK, _UNCHECKED) if _opens(fault, reader) else (REFUSED, "")
    if cell.table == "sessions":
        if cell.column in {"DPoP ES384", "DPoP ES512"}:
            return REFUSED, "the development issuer takes ES256, EdDSA and RS256, and says so"
        if cell.row == ("opentdf-client",):
            return REFUSED, _OLD_READER
    return OK, ""


def _opens(fault: str, reader: str) -> bool:
    return reader == "otdf-python" and fault in _OPENED_BY_PYTHON


def line(cell: Cell) -> str:
    """A cell in one line."""
    name = ", ".join((cell.table, *cell.row, cell.column))
    return f"{name}: {cell.state}" + (f" ({cell.words})" if cell.words else "")


def surprises(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that are not as expected; what was not run is neither."""
    return [cell for cell in cells if cell.state not in {NOT_RUN, expected(cell)[0]}]


@dataclass
class _Notes:
    """Numbered notes, each written once."""

    texts: list[str] = field(default_factory=list)

    def mark(self, cell: Cell) -> str:
        """The number of what is to be said of *cell*, for a table."""
        text = expected(cell)[1] if cell.state != NOT_RUN else ""
        if not text or cell.state != expected(cell)[0]:
            text = _shown(cell.words)
        if text not in self.texts:
            self.texts.append(text)
        return f"{cell.state} [{self.texts.index(text) + 1}]"

    def lines(self) -> list[str]:
        """All of them, as they stand under the tables."""
        return [f"- [{number}] {text}." for number, text in enumerate(self.texts, 1)]


def _shown(words: str) -> str:
    """A client's words, without what differs from run to run."""
    plain = re.sub(r"https?://127\.0\.0\.1:\d+", "SERVER", words).replace("`", "'")
    plain = re.sub(r"/\S*/([\w.-]+)", r"\1", plain.replace("|", "/"))
    cut = plain if len(plain) <= _WORDS_SHOWN else plain[:_WORDS_SHOWN].rsplit(" ", 1)[0] + " …"
    return cut.rstrip(".")


def document(cells: Sequence[Cell], clients: Sequence[Installed]) -> str:
    """The whole of `docs/interop.md`."""
    by_table = {name: [cell for cell in cells if cell.table == name] for name in _SECTIONS}
    notes = _Notes()
    parts = [_HEAD, *_clients(clients)]
    for name, section in _SECTIONS.items():
        parts += ["", *section(by_table[name], notes)]
    parts += ["", "## Notes", "", *notes.lines()]
    return "\n".join(parts) + "\n"


_HEAD = """\
# Stock clients against this server

Written by `make interop`, which installs the clients below in the versions that `tests/interop`
pins, starts a server and runs everything here: do not edit. `ok`: what came out is what went in.
`refused`: the client ended with an error. `not run`: it does not have what the cell is about, or is
not to be had, and that counts for nothing. Whatever is not `ok` has a note.

## Clients
"""


def _clients(clients: Sequence[Installed]) -> list[str]:
    rows = [f"| `{client.name}` | {_ABOUT[client.name]} | {_had(client)} |" for client in clients]
    rows += [f"| {name} | | {NOT_RUN}: {why} |" for name, why in _TOLD.items()]
    return ["| client | what it is | |", "|---|---|---|", *rows]


def _had(client: Installed) -> str:
    return f"{NOT_RUN}: {_shown(client.missing)}" if client.missing else "run"


_ABOUT = {
    "envelock": "our SDK, driven like the others",
    "go": "`github.com/opentdf/platform/sdk` 0.36.0",
    "otdf-python": "`otdf-python` 0.11.0",
    "opentdf-rs": "the crate `opentdf` 0.17.0, of another team",
    "opentdf-client": "`@opentdf/client` 2.0.0-beta.1412, the JavaScript SDK's predecessor;"
    " its dialect is of 4.2.2, with keys over REST",
}


def _sizes(cells: Sequence[Cell], notes: _Notes) -> list[str]:
    lines = [
        "## Who writes, who reads, under which key, at which sizes",
        "",
        "Rows write, columns read. Each cell stands for all sizes: 0, 1, 2 MiB - 1, 2 MiB,",
        "2 MiB + 1 and 5 MiB under `ec:secp256r1` and `rsa:2048`, 1 and 5 MiB under the others.",
    ]
    for algorithm, group in groupby(cells, key=lambda cell: cell.row[0]):
        found = list(group)
        lines += ["", *_grid_of(algorithm, found, notes)]
        absent = {cell.row[1]: notes.mark(cell) for cell in found if cell.row[2] == EVERY}
        if absent:
            told = ", ".join(f"{writer} {mark}" for writer, mark in absent.items())
            lines += ["", f"Writing under `{algorithm}`: {told}."]
    return lines


def _grid_of(algorithm: str, cells: Sequence[Cell], notes: _Notes) -> Iterator[str]:
    """The table of one kind of key, of those clients that write under it."""
    found = [cell for cell in cells if cell.row[2] != EVERY]
    readers = list(dict.fromkeys(cell.row[2] for cell in found))
    if readers:
        yield f"| `{algorithm}` | {' | '.join(readers)} |"
        yield "|---" * (len(readers) + 1) + "|"
    for writer in dict.fromkeys(cell.row[1] for cell in found):
        told = [
            _sum([cell for cell in found if cell.row[1:] == (writer, reader)], notes)
            for reader in readers
        ]
        yield f"| **{writer}** | {' | '.join(told)} |"


def _sum(cells: Sequence[Cell], notes: _Notes) -> str:
    """One word for all sizes where they agree; else each that differs from `ok`."""
    marks = {cell.column: OK if cell.state == OK else notes.mark(cell) for cell in cells}
    if len({mark.split(" [")[0] for mark in marks.values()}) == 1:
        return next(iter(marks.values()))
    return "ok; " + ", ".join(f"{size}: {mark}" for size, mark in marks.items() if mark != OK)


def _grid(title: str, intro: str, cells: Sequence[Cell], notes: _Notes) -> list[str]:
    """A table with the cells' rows and columns."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    lines = [
        title,
        "",
        intro,
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in dict.fromkeys(cell.row for cell in cells):
        told = {
            cell.column: OK if cell.state == OK else notes.mark(cell)
            for cell in cells
            if cell.row == row
        }
        shown = " | ".join(told.get(column, "") for column in columns)
        lines.append(f"| {', '.join(row)} | {shown} |")
    return lines


def _sessions(cells: Sequence[Cell], notes: _Notes) -> list[str]:
    intro = (
        "A file of ours, opened: the key that the answer is sealed to, and how the token is shown."
    )
    return _grid("## Answers and tokens", intro, cells, notes)


def _extras(cells: Sequence[Cell], notes: _Notes) -> list[str]:
    lines = ["## The rest", "", "| what | from, to | |", "|---|---|---|"]
    for cell in cells:
        told = OK if cell.state == OK else notes.mark(cell)
        lines.append(f"| {cell.column} | {', '.join(cell.row)} | {told} |")
    return lines


def _borders(cells: Sequence[Cell], notes: _Notes) -> list[str]:
    intro = "Where readers of zip files differ; sizes of the plaintext."
    return _grid("## Zip borders", intro, cells, notes)


def _refusals(cells: Sequence[Cell], _notes: _Notes) -> list[str]:
    lines = [
        "## What each says when it must not open",
        "",
        "A file of the Go SDK, 5 MiB under `rsa:2048`: denied to somebody who is not entitled, and",
        "with one thing wrong. **Opened** is the client's own doing: it does not verify what was",
        "altered.",
    ]
    for (fault,) in dict.fromkeys(cell.row for cell in cells):
        lines += ["", f"### {fault.capitalize()}", ""]
        for cell in cells:
            if cell.row == (fault,):
                told = f"**Opened**: {expected(cell)[1]}." if cell.state == OK else ""
                lines.append(f"- `{cell.column}`: {told or f'`{_shown(cell.words)}`'}")
    return lines


_SECTIONS = {
    "sizes": _sizes,
    "sessions": _sessions,
    "extras": _extras,
    "borders": _borders,
    "refusals": _refusals,
}
