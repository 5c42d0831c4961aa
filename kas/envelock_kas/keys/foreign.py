"""Keys of other key access servers: what files name them by, and which version that means.

A *foreign* key id is whatever the other KAS called its key, such as `r1`. It is imported once in a
deployment, so it means one version. Files of before key ids name none, or the empty one: those may
mean any key that was imported as *legacy*, and each of them gets one attempt.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from envelock_formats.errors import UnsupportedAlgorithmError
from envelock_formats.keyid import KeyId, KeyIdError
from envelock_formats.privatekey import PrivateKey, algorithm_of_private
from envelock_formats.tdf.keyaccess import KeyAccess
from envelock_formats.tdf.policy import Policy
from envelock_formats.wrap import algorithm_of_wrap
from envelock_kas.asked import KeyIds
from envelock_kas.custody import ALGORITHMS
from envelock_kas.projection import Projection

MAX_LEGACY = 8  # of a tenant: so many attempts may one key access object cost
T = TypeVar("T")
_LISTED = ", ".join(ALGORITHMS[1:])
_FOREIGN = re.compile(r"[!-~]{1,100}\Z")


class UnknownKeyError(KeyIdError):
    """A key access object names no key that is known here, as far as this worker has read."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key that is taken over.

    Args:
        kid: What files name it by: 1 to 100 visible ASCII characters, and not of the form of the
            key ids that are made here, which never mean another key.
        private: The key.
        legacy: Whether it is tried for files that name no key.
        active: Whether new data is sealed under it, too.
    """

    kid: str
    private: PrivateKey = field(repr=False)
    legacy: bool = False
    active: bool = False

    def __post_init__(self) -> None:
        if not _FOREIGN.match(self.kid):
            raise KeyIdError("a foreign key id is 1 to 100 visible ASCII characters")
        if _is_own(self.kid):
            raise KeyIdError(f"key id {self.kid!r} is of the form of the key ids made here")
        if algorithm_of_private(self.private) not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"only keys for {_LISTED} are imported")


async def with_known_keys(
    projection: Projection,
    home: str,
    catch_up: Callable[[], Awaitable[None]],
    read: Callable[[KeyIds], T],
) -> T:
    """*read* with what key ids mean to callers at *home* in a tenant.

    What names an unknown one is read again after *catch_up*.

    Raises:
        FormatError: As *read* does.
    """
    known = partial(key_ids, projection, home)
    try:
        return read(known)
    except UnknownKeyError:
        await catch_up()
    return read(known)


def key_ids(
    projection: Projection, home: str, access: KeyAccess, policy: Policy
) -> tuple[KeyId, ...]:
    """The versions that a key access object may mean: one, or several that get one attempt each.

    An imported key of a tenant that does not share with *home* is none: which names it has taken
    over is its own affair.

    Raises:
        KeyIdError: It names no key that is known, or a form of wrap that no legacy key opens, or
            keys of several tenants may be meant.
    """
    if not (kid := access.kid or ""):
        return _unnamed(projection, access, policy)
    if _is_own(kid):
        return (KeyId.parse(kid),)
    found = projection.registry.imported(kid)
    if found is None or not _shares(projection, found.tenant, home):
        raise UnknownKeyError(f"key id {kid[:100]!r}: neither path:vN nor an imported one")
    return (found,)


def key_ids_if_known(
    projection: Projection, home: str, access: KeyAccess, policy: Policy
) -> tuple[KeyId, ...]:
    """As `key_ids`; none for a key that is not known."""
    try:
        return key_ids(projection, home, access, policy)
    except UnknownKeyError:
        return ()


def _unnamed(projection: Projection, access: KeyAccess, policy: Policy) -> tuple[KeyId, ...]:
    try:
        algorithm = algorithm_of_wrap(access)
    except UnsupportedAlgorithmError as error:
        raise UnknownKeyError("a key access object names no key") from error
    fitting = [
        version.id for version in projection.registry.legacy() if version.material(algorithm)
    ]
    if len({key_id.tenant for key_id in fitting}) > 1:
        # Whose file it is, its attributes say; nobody is asked for keys of another tenant.
        owners = {projection.owner_of(namespace) for namespace in policy.namespaces}
        fitting = [key_id for key_id in fitting if owners == {key_id.tenant}]
    if not fitting:
        raise UnknownKeyError("a key access object names no key")
    return tuple(fitting)


def _shares(projection: Projection, owner: str, home: str) -> bool:
    state = projection.policy(owner)
    return home == owner or (state is not None and home in state.current.sharing)


def _is_own(kid: str) -> bool:
    try:
        KeyId.parse(kid)
    except KeyIdError:
        return False
    return True
