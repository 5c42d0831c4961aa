"""The threat model lists every id of the checklist, and what is tried has an id in it."""

import re
from pathlib import Path

from attacks import forging, test_proofs, test_tokens

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "threat-model.md").read_text("utf-8")
LISTED = re.findall(r"^\| ([JD]\d+) \| .*`tests/", TEXT, re.MULTILINE)
NOT_TRIED = {"D15"}  # servers here give out no nonces


def test_every_id_is_listed_once():
    """J1 to J30 and D1 to D20, in order."""
    ids = [f"J{n}" for n in range(1, 31)] + [f"D{n}" for n in range(1, 21)]

    assert [one for one in ids if one not in NOT_TRIED] == LISTED
    assert all(one in TEXT for one in NOT_TRIED)


def test_cases_have_ids_that_are_listed():
    """No case stands for something that is not in the table."""
    cases = [*forging.CASES, *test_proofs.CASES, *(case for _, case in test_tokens.TABLE)]

    assert {case.number for case in cases} <= set(LISTED)
    assert len({case.number for case in cases}) > 25
