"""What operators choose, the SDK seals to, and everybody opens."""

import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from envelock import Client
from envelock.commands.console import Console
from envelock.commands.inspect import command as inspect_command
from envelock.testing import Server, server
from envelock_formats.envelope import KEM_TYPES
from envelock_kas.custody import EC_ALGORITHMS, RSA_ALGORITHMS

SECRET = "clearance=secret"
KINDS = dict.fromkeys(EC_ALGORITHMS, "ec-wrapped") | dict.fromkeys(RSA_ALGORITHMS, "wrapped")
KINDS |= KEM_TYPES


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One deployment for all tests of this module."""
    with server() as found:
        yield found


def made(running: Server, dataset: str, algorithm: str) -> Client:
    """A doctor, where an operator made the dataset's key of one algorithm."""
    operator, doctor = running.client("operator"), running.client("doctor")
    month = time.strftime("%Y-%m", time.gmtime())
    body = {"algorithms": [algorithm]}
    operator.run(operator.session.operate("POST", f"/v1/keys/clinic:{dataset}:{month}", body))
    return doctor


@pytest.mark.parametrize("algorithm", KINDS)
def test_seals_to_the_key_that_the_operator_made(running: Server, algorithm: str, tmp_path):
    """The SDK wraps as the published key wants it, the file says so, and it opens."""
    dataset = algorithm.replace(":", "-")
    doctor = made(running, dataset, algorithm)
    path = tmp_path / "a.tdf"
    sealed = doctor.encrypt(b"negative", path, attrs=SECRET, dataset=dataset)
    [key] = sealed.manifest.key_access
    shown = CliRunner().invoke(inspect_command, [str(path)], obj=Console())

    assert key.type == KINDS[algorithm]
    assert f"({algorithm})" in shown.output
    assert doctor.decrypt(path) == b"negative"
