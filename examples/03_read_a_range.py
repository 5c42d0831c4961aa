"""Read a part of a large sealed file, as pandas or any reader of files does: seek, then read.

Only the segments that the range touches are read, verified and opened. Start a deployment first:
`envelock up`.
"""

import csv
import io
import tempfile
from pathlib import Path

from envelock import Client

ROWS, WIDTH = 200_000, 32

with tempfile.TemporaryDirectory() as folder, Client(profile="doctor") as client:
    table = Path(folder, "table.csv.tdf")
    rows = b"".join(b"%09d,%021d\n" % (row, row * row) for row in range(ROWS))
    client.encrypt(rows, table, attrs="clearance=secret")

    with client.open(table) as reader:
        reader.seek(150_000 * WIDTH)
        print("row 150000:", reader.read(WIDTH).decode().strip())
        reader.seek(0)
        lines = io.TextIOWrapper(io.BufferedReader(reader), "ascii", newline="")
        print("rows:", sum(1 for _ in csv.reader(lines)))
