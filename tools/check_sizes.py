"""Enforce the sizes and names of the house style in the packages.

Modules have at most 400 lines, functions at most 50 without their docstring; no broad `except`
without a reason, no `NotImplementedError`, no `assert` as a check, no module whose name says
nothing. Tests may be longer, but not their functions.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("formats", "ledger", "pdp", "kas", "sdk", "service", "policies")
MAX_MODULE = 400
MAX_FUNCTION = 50
VAGUE = frozenset(
    {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "handler_impl"}
)


def complaints(path: Path) -> Iterator[str]:
    """What is wrong with one module."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    if len(lines) > MAX_MODULE:
        yield f"{path}: {len(lines)} lines, at most {MAX_MODULE}"
    if path.stem in VAGUE:
        yield f"{path}: the name says nothing"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = length(node)
            if size > MAX_FUNCTION:
                yield f"{path}:{node.lineno}: {node.name} has {size} lines, at most {MAX_FUNCTION}"
        elif isinstance(node, ast.Assert):
            yield f"{path}:{node.lineno}: assert vanishes under -O; raise instead"
        elif isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
            yield f"{path}:{node.lineno}: a stub"


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = ast.get_docstring(node, clean=False)
    spent = len(docstring.splitlines()) if docstring else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - spent


def main() -> int:
    """Check every room; the exit code."""
    found = [
        complaint
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if not path.name.endswith("_pb2.py")  # generated
        for complaint in complaints(path.relative_to(ROOT))
    ]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
