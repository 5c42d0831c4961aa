"""Drives our own SDK with the same options as the other clients; `cli.sh` runs it too."""

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from envelock import Assertion, Client, ConfigError, Demands, EnvelockError, Secret, Statement
from envelock.assertions import signing_key
from envelock_formats.errors import UnsupportedAlgorithmError
from envelock_formats.wrap import key_access_type

UNKNOWN = 2
UNSUPPORTED = 4
DEFAULT = "ec:secp256r1"
LEGACY = "4.2.2"
# Of the features that the cross-SDK suite asks for by name, those that need no algorithm.
FEATURES = {
    "assertions": True,
    "assertion_verification": True,
    "attribute_traversal": False,  # keys by attribute are the server's doing
    "audit_logging": False,  # ours is a ledger, in a form of its own
    "autoconfigure": False,
    "better-messages-2024": False,  # the suite compares words, and ours are others
    "bulk_rewrap": True,
    "connectrpc": True,
    "dpop": True,
    "dpop_nonce_challenge": False,
    "ecwrap": True,
    "hexless": True,
    "hexaflexible": False,  # read, never written
    "kasallowlist": False,  # there is a list, and no way around it
    "key_management": False,
    "ns_grants": False,
    "obligations": False,
}
MECHANISMS = {
    "mechanism-rsa-4096": ("rsa:4096",),
    "mechanism-ec-curves-384-521": ("ec:secp384r1", "ec:secp521r1"),
    "mechanism-xwing": ("hpqt:xwing",),
    "mechanism-secpmlkem": ("hpqt:secp256r1-mlkem768", "hpqt:secp384r1-mlkem1024"),
    "mechanism-mlkem": ("mlkem:768", "mlkem:1024"),
}


def arguments() -> argparse.Namespace:
    """The same options as every driver has, and those of `cli.sh`."""
    parser = argparse.ArgumentParser()
    operations = ["encrypt", "decrypt", "bulk-decrypt", "time", "supports"]
    parser.add_argument("operation", choices=operations)
    parser.add_argument("feature", nargs="?", default="")
    for name in ("server", "issuer", "client-id", "in", "out", "metadata", "dataset"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--client-secret", default=os.environ.get("CLIENTSECRET", ""))
    parser.add_argument("--token-endpoint", default="")
    parser.add_argument("--attr", action="append", default=[])
    parser.add_argument("--algorithm", default=DEFAULT)
    parser.add_argument("--session", default=DEFAULT)
    parser.add_argument("--dpop", default="on")
    parser.add_argument("--target", default="")
    parser.add_argument("--any-kas", action="store_true")
    parser.add_argument("--assertions", default="", help="JSON, or the path of a file of it")
    parser.add_argument("--assertion-keys", default="", help="the path of JSON: whose signatures")
    parser.add_argument("--unverified-assertions", action="store_true")
    parser.add_argument("--legacy", action="store_true")
    return parser.parse_args()


def supports(feature: str) -> int:
    """0 when the SDK has *feature*, 1 when it does not, 2 when nobody knows it."""
    if feature in FEATURES:
        return 0 if FEATURES[feature] else 1
    if feature not in MECHANISMS:
        sys.stderr.write(f"unknown feature {feature}\n")
        return UNKNOWN
    return 0 if all(wraps(algorithm) for algorithm in MECHANISMS[feature]) else 1


def wraps(algorithm: str) -> bool:
    """Whether files are sealed under keys of this kind."""
    try:
        return bool(key_access_type(algorithm))
    except UnsupportedAlgorithmError:
        return False


def missing(given: argparse.Namespace) -> str:
    """What was asked for that this client does not have."""
    if given.operation == "bulk-decrypt":
        return "ours opens one file a request"
    if given.target not in {"", "4.3.0"}:
        return f"ours does not write {given.target}"
    if given.operation == "decrypt" and given.session != DEFAULT:
        return "ours has its answers sealed to P-256 keys only"
    if given.dpop != "on":
        return "ours always binds its tokens"
    if given.any_kas:
        return "ours asks only servers that it is told of"
    return ""


def profile(given: argparse.Namespace, folder: Path) -> Path:
    """A profile of whoever is told by the options."""
    secret = folder / "secret"
    secret.write_text(given.client_secret)
    values = {
        "url": given.server,
        "client_id": given.client_id,
        "client_secret_file": str(secret),
        "token_endpoint": given.token_endpoint or f"{given.issuer}/token",
        "ledger_key": os.environ.get("ENVELOCK_LEDGER_KEY") or published_ledger_key(given.server),
    }
    file = folder / "profile.toml"
    file.write_text("".join(f"{name} = {json.dumps(text)}\n" for name, text in values.items()))
    return file


def published_ledger_key(server: str) -> str:
    """The ledger key that *server* names for itself: good enough for a test, and for that only."""
    url = f"{server}/.well-known/opentdf-configuration"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 a test's own server
        return str(json.load(answer)["envelock"]["ledger_key"])


def asserted(text: str) -> list[Assertion]:
    """Assertions as the stock command line takes them."""
    if not text:
        return []
    found = json.loads(text if text.lstrip().startswith("[") else Path(text).read_text())
    return [
        Assertion(
            id=item["id"],
            statement=Statement(**item["statement"]),
            type=item["type"],
            scope=item["scope"],
            applies_to=item["appliesToState"],
            key=signing_key(stated_key(item["signingKey"])) if "signingKey" in item else None,
        )
        for item in found
    ]


def stated_key(item: dict[str, str]) -> Secret | bytes:
    """A key as the suite states it: a secret where `alg` says so, else PEM."""
    key = item["key"].encode()
    return Secret(key) if item.get("alg") == "HS256" else key


def demands(given: argparse.Namespace) -> Demands:
    """Whose signatures the assertions must bear."""
    keys = {}
    if given.assertion_keys:
        named = json.loads(Path(given.assertion_keys).read_text())["keys"]
        keys = {name: stated_key(item) for name, item in named.items()}
    return Demands(keys=keys, strict=not given.unverified_assertions)


def seal(client: Client, given: argparse.Namespace, target: Path) -> None:
    """Seal `--in` into *target*."""
    client.encrypt(
        Path(getattr(given, "in")),
        target,
        attrs=given.attr,
        dataset=given.dataset or None,
        assertions=asserted(given.assertions),
        metadata=given.metadata or None,
        force=True,
    )


def unseal(client: Client, given: argparse.Namespace, source: Path, target: Path) -> None:
    """Open *source* into *target*."""
    opened = client.decrypt(source, target, legacy=given.legacy, force=True, demands=demands(given))
    if given.metadata and opened.metadata != given.metadata.encode():
        raise ConfigError(f"metadata is {opened.metadata!r}")


def timed(client: Client, given: argparse.Namespace, target: Path) -> None:
    """Seal and open one file, and print how long each took."""
    sealed = target.with_name(f"{target.name}.tdf")
    start = time.perf_counter()
    seal(client, given, sealed)
    sealing = time.perf_counter() - start
    start = time.perf_counter()
    unseal(client, given, sealed, target)
    sys.stdout.write(json.dumps({"seal": sealing, "open": time.perf_counter() - start}))


def main() -> int:
    """Run one operation."""
    given = arguments()
    if given.operation == "supports":
        return supports(given.feature)
    if lack := missing(given):
        sys.stderr.write(f"{lack}\n")
        return UNSUPPORTED
    target = Path(given.out)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Client(profile=profile(given, Path(folder))) as client:
                if given.operation == "encrypt":
                    seal(client, given, target)
                elif given.operation == "decrypt":
                    unseal(client, given, Path(getattr(given, "in")), target)
                else:
                    timed(client, given, target)
        except EnvelockError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
