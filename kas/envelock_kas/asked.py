"""Step 3 of a release: what is asked, read once, by one parser.

The policy that the PDP will see is the very text that the policy binding covers; digests are made
here, from what came, and from nothing that the client says of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from envelock_formats.keyid import KeyId
from envelock_formats.online import OnlineWrap, is_online
from envelock_formats.request import (
    ClientKey,
    RequestedObject,
    client_key,
    key_sha256,
    policy_sha256,
    spki,
)
from envelock_formats.tdf.keyaccess import DecodedAccess, KeyAccess, decode_access, keys_digest
from envelock_formats.tdf.policy import Policy, parse_policy
from envelock_formats.wire import ObjectEntry, RewrapBody, WireError, read_rewrap
from envelock_formats.wrap import WRAPPED

KeyIds: TypeAlias = Callable[[KeyAccess, Policy], Sequence[KeyId]]


@dataclass(frozen=True, slots=True)
class AskedKey:
    """One key access object: its id in the request, the key it names, and what it holds.

    `key_ids` are the versions that it may mean: one, several of one tenant where it names none, or
    none at all where nobody here knows the key.
    """

    entry_id: str
    decoded: DecodedAccess
    key_ids: Sequence[KeyId]
    online: OnlineWrap | None

    @property
    def key_id(self) -> KeyId:
        """The version that it means, or the first of several."""
        return self.key_ids[0]

    @property
    def kid(self) -> str:
        """The key id in records; empty while it may mean several."""
        return str(self.key_id) if len(self.key_ids) == 1 else ""

    @property
    def access(self) -> KeyAccess:
        """The object as it came."""
        return self.decoded.access


@dataclass(frozen=True, slots=True)
class AskedObject:
    """One object of a request."""

    entry: ObjectEntry
    policy: Policy
    keys: Sequence[AskedKey]
    requested: RequestedObject

    @property
    def id(self) -> str:
        """The object id."""
        return self.requested.id


@dataclass(frozen=True, slots=True)
class AskedEntry:
    """Under which ids the results of an object are told: its policy's, and each of its keys'."""

    policy_id: str
    object_id: str
    key_entries: Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A whole request: each object once, and the entries that ask for it, in their order."""

    body: RewrapBody
    client_key: ClientKey
    client_der: bytes
    key_digest: bytes
    objects: Sequence[AskedObject]
    entries: Sequence[AskedEntry]

    @property
    def known(self) -> Sequence[AskedObject]:
        """The objects all of whose keys are known."""
        return [found for found in self.objects if all(key.key_ids for key in found.keys)]


def own_key_ids(access: KeyAccess, _policy: Policy) -> Sequence[KeyId]:
    """The version that a key access object of ours names; `KeyIdError` for any other."""
    return (KeyId.parse(access.kid or ""),)


def read_asked(body: bytes, key_ids: KeyIds = own_key_ids) -> Asked:
    """Read the body of a rewrap.

    Args:
        body: JSON text.
        key_ids: What a key access object means by the key that it names.

    Raises:
        FormatError: Anything is malformed: the body, the client's key, a policy, a key access
            object, a key id; or an object stands in the request with two policies.
    """
    asked = read_rewrap(body)
    key = client_key(asked.clientPublicKey)
    objects: dict[str, AskedObject] = {}
    entries: list[AskedEntry] = []
    for entry in asked.objects:
        found = read_object(entry, key_ids)
        if objects.setdefault(found.id, found).requested != found.requested:
            raise WireError("an object stands twice in one request, with different policies")
        ids = tuple(one.entry_id for one in found.keys)
        entries.append(AskedEntry(entry.policy.id, found.id, ids))
    der = spki(key)
    return Asked(asked, key, der, key_sha256(der), tuple(objects.values()), entries)


def read_object(entry: ObjectEntry, key_ids: KeyIds = own_key_ids) -> AskedObject:
    """Read one object; *key_ids* as in `read_asked`.

    Raises:
        FormatError: Its policy, a key access object or a key id is malformed, or an online wrap
            stands beside another.
    """
    policy = parse_policy(entry.policy.body)
    keys = [
        _key(item.keyAccessObjectId, item.keyAccessObject, key_ids(item.keyAccessObject, policy))
        for item in entry.keyAccessObjects
    ]
    online = [key.online for key in keys if key.online is not None]
    if online and len(keys) > 1:
        raise WireError("an online wrap stands alone in its object")
    digest = keys_digest([key.decoded for key in keys])
    requested = RequestedObject(
        id=online[0].id if online else f"sha256:{digest.hex()}",
        policy_sha256=policy_sha256(entry.policy.body),
        keys_sha256=digest,
    )
    return AskedObject(entry, policy, keys, requested)


def _key(entry_id: str, access: KeyAccess, key_ids: Sequence[KeyId]) -> AskedKey:
    decoded = decode_access(access)
    online = access.type == WRAPPED and is_online(decoded.wrapped)
    return AskedKey(
        entry_id=entry_id,
        decoded=decoded,
        key_ids=key_ids,
        online=OnlineWrap.parse(decoded.wrapped) if online else None,
    )
