"""Who am I, and where is the KAS: arguments, then the environment, then a profile.

A profile is a TOML file: `url`, `client_id`, `client_secret_file`, `token_endpoint`, `ledger_key`.
Two more keys are for files that name other key access servers: `peers` lists profiles through which
those are asked, each as whoever that profile is and with its own pinned ledger; `kas` lists
addresses of servers that are shown the tokens of this profile. Those that `envelock up` made lie in
`DIR/profiles`, others in `$XDG_CONFIG_HOME/envelock`. Nothing is guessed: without a profile named
`default` the choice has to be made.

Beside a profile lies what was learned through it (see `state`).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from envelock.errors import ConfigError

DEFAULT = "default"
VARIABLES = {
    "url": "ENVELOCK_URL",
    "client_id": "ENVELOCK_CLIENT_ID",
    "client_secret_file": "ENVELOCK_CLIENT_SECRET_FILE",
    "token_endpoint": "ENVELOCK_TOKEN_ENDPOINT",
    "ledger_key": "ENVELOCK_LEDGER_KEY",
}


class ProfileValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of a profile file; `token_endpoint` is where alone the client secret goes."""

    url: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    token_endpoint: str = ""
    ledger_key: str = ""
    kas: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile, and where it lies; without a file what is learned lives in memory."""

    values: ProfileValues
    name: str
    file: Path | None = None

    @property
    def heads_file(self) -> Path | None:
        """Where the newest heads of ledgers are kept."""
        return None if self.file is None else self.file.with_name(f"{self.file.stem}.heads.json")

    @property
    def cache_file(self) -> Path | None:
        """Where answers are kept for a while."""
        return None if self.file is None else self.file.with_name(f"{self.file.stem}.state.json")

    def secret(self) -> str:
        """Read the client secret; `ConfigError` when there is none."""
        path = self.values.client_secret_file
        if not path:
            raise ConfigError(
                "no client secret", hint="run `envelock login`, or pass token= or --as NAME"
            )
        try:
            return Path(path).read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(f"client secret {path}: {error.strerror}") from error


def data_directory(environment: Mapping[str, str]) -> Path:
    """The default data directory: `$ENVELOCK_DATA`, then `$XDG_DATA_HOME/envelock`."""
    if named := environment.get("ENVELOCK_DATA"):
        return Path(named)
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "envelock"


def config_directory(environment: Mapping[str, str]) -> Path:
    """Where profiles lie that `login` writes: `$XDG_CONFIG_HOME/envelock`."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "envelock"


def load_profile(
    name: str | Path | None, environment: Mapping[str, str], data: Path | None = None
) -> Profile:
    """Find the profile; the environment lies over it unless the profile was named in an argument.

    Args:
        name: A name, or the path of a file; None for `ENVELOCK_PROFILE`, then `default`.
        environment: Usually `os.environ`.
        data: The data directory whose profiles are looked at first.

    Raises:
        ConfigError: There is none of that name, or the file is malformed.
    """
    overrides = {key: environment[name] for key, name in VARIABLES.items() if environment.get(name)}
    wanted = name or environment.get("ENVELOCK_PROFILE") or DEFAULT
    file = wanted if isinstance(wanted, Path) else _find(wanted, environment, data)
    if file is None:
        if name is None and overrides.get("url"):
            return Profile(_values(overrides, "environment"), "environment")
        raise _unknown(str(wanted), environment, data, asked=name is not None)
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"profile {file}: {error}") from error
    laid = values | overrides if name is None else overrides | values
    return Profile(_values(laid, str(file)), file.stem, file)


def load_peers(
    profile: Profile, environment: Mapping[str, str], data: Path | None = None
) -> list[Profile]:
    """The profiles that *profile* names as its peers: beside its own file, else as any other.

    Raises:
        ConfigError: There is none of that name, or its file is malformed.
    """
    return [_peer(profile, name, environment, data) for name in profile.values.peers]


def _peer(
    profile: Profile, name: str, environment: Mapping[str, str], data: Path | None
) -> Profile:
    beside = profile.file.with_name(f"{name}.toml") if profile.file and "/" not in name else None
    found = beside if beside is not None and beside.is_file() else name_or_file(name)
    try:
        return load_profile(found, environment, data)
    except ConfigError as error:
        raise ConfigError(f"peer of {profile.name}: {error}", hint=error.hint) from error


def name_or_file(text: str) -> str | Path:
    """A profile as people name it: a name, or the path of a file when it holds a slash."""
    return Path(text).expanduser() if "/" in text else text


def list_profiles(environment: Mapping[str, str], data: Path | None = None) -> list[str]:
    """The names of all profiles there are."""
    return sorted(
        {file.stem for folder in _folders(environment, data) for file in folder.glob("*.toml")}
    )


def _values(values: Mapping[str, object], source: str) -> ProfileValues:
    try:
        return msgspec.convert(dict(values), ProfileValues, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"profile {source}: {error}") from error


def _folders(environment: Mapping[str, str], data: Path | None) -> list[Path]:
    return [
        (data or data_directory(environment)) / "profiles",
        config_directory(environment),
    ]


def _find(name: str, environment: Mapping[str, str], data: Path | None) -> Path | None:
    if "/" in name or name.startswith("."):
        raise ConfigError(f"profile {name!r} is not a name", hint="pass a Path for a file")
    found = (folder / f"{name}.toml" for folder in _folders(environment, data))
    return next((file for file in found if file.is_file()), None)


def _unknown(
    name: str, environment: Mapping[str, str], data: Path | None, *, asked: bool
) -> ConfigError:
    known = list_profiles(environment, data)
    listed = f"profiles: {', '.join(known)}" if known else "run `envelock up` or `envelock login`"
    if asked or known:
        missing = f"no profile {name!r}" if asked else "who are you? no profile was named"
        return ConfigError(missing, hint=f"{listed}; choose one with --as NAME")
    return ConfigError(f"no profile {name!r}, and no ENVELOCK_URL", hint=listed)
