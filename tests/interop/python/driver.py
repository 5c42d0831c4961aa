"""Drives otdf-python for our tests: one operation a run, what went wrong on stderr."""

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from otdf_python.sdk import SDK
from otdf_python.sdk_builder import SDKBuilder

FAILED = 1
UNSUPPORTED = 4


def arguments() -> argparse.Namespace:
    """The same options as every driver has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("operation", choices=["encrypt", "decrypt", "bulk-decrypt", "time"])
    for name in ("server", "issuer", "client-id", "client-secret", "in", "out", "metadata"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--attr", action="append", default=[])
    parser.add_argument("--algorithm", default="rsa:2048")
    parser.add_argument("--session", default="rsa:2048")
    parser.add_argument("--dpop", default="off")
    parser.add_argument("--any-kas", action="store_true")
    return parser.parse_args()


def connect(given: argparse.Namespace) -> SDK:
    """An SDK that finds the issuer by itself."""
    builder = SDKBuilder.new_builder()
    builder.set_platform_endpoint(given.server)
    builder.use_insecure_plaintext_connection(given.server.startswith("http://"))
    builder.client_secret(given.client_id, given.client_secret)
    builder.with_ignore_kas_allowlist(given.any_kas)
    return builder.build()


def seal(sdk: SDK, given: argparse.Namespace, target: Path) -> None:
    """Seal `--in` into *target*."""
    config = sdk.new_tdf_config(attributes=given.attr)
    with Path(getattr(given, "in")).open("rb") as source, target.open("wb") as out:
        sdk.create_tdf(source, config, out)


def unseal(sdk: SDK, source: Path, target: Path) -> None:
    """Open *source* into *target*."""
    target.write_bytes(sdk.load_tdf(source.read_bytes()).payload)


def missing(given: argparse.Namespace) -> str:
    """What was asked for that this client does not have."""
    if given.operation == "bulk-decrypt":
        return "otdf-python opens one file a request"
    if given.operation == "encrypt" and given.algorithm != "rsa:2048":
        return "otdf-python wraps with keys of RSA 2048 only"
    if given.session != "rsa:2048":
        return "otdf-python has its answers sealed to RSA keys only"
    if given.dpop != "off":
        return "otdf-python uses Bearer tokens only"
    if given.metadata:
        return "otdf-python has no metadata"
    return ""


def main() -> int:
    """Run one operation."""
    given = arguments()
    if lack := missing(given):
        sys.stderr.write(f"{lack}\n")
        return UNSUPPORTED
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    source, target = Path(getattr(given, "in")), Path(given.out)
    try:
        with connect(given) as sdk:
            if given.operation == "encrypt":
                seal(sdk, given, target)
            elif given.operation == "decrypt":
                unseal(sdk, source, target)
            else:
                timed(sdk, given, target)
    except Exception as error:  # noqa: BLE001 whatever the client says is what we look at
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return FAILED
    return 0


def timed(sdk: SDK, given: argparse.Namespace, target: Path) -> None:
    """Seal and open one file, and print how long each took."""
    sealed = target.with_name(f"{target.name}.tdf")
    start = time.perf_counter()
    seal(sdk, given, sealed)
    sealing = time.perf_counter() - start
    start = time.perf_counter()
    unseal(sdk, sealed, target)
    sys.stdout.write(json.dumps({"seal": sealing, "open": time.perf_counter() - start}))


if __name__ == "__main__":
    sys.exit(main())
