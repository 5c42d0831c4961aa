"""Steps 7 and 8 of a rebinding: each share unwrapped, held against its policy, and wrapped anew.

A share is wrapped under the newest version of the path that it was wrapped under, in the same way:
online inside the custody, offline to a public key that was compared with the custody's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from envelock_formats.framing import b64
from envelock_formats.online import ONLINE_AES_GCM, OnlineWrap, online_aad, rebound_id
from envelock_formats.publickey import read_public_key, wrap_share
from envelock_formats.request import policy_sha256
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy, object_id
from envelock_formats.wrap import IV_SIZE, algorithm_of_wrap
from envelock_kas.asked import AskedObject
from envelock_kas.custody import AES, Custody
from envelock_kas.errors import CustodyError
from envelock_kas.keys.registry import KeyVersion, Standing
from envelock_kas.publish import Publisher
from envelock_kas.shares import unwrap_share


@dataclass(frozen=True, slots=True)
class Stood:
    """The version that opens a key access object, and the one that it is wrapped under anew."""

    opens: Standing
    wraps: Standing


@dataclass(frozen=True, slots=True)
class Rebound:
    """An object under its new policy."""

    id: str
    keys: tuple[KeyAccess, ...]
    fences: Mapping[str, int]  # of the versions that opened and wrapped


def is_online(former: AskedObject) -> bool:
    """Whether the object's key was wrapped online; it then has that wrap alone."""
    return former.keys[0].online is not None


class Rewrapper:
    """Wraps shares anew; one instance belongs to one worker."""

    def __init__(
        self,
        *,
        custodies: Mapping[str, Custody],
        publisher: Publisher,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._custodies = custodies
        self._publisher = publisher
        self._entropy = entropy

    async def __call__(
        self, former: AskedObject, new_policy: str, stood: Sequence[Stood]
    ) -> Rebound:
        """Put *former* under *new_policy*.

        Args:
            former: The object under its policy.
            new_policy: Base64 text.
            stood: The versions for each of its keys, in order.

        Raises:
            ShareError: A share does not open, or its policy binding does not hold.
            CustodyError: The custody did not answer.
        """
        fences: dict[str, int] = {}
        keys: list[KeyAccess] = []
        successor = rebound_id(former.id, policy_sha256(new_policy))
        for key, found in zip(former.keys, stood, strict=True):
            opened = await unwrap_share(former, key, found.opens.version, self._custodies)
            version = found.wraps.version
            if is_online(former):
                aad = online_aad(
                    version.id.tenant, str(version.id), successor, policy_sha256(new_policy)
                )
                made = await self._online(key.access, opened.share, version, successor, aad)
            else:
                made = await self._offline(key.access, opened.share, version)
            binding = bind_policy(opened.share, new_policy)
            keys.append(msgspec.structs.replace(made, kid=str(version.id), policyBinding=binding))
            fences |= {**found.opens.fences, **found.wraps.fences}
        name = successor.hex() if is_online(former) else object_id(keys)
        return Rebound(name, tuple(keys), fences)

    async def _online(
        self, access: KeyAccess, share: bytes, version: KeyVersion, successor: bytes, aad: bytes
    ) -> KeyAccess:
        """Wrap inside the custody, under another object id."""
        if (material := version.material(AES)) is None:
            raise CustodyError(f"key {version.id} has no {AES}")
        rest = await self._custodies[version.custody].wrap(material.handle, share, aad)
        wrapped = bytes(OnlineWrap(ONLINE_AES_GCM, successor, rest))
        return msgspec.structs.replace(access, wrappedKey=b64(wrapped))

    async def _offline(self, access: KeyAccess, share: bytes, version: KeyVersion) -> KeyAccess:
        """Wrap to a public key of *version*: of the same algorithm, where it has one."""
        material = version.material(algorithm_of_wrap(access)) or version.keys[0]
        pem = await self._publisher.checked(version.custody, material)
        made = wrap_share(share, read_public_key(pem), iv=self._entropy(IV_SIZE))
        return msgspec.structs.replace(
            access,
            type=made.kind,
            wrappedKey=b64(made.wrapped),
            ephemeralPublicKey=made.ephemeral_pem,
        )
