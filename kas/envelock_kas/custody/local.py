"""KEKs in files of this machine.

SECURITY: no custody at all: whoever reads the directory, or this process's memory, has the keys. It
is for development and refuses `environment = "production"` where the server is put together.

One file for each key, named by its handle, written and fsynced before it is named in a record.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envelock_formats.errors import FormatError
from envelock_formats.kem import KemPrivateKey
from envelock_formats.privatekey import (
    PrivateKey,
    algorithm_of_private,
    pkcs8_of,
    read_private_key,
)
from envelock_formats.publickey import PublicKey
from envelock_formats.wrap import UnwrapError, curve_of, unwrap_rsa
from envelock_kas.custody import (
    AES,
    ALGORITHMS,
    EC_ALGORITHMS,
    KEM_ALGORITHMS,
    Made,
    handle_of,
    require_held,
)
from envelock_kas.errors import CustodyError, KeyExistsError

NONCE_SIZE = 12
_KEY_SIZE = 32


class LocalCustody:
    """Keys in *directory*, mode 0700; loaded once and kept in memory."""

    name = "local"
    algorithms: Sequence[str] = ALGORITHMS

    def __init__(self, directory: Path, entropy: Callable[[int], bytes]) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(directory.parent)
        self._directory = directory
        self._entropy = entropy
        self._symmetric: dict[str, AESGCM] = {}
        self._private: dict[str, PrivateKey] = {}

    async def make(self, label: str, algorithms: Sequence[str]) -> Sequence[Made]:
        require_held(self, algorithms)
        return [self._make(algorithm, handle_of(label, algorithm)) for algorithm in algorithms]

    async def adopt(self, label: str, key: PrivateKey) -> Made:
        algorithm = algorithm_of_private(key)
        require_held(self, [algorithm])
        return self._keep(algorithm, handle_of(label, algorithm), key)

    async def wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        nonce = self._entropy(NONCE_SIZE)
        return nonce + self._aead(handle).encrypt(nonce, dek, aad)

    async def unwrap(self, handle: str, wrapped: bytes, aad: bytes) -> bytes:
        try:
            return self._aead(handle).decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], aad)
        except (InvalidTag, ValueError) as error:
            raise UnwrapError from error

    async def decrypt(self, handle: str, wrapped: bytes) -> bytes:
        return unwrap_rsa(wrapped, self._rsa(handle))

    async def agree(self, handle: str, peer: ec.EllipticCurvePublicKey) -> bytes:
        try:
            return self._ec(handle).exchange(ec.ECDH(), peer)
        except ValueError as error:  # a key on another curve
            raise UnwrapError from error

    async def decapsulate(self, handle: str, ciphertext: bytes) -> bytes:
        if isinstance(key := self._load(handle), KemPrivateKey):
            return key.decapsulate(ciphertext)
        raise UnwrapError

    async def public(self, handle: str) -> PublicKey:
        return self._load(handle).public_key()

    async def handles(self) -> Sequence[str]:
        try:
            return sorted(entry.name for entry in self._directory.iterdir() if "#" in entry.name)
        except OSError as error:
            raise CustodyError("the key directory cannot be read") from error

    async def destroy(self, handle: str) -> None:
        self._symmetric.pop(handle, None)
        self._private.pop(handle, None)
        try:
            self._file(handle).unlink(missing_ok=True)
            _sync(self._directory)
        except OSError as error:
            raise CustodyError(f"{handle} cannot be removed") from error

    async def aclose(self) -> None:
        self._symmetric.clear()
        self._private.clear()

    def _make(self, algorithm: str, handle: str) -> Made:
        if algorithm == AES:
            self._write(handle, self._entropy(_KEY_SIZE))
            return Made(algorithm, handle, None)
        key: PrivateKey
        if algorithm in EC_ALGORITHMS:
            key = ec.generate_private_key(curve_of(algorithm))
        elif algorithm in KEM_ALGORITHMS:
            key = KemPrivateKey.generate(algorithm, self._entropy)
        else:
            key = rsa.generate_private_key(0x10001, int(algorithm.partition(":")[2]))
        return self._keep(algorithm, handle, key)

    def _keep(self, algorithm: str, handle: str, key: PrivateKey) -> Made:
        self._write(handle, pkcs8_of(key))
        self._private[handle] = key
        return Made(algorithm, handle, key.public_key())

    def _write(self, handle: str, material: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(self._file(handle), flags, 0o600)
        except FileExistsError as error:
            raise KeyExistsError(handle) from error
        except OSError as error:
            raise CustodyError(f"{handle} cannot be written") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(material)
            file.flush()
            os.fsync(file.fileno())
        _sync(self._directory)

    def _file(self, handle: str) -> Path:
        if "/" in handle or handle.startswith("."):
            raise CustodyError(f"no key {handle!r}")
        return self._directory / handle

    def _read(self, handle: str) -> bytes:
        try:
            return self._file(handle).read_bytes()
        except OSError as error:
            raise CustodyError(f"no key {handle!r}") from error

    def _aead(self, handle: str) -> AESGCM:
        if (aead := self._symmetric.get(handle)) is None:
            aead = self._symmetric[handle] = AESGCM(self._read(handle))
        return aead

    def _load(self, handle: str) -> PrivateKey:
        if (known := self._private.get(handle)) is not None:
            return known
        try:
            key = read_private_key(self._read(handle))
        except FormatError as error:
            raise CustodyError(f"{handle} is not a key of a known kind") from error
        self._private[handle] = key
        return key

    def _rsa(self, handle: str) -> rsa.RSAPrivateKey:
        if isinstance(key := self._load(handle), rsa.RSAPrivateKey):
            return key
        raise UnwrapError

    def _ec(self, handle: str) -> ec.EllipticCurvePrivateKey:
        if isinstance(key := self._load(handle), ec.EllipticCurvePrivateKey):
            return key
        raise UnwrapError


def _sync(directory: Path) -> None:
    """Make the names in *directory* durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
