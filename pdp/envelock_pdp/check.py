"""Checks of a PDP before it starts: `python -m envelock_pdp.check --data DIR --policies PATH`."""

import argparse
import sys
from pathlib import Path

from envelock_pdp import PdpError
from envelock_pdp.folder import find_bundles, load_bundle
from envelock_pdp.settings import PdpSettings
from envelock_service.findings import Findings
from envelock_service.settings import SettingsError, section


def main() -> int:
    """Check, and print what was found."""
    parser = argparse.ArgumentParser(prog="envelock_pdp.check", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--policies", type=Path, required=True)
    asked = parser.parse_args()
    findings = Findings(SettingsError, PdpError, OSError)
    check(findings, asked.data, asked.policies)
    findings.print()
    return 0


def check(findings: Findings, data: Path, policies: Path) -> None:
    """Check the settings, and that every bundle loads."""
    with findings.check("pdp settings", "[pdp] is well-formed"):
        section(data / "envelock.toml", "pdp", PdpSettings)
    if not policies.exists():
        findings.add("policies", "ok", f"{policies} is made at the first start")
        return
    bundles: tuple[Path, ...] = ()
    with findings.check("policies", f"found in {policies}"):
        bundles = find_bundles(policies)
    for path in bundles:
        hint = f"envelock policy test {path}"
        with findings.check(f"policy {path.name}", "loads", hint):
            load_bundle(path)


if __name__ == "__main__":
    sys.exit(main())
