"""The section `[ledger]` of `envelock.toml`."""

from pathlib import Path

import msgspec

from envelock_ledger.place import Place
from envelock_ledger.serve import ANY, Role
from envelock_service.settings import section

FILE = "envelock.toml"
RUN = "run"
WRITING_ROLE = "kas"
READING_ROLE = "read"
OPERATING_ROLE = "operate"  # of `operating`: neither reads nor appends records


class RoleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role: its socket is `run/ledger-NAME.sock`."""

    append: bool = False
    openings: bool = False  # may see what opens hidden fields
    topics: list[str] = []  # that its records may carry; "*" for all
    moves: list[str] = []  # beginnings of fence names that its records may move; "*" for all
    uids: list[int] = []  # users who may connect, beside the ledger's own


class LedgerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths are relative to the data directory."""

    dir: str = "ledger"
    anchor: str = "anchor/ledger.anchor"  # belongs on another device
    key_file: str = "secrets/ledger.pem"
    roles: dict[str, RoleSettings] = {}  # beside `kas` and `read`, or instead of them

    def place(self, data: Path) -> Place:
        """The files of the ledger in the data directory *data*."""
        return Place(data / self.dir, data / self.anchor, data / self.key_file)

    def named_roles(self) -> list[Role]:
        """Every role under its name."""
        return [
            Role(
                name=name,
                append=role.append,
                openings=role.openings,
                topics=tuple(role.topics),
                moves=tuple(role.moves),
                uids=frozenset(role.uids),
            )
            for name, role in (_standard_roles() | self.roles).items()
        ]


def _standard_roles() -> dict[str, RoleSettings]:
    # SECURITY: not the topic of erasures, or a key server could have the traces of what it did
    # removed.
    topics = ["key", "policy", "standing", "wraps"]
    writing = RoleSettings(append=True, openings=True, topics=topics, moves=[ANY])
    return {WRITING_ROLE: writing, READING_ROLE: RoleSettings()}


def load(data: Path) -> LedgerSettings:
    """Read the settings of the data directory *data*; without a file all have their defaults.

    Raises:
        SettingsError: A setting is unknown or wrong.
    """
    path = data / FILE
    return section(path, "ledger", LedgerSettings) if path.exists() else LedgerSettings()


def socket_path(data: Path, role: str) -> Path:
    """Socket of *role* in the data directory *data*."""
    return data / RUN / f"ledger-{role}.sock"
