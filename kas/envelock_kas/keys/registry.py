"""The key registry: what the ledger's topic `key` amounts to.

Every worker builds it at start and reads on when a fence says that it is behind, or when it meets a
key id that it does not know. Nothing here is authority: a release commits only if the numbers that
this registry gave still are the ledger's.

INVARIANT: the number of a version counts its records without a gap, from 1.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from envelock_formats.canonical import Json, convert
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64
from envelock_formats.keyid import KeyId, KeyPath
from envelock_kas.keys.states import UNWRAPS, WRAPS, State

TOPIC = "key"
RECORD_TYPE = "key.lifecycle"


class RegistryError(Exception):
    """The records of the topic do not fit together: the worker must not serve from them."""


class Material(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key of a version: its algorithm, where the custody has it, and its public half.

    `public` is base64 of the DER SubjectPublicKeyInfo; absent for a symmetric key.
    """

    alg: str
    handle: str
    public: str | None = None


class KeyVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version as a `key.lifecycle` record states it.

    A version without `keys` protects nothing by itself: it stands for its path, so that a tenant or
    a dataset can be suspended whose keys all lie below. `was` holds the states that a suspension or
    a scheduled destruction set aside, the latest last; `destroy_at` is in unix seconds.

    `kid` is what files name the key by when it was taken over from another KAS; `legacy` says that
    it is tried for files that name none.
    """

    path: str
    version: int
    number: int
    state: State
    wraps: Literal["offline", "online"]
    custody: str
    keys: tuple[Material, ...] = ()
    was: tuple[State, ...] = ()
    destroy_at: int | None = None
    kid: str | None = None
    legacy: bool = False

    @property
    def id(self) -> KeyId:
        """The key id."""
        return KeyId(KeyPath(self.path), self.version)

    @property
    def fence(self) -> str:
        """The fence that every transition of this version moves."""
        return fence_name(self.id)

    def material(self, algorithm: str) -> Material | None:
        """The key for *algorithm*, if the version has one."""
        return next((key for key in self.keys if key.alg == algorithm), None)


class Standing(NamedTuple):
    """What stands about a version at one moment, and the numbers that prove it."""

    version: KeyVersion
    refusal: str | None  # None when the version may unwrap
    fences: Mapping[str, int]


def fence_name(key_id: KeyId) -> str:
    """The ledger's name for the state of one key version."""
    return f"key:{key_id}"


class Registry:
    """The projection. One task writes it; readers see whole records."""

    def __init__(self) -> None:
        self._paths: dict[str, dict[int, KeyVersion]] = {}
        self._by_tenant: dict[str, list[KeyPath]] = {}  # in order
        self._introduced: dict[KeyId, int] = {}
        self._public: set[str] = set()
        self._imported: dict[str, KeyId] = {}  # by the key id of the KAS that they came from
        self._standings: dict[tuple[KeyId, frozenset[State]], Standing] = {}
        self.next_index = 0  # first ledger index that was not read yet

    def apply(self, index: int, fields: Mapping[str, Json]) -> None:
        """Take in the record *index* of the topic.

        Raises:
            RegistryError: The record is malformed or leaves a gap.
        """
        if index < self.next_index:
            return
        self._standings.clear()
        for version in _versions(fields):
            if version.path not in self._paths:
                path = version.id.path
                insort(self._by_tenant.setdefault(path.tenant, []), path)
            known = self._paths.setdefault(version.path, {})
            before = known[version.version].number if version.version in known else 0
            if version.number != before + 1:
                raise RegistryError(f"record {index}: {version.id} has a gap in its records")
            if version.kid and self._imported.setdefault(version.kid, version.id) != version.id:
                raise RegistryError(f"record {index}: {version.kid!r} was imported before")
            known[version.version] = version
            self._introduced.setdefault(version.id, index)
            self._public.update(key.public for key in version.keys if key.public)
        self.next_index = index + 1

    def get(self, key_id: KeyId) -> KeyVersion | None:
        """The version, if it is known."""
        return self._paths.get(key_id.path.text, {}).get(key_id.version)

    def imported(self, kid: str) -> KeyId | None:
        """The version that was taken over from another KAS, which named it *kid*."""
        return self._imported.get(kid)

    def legacy(self, tenant: str | None = None) -> tuple[KeyVersion, ...]:
        """The keys that files may mean that name none, the newest first; of *tenant*, or all."""
        found = (self.get(key_id) for key_id in reversed(self._imported.values()))
        return tuple(
            version
            for version in found
            if version is not None
            and version.legacy
            and version.state is not State.DESTROYED
            and tenant in {None, version.id.tenant}
        )

    def versions(self, path: KeyPath) -> tuple[KeyVersion, ...]:
        """All versions of *path*, the oldest first."""
        known = self._paths.get(path.text, {})
        return tuple(known[number] for number in sorted(known))

    def newest(self, path: KeyPath) -> KeyVersion | None:
        """The newest version of *path*."""
        return self.versions(path)[-1] if path.text in self._paths else None

    def introduced(self, key_id: KeyId) -> int:
        """Index of the record that introduced the version; KeyError for an unknown one."""
        return self._introduced[key_id]

    def paths(self, tenant: str) -> tuple[KeyPath, ...]:
        """The paths of *tenant*, in order."""
        return tuple(self._by_tenant.get(tenant, ()))

    def count(self, tenant: str) -> int:
        """How many paths *tenant* has."""
        return len(self._by_tenant.get(tenant, ()))

    def below(self, path: KeyPath) -> tuple[KeyPath, ...]:
        """The paths strictly below *path*."""
        return tuple(found for found in self.paths(path.tenant) if found.below(path))

    def is_ours(self, der: bytes) -> bool:
        """Whether a public key (DER) is the public half of any version ever recorded."""
        return b64(der) in self._public

    def every(self) -> Iterable[KeyVersion]:
        """Every version of every path."""
        for known in self._paths.values():
            yield from known.values()

    def fences(self, path: KeyPath) -> dict[str, int]:
        """The numbers of the newest version of every path above *path*.

        The newest one says whether the path is open. Suspending a path moves it, and so does a
        rotation, which gives the path another newest version.
        """
        newest = (self.newest(above) for above in path.ancestors)
        return {version.fence: version.number for version in newest if version is not None}

    def standing(self, key_id: KeyId, *, permitted: frozenset[State] = UNWRAPS) -> Standing | None:
        """Whether a version may be used now; None when it is unknown.

        It may when its own state permits, and no path above it has its newest version suspended,
        awaiting destruction, or destroyed.
        """
        if (known := self._standings.get((key_id, permitted))) is not None:
            return known
        version = self.get(key_id)
        if version is None:
            return None
        fences = self.fences(key_id.path) | {version.fence: version.number}
        standing = Standing(version, self._refusal(version, permitted), fences)
        self._standings[key_id, permitted] = standing
        return standing

    def _refusal(self, version: KeyVersion, permitted: frozenset[State]) -> str | None:
        if version.state not in permitted:
            return f"key {version.id} {version.state}"
        for above in version.id.path.ancestors:
            newest = self.newest(above)
            if newest is not None and newest.state not in UNWRAPS | WRAPS:
                return f"key {newest.id} {newest.state}"
        return None


def _versions(fields: Mapping[str, Json]) -> Sequence[KeyVersion]:
    try:
        found = convert(fields.get("keys"), tuple[KeyVersion, ...])
        moves = fields.get("moves")
        if moves != {version.fence: version.number for version in found}:
            raise RegistryError("a key record moves other fences than it states")
    except FormatError as error:
        raise RegistryError("a key record is malformed") from error
    return found
