"""`envelock policy`: try a bundle before it is in force."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import click

from envelock_formats.canonical import Json

if TYPE_CHECKING:
    from envelock_pdp.cases import Result
    from envelock_pdp.evaluate import Bundle
    from envelock_pdp.explanation import ExplainedRule

    Tried: TypeAlias = tuple[Path, Bundle, Result]


_SHOWN_CASES = 8


class Session(Protocol):
    """What the root command hands down."""

    @property
    def json(self) -> bool: ...

    def emit(self, value: dict[str, Json], lines: Iterable[str]) -> None:
        """Print *value* with `--json`, else *lines*."""
        ...


class CaseUsageError(Exception):
    """No case, or several, have the name that was typed."""

    exit_code = 2
    code = "usage"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@click.group()
def command() -> None:
    """Try policy bundles before they are in force.

    \b
    Examples:
      envelock policy test clinic
      envelock policy explain clinic --case "temp at 03:00"
    """  # noqa: D301 click's own mark for text that keeps its lines


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


@command.command()
@click.argument("bundle")
@click.option("--case", "name", metavar="NAME", help="The case; a part of its name will do.")
@click.option(
    "--rule", "uids", multiple=True, metavar="UID", help="Show this rule only. Repeatable."
)
@click.pass_context
def explain(context: click.Context, bundle: str, name: str | None, uids: tuple[str, ...]) -> None:
    """Explain why a case of BUNDLE came out as it did; without --case, each that fails.

    \b
    How to read it. A condition is true, false, or undefined: the value is absent, or of
    another kind than the condition is about. An allow applies when all it says is true. A
    deny applies unless something it says is false: what cannot be ruled out denies. The
    decision goes through its steps, and the first that denies ends it:
      1 home tenant   the caller's tenant owns the object, or `sharing` admits it
      2 entitlement   every attribute asked for is held, by a mapping from the claims
      3 denials       no deny applies
      4 permits       an allow applies, where one is needed: no attribute is asked for,
                      or the bundle says `rules = "required"`
      5 dissem        the caller is named, if the object names anybody

    \b
    Examples:
      envelock policy explain clinic --case "temp at 03:00"
      envelock policy explain ./mine --case night --rule hours
      envelock policy explain ./mine
    """  # noqa: D301 click's own mark for text that keeps its lines
    from envelock_pdp.explanation import explain_request  # noqa: PLC0415 keeps `--help` fast
    from envelock_pdp.folder import find_bundles  # noqa: PLC0415 as above
    from envelock_pdp.telling import as_object, told  # noqa: PLC0415 as above

    tried = [(path, *_try(path, "envelock")) for path in find_bundles(_folder(bundle))]
    every = [(path, policies, result) for path, policies, found in tried for result in found]
    chosen = every if name is None else _named(every, name)
    if name is None:
        chosen = [item for item in every if not item[2].passed]
    lines: list[str] = []
    objects: list[Json] = []
    for path, policies, result in chosen:
        found = explain_request(policies, result.case.request, result.case.now)
        found = replace(found, rules=_only(found.rules, uids))
        lines += [""] * bool(lines) + told(result, found, f"{path.name}: " * (len(tried) > 1))
        objects.append({"bundle": path.name, **as_object(result, found)})
    if not chosen:
        lines = [
            f'all {len(every)} cases pass; explain one with --case "{every[0][2].case.name}"'
            if every
            else "there are no cases: write some to cases/*.json"
        ]
    session: Session = context.obj
    session.emit({"cases": objects}, lines)


def _named(every: "Sequence[Tried]", name: str) -> "Sequence[Tried]":
    """The one case that *name* means: its whole name, or else a part that no other has.

    Raises:
        CaseUsageError: None, or several.
    """
    found = [item for item in every if item[2].case.name == name]
    found = found or [item for item in every if name.lower() in item[2].case.name.lower()]
    if len(found) == 1:
        return found
    listed = ", ".join(f'"{item[2].case.name}"' for item in (found or every)[:_SHOWN_CASES])
    count = f"{len(found)} cases are" if found else "no case is"
    raise CaseUsageError(f"{count} called {name!r}", f"there are: {listed}" if listed else "none")


def _only(rules: "Sequence[ExplainedRule]", uids: Sequence[str]) -> "tuple[ExplainedRule, ...]":
    if unknown := [uid for uid in uids if uid not in {rule.uid for rule in rules}]:
        listed = ", ".join(rule.uid for rule in rules)
        raise CaseUsageError(f"no rule is called {unknown[0]!r}", f"there are: {listed or 'none'}")
    return tuple(rule for rule in rules if not uids or rule.uid in uids)


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
