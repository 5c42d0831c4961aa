"""The decision point's keys: the newest signs, all are published.

Keys are PEM files `pdp-*.pem` (PKCS#8, P-256 or Ed25519, mode 0600) in the folder of secrets. The
last one by name signs; the others stay published until they are removed, so decisions under way
still verify. To rotate, add a file that sorts last and start again. A key's `kid` is its RFC 7638
thumbprint.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from envelock_formats import decision, jose
from envelock_formats.canonical import Json
from envelock_formats.decision import Decision
from envelock_pdp import PdpError

FIRST_KEY = "pdp-0001.pem"


class KeyFileError(PdpError):
    """A key file that cannot be used; the message names it."""

    exit_code = 2
    code = "key_file"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys; *kid* names the one that signs."""

    kid: str
    signing: jose.SigningKey = field(repr=False)
    public: Mapping[str, jose.VerifyingKey]

    def sign(self, claims: Decision) -> str:
        """Sign a decision; returns the compact JWS."""
        return decision.sign(claims, self.signing, self.kid)

    def jwks(self) -> dict[str, Json]:
        """The public keys as a JWK set (RFC 7517 section 5)."""
        keys: list[Json] = [
            {**jose.public_jwk(key), "kid": kid, "use": "sig", "alg": jose.algorithm(key)}
            for kid, key in self.public.items()
        ]
        return {"keys": keys}


def load_keys(folder: Path) -> Keys:
    """Load all keys of *folder*, creating the first.

    Raises:
        KeyFileError: A file is readable by others, or is no key that signs here.
    """
    files = sorted(folder.glob("pdp-*.pem")) or [_create(folder / FIRST_KEY)]
    keys = {_kid(key): key for key in map(_load, files)}
    kid, signing = list(keys.items())[-1]
    return Keys(kid, signing, {name: key.public_key() for name, key in keys.items()})


def publish_keys(keys: Keys, path: Path) -> None:
    """Write the JWK set to *path*, in one step for whoever reads it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(orjson.dumps(keys.jwks()))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _create(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def _load(path: Path) -> jose.SigningKey:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(f"{path} is readable by others: chmod 600")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"{path} is not a private key") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise KeyFileError(f"{path}: expected P-256 or Ed25519")


def _kid(key: jose.SigningKey) -> str:
    return jose.thumbprint(jose.public_jwk(key.public_key()))
