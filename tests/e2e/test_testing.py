"""`envelock.testing.server`: what our users' own tests begin with."""

import os
import shutil
import subprocess
import sys

import pytest

import envelock_policies
from envelock import ConfigError, DeniedError, UnavailableError
from envelock.testing import server


def test_a_deployment_for_a_test(deployment):
    """Clients for the people of the policies, who can do what the policies say."""
    sealed = deployment.client("doctor").encrypt(b"negative", attrs="clearance=secret")

    assert deployment.client("doctor").decrypt(sealed) == b"negative"
    with pytest.raises(DeniedError):
        deployment.client("accountant").decrypt(sealed)


def test_nobody_of_that_name(deployment):
    """The people there are stand in the hint."""
    with pytest.raises(ConfigError) as caught:
        deployment.client("nobody")

    assert "doctor" in str(caught.value.hint)


def test_policies_of_ones_own(tmp_path):
    """A folder of bundles takes the place of the shipped one, and all of it is gone afterwards."""
    shutil.copytree(envelock_policies.path("saas"), tmp_path / "saas")

    with server(tmp_path / "saas") as running:
        people = {path.stem for path in (running.data / "profiles").glob("*.toml")}
        pid = int((running.data / "run" / "up.lock").read_text())

    assert "doctor" not in people
    assert people
    assert not running.data.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_start_that_fails_says_why(tmp_path):
    """The words of `up` are in the error."""
    shutil.copytree(envelock_policies.path("clinic"), tmp_path / "broken")
    (tmp_path / "broken" / "people.json").write_text("{")

    with pytest.raises(UnavailableError) as caught, server(tmp_path / "broken"):
        pytest.fail("it started")

    assert "people.json" in str(caught.value)


def test_importing_it_loads_no_server():
    """It starts processes; it is none."""
    code = "import sys, envelock.testing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    assert not {b"aiohttp", b"envelock_service", b"envelock_kas"} & set(loaded.split())
