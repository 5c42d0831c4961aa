"""A whole deployment, audited by somebody who has nothing of ours but one file."""

from pathlib import Path

import pytest
from e2e.shell import Shell
from ledger.auditor import audit

from envelock.testing import Server, server


@pytest.fixture
def running():
    """A deployment of this test's own: it erases somebody."""
    with server() as deployment:
        yield deployment


def test_what_a_deployment_records_satisfies_an_auditor(running: Server, tmp_path: Path):
    """Released, refused, exported, erased: receipts and exports verify throughout."""
    shell = Shell(tmp_path, {"ENVELOCK_DATA": str(running.data)})
    (tmp_path / "a.txt").write_bytes(b"negative")
    assert shell("encrypt a.txt --as doctor --attr clearance=secret").code == 0
    assert shell("decrypt a.txt.tdf --as doctor -o - --receipt kept.tlog-proof").code == 0
    assert shell("decrypt a.txt.tdf --as accountant -o -").code == 3
    assert shell("ledger export before.jsonl").code == 0
    issuer, key = running.issuer, running.ledger_key
    kept, earlier = tmp_path / "kept.tlog-proof", tmp_path / "before.jsonl"

    receipt = audit("receipt", kept, key=key)
    erased = shell("ledger erase-subject", issuer, "doctor", "--reason", "asked for")
    assert shell("ledger export after.jsonl").code == 0
    before = audit("export", earlier, kept, key=key)
    after = audit("export", tmp_path / "after.jsonl", kept, earlier, key=key)
    verified = shell("ledger verify")

    assert receipt.code == before.code == after.code == 0
    assert f'sub opens to ["{issuer}","doctor"]' in receipt.holds
    assert erased.code == 0
    assert erased.out.startswith("erased the openings of ")
    assert any(
        line.startswith("kept.tlog-proof: opening erased, by record ") for line in after.holds
    )
    assert any(line.startswith("extends before.jsonl: ") for line in after.holds)
    assert verified.code == 0
    assert "openings erased on record: " in verified.out
