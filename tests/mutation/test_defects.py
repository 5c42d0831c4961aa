"""The tests of the tests: each promise broken on purpose, once, and somebody must notice."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutation.defects import DEFECTS, Defect

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("formats", "ledger", "pdp", "kas", "sdk", "service", "policies")
FAILED = 1  # pytest's exit code when tests ran and some failed
SECONDS = 300


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the tree that may be broken."""
    copy = tmp_path_factory.mktemp("tree")
    for name in (*ROOMS, "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    yield copy
    shutil.rmtree(copy)


def run(tree: Path, tests: tuple[str, ...]) -> int:
    """Run tests of the copy against the copy; returns pytest's exit code."""
    path = os.pathsep.join(str(tree / room) for room in ROOMS)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS, check=False
    )
    return done.returncode


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.promise)
def test_a_defect_still_has_its_place(defect: Defect):
    """The text that a defect replaces stands once in its file, and its tests exist."""
    assert (ROOT / defect.path).read_text("utf-8").count(defect.old) == 1
    for test in defect.tests:
        assert (ROOT / test.partition("::")[0]).is_file()


@pytest.mark.slow
def test_without_a_defect_the_tests_pass(tree: Path):
    """What is run below is green to begin with."""
    every = dict.fromkeys(test for defect in DEFECTS for test in defect.tests)

    assert run(tree, tuple(every)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.promise)
def test_a_defect_is_noticed(tree: Path, defect: Defect):
    """With the defect in place, the tests that hold its promise fail."""
    path = tree / defect.path
    sound = path.read_text("utf-8")
    path.write_text(sound.replace(defect.old, defect.new), "utf-8")
    try:
        assert run(tree, defect.tests) == FAILED
    finally:
        path.write_text(sound, "utf-8")
