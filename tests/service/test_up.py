"""`envelock up` refuses what would not be safe, with what to do next."""

import subprocess
import sys
from pathlib import Path

import pytest

from envelock.testing import server

DEVELOPMENT = '[deployment]\nenvironment = "development"\n'
PRODUCTION = '[deployment]\nenvironment = "production"\n'


def up(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `envelock up` where it is expected to refuse."""
    command = [sys.executable, "-m", "envelock", "up", "--data", str(data), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def prepared(folder: Path, settings: str) -> Path:
    """A data directory with settings of a test's making."""
    data = folder / "data"
    data.mkdir()
    (data / "envelock.toml").write_text(settings)
    return data


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        (PRODUCTION, (), "local custody does not run in production"),
        (DEVELOPMENT + "[kas]\nlisen = 1\n", (), "lisen"),
        (DEVELOPMENT + "[kaz]\n", (), "unknown section"),
        (DEVELOPMENT, ("--listen", "0.0.0.0:0"), "needs TLS"),
        (
            DEVELOPMENT + "[kas]\nbehind_proxy = true\nurl = 'http://kas.example'\n",
            ("--listen", "0.0.0.0:0"),
            "is not https",
        ),
        (DEVELOPMENT, ("--listen", "nowhere"), "expected HOST:PORT"),
        (DEVELOPMENT + "[kas]\ntemplate = '{nope}'\n", (), "unknown field"),
    ],
)
def test_refuses_unsafe_and_unknown_settings(tmp_path: Path, settings, arguments, said):
    """Exit 2, one clear line, no traceback."""
    listen = arguments or ("--listen", "127.0.0.1:0")
    done = up(prepared(tmp_path, settings), *listen)

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ledger_without_its_anchor_does_not_start(tmp_path: Path):
    """Exit 6: what was recorded may have been rolled back, and only an operator can say."""
    with server() as running:
        anchor = running.data / "anchor"
        copy = tmp_path / "data"
        for path in running.data.rglob("*"):
            target = copy / path.relative_to(running.data)
            if path.is_file() and anchor not in path.parents:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    done = up(copy, "--listen", "127.0.0.1:0")

    assert done.returncode == 6, done.stderr
    assert "anchor" in done.stderr
