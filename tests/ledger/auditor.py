"""The auditor's program, `ledger/ledger_verify.py`, run as the auditor runs it."""

import contextlib
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "ledger" / "ledger_verify.py"
_SPEC = importlib.util.spec_from_file_location("auditors_copy", PROGRAM)
assert _SPEC is not None
assert _SPEC.loader is not None
MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(MODULE)


@dataclass(frozen=True)
class Audit:
    """What it concluded."""

    code: int
    holds: list[str]
    fails: str
    evidence: dict
    cannot_conclude: list[str]


def audit(what: str, *files: Path, key: object) -> Audit:
    """Run it in this process, and read its JSON."""
    told = json.loads(printed(what, *files, "--json", key=key)[1])
    return Audit(
        printed(what, *files, key=key)[0],
        told["ok"],
        told["fails"] or "",
        told["evidence"],
        told["cannot_conclude"],
    )


def printed(what: str, *arguments: object, key: object) -> tuple[int, str]:
    """Its exit code, and what it prints for people."""
    line = [what, *map(str, arguments), "--key", str(key)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = MODULE.main(line)
        except SystemExit as ended:
            code = ended.code
    return code, out.getvalue() + err.getvalue()
