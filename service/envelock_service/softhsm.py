"""A SoftHSM token of one's own, for the demonstration: an HSM in software, with nothing to buy."""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from envelock_service.datadir import write_private
from envelock_service.settings import SettingsError

TOOL = "softhsm2-util"
TOKEN = "envelock"  # noqa: S105 the token's label, no secret
PIN_FILE = "secrets/hsm.pin"
PIN_SIZE = 8  # bytes
_PLACES = (
    "/usr/lib/softhsm",
    "/usr/lib/x86_64-linux-gnu/softhsm",
    "/usr/lib/aarch64-linux-gnu/softhsm",
    "/usr/lib64/pkcs11",
    "/usr/local/lib/softhsm",
    "/opt/homebrew/lib/softhsm",
)


@dataclass(frozen=True, slots=True)
class Token:
    """An initialised token: its settings section, and the environment that finds it."""

    settings: str  # TOML
    environment: Mapping[str, str]


def make_token(data: Path, entropy: Callable[[int], bytes]) -> Token | None:
    """Make a token in the data directory; None when SoftHSM or its Python library is missing.

    Args:
        data: The data directory; gets `softhsm/` and the file with the PIN.
        entropy: Random bytes, for the PIN.

    Raises:
        SettingsError: The tool failed.
    """
    tool, module = shutil.which(TOOL), _module()
    if tool is None or module is None or importlib.util.find_spec("pkcs11") is None:
        return None
    tokens = data / "softhsm" / "tokens"
    tokens.mkdir(mode=0o700, parents=True)
    configuration = tokens.with_name("softhsm2.conf")
    configuration.write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n", "utf-8"
    )
    environment = {"SOFTHSM2_CONF": str(configuration)}
    pin = entropy(PIN_SIZE).hex()
    (data / PIN_FILE).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(data / PIN_FILE, pin.encode())
    _initialise(tool, pin, environment)
    settings = f'[custody]\nkind = "pkcs11"\nmodule = "{module}"\ntoken = "{TOKEN}"\n'
    return Token(f'{settings}pin_file = "{PIN_FILE}"\n', environment)


def main() -> int:
    """Make a token for `envelock bench`; prints its settings section and its variables as JSON."""
    parser = argparse.ArgumentParser(prog="envelock_service.softhsm", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data: Path = parser.parse_args().data
    token = make_token(data, os.urandom)
    if token is None:
        sys.stderr.write("SoftHSM or its Python library is not installed\n")
        return SettingsError.exit_code
    settings = token.settings.replace(PIN_FILE, str(data.absolute() / PIN_FILE))
    told = {"settings": settings, **token.environment}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _module() -> Path | None:
    found = (Path(place) / "libsofthsm2.so" for place in _PLACES)
    return next((path for path in found if path.exists()), None)


def _initialise(tool: str, pin: str, environment: Mapping[str, str]) -> None:
    # SECURITY: others on this machine can see the PIN while the tool runs, which takes no file;
    # the token holds nothing but the keys of a demonstration.
    command = [tool, "--init-token", "--free", "--label", TOKEN, "--pin", pin, "--so-pin", pin]
    done = subprocess.run(command, env={**environment}, capture_output=True, check=False)  # noqa: S603 found by `which`
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise SettingsError(f"{TOOL}: {words}", "repair SoftHSM, or remove it to use local keys")


if __name__ == "__main__":
    sys.exit(main())
