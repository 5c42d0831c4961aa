"""`envelock bench` measures beside the data directory, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.conftest import MODULE

SETTINGS = '[deployment]\nenvironment = "development"\n'


def bench(data: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Run a benchmark for a moment; what it told."""
    command = [sys.executable, "-m", "envelock", "bench", *arguments, "--json", "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert "Traceback" not in done.stderr, done.stderr
    return done, json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize(
    ("arguments", "units"),
    [
        (("append", "--rounds", "2", "--seconds", "0.1"), ["/s", "ms", "/s", "ms"]),
        (("decide", "--rounds", "2"), ["/s", "us"]),
        pytest.param(
            ("file", "--rounds", "2", "--size", "1"), ["MB/s", "MB/s"], marks=pytest.mark.slow
        ),
        pytest.param(
            ("release", "--rounds", "2", "--seconds", "0.2", "--workers", "1"),
            ["/s", "ms"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_figures_have_a_spread_and_a_floor(tmp_path: Path, arguments: tuple[str, ...], units):
    """Median, lowest and highest round; and what no setting can beat."""
    done, told = bench(tmp_path, *arguments)

    assert done.returncode == 0, done.stderr
    assert [one["unit"] for one in told["figures"]] == units
    for one in told["figures"]:
        assert 0 < one["low"] <= one["median"] <= one["high"]
        assert one["rounds"] == 2
    assert all(one["median"] > 0 for one in told["floor"])
    assert "Python" in told["generator"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_operators_token_and_settings_stay_as_they_are(tmp_path: Path):
    """A custody of the same kind is made for the occasion."""
    settings = f"{SETTINGS}[custody]\nkind = 'pkcs11'\nmodule = '{MODULE}'\ntoken = 'mine'\n"
    (tmp_path / "envelock.toml").write_text(settings)
    done, told = bench(tmp_path, "release", "--rounds", "1", "--seconds", "0.2", "--workers", "1")

    assert done.returncode == 0, done.stderr
    assert told["figures"][0]["median"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["envelock.toml"]
    assert (tmp_path / "envelock.toml").read_text() == settings


def test_policies_that_do_not_load_are_an_error_and_no_figure(tmp_path: Path):
    """With what is wrong."""
    (tmp_path / "bundle.toml").write_text("?")
    done, told = bench(tmp_path, "decide", "--policies", str(tmp_path))

    assert done.returncode == 5
    assert told == {}
    assert "could not measure" in done.stderr


def test_help_loads_no_server():
    """It teaches how to read the figures, at once."""
    code = (
        "import sys; from envelock.cli import main; main(['bench', '--help']);"
        "print([m for m in sys.modules if m.startswith(('envelock_', 'aiohttp', 'sqlite'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "How to read it" in done.stdout
    loaded = json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    assert {name.partition(".")[0] for name in loaded} <= {"envelock_formats"}
