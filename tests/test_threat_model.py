"""The threat model names tests; they exist, and no invariant is without."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
ROW = re.compile(r"^\| (I\d+) \| [^|]+ \| (.+) \|$", re.MULTILINE)
TEST_ID = re.compile(r"`(tests/[\w/]+\.py::[^`]+)`")


def defined(test_id: str) -> bool:
    """Whether the module has the function, or the class with the method, that *test_id* names."""
    path, *names = test_id.split("::")
    if not (ROOT / path).is_file():
        return False
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text("utf-8")).body
    for name in names[:-1]:
        classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
        body = classes[0].body if classes else []
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return any(isinstance(node, functions) and node.name == names[-1] for node in body)


def test_every_invariant_is_there_with_tests():
    """I1 to I10, in order, each with at least two tests that try to break it."""
    rows = ROW.findall(TEXT)

    assert [number for number, _ in rows] == [f"I{number}" for number in range(1, 11)]
    assert all(len(TEST_ID.findall(tests)) > 1 for _, tests in rows)


@pytest.mark.parametrize("test_id", sorted(set(TEST_ID.findall(TEXT))))
def test_every_named_test_exists(test_id):
    """A test that was renamed or removed must not go on being claimed."""
    assert test_id.rpartition("::")[2].startswith("test_")
    assert defined(test_id)


def test_every_attack_has_a_test():
    """The table of attacks has no row that only asserts."""
    table = TEXT.partition("\n## Attacks\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]

    assert rows
    assert [row for row in rows if not TEST_ID.search(row)] == []


@pytest.mark.parametrize(
    "test_id",
    [
        "tests/nowhere.py::test_x",
        "tests/test_threat_model.py::test_that_is_not_there",
        "tests/test_threat_model.py::TestNot::test_every_attack_has_a_test",
    ],
)
def test_a_test_that_is_not_there_is_noticed(test_id):
    """The check itself tells presence from absence."""
    assert not defined(test_id)
