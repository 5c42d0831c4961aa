"""Every example runs as it is written, and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAX_LINES = 40
PRINTS = {
    "01_seal_and_open.py": "bytes: negative\nfile: 27 bytes, asks https://clinic.example/attr/",
    "02_a_denied_reader.py": "refused: ",
    "03_read_a_range.py": "row 150000: 000150000,000000000022500000000\nrows: 200000\n",
    "04_many_at_once.py": "opened: 20 rows, all as they were: True\n",
    "05_seal_online.py": "opened: negative\nkey: clinic:notes:",
    "06_verify_a_receipt.py": "record ",
    "07_two_organisations.py": "sol reads: for both\nsol is refused: r-",
    "08_a_split_key.py": "alone: the file names key access server 'https://kas.lab.example',",
}


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(shell, name):
    """Against a deployment, with the profiles that it made."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        cwd=shell.directory,
        env=shell.full_environment,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(PRINTS[name])


def test_every_example_is_tried_and_short():
    """An example nobody runs is a claim; one that is long is not read."""
    found = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}

    assert found.keys() == PRINTS.keys()
    assert all(len(text.splitlines()) <= MAX_LINES for text in found.values())
