"""The README's first session runs, and prints what it says."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
VOLATILE = [
    (re.compile(r"r-[0-9a-f]{12}"), "r-ID"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?Z"), "TIME"),
    (re.compile(r"hidden:[0-9a-f]+"), "hidden:ID"),
    (re.compile(r"sha256:[0-9a-f]+"), "sha256:ID"),
    (re.compile(r"root [0-9a-f]+\.\.\."), "root R"),
    (re.compile(r"signed by [0-9a-f]{8}"), "signed by K"),
    (re.compile(r"\d{4}-\d\d:v1"), "EPOCH:v1"),
]


def session() -> list[tuple[str, list[str]]]:
    """The commands of the first console block, each with the lines under it."""
    block = README.read_text("utf-8").split("```console\n", 1)[1].split("```", 1)[0]
    steps: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ "), []))
        else:
            steps[-1][1].append(line)
    return steps


def settled(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    return text.splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a person with nothing set up, and `envelock` on the path."""
    return {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
    }


@pytest.mark.timeout(120)
def test_the_first_session_runs_as_printed(shell: dict[str, str], tmp_path: Path):
    """Every command of the README's first screen, in order, with its output."""
    (up, _), *steps = session()
    assert up == "envelock up &"
    with subprocess.Popen(
        ["envelock", "up", "--json", "--listen", "127.0.0.1:0"],
        env=shell,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            assert server.stdout is not None
            assert b"ready" in server.stdout.readline()
            for command, expected in steps:
                done = subprocess.run(
                    ["bash", "-c", command],
                    env=shell,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=False,
                )

                assert settled(done.stdout + done.stderr) == settled("\n".join(expected)), command
        finally:
            server.send_signal(signal.SIGTERM)
