"""docs/formats.md is complete: a program written from it alone computes every golden vector."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
READING = HERE / "reproduce.py"
VECTORS = HERE.parent / "vectors"
PAGE = (HERE.parents[1] / "docs" / "formats.md").read_text("utf-8")
EXAMPLE = re.compile(r"^```golden (\S+) (.+)\n((?:.+\n)+)```$", re.MULTILINE)
# Makes every module of this project unimportable, as if it were not installed.
ALONE = """\
import runpy, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("envelock"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the second reading over the vectors in *folder*, away from our packages."""
    command = [sys.executable, "-I", "-c", ALONE, str(READING), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def shown(case: dict, path: str) -> str:
    """A member of a case as the page shows it, in one line."""
    value: object = case
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("\n", "\\n")


def test_a_second_reading_computes_every_vector():
    """Not one of them differs."""
    done = run(VECTORS)
    cases = sum(
        len(json.loads(path.read_bytes())["cases"]) for path in sorted(VECTORS.glob("*.json"))
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{cases} cases, 0 differ\n"


def test_a_changed_vector_is_noticed(tmp_path: Path):
    """One digit in one file is enough."""
    text = (VECTORS / "policy.json").read_text("utf-8")
    (tmp_path / "policy.json").write_text(
        text.replace('"policy_sha256": "6', '"policy_sha256": "7')
    )

    done = run(tmp_path)

    assert done.returncode == 1
    assert "policy.json, one attribute" in done.stdout


def test_the_second_reading_shares_nothing_with_the_first():
    """Its imports are the standard library and `cryptography`."""
    found = set()
    for node in ast.walk(ast.parse(READING.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    roots = {name.partition(".")[0] for name in found}

    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


@pytest.mark.parametrize(("file", "name", "lines"), EXAMPLE.findall(PAGE))
def test_an_example_of_the_page_is_that_of_the_vectors(file: str, name: str, lines: str):
    """Every value that the page shows, up to where it is cut."""
    cases = json.loads((VECTORS / file).read_bytes())["cases"]
    [case] = [case for case in cases if case["name"] == name]

    for line in lines.splitlines():
        path, _, text = line.partition(" ")
        whole = shown(case, path)
        assert whole == text or (text.endswith("…") and whole.startswith(text[:-1]))


def test_every_file_of_vectors_has_an_example():
    """No format without one."""
    named = {file for file, _, _ in EXAMPLE.findall(PAGE)}

    assert named == {path.name for path in VECTORS.glob("*.json")}


def test_every_label_of_the_code_is_on_the_page():
    """A digest that is not described cannot be computed by others."""
    rooms = ("formats", "ledger", "pdp", "kas", "sdk", "service")
    label = re.compile(r'"(envelock/[a-z0-9-]+/v[0-9]+)"')
    used = {
        found
        for room in rooms
        for path in (HERE.parents[1] / room).rglob("*.py")
        for found in label.findall(path.read_text("utf-8"))
    }

    assert used == set(re.findall(r"`(envelock/[a-z0-9-]+/v[0-9]+)`", PAGE))
