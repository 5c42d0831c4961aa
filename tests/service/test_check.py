"""`envelock up --check` finds out before the start, and changes nothing; metrics over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from contracts.conftest import MODULE, soft_token

from envelock.testing import server
from envelock_service.settings import DeploymentSettings

FREE = ("--listen", "127.0.0.1:0")
DEVELOPMENT = '[deployment]\nenvironment = "development"\n'


def check(data: Path, *arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit code, states by name, and everything that was said."""
    command = [sys.executable, "-m", "envelock", "up", "--check", "--json", "--data", str(data)]
    done = subprocess.run(
        [*command, *(arguments or FREE)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)["checks"]
    return done.returncode, {one["name"]: one["state"] for one in found}, done.stdout


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, with its mode and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was in use."""
    data = tmp_path_factory.mktemp("deployed") / "data"
    command = [sys.executable, "-m", "envelock", "up", "--json", "--data", str(data), *FREE]
    with subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        running = check(data)
        process.terminate()
    assert running[0] == 2
    assert running[1]["sockets"] == "fail"
    return data


def test_a_sound_deployment_passes_and_stays_as_it_is(deployed: Path):
    """Also the scratch key is gone."""
    before = tree(deployed)
    code, states, said = check(deployed)

    assert code == 0, said
    assert "fail" not in states.values()
    assert {"settings", "port", "custody", "policy clinic", "ledger", "clock"} <= states.keys()
    assert tree(deployed) == before


def test_nothing_is_made_where_nothing_is(tmp_path: Path):
    """A first start is not refused for what it would make."""
    code, states, _ = check(tmp_path / "new")

    assert (code, states) == (0, {"data": "ok", "port": "ok"})
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_port_that_is_taken_is_told(deployed: Path):
    """With what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, states, said = check(deployed, "--listen", listen)

    assert (code, states["port"]) == (2, "fail")
    assert "choose another port" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        ("[kaz]\n", "settings", "unknown section"),
        ("[kas]\nlisen = 1\n", "kas settings", "lisen"),
        ("[ledger]\ndri = '/'\n", "ledger settings", "dri"),
        ("[pdp]\nlisten = 'x'\n", "pdp settings", "HOST:PORT"),
        ("[kas]\ntls_cert_file = 'no'\ntls_key_file = 'no'\n", "tls", "tls_cert_file"),
        ("[custody]\nkind = 'pkcs11'\nmodule = '/no.so'\n", "custody", "[custody]"),
        (
            "[callers]\nissuers = [{issuer = 'http://127.0.0.1:9', tenant = 'clinic'}]\n",
            "issuer",
            "127.0.0.1:9",
        ),
    ],
)
def test_what_would_fail_later_fails_now(tmp_path: Path, settings: str, name: str, said: str):
    """Each by its name; the other checks are made all the same."""
    (tmp_path / "envelock.toml").write_text(DEVELOPMENT + settings)
    code, states, output = check(tmp_path)

    assert (code, states[name]) == (2, "fail"), output
    assert said in output


@pytest.mark.slow
def test_a_policy_that_does_not_load_is_named(tmp_path: Path):
    """The file and what is wrong in it."""
    (tmp_path / "envelock.toml").write_text(DEVELOPMENT)
    folder = tmp_path / "policies" / "acme"
    folder.mkdir(parents=True)
    (folder / "bundle.toml").write_text("tenant = 1\n")
    code, states, output = check(tmp_path)

    assert (code, states["policy acme"]) == (2, "fail")
    assert "envelock policy test" in output


@pytest.mark.slow
def test_a_clock_that_fell_back_is_told(deployed: Path):
    """The ledger was written in what is now the future."""
    anchor = deployed / "anchor" / "ledger.anchor"
    then = anchor.stat().st_mtime
    os.utime(anchor, (time.time() + 3600,) * 2)
    code, states, _ = check(deployed)
    os.utime(anchor, (then, then))

    assert (code, states["clock"]) == (2, "fail")


def test_a_token_is_tried_and_left_as_it_was(tmp_path: Path):
    """A scratch key is made in it, used, and destroyed."""
    pin = soft_token(tmp_path)
    settings = f"[custody]\nkind = 'pkcs11'\nmodule = '{MODULE}'\npin_file = '{pin}'\n"
    (tmp_path / "envelock.toml").write_text(DEVELOPMENT + settings)
    before = len(list((tmp_path / "tokens").rglob("*.object")))
    code, states, output = check(tmp_path)

    assert (code, states["custody"]) == (0, "ok"), output
    assert len(list((tmp_path / "tokens").rglob("*.object"))) == before


@pytest.mark.parametrize("metrics", ["0.0.0.0:9464", "kas.example:9464", "127.0.0.1"])
def test_metrics_are_not_served_beyond_this_machine(metrics: str):
    """A setting cannot do it by mistake."""
    with pytest.raises(ValueError, match="loopback"):
        DeploymentSettings(metrics=metrics)


@pytest.mark.slow
def test_metrics_of_all_processes_are_in_one_answer():
    """Each sample says which process it is of; the public port tells nothing."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    settings = f'{DEVELOPMENT}metrics = "{listen}"\n'
    with server(workers=2, settings=settings) as running:
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{running.url}/metrics", timeout=10)  # noqa: S310 ours

    for process in ("kas-0", "kas-1", "pdp"):
        assert f'envelock_process_up{{process="{process}"}} 1.0' in text
        assert f'part="policy",process="{process}"' in text
    assert text.count("# TYPE envelock_part_up gauge") == 1
