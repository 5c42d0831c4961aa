"""Steps 7 to 9 of a release: unwrap a share in its custody, check its binding, seal it.

One attempt for each key access object, with the key that it names; with each of a few for an old
file that names none. Whatever goes wrong with the wrapped bytes or the binding is one error to the
caller.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from envelock_formats.der import DerError
from envelock_formats.envelope import KEM_TYPES, read_envelope
from envelock_formats.errors import UnsupportedAlgorithmError
from envelock_formats.kem import open_kem_share
from envelock_formats.online import ONLINE_AES_GCM, online_aad
from envelock_formats.request import ClientKey
from envelock_formats.tdf.keyaccess import SHARE_SIZE, mac_holds
from envelock_formats.wrap import (
    EC_WRAPPED,
    IV_SIZE,
    UnwrapError,
    agree,
    algorithm_of,
    algorithm_of_wrap,
    public_pem,
    seal_share,
    unwrap_with_secret,
    wrap_rsa,
)
from envelock_kas.asked import AskedKey, AskedObject
from envelock_kas.custody import AES, Custody
from envelock_kas.keys.registry import KeyVersion, Material


class ShareError(Exception):
    """A share that is not released; the message is the reason for the record, never the answer."""


@dataclass(frozen=True, slots=True)
class OpenedShare:
    """One share in the clear; it lives until the answer is written."""

    key: AskedKey
    share: bytes = field(repr=False)


async def unwrap_first(
    asked: AskedObject,
    key: AskedKey,
    versions: Sequence[KeyVersion],
    custodies: Mapping[str, Custody],
) -> OpenedShare:
    """Unwrap one share under the first of *versions* that does: one attempt with each.

    Returns:
        The share; its key then means the version that opened it.

    Raises:
        ShareError: None of them does; the reason is the last one's.
        CustodyError: The custody did not answer.
    """
    *others, last = versions
    for version in others:
        try:
            return await unwrap_share(asked, key, version, custodies)
        except ShareError:
            continue
    return await unwrap_share(asked, key, last, custodies)


async def unwrap_share(
    asked: AskedObject, key: AskedKey, version: KeyVersion, custodies: Mapping[str, Custody]
) -> OpenedShare:
    """Unwrap one share and check that it is bound to the object's policy (steps 7 and 8).

    Raises:
        ShareError: The version has no key for this kind of wrap, the wrap does not open, or the
            policy binding does not hold.
        CustodyError: The custody did not answer.
    """
    custody = custodies.get(version.custody)
    if custody is None:
        raise ShareError(f"key {version.id}: its custody is not configured")
    try:
        share = await _unwrap(asked, key, version, custody)
        holds = mac_holds(share, asked.entry.policy.body, key.decoded.mac)
    except (UnwrapError, DerError) as error:
        raise ShareError("unwrap failed") from error
    except UnsupportedAlgorithmError as error:
        raise ShareError("kind of wrap is not supported") from error
    if len(share) != SHARE_SIZE or not holds:
        raise ShareError("policy binding does not hold")
    return OpenedShare(replace(key, key_ids=(version.id,)), share)


async def _unwrap(
    asked: AskedObject, key: AskedKey, version: KeyVersion, custody: Custody
) -> bytes:
    if key.online is not None:
        if key.online.format != ONLINE_AES_GCM:
            raise UnwrapError
        handle = _material(version, AES).handle
        requested = asked.requested
        aad = online_aad(
            version.id.tenant, str(version.id), key.online.object_id, requested.policy_sha256
        )
        return await custody.unwrap(handle, key.online.rest, aad)
    if version.wraps == "online":
        # Whoever once read the object could wrap its key anew under a friendlier policy.
        raise ShareError(f"key {version.id} opens online wraps only")
    if key.access.type == EC_WRAPPED:
        if (peer := key.decoded.ephemeral) is None:
            raise UnwrapError
        secret = await custody.agree(_material(version, algorithm_of(peer)).handle, peer)
        return unwrap_with_secret(secret, key.decoded.wrapped)
    algorithm = algorithm_of_wrap(key.access)
    handle = _material(version, algorithm).handle
    if algorithm in KEM_TYPES:
        ciphertext, sealed = read_envelope(key.decoded.wrapped)
        secret = await custody.decapsulate(handle, ciphertext)
        return open_kem_share(algorithm, secret, sealed)
    return await custody.decrypt(handle, key.decoded.wrapped)


def _material(version: KeyVersion, algorithm: str) -> Material:
    if (material := version.material(algorithm)) is None:
        raise ShareError(f"key {version.id} has no {algorithm}")
    return material


class ShareSealer:
    """Seals shares to one client's key (step 9); an EC client gets one session key a request."""

    def __init__(self, client: ClientKey, entropy: Callable[[int], bytes]) -> None:
        self._client = client
        self._entropy = entropy
        self.session_pem: str | None = None
        if isinstance(client, ec.EllipticCurvePublicKey):
            session = ec.generate_private_key(client.curve)
            self._cipher = agree(session, client)
            self.session_pem = public_pem(session.public_key())

    def seal(self, share: bytes) -> bytes:
        """Seal one 32-byte share."""
        if isinstance(self._client, rsa.RSAPublicKey):
            return wrap_rsa(share, self._client)
        return seal_share(self._cipher, share, self._entropy(IV_SIZE))
