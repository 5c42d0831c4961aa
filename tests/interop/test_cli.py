"""The shim by which the upstream cross-SDK suite drives our SDK."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from interop.deployment import SECRET, Deployment

SHIM = Path(__file__).with_name("cli.sh")


def shim(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `cli.sh`."""
    return subprocess.run(
        [str(SHIM), *map(str, words)],
        env={**os.environ, "ENVELOCK_PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def suite(stock: Deployment, name: str) -> dict[str, str]:
    """What the suite's `test.env` says."""
    person = stock.person(name)
    return {
        "PLATFORMURL": person.server,
        "CLIENTID": person.client_id,
        "CLIENTSECRET": person.secret,
        "TOKENENDPOINT": f"{person.issuer}/token",
    }


def test_there_and_back_with_an_assertion(stock, tmp_path):
    """Attributes and assertions as the suite states them; the assertion is verified."""
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    plain.write_bytes(b"negative")
    statement = {"format": "string", "schema": "plain", "value": "for the ward only"}
    kind = {"type": "handling", "scope": "tdo", "appliesToState": "encrypted"}
    asserted = json.dumps([{"id": "marking", "statement": statement} | kind])
    doctor = suite(stock, "doctor")

    sealing = shim(
        "encrypt", plain, sealed, "ztdf",
        XT_WITH_ATTRIBUTES=SECRET, XT_WITH_ASSERTIONS=asserted, **doctor,
    )  # fmt: skip
    opening = shim("decrypt", sealed, opened, "ztdf", **doctor)
    denied = shim("decrypt", sealed, tmp_path / "no", "ztdf", **suite(stock, "accountant"))

    assert sealing.returncode == 0, sealing.stderr
    assert opening.returncode == 0, opening.stderr
    assert opened.read_bytes() == b"negative"
    assert (denied.returncode, (tmp_path / "no").exists()) == (1, False)
    assert "DeniedError" in denied.stderr


@pytest.mark.parametrize(
    ("feature", "code"),
    [("assertions", 0), ("dpop", 0), ("mechanism-rsa-4096", 0), ("hexaflexible", 1), ("warp", 2)],
)
def test_features_are_declared(feature, code):
    """0 for what it has, 1 for what it has not, 2 for what nobody knows."""
    assert shim("supports", feature).returncode == code


@pytest.mark.parametrize(
    "asked",
    [{"XT_WITH_TARGET_MODE": "4.2.2"}, {"XT_WITH_PLAINTEXT_POLICY": "true"}],
    ids=["a former format", "a plaintext policy"],
)
def test_what_it_does_not_have_is_said(stock, tmp_path, asked):
    """It writes nothing rather than something else."""
    (tmp_path / "plain").write_bytes(b"x")
    target = tmp_path / "sealed"

    done = shim("encrypt", tmp_path / "plain", target, "ztdf", **suite(stock, "doctor"), **asked)

    assert done.returncode == 4
    assert done.stderr.strip()
    assert not target.exists()


def test_other_containers_are_refused(tmp_path):
    """There is one container; `nano` is none of ours."""
    assert shim("encrypt", tmp_path, tmp_path, "nano").returncode == 2
