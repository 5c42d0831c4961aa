"""The table of faults in the threat model: whole, and every row with a test."""

import re
from pathlib import Path

TEXT = Path(__file__).resolve().parents[2].joinpath("docs", "threat-model.md").read_text("utf-8")
FAULTS = TEXT.partition("\n## Faults\n")[2].partition("\n## ")[0]
GROUPS = ((1, 15), (20, 31), (40, 46), (50, 68), (70, 73), (75, 76), (78, 78), (80, 84))


def named(text: str) -> list[int]:
    """The ids in *text*; `T80 to T84` are five."""
    numbers: list[int] = []
    for first, last in re.findall(r"\bT(\d\d)(?: to T(\d\d))?", text):
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def test_every_fault_is_tried_or_explained():
    """No id is left out, and none is both."""
    wanted = [number for first, last in GROUPS for number in range(first, last + 1)]

    assert sorted(named(FAULTS)) == wanted


def test_every_fault_that_is_tried_names_its_tests():
    """A row of the first table has test ids."""
    tried = FAULTS.partition("and not tried")[0]
    rows = [line for line in tried.splitlines() if line.startswith("| T")]

    assert len(rows) > 40
    assert [row for row in rows if "`tests/" not in row] == []
