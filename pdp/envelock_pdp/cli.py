"""`envelock policy`: try a bundle before it is in force."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from envelock_formats.canonical import Json

if TYPE_CHECKING:
    from envelock_pdp.cases import Result
    from envelock_pdp.evaluate import Bundle


class Session(Protocol):
    """What the root command hands down."""

    @property
    def json(self) -> bool: ...

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* with `--json`, else *lines*."""
        ...


@click.group()
def command() -> None:
    """Try policy bundles."""


@command.command()
@click.argument("bundle")
@click.option(
    "--engine",
    type=click.Choice(["envelock", "py-abac"]),
    default="envelock",
    show_default=True,
    help="Who decides the rules: envelock, strictly, or py-abac, to compare.",
)
@click.pass_context
def test(context: click.Context, bundle: str, engine: str) -> None:
    """Run the cases of BUNDLE: a folder, a folder of bundles, or the name of a shipped one.

    Exits 1 when a case fails and 4 when a bundle is malformed.
    """
    from envelock_pdp.folder import find_bundles  # noqa: PLC0415 keeps `envelock --help` fast

    tried = [(path, *_try(path, engine)) for path in find_bundles(_folder(bundle))]
    lines: list[str] = []
    for path, policies, results in tried:
        label = f"{path.name}: " if len(tried) > 1 else ""
        lines += _lines(policies, results, label)
    session: Session = context.obj
    session.emit({"bundles": [_json(policies, results) for _, policies, results in tried]}, lines)
    if not all(result.passed for _, _, results in tried for result in results):
        context.exit(1)


def _folder(name: str) -> Path:
    path = Path(name)
    if path.exists():
        return path
    import envelock_policies  # noqa: PLC0415 keeps `envelock --help` fast

    try:
        return envelock_policies.path(name)
    except LookupError as error:
        from envelock_pdp import BundleError  # noqa: PLC0415 keeps `envelock --help` fast

        shipped = ", ".join(envelock_policies.names())
        raise BundleError(name, "no such folder", f"shipped bundles: {shipped}") from error


def _try(path: Path, engine: str) -> "tuple[Bundle, tuple[Result, ...]]":
    from envelock_pdp.bundle import read_bundle  # noqa: PLC0415 keeps `envelock --help` fast
    from envelock_pdp.cases import read_cases, run_cases  # noqa: PLC0415 as above
    from envelock_pdp.folder import read_all_files  # noqa: PLC0415 as above

    files = read_all_files(path)
    bundle = read_bundle(files)
    cases = read_cases(bundle, files)
    if engine == "py-abac":
        from envelock_pdp.oracle import py_abac_rules  # noqa: PLC0415 an optional dependency

        bundle = replace(bundle, rules=py_abac_rules(bundle.rules.rules, files))
    return bundle, run_cases(bundle, cases)


def _lines(bundle: "Bundle", results: "Sequence[Result]", label: str) -> list[str]:
    from envelock_pdp.cases import failure_lines, never_decided  # noqa: PLC0415 as above

    lines: list[str] = []
    for result in results:
        if not result.passed:
            head, how = failure_lines(bundle, result)
            lines += [head.replace("FAIL ", f"FAIL {label}", 1), how]
    passed = sum(result.passed for result in results)
    rules, never = bundle.rules.rules, never_decided(bundle, results)
    idle = f" (never: {', '.join(never)})" if never else ""
    lines.append(
        f"{label}{passed} of {len(results)} cases pass;"
        f" {len(rules) - len(never)} of {len(rules)} rules decided a case{idle}"
    )
    return lines


def _json(bundle: "Bundle", results: "Sequence[Result]") -> dict[str, Json]:
    from envelock_formats.framing import b64url  # noqa: PLC0415 keeps `envelock --help` fast
    from envelock_pdp.cases import explain, never_decided  # noqa: PLC0415 as above

    failed: list[Json] = [
        {
            "file": result.case.file,
            "name": result.case.name,
            "expected": "permit" if result.case.permit else "deny",
            "got": "permit" if result.outcome.permit else "deny",
            "reason": result.outcome.reason,
            "how": explain(bundle, result.outcome),
        }
        for result in results
        if not result.passed
    ]
    return {
        "tenant": bundle.tenant,
        "digest": b64url(bundle.digest),
        "cases": len(results),
        "failed": failed,
        "rules": len(bundle.rules.rules),
        "never": list(never_decided(bundle, results)),
    }
