"""The data directory of `envelock up`: settings, secrets, policies, people and their profiles.

What exists is left as it is; what is missing is made. Secrets are files of mode 0600 in `secrets/`,
and only their paths are ever passed on.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from envelock_formats.canonical import Json, parse_object
from envelock_formats.errors import FormatError
from envelock_service.issuer import Identity
from envelock_service.settings import FILE, SettingsError

PEOPLE = "people.json"
SECRET_SIZE = 32
_SETTINGS = """\
# Settings of this deployment. Unknown keys refuse to start.

[deployment]
environment = "development"

[kas]
url = "{url}"      # stands in every file that is sealed here; keep it
listen = "{listen}"

[custody]
kind = "local"                     # development only; "pkcs11" for an HSM
"""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a person's profile tells the command line."""

    url: str
    client_id: str
    client_secret_file: Path
    issuer: str  # its URL; the client secret goes there alone
    ledger_key: str

    def text(self) -> str:
        """The profile as TOML."""
        values = {
            "url": self.url,
            "client_id": self.client_id,
            "client_secret_file": str(self.client_secret_file),
            "token_endpoint": f"{self.issuer}/token",
            "ledger_key": self.ledger_key,
        }
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


class DataDirectory:
    """The directory *root*, and what `up` keeps in it."""

    def __init__(self, root: Path, entropy: Callable[[int], bytes]) -> None:
        self.root = root
        self._entropy = entropy

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.root / FILE

    def prepare(self, listen: str, bundles: Path, default_bundle: Path) -> bool:
        """Make what is missing; returns whether the directory is new.

        Args:
            listen: HOST:PORT of the KAS; becomes its URL in new settings unless the port is 0.
            bundles: Where the policies are.
            default_bundle: Copied to *bundles* when nothing is there.
        """
        new = not self.settings.exists()
        for folder in (self.root, self.root / "secrets", self.root / "run", self.root / "profiles"):
            make_private(folder)
        if new:
            address = listen if not listen.endswith(":0") else "127.0.0.1:8080"
            text = _SETTINGS.format(url=f"http://{address}", listen=address)
            write_private(self.settings, text.encode())
        if not bundles.exists():
            shutil.copytree(default_bundle, bundles / default_bundle.name)
        self._secret("subjects.key")
        return new

    def issuer_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs development tokens; made on first use."""
        path = self.root / "secrets" / "issuer.pem"
        if not path.exists():
            fresh = ec.generate_private_key(ec.SECP256R1())
            write_private(
                path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SettingsError(f"{path}: expected an EC private key")
        return key

    def identities(self, bundles: Path) -> dict[str, Identity]:
        """The people of all bundles by client id; each gets a secret of its own on first sight.

        A name that several bundles have becomes `NAME@TENANT` for all but the first.

        Raises:
            SettingsError: A people file is malformed.
        """
        found: dict[str, Identity] = {}
        for file in sorted({*bundles.glob(PEOPLE), *bundles.glob(f"*/{PEOPLE}")}):
            for name, claims in _people(file).items():
                client_id = name if name not in found else f"{name}@{claims.get('tenant')}"
                secret = self._secret(f"client-{client_id}.secret")
                digest = hashlib.sha256(secret.encode()).digest()
                found[client_id] = Identity(claims, digest)
        return found

    def write_profiles(
        self, client_ids: Mapping[str, Identity], url: str, issuer: str, ledger_key: str
    ) -> None:
        """Write a profile for each identity: where KAS and issuer are now, and which ledger."""
        for client_id in client_ids:
            secret = self.root / "secrets" / f"client-{client_id}.secret"
            profile = Profile(url, client_id, secret.resolve(), issuer, ledger_key)
            write_private(self.root / "profiles" / f"{client_id}.toml", profile.text().encode())

    def _secret(self, name: str) -> str:
        path = self.root / "secrets" / name
        if not path.exists():
            write_private(path, self._entropy(SECRET_SIZE).hex().encode())
        return path.read_text("ascii").strip()


def make_private(folder: Path) -> None:
    """Make *folder*, and what is missing above it, with mode 0700, durably."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    _sync(folder.parent)


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, durably, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _people(file: Path) -> dict[str, dict[str, Json]]:
    try:
        people = parse_object(file.read_bytes())
    except (OSError, FormatError) as error:
        raise SettingsError(f"{file}: {error}", "correct the file, then start again") from error
    found: dict[str, dict[str, Json]] = {}
    for name, claims in people.items():
        if not isinstance(claims, dict) or not name.replace("-", "").isalnum():
            raise SettingsError(f"{file}: {name!r} is not a person with claims")
        found[name] = claims
    return found
