"""Drive clients that nobody here wrote against our server, and write down what came of it.

    python tools/interop_matrix.py [--only TABLE ...] [--write docs/interop.md] [--json OUT]

Exit code 1 when a cell that is expected to pass does not, or the other way round: then either side
has changed, and `tests/interop/report.py` is where it is written down. What cannot be had here is
`not run`, and counts for nothing.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from interop import borders, cells, clients, report
from interop.deployment import deployment

TABLES = {
    "sizes": cells.sizes,
    "sessions": cells.sessions,
    "extras": cells.extras,
    "refusals": cells.refusals,
    "borders": borders.borders,
}


def main() -> int:
    """Install, start, run, and write down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=TABLES, help="a table; repeatable")
    parser.add_argument("--write", type=Path, help="the document to write")
    parser.add_argument("--json", type=Path, help="every cell, with its words")
    parser.add_argument("--directory", type=Path, help="where files lie meanwhile")
    given = parser.parse_args()
    installed = [clients.ours()]
    for install in clients.FOREIGN:
        client = install()
        print(f"{client.name}: {client.missing or 'here'}", flush=True)
        installed.append(client)
    found = []
    with (
        tempfile.TemporaryDirectory(dir=given.directory) as folder,
        deployment(cells.ALGORITHMS, workers=2) as running,
    ):
        bench = cells.Bench(installed, running, Path(folder))
        for table in given.only or TABLES:
            for cell in TABLES[table](bench):
                print(report.line(cell), flush=True)
                found.append(cell)
    if given.json:
        given.json.write_text(json.dumps([asdict(cell) for cell in found], indent=1))
    surprises = report.surprises(found)
    for cell in surprises:
        print(f"unexpected: {report.line(cell)}")
    if given.write and not given.only:
        given.write.write_text(report.document(found, installed))
    absent = sum(cell.state == clients.NOT_RUN for cell in found)
    expected = len(found) - len(surprises) - absent
    print(f"{expected} as expected, {len(surprises)} not, {absent} not run")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
