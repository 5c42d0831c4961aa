"""Settings: one TOML file, a section for each part, unknown keys refused.

Secrets are never in the file: it may name the *paths* of secret files, and an environment variable
`ENVELOCK_<SECTION>_<KEY>` overrides a path. A part reads its own section only, but the names of all
sections are checked, so that a misspelt section cannot silently fall back to defaults.
"""

import os
import tomllib
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

FILE = "envelock.toml"  # in the data directory
SECTIONS = frozenset(
    {"deployment", "callers", "custody", "issuer", "kas", "ledger", "opentdf", "pdp"}
)
_LOOPBACK = frozenset({"127.0.0.1", "[::1]", "localhost"})
T = TypeVar("T")


class SettingsError(Exception):
    """A setting that is unknown, missing or wrong; the message names the file and the key."""

    exit_code = 2
    code = "settings"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DeploymentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What kind of deployment this is; `production` refuses everything made for development.

    `metrics` is HOST:PORT on loopback where `up` serves the metrics of all processes; empty for
    nowhere.
    """

    environment: Literal["development", "production"] = "production"
    metrics: str = ""

    def __post_init__(self) -> None:
        host, _, port = self.metrics.rpartition(":")
        if self.metrics and (host not in _LOOPBACK or not port.isdecimal()):
            raise ValueError(f"metrics: {self.metrics!r} is not HOST:PORT on loopback")


def section(path: Path, name: str, shape: type[T]) -> T:
    """Read section *name* of the TOML file at *path* into the msgspec struct *shape*.

    A missing section reads as empty, so every key without a default is then reported as missing.
    Struct classes must be declared with `forbid_unknown_fields=True`.

    Raises:
        SettingsError: The file cannot be read, or a key is unknown, missing or of another type.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}", "correct the file, then start again") from error
    if unknown := sorted(tables.keys() - SECTIONS):
        raise SettingsError(f"{path}: unknown section [{unknown[0]}]")
    values = tables.get(name, {})
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: {name} is not a section")
    try:
        return msgspec.convert(values | _overrides(name, shape), shape, strict=True)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: [{name}] {error}") from error


def _overrides(name: str, shape: type[T]) -> dict[str, str]:
    """Paths of secret files from the environment: only keys that end in `_file`."""
    return {
        field: value
        for field in getattr(shape, "__struct_fields__", ())
        if field.endswith("_file")
        and (value := os.environ.get(f"ENVELOCK_{name}_{field}".upper())) is not None
    }
