"""How many decisions a second under given bundles: `python -m envelock_pdp.bench --rounds N`.

Each bundle's own cases are decided over and over, unsigned, on one core. Each round of a bundle is
one line of JSON on stdout: `{"round", "bundle", "per_second", "microseconds"}`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from envelock_formats.canonical import Json
from envelock_pdp import BundleError
from envelock_pdp.bundle import read_bundle
from envelock_pdp.cases import Case, read_cases, run_cases
from envelock_pdp.evaluate import Bundle
from envelock_pdp.folder import find_bundles, read_all_files

ROUND_SECONDS = 0.5


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="envelock_pdp.bench", description=__doc__)
    parser.add_argument("--policies", type=Path, help="a bundle or a folder; the shipped clinic")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    try:
        found = [_read(path) for path in find_bundles(asked.policies or _shipped())]
    except BundleError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for number in range(asked.rounds):
        for bundle, cases in found:
            if cases:
                _tell(number, bundle, _microseconds(bundle, cases))
    return 0


def _read(path: Path) -> tuple[Bundle, tuple[Case, ...]]:
    files = read_all_files(path)
    bundle = read_bundle(files)
    return bundle, read_cases(bundle, files)


def _microseconds(bundle: Bundle, cases: tuple[Case, ...]) -> float:
    """Time of one decision, all cases alike."""
    decided, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < ROUND_SECONDS:
        decided += len(run_cases(bundle, cases))
    return (time.perf_counter() - begun) / decided * 1_000_000


def _tell(number: int, bundle: Bundle, microseconds: float) -> None:
    told: dict[str, Json] = {
        "round": number,
        "bundle": bundle.tenant,
        "per_second": round(1_000_000 / microseconds),
        "microseconds": round(microseconds, 2),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _shipped() -> Path:
    import envelock_policies  # noqa: PLC0415 only where no bundle is named

    return Path(envelock_policies.path("clinic"))


if __name__ == "__main__":
    sys.exit(main())
