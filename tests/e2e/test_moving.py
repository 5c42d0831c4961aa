"""Files of an OpenTDF platform open here: its key imported, its address an alias, on our record."""

import base64
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from e2e.shell import Shell, reads
from faults.deployment import await_restart, kill

from envelock import DeniedError, KasNotAllowedError
from envelock.reader import SealedFile
from envelock.testing import Server, server
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "moving-from-opentdf.md"
SETTINGS = """
[deployment]
environment = "development"

[kas]
url = "http://127.0.0.1:8080"
kas_aliases = ["http://localhost:8080/kas", "http://localhost:8085/kas"]
"""
BUNDLE = {
    "bundle.toml": """
tenant = "clinic"
namespaces = ["ex.com"]
contact = "it@ex.com"
rules = "required"
""",
    "attributes.json": [
        {"name": "cls", "rule": "hierarchy", "values": ["secret"]},
        {"name": "need", "rule": "anyOf", "values": ["a"]},
    ],
    "mappings.json": [
        {"claim": "$.roles", "operator": "in", "values": ["doctor"], "grants": "cls=secret"},
        {"claim": "$.roles", "operator": "in", "values": ["doctor"], "grants": "need=a"},
    ],
    "rules/doctors.json": {
        "uid": "doctors",
        "description": "Doctors open whatever they are entitled to, and what asks nothing.",
        "effect": "allow",
        "targets": {},
        "rules": {"subject": {"$.roles": {"condition": "AnyIn", "values": ["doctor"]}}},
    },
    "people.json": {
        "doctor": {"sub": "doctor", "tenant": "clinic", "roles": ["doctor"]},
        "accountant": {"sub": "accountant", "tenant": "clinic", "roles": ["accountant"]},
        "operator": {"sub": "operator", "tenant": "clinic", "scope": "envelock:keys"},
    },
}
GOLDEN = ["java-0.7.8-legacy", "no-splitids-java", "small-java-4.3.0"]
CLIENTS = [
    f"clients/{name}"
    for name in ("go-422", "go-as", "go-ec", "go-small", "js-422", "js-at", "js-ec", "js-small")
] + ["clients/py-small"]


def keys_of_others(vectors: Path) -> dict[str, bytes]:
    """Private keys as PEM, by the key id that the files name."""
    found = {}
    for name in ("golden-keys.json", "clients/keys.json"):
        listed = json.loads((vectors / "opentdf" / name).read_bytes())["keys"]
        for kid, der in listed.items():
            key = load_der_private_key(base64.b64decode(der), None)
            form = (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            found[kid] = key.private_bytes(*form)
    return found


def bundle_in(folder: Path) -> Path:
    """Policies for what other clients sealed."""
    for name, content in BUNDLE.items():
        file = folder / "clinic" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "clinic"


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Iterator[Server]:
    """A deployment that is to take over an older platform's files."""
    bundle = bundle_in(tmp_path_factory.mktemp("policies"))
    with server(bundle, settings=SETTINGS, workers=2) as running:
        yield running


@pytest.fixture
def shell(moved: Server, tmp_path: Path) -> Shell:
    """A shell in an empty directory, beside the deployment."""
    return Shell(tmp_path, {"ENVELOCK_DATA": str(moved.data)})


@pytest.fixture
def golden(moved: Server, vectors: Path, tmp_path: Path) -> Path:
    """The other platform's files, when its keys are imported."""
    shell = Shell(tmp_path, {"ENVELOCK_DATA": str(moved.data)})
    known = shell("keys list --as operator --json").value["keys"]
    for kid, pem in keys_of_others(vectors).items():
        if kid not in {key.get("kid") for key in known}:
            file = tmp_path / f"{kid}.pem"
            file.write_bytes(pem)
            file.chmod(0o600)
            line = f"keys import clinic:old --kid {kid} --as operator --private-key"
            done = shell(line, file)
            assert done.code == 0, done.err
    return vectors / "opentdf"


def plaintext(folder: Path, name: str) -> bytes | None:
    """What a file holds, where its plaintext is published."""
    return (folder / "clients" / "plaintext.txt").read_bytes() if "/" in name else None


@pytest.mark.parametrize("name", GOLDEN + CLIENTS)
def test_golden_files_open_under_our_policy_and_record(moved: Server, golden: Path, name: str):
    """What other clients sealed for another KAS opens here; the receipt verifies and names it."""
    doctor = moved.client("doctor")
    opened = doctor.decrypt(golden / f"{name}.tdf", legacy=True)

    with doctor.open(golden / f"{name}.tdf", legacy=True) as reader:
        [receipt] = reader.receipts
    record = Receipt.parse(receipt).verify(VerifierKey.parse(moved.ledger_key)).fields
    assert opened == (plaintext(golden, name) or opened)
    assert record["typ"] == "release"
    assert [row["kid"][:11] for row in record["objs"]] == ["clinic:old:"]


def test_nobody_opens_them_whom_the_policy_does_not_permit(moved: Server, golden: Path):
    """The older platform's files are under this deployment's rules."""
    with pytest.raises(DeniedError):
        moved.client("accountant").decrypt(golden / "small-java-4.3.0.tdf", legacy=True)


def test_an_address_that_was_not_taken_over_is_foreign(moved: Server, golden: Path, tmp_path: Path):
    """Only addresses of the settings lead here; no file chooses where its key is asked for."""
    elsewhere = tmp_path / "elsewhere.tdf"
    with (
        zipfile.ZipFile(golden / "clients" / "go-small.tdf") as source,
        zipfile.ZipFile(elsewhere, "w") as target,
    ):
        for name in ("0.payload", "0.manifest.json"):
            target.writestr(name, source.read(name).replace(b"localhost:8085", b"localhost:8086"))
    with pytest.raises(KasNotAllowedError):
        moved.client("doctor").decrypt(elsewhere)


def test_imported_keys_outlive_a_restart(moved: Server, golden: Path):
    """Registry and custody have them again when the workers come back."""
    for position in (0, 1):
        gone = kill(moved.data, "envelock_kas", position=position)
        await_restart(moved.data, "envelock_kas", 2, gone)
    doctor = moved.client("doctor")

    assert doctor.decrypt(golden / "clients" / "go-ec.tdf") == plaintext(golden, "/")


def test_a_suspended_key_opens_nothing_until_it_is_resumed(
    moved: Server, golden: Path, shell: Shell
):
    """As with any other key, on every worker at once."""
    doctor = moved.client("doctor")
    assert shell("keys suspend clinic:old --as operator").code == 0
    with pytest.raises(DeniedError) as refused:
        doctor.decrypt(golden / "clients" / "go-small.tdf")
    assert shell("keys resume clinic:old --as operator").code == 0

    assert refused.value.code == "kek_disabled"
    assert doctor.decrypt(golden / "clients" / "go-small.tdf") == plaintext(golden, "/")


def test_a_file_is_rebound_under_a_key_of_ours(
    moved: Server, golden: Path, shell: Shell, tmp_path: Path
):
    """Once the path has a key that seals, an old file gets a policy and key of this deployment."""
    file = tmp_path / "go.tdf"
    file.write_bytes((golden / "clients" / "go-small.tdf").read_bytes())
    shell("keys rotate clinic:old --algorithm ec:secp256r1 --as operator")
    doctor = moved.client("doctor")
    doctor.rebind(file, attrs="cls=secret")
    with SealedFile.open(file) as sealed:
        [key] = sealed.key_access

    assert (key.kid or "").startswith("clinic:old:v")
    assert doctor.decrypt(file) == plaintext(golden, "/")


class TestCommandLine:
    """What an operator types."""

    def test_a_key_file_that_others_may_read_is_told(self, shell: Shell, vectors: Path):
        """On stderr, before anything is sent; the key itself is printed nowhere."""
        pem = keys_of_others(vectors)["r1"]
        file = shell.directory / "kas.pem"
        file.write_bytes(pem)
        file.chmod(0o644)
        done = shell("keys import clinic:told --kid told --as operator --private-key", file)

        assert done.code == 0
        assert "other users may read" in done.err
        assert pem.splitlines()[1] not in done.raw + done.err.encode()

    def test_the_private_key_stands_in_no_record(self, shell: Shell, vectors: Path, moved: Server):
        """Nor in what the servers write beside the custody."""
        pem = keys_of_others(vectors)["r1"]
        file = shell.directory / "kas.pem"
        file.write_bytes(pem)
        file.chmod(0o600)
        shell("keys import clinic:hidden --kid hidden --as operator --private-key", file)
        der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
        secret = der[-600:-500]  # within the private exponent and primes
        held = [
            path
            for path in moved.data.rglob("*")
            if path.is_file() and _holds(path.read_bytes(), secret)
        ]

        assert held
        assert {path.parent for path in held} == {moved.data / "keys"}

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"not a key", "not a private key in PEM"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a private"),
        ],
    )
    def test_what_is_no_key_is_sent_nowhere(self, shell: Shell, content: bytes, words: str):
        """Exit code 2, and how to convert it."""
        file = shell.directory / "kas.pem"
        file.write_bytes(content)
        file.chmod(0o600)
        done = shell("keys import clinic:old --kid x --as operator --private-key", file)

        assert done.code == 2
        assert words in done.err
        assert "openssl pkey" in done.err

    def test_only_an_operator_imports(self, shell: Shell, vectors: Path):
        """A doctor's key is refused by the server, exit code 3."""
        file = shell.directory / "kas.pem"
        file.write_bytes(keys_of_others(vectors)["e1"])
        file.chmod(0o600)

        assert shell("keys import clinic:x --kid x --as doctor --private-key", file).code == 3


def test_the_document_says_what_happens(vectors: Path, tmp_path: Path):
    """Every command of the document, in order, prints what stands under it."""
    bundle = bundle_in(tmp_path / "policies")
    home = tmp_path / "home"
    home.mkdir()
    keys = keys_of_others(vectors)
    for name, kid in (("kas-private.pem", "r1"), ("kas-ec-private.pem", "e1")):
        (home / name).write_bytes(keys[kid])
        (home / name).chmod(0o600)
    for name in ("go-small", "go-ec"):
        (home / f"{name}.tdf").write_bytes((vectors / f"opentdf/clients/{name}.tdf").read_bytes())
    settings = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert settings is not None
    text = '[deployment]\nenvironment = "development"\n\n' + settings[1]
    with server(bundle, settings=text) as running:
        environment = {
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "ENVELOCK_DATA": str(running.data),
        }
        for command, printed in _steps():
            done = subprocess.run(
                ["bash", "-c", command],
                env=environment,
                cwd=home,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            said = done.stdout + done.stderr

            assert reads(said, printed), f"{command}\n{said}"


def _steps() -> list[tuple[str, str]]:
    """The commands of the document's console blocks, each with what it prints."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            steps.append((command, printed))
    return steps


def _holds(content: bytes, secret: bytes) -> bool:
    forms = {base64.b64encode(secret[cut:])[4:-4] for cut in range(3)}
    return any(form in content for form in (secret, *forms))
