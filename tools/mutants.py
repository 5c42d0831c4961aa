"""Mutation testing: change the source a little, and see whether a test notices.

    python tools/mutants.py [FILE ...] [--jobs 2] [--json OUT]

Each target is parsed, and every mutant is one small edit of it: a comparison turned round, `and`
for `or`, a condition negated, a number off by one, a `raise` or a call left out, a value not
returned. A mutant runs in a copy of the tree, in a forked process that has pytest loaded already,
against the tests that hold the module; it is killed when one fails or takes 20 s, or when all take
four times as long as they should. Each verdict goes to stderr as it comes. Survivors are printed
with their line and belong into `docs/mutants.md`.

Exit code 1 when a target has fewer than 90 % of its mutants killed.
"""

import argparse
import ast
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("formats", "ledger", "pdp", "kas", "sdk", "service", "policies")
GOAL = 90  # percent
HANGS_SECONDS = 20  # after which a single test counts as failed
SLOWER = 4  # times the undisturbed run, after which a mutant counts as hanging
TARGETS = {
    "kas/envelock_kas/release.py": ("tests/kas/test_release.py",),
    "pdp/envelock_pdp/evaluate.py": ("tests/pdp/test_evaluate.py",),
    "formats/envelock_formats/decision.py": ("tests/formats/test_decision.py",),
    "formats/envelock_formats/jose.py": ("tests/formats/test_jose.py",),
    "ledger/envelock_ledger/merkle.py": ("tests/ledger/test_merkle.py",),
    "ledger/envelock_ledger/writer.py": (
        "tests/ledger/test_queue.py",
        "tests/ledger/test_writer.py",
        "tests/ledger/test_crash.py",
        "tests/ledger/test_probing.py",
        "tests/ledger/test_remote.py",
    ),
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


# What declares rather than does: types, decorators, the arguments of a class statement.
DECLARED = frozenset({"annotation", "returns", "decorator_list", "bases"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: the source between two byte offsets, and what stands there instead."""

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: `killed`, `hung` or `survived`."""

    mutant: Mutant
    outcome: str


def mutants_of(path: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    source = (ROOT / path).read_bytes()
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    for node, after in edits(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before = source[start:end].decode()
        yield Mutant(path, node.lineno, start, end, before, after)


def edits(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Nodes of *tree* with the text that each is to be replaced by."""
    if isinstance(tree, ast.expr | ast.stmt):
        yield from edits_of(tree)
    for name, value in ast.iter_fields(tree):
        declares = name in DECLARED or (name == "keywords" and isinstance(tree, ast.ClassDef))
        if not declares:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from edits(child)


def edits_of(node: ast.expr | ast.stmt) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The edits of one node, its children's aside."""
    if isinstance(node, ast.expr):
        yield from ((node, text) for text in edits_of_value(node))
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        test = node.test
        if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield test, f"(not ({ast.unparse(test)}))"
    match node:
        case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "pass"
        case ast.Return(value=value) if value is not None and not is_none(value):
            yield node, "return None"


def edits_of_value(node: ast.expr) -> Iterator[str]:
    """What an expression is replaced by."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            yield f"({ast.unparse(ast.Compare(left, [COMPARISONS[type(op)]()], [right]))})"
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            yield f"({ast.unparse(ast.BinOp(left, OPERATORS[type(op)](), right))})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield str(value + 1)


def is_none(node: ast.expr) -> bool:
    """Whether the node is the constant None."""
    return isinstance(node, ast.Constant) and node.value is None


class Laboratory:
    """A copy of the tree that mutants run in, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in (*ROOMS, "tests"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "pyproject.toml", folder)

    def seconds(self, tests: Sequence[str]) -> float:
        """How long the tests take when nothing is changed; they must pass."""
        begun = time.monotonic()
        if self.run(tests, 600) != "survived":
            sys.exit(f"{', '.join(tests)}: fail before anything is changed")
        return time.monotonic() - begun

    def verdict(self, mutant: Mutant, tests: Sequence[str], patience: float) -> Verdict:
        """Run *tests* with the mutant in place; puts the source back."""
        path = self.root / mutant.path
        source = path.read_bytes()
        try:
            path.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
            return Verdict(mutant, self.run(tests, patience))
        finally:
            path.write_bytes(source)

    def run(self, tests: Sequence[str], patience: float) -> str:
        """Run pytest in a forked process group."""
        child = os.fork()
        if not child:
            os.setsid()
            os._exit(self._pytest(tests))
        until = time.monotonic() + patience
        while time.monotonic() < until:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                os_group_killed(child)
                return "survived" if status == 0 else "killed"
            time.sleep(0.02)
        os_group_killed(child)
        os.waitpid(child, 0)
        return "hung"

    def _pytest(self, tests: Sequence[str]) -> int:
        import pytest  # noqa: PLC0415 loaded before the fork, so that this costs nothing

        sys.dont_write_bytecode = True
        os.chdir(self.root)
        sys.path[:0] = [str(self.root / room) for room in ROOMS]
        with (
            Path(os.devnull).open("w") as nothing,
            redirect_stdout(nothing),
            redirect_stderr(nothing),
        ):
            options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1"]
            options.append(f"--timeout={HANGS_SECONDS}")
            return int(pytest.main([*options, *tests]))


def os_group_killed(leader: int) -> None:
    """End whatever a mutant's tests left running."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def judge(path: str, jobs: int) -> list[Verdict]:
    """Run every mutant of *path*, *jobs* at a time."""
    tests = TARGETS[path]
    mutants = list(mutants_of(path))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        laboratories = [Laboratory(Path(folder) / str(number)) for number in range(jobs)]
        patience = max(20.0, SLOWER * laboratories[0].seconds(tests))

        def some(number: int) -> list[Verdict]:
            verdicts: list[Verdict] = []
            for mutant in mutants[number::jobs]:
                verdicts.append(laboratories[number].verdict(mutant, tests, patience))
                print(f"  {path}:{mutant.line} {verdicts[-1].outcome}", file=sys.stderr, flush=True)
            return verdicts

        with ThreadPoolExecutor(jobs) as pool:
            return [verdict for part in pool.map(some, range(jobs)) for verdict in part]


def told(path: str, verdicts: Sequence[Verdict]) -> int:
    """Print what became of a target's mutants; returns the percentage that was killed."""
    survivors = [one.mutant for one in verdicts if one.outcome == "survived"]
    hung = sum(one.outcome == "hung" for one in verdicts)
    percent = 100 * (len(verdicts) - len(survivors)) // max(1, len(verdicts))
    print(f"{path}: {len(verdicts)} mutants, {len(survivors)} survived, {hung} hung, {percent} %")
    for mutant in sorted(survivors, key=lambda one: one.line):
        before, after = (" ".join(text.split()) for text in (mutant.before, mutant.after))
        print(f"  line {mutant.line}: {before[:90]}  ->  {after[:90]}")
    sys.stdout.flush()
    return percent


def main() -> int:
    """Judge the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    import pytest  # noqa: F401, PLC0415 loaded once, for all that is forked

    found: dict[str, list[Verdict]] = {}
    for path in asked.files or TARGETS:
        found[path] = judge(path, asked.jobs)
        told(path, found[path])
    if asked.json:
        asked.json.write_text(json.dumps({k: [asdict(v) for v in vs] for k, vs in found.items()}))
    with redirect_stdout(io.StringIO()):
        poor = [path for path, verdicts in found.items() if told(path, verdicts) < GOAL]
    return 1 if poor else 0


if __name__ == "__main__":
    sys.exit(main())
