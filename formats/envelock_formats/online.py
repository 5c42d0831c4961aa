"""Data keys that the key access server makes: wrapped online, and sealed to the caller.

An *online wrap* is a `wrappedKey` under a symmetric key that never leaves the custody:
`0xE2 | format u8 | object id 16 | rest`. Format 1 is nonce 12, ciphertext 32, tag 16; format 2 is
the custody's own bytes. Its associated data binds tenant, key, object and policy. Beside it the
data key itself travels to the caller under HPKE (RFC 9180), bound to the request and to the wrap.
"""

from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from envelock_formats.errors import FormatError
from envelock_formats.framing import digest, framed
from envelock_formats.tdf.keyaccess import SHARE_SIZE
from envelock_formats.wrap import (
    EC_WRAPPED_SIZE,
    IV_SIZE,
    TAG_SIZE,
    UnwrapError,
    checked_share,
    refuse_other_curves,
)

OBJECT_ID_SIZE = 16
ONLINE_MARK = 0xE2
ONLINE_AES_GCM = 1  # format: nonce 12, ciphertext 32, tag 16
ONLINE_CUSTODY = 2  # format: whatever the custody returned
ONLINE_HEAD_SIZE = 2 + OBJECT_ID_SIZE
ONLINE_SIZE = ONLINE_HEAD_SIZE + EC_WRAPPED_SIZE  # of format 1
MAX_ONLINE_SIZE = 8192
HPKE_SEALED_SIZE = 65 + SHARE_SIZE + TAG_SIZE  # encapsulated point, ciphertext, tag
_RSA_SIZES = frozenset({256, 384, 512})  # bytes of a wrap under 2048, 3072 and 4096 bits
_HPKE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class OnlineWrap:
    """A data key wrapped by the KAS under a symmetric key that never leaves its custody.

    INVARIANT: `bytes(OnlineWrap.parse(raw)) == raw` for every *raw* accepted, and no accepted *raw*
    is as long as an RSA wrap, so a `wrapped` value is read in exactly one way.
    """

    format: int  # ONLINE_AES_GCM or ONLINE_CUSTODY
    object_id: bytes  # 16, minted by the KAS
    rest: bytes = field(repr=False)  # nonce, ciphertext and tag, or the custody's own bytes

    def __post_init__(self) -> None:
        size = ONLINE_HEAD_SIZE + len(self.rest)
        fits = {
            ONLINE_AES_GCM: size == ONLINE_SIZE,
            ONLINE_CUSTODY: ONLINE_HEAD_SIZE < size <= MAX_ONLINE_SIZE
            and size not in _RSA_SIZES | {ONLINE_SIZE},
        }
        if len(self.object_id) != OBJECT_ID_SIZE or not fits.get(self.format, False):
            raise FormatError("online wrap has another length or format")

    def __bytes__(self) -> bytes:
        return bytes((ONLINE_MARK, self.format)) + self.object_id + self.rest

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a decoded `wrappedKey`.

        Raises:
            FormatError: Another first byte (expected and seen are named), length or format.
        """
        if len(raw) <= ONLINE_HEAD_SIZE:
            raise FormatError("online wrap has another length or format")
        if raw[0] != ONLINE_MARK:
            raise FormatError(f"online wrap starts with {ONLINE_MARK:#x}, not {raw[0]:#x}")
        return cls(raw[1], raw[2:ONLINE_HEAD_SIZE], raw[ONLINE_HEAD_SIZE:])

    @property
    def id(self) -> str:
        """The object id as text: 32 lower-case hex digits."""
        return self.object_id.hex()


def is_online(wrapped: bytes) -> bool:
    """Whether a decoded `wrappedKey` of type `wrapped` is an online wrap: length, then first byte.

    A value of an RSA wrap's length never is one, whatever its first byte.
    """
    if len(wrapped) in _RSA_SIZES or len(wrapped) <= ONLINE_HEAD_SIZE:
        return False
    return wrapped[0] == ONLINE_MARK


def online_aad(tenant: str, key_id: str, object_id: bytes, policy_sha256: bytes) -> bytes:
    """Associated data of an online wrap: it opens for this tenant, key, object and policy alone.

    Args:
        tenant: Owner.
        key_id: `path:vN`, version included.
        object_id: 16 bytes.
        policy_sha256: Digest of the policy's base64 text, 32 bytes.
    """
    return framed(
        "envelock/online-wrap/v1", tenant.encode(), key_id.encode(), object_id, policy_sha256
    )


def rebound_id(former: str, new_policy: bytes) -> bytes:
    """The object id of an online wrap that replaces another under a new policy: 16 bytes.

    It follows from what is replaced, so that the same replacement, asked for again, is the same.

    Args:
        former: Id of the object whose policy is replaced, as text.
        new_policy: `policy_sha256` of the new policy, 32 bytes.
    """
    return digest("envelock/rebind/v1", former.encode(), new_policy)[:OBJECT_ID_SIZE]


def wrap_online(
    share: bytes, cipher: AESGCM, *, object_id: bytes, nonce: bytes, aad: bytes
) -> OnlineWrap:
    """Wrap a 32-byte *share* in format 1, where the custody is this process.

    Args:
        share: The data key.
        cipher: Under the key encryption key.
        object_id: 16 bytes, the same as in *aad*.
        nonce: 12 fresh random bytes.
        aad: Of `online_aad`.
    """
    sealed = cipher.encrypt(nonce, checked_share(share), aad)
    return OnlineWrap(ONLINE_AES_GCM, object_id, nonce + sealed)


def unwrap_online(wrap: OnlineWrap, cipher: AESGCM, aad: bytes) -> bytes:
    """Undo `wrap_online`: the 32-byte share.

    Raises:
        UnwrapError: For every cause, another format among them.
    """
    if wrap.format != ONLINE_AES_GCM:
        raise UnwrapError
    try:
        return cipher.decrypt(wrap.rest[:IV_SIZE], wrap.rest[IV_SIZE:], aad)
    except InvalidTag as error:
        raise UnwrapError from error


def hpke_info(request_digest: bytes, object_id: bytes, wrapped_key: bytes) -> bytes:
    """HPKE `info` of a sealed data key: bound to the request, the object and the very wrap.

    Args:
        request_digest: 32 bytes.
        object_id: 16 bytes.
        wrapped_key: The decoded `wrappedKey` that is handed out beside the data key.
    """
    return framed(
        "envelock/datakey/v1",
        request_digest,
        object_id,
        digest("envelock/wrapped-key/v1", wrapped_key),
    )


def seal_data_key(dek: bytes, key: ec.EllipticCurvePublicKey, info: bytes) -> bytes:
    """Seal a 32-byte data key to the caller's ephemeral P-256 key: 113 bytes.

    RFC 9180 base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; encapsulated point 65,
    ciphertext 32, tag 16.

    Raises:
        UnsupportedAlgorithmError: The key is on another curve.
    """
    refuse_other_curves(key)
    return _HPKE.encrypt(checked_share(dek), key, info)


def open_data_key(sealed: bytes, key: ec.EllipticCurvePrivateKey, info: bytes) -> bytes:
    """Undo `seal_data_key`: the 32-byte data key.

    Raises:
        UnwrapError: For every cause.
    """
    if len(sealed) != HPKE_SEALED_SIZE or not isinstance(key.curve, ec.SECP256R1):
        raise UnwrapError
    try:
        return _HPKE.decrypt(sealed, key, info)
    except (InvalidTag, ValueError) as error:
        raise UnwrapError from error
