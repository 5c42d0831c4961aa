"""Checks of a ledger before it starts: `python -m envelock_ledger.check --data DIR`.

Records are not verified here: the start gate does that, and `envelock ledger verify` any time.
"""

import argparse
import sys
import time
from pathlib import Path

from envelock_ledger.anchor import read_anchor
from envelock_ledger.errors import LedgerError
from envelock_ledger.place import Place
from envelock_ledger.probing import on_one_device, require_room
from envelock_ledger.settings import load
from envelock_service.findings import Findings
from envelock_service.settings import SettingsError

SKEW_SECONDS = 5.0


def main() -> int:
    """Check, and print what was found."""
    parser = argparse.ArgumentParser(prog="envelock_ledger.check", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    findings = Findings(SettingsError, LedgerError, OSError)
    check(findings, parser.parse_args().data)
    findings.print()
    return 0


def check(findings: Findings, data: Path) -> None:
    """Check settings, files, anchor and clock."""
    place: Place | None = None
    with findings.check("ledger settings", "[ledger] is well-formed"):
        place = load(data).place(data)
    if place is None:
        return
    if not place.database.exists() and not place.anchor.exists():
        findings.add("ledger", "ok", "it is made at the first start")
    else:
        with findings.check("ledger", "records and anchor are there and can grow"):
            require_room(place)
            read_anchor(place.anchor)
    if on_one_device(place):
        findings.add(
            "anchor",
            "warn",
            "on the same file system as the ledger: a restore would take both back unnoticed",
            "set anchor in [ledger] to a path on another device",
        )
    else:
        findings.add("anchor", "ok", "on a file system of its own")
    _check_clock(findings, place)


def _check_clock(findings: Findings, place: Place) -> None:
    """The clock is not behind what was written last: times of records never go back."""
    written = [path.stat().st_mtime for path in (place.database, place.anchor) if path.exists()]
    behind = max(written, default=0.0) - time.time()
    if behind > SKEW_SECONDS:
        detail = f"{behind:.0f} s behind the files of the ledger"
        findings.add("clock", "fail", detail, "set the clock, and keep it by NTP")
    else:
        findings.add("clock", "ok", "not behind the files of the ledger")


if __name__ == "__main__":
    sys.exit(main())
