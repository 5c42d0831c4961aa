"""Two organisations at one server: each opens of the other's data what its owner shares."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import envelock_policies
from envelock import Client, DeniedError
from envelock.testing import Server, server
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

RELEASED = ["classification=confidential", "releasable=south"]
SHARED = ["tlp=amber", "partner=north"]
RELOAD_SECONDS = 10


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundles of both, to be edited."""
    folder = tmp_path_factory.mktemp("coalition") / "policies"
    return Path(shutil.copytree(envelock_policies.path("coalition"), folder))


@pytest.fixture(scope="module")
def running(policies: Path) -> Iterator[Server]:
    """One deployment with people of both."""
    with server(policies) as found:
        yield found


def opens(client: Client, sealed: bytes) -> bool:
    """Whether *client* may open a file."""
    try:
        return client.decrypt(sealed) == b"plan"
    except DeniedError:
        return False


@pytest.mark.parametrize(
    ("owner", "attrs", "may", "may_not"),
    [
        ("nora", RELEASED, ["nora", "sol"], ["nils", "sam"]),
        ("nora", ["classification=confidential"], ["nora"], ["sol", "sam", "nils"]),
        ("nora", ["classification=secret", "releasable=south"], ["nora"], ["sol", "sam"]),
        ("nora", [*RELEASED, "exercise=dawn"], ["nora"], ["sol"]),
        ("sol", SHARED, ["sol", "sam", "nora"], ["nils"]),
        ("sol", ["tlp=amber"], ["sol", "sam"], ["nora", "nils"]),
        ("sol", ["tlp=red", "partner=north"], ["sol"], ["nora", "sam"]),
    ],
)
def test_the_owners_rule_decides(running: Server, owner, attrs, may, may_not):
    """What is marked for the other opens there, as far as its clearance is worth; nothing else."""
    sealed = running.client(owner).encrypt(b"plan", attrs=attrs)

    assert {name for name in (*may, *may_not) if opens(running.client(name), sealed)} == set(may)


def test_the_record_is_in_the_owners_chain_and_names_the_home(running: Server):
    """Who was given the other's data is in the owner's own history."""
    sealed = running.client("nora").encrypt(b"plan", attrs=RELEASED)
    with running.client("sol").open(sealed) as reader:
        receipt = Receipt.parse(reader.receipt or "")
    fields = receipt.verify(VerifierKey.parse(running.ledger_key)).fields

    assert (fields["typ"], fields["tn"], fields["home"]) == ("release", "north", "south")


def test_nobody_writes_in_the_others_name(running: Server):
    """A guest's online key, or a file that asks for the other's attributes, opens nowhere."""
    nora, sol = running.client("nora"), running.client("sol")
    forged = sol.encrypt(b"plan", attrs="north.example/releasable=south")

    assert not opens(nora, forged)
    assert not opens(sol, forged)
    with pytest.raises(DeniedError):
        sol.encrypt(b"plan", attrs="north.example/releasable=south", online=True, dataset="x")


def test_sharing_that_is_withdrawn_ends_at_once_and_in_one_direction(running, policies: Path):
    """North stops sharing: its released file closes to south, and south's stays open to north."""
    nora, sol = running.client("nora"), running.client("sol")
    norths = nora.encrypt(b"plan", attrs=RELEASED)
    souths = sol.encrypt(b"plan", attrs=SHARED)
    before = (opens(sol, norths), opens(nora, souths))
    head = policies / "north" / "bundle.toml"
    text = head.read_text()
    head.write_text(text.replace('sharing = ["south"]', "sharing = []"))
    ends = time.monotonic() + RELOAD_SECONDS
    while opens(sol, norths) and time.monotonic() < ends:
        time.sleep(0.1)
    after = (opens(sol, norths), opens(nora, souths), opens(nora, norths))
    head.write_text(text)

    assert before == (True, True)
    assert after == (False, True, True)
