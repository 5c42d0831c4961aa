"""KEKs in a PKCS#11 token: SoftHSM2 in tests, any HSM with AES-GCM and associated data.

Keys are made inside the token: sensitive, never extractable, without wrap or unwrap usage.
Symmetric KEKs work by C_Encrypt and C_Decrypt with CKM_AES_GCM, so associated data is checked
inside. RSA-OAEP (SHA-1, as clients write) returns the share; ECDH returns the shared secret, and
the KDF runs in our process.

python-pkcs11 initialises the library for a single thread and yet lets threads call it at once,
which crashes; so every call is made on this custody's one thread, with a deadline, and a token that
hangs starves nobody else. One session logs in and stays open: closing it logs the process out.

A token reports a wrong ciphertext and a fault of its own with the same word. After a failure the
key is tried on a value of ours: if that works the ciphertext was wrong, else the token is at fault,
and session and handles are opened anew.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import Attribute, Mechanism, ObjectClass
from pkcs11.types import DecryptMixin, DeriveMixin, EncryptMixin
from pkcs11.util.ec import (
    decode_ec_private_key,
    decode_ec_public_key,
    encode_ec_public_key,
    encode_named_curve_parameters,
)
from pkcs11.util.rsa import (
    decode_rsa_private_key,
    decode_rsa_public_key,
    encode_rsa_public_key,
)

from envelock_formats.kem import KemPrivateKey
from envelock_formats.privatekey import PrivateKey, algorithm_of_private
from envelock_formats.wrap import UnwrapError, algorithm_of, curve_of, wrap_rsa
from envelock_kas.custody import AES, CLASSIC, EC_ALGORITHMS, Made, handle_of, require_held
from envelock_kas.errors import CustodyError, KeyExistsError, RefusedKeyError

NONCE_SIZE = 12
_TAG_BITS = 128
_MAKING = 12  # times the deadline: a token looks for the primes of an RSA key for seconds
_MAX_WAITING = 1000
_PROBE = bytes(range(32))
_KEPT: Mapping[Attribute, object] = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.UNWRAP: False,
}
# What a token says that does not let keys be created from their values, or not of this kind.
_REFUSED = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.FunctionNotSupported,
    pkcs11.FunctionRejected,
    pkcs11.KeySizeRange,
    pkcs11.MechanismInvalid,
    pkcs11.TemplateIncomplete,
    pkcs11.TemplateInconsistent,
)
T = TypeVar("T")
M = TypeVar("M")


class Pkcs11Custody:
    """Keys in the token *token_label* of the PKCS#11 *module*.

    Args:
        module: Path of the shared library.
        token_label: Label of an initialised token.
        pin_file: File with the user PIN; read at login, never kept.
        entropy: n random bytes, for nonces.
        deadline_seconds: How long one operation may take, waiting included; making a key may take
            twelve times as long, and holds up the others meanwhile.
    """

    name = "pkcs11"
    algorithms: Sequence[str] = CLASSIC

    def __init__(
        self,
        *,
        module: Path,
        token_label: str,
        pin_file: Path,
        entropy: Callable[[int], bytes],
        deadline_seconds: float,
    ) -> None:
        self._module = module
        self._token_label = token_label
        self._pin_file = pin_file
        self._entropy = entropy
        self._deadline_seconds = deadline_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pkcs11")
        self._waiting = 0
        self._session: pkcs11.Session | None = None  # owned by the thread, like the handles
        self._keys: dict[str, pkcs11.Key] = {}
        self._samples: dict[str, bytes] = {}  # by AES key: what it wrapped, once

    async def make(self, label: str, algorithms: Sequence[str]) -> Sequence[Made]:
        require_held(self, algorithms)
        return await self._call(
            lambda: [self._make(label, name) for name in algorithms],
            seconds=_MAKING * self._deadline_seconds,
        )

    async def adopt(self, label: str, key: PrivateKey) -> Made:
        require_held(self, [algorithm_of_private(key)])
        if isinstance(key, KemPrivateKey):
            raise RefusedKeyError("the token holds no KEM keys")
        return await self._call(
            lambda: self._adopt(label, key), seconds=_MAKING * self._deadline_seconds
        )

    async def wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        return await self._call(lambda: self._wrap(handle, dek, aad))

    async def unwrap(self, handle: str, wrapped: bytes, aad: bytes) -> bytes:
        return await self._call(
            lambda: self._classified(handle, lambda: self._unwrap(handle, wrapped, aad))
        )

    async def decrypt(self, handle: str, wrapped: bytes) -> bytes:
        def decrypt() -> bytes:
            key = self._usable(handle, DecryptMixin)
            return _whole(key.decrypt(wrapped, mechanism=Mechanism.RSA_PKCS_OAEP))

        return await self._call(lambda: self._classified(handle, decrypt))

    async def agree(self, handle: str, peer: ec.EllipticCurvePublicKey) -> bytes:
        return await self._call(lambda: self._classified(handle, lambda: self._agree(handle, peer)))

    async def decapsulate(self, handle: str, ciphertext: bytes) -> bytes:
        raise CustodyError(f"no key {handle!r} in the token for {len(ciphertext)} bytes of a KEM")

    async def public(self, handle: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        return await self._call(lambda: self._public(handle))

    async def handles(self) -> Sequence[str]:
        return await self._call(self._handles)

    async def destroy(self, handle: str) -> None:
        await self._call(lambda: self._destroy(handle))

    async def aclose(self) -> None:
        forgetting = asyncio.get_running_loop().run_in_executor(self._thread, self._forget)
        await asyncio.wait({forgetting}, timeout=self._deadline_seconds)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _call(self, operation: Callable[[], T], *, seconds: float | None = None) -> T:
        """Run *operation* on the thread; `CustodyError` when that fails or takes too long."""
        if self._waiting >= _MAX_WAITING:
            raise CustodyError("too many operations wait for the token")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline_seconds if seconds is None else seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._translated, operation)
        except TimeoutError as error:
            raise CustodyError("the token does not answer") from error
        finally:
            self._waiting -= 1

    def _translated(self, operation: Callable[[], T]) -> T:
        try:
            return operation()
        except (pkcs11.PKCS11Error, OSError, RuntimeError) as error:
            self._forget()
            raise CustodyError(f"token failed: {type(error).__name__}") from error

    def _classified(self, handle: str, operation: Callable[[], bytes]) -> bytes:
        """Run *operation*; after a failure find out whether the token is at fault."""
        try:
            return operation()
        except (pkcs11.PKCS11Error, ValueError) as error:
            self._probe(handle)
            raise UnwrapError from error

    def _probe(self, handle: str) -> None:
        """Use the key on a value of ours; raises when the token is at fault."""
        algorithm = _algorithm(handle)
        if algorithm == AES:
            # Wrapped once: callers who send garbage must not make a key wrap, which is counted.
            if handle not in self._samples:
                self._samples[handle] = self._wrap(handle, _PROBE, b"")
            self._unwrap(handle, self._samples[handle], b"")
        elif algorithm in EC_ALGORITHMS:
            self._agree(handle, ec.generate_private_key(curve_of(algorithm)).public_key())
        elif isinstance(public := self._public(handle), rsa.RSAPublicKey):
            sealed = wrap_rsa(_PROBE, public)
            key = self._usable(handle, DecryptMixin)
            key.decrypt(sealed, mechanism=Mechanism.RSA_PKCS_OAEP)

    def _wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        nonce = self._entropy(NONCE_SIZE)
        parameters = pkcs11.GCMParams(nonce, aad, _TAG_BITS)
        key = self._usable(handle, EncryptMixin)
        sealed = key.encrypt(dek, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        return nonce + _whole(sealed)

    def _unwrap(self, handle: str, wrapped: bytes, aad: bytes) -> bytes:
        parameters = pkcs11.GCMParams(wrapped[:NONCE_SIZE], aad, _TAG_BITS)
        key = self._usable(handle, DecryptMixin)
        opened = key.decrypt(
            wrapped[NONCE_SIZE:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters
        )
        return _whole(opened)

    def _agree(self, handle: str, peer: ec.EllipticCurvePublicKey) -> bytes:
        if f"ec:{peer.curve.name}" != _algorithm(handle):
            raise UnwrapError
        point = peer.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        derived = self._usable(handle, DeriveMixin).derive_key(
            pkcs11.KeyType.GENERIC_SECRET,
            8 * ((peer.curve.key_size + 7) // 8),
            mechanism=Mechanism.ECDH1_DERIVE,
            mechanism_param=(pkcs11.KDF.NULL, None, point),
            store=False,
            capabilities=pkcs11.MechanismFlag(0),
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        try:
            return bytes(derived[Attribute.VALUE])
        finally:
            derived.destroy()

    def _make(self, label: str, algorithm: str) -> Made:
        handle = handle_of(label, algorithm)
        session, key_id = self._fresh(handle)
        flags = pkcs11.MechanismFlag
        if algorithm == AES:
            session.generate_key(
                pkcs11.KeyType.AES,
                256,
                store=True,
                capabilities=flags.ENCRYPT | flags.DECRYPT,
                template={**_KEPT, Attribute.WRAP: False},
                id=key_id,
                label=handle,
            )
            return Made(algorithm, handle, None)
        if algorithm in EC_ALGORITHMS:
            curve_name = curve_of(algorithm).name
            curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve_name)}
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            parameters.generate_keypair(
                store=True,
                capabilities=flags.DERIVE,
                private_template=dict(_KEPT),
                id=key_id,
                label=handle,
            )
        else:
            session.generate_keypair(
                pkcs11.KeyType.RSA,
                int(algorithm.partition(":")[2]),
                store=True,
                capabilities=flags.ENCRYPT | flags.DECRYPT,
                private_template=dict(_KEPT),
                id=key_id,
                label=handle,
            )
        return Made(algorithm, handle, self._public(handle))

    def _adopt(self, label: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Made:
        """Create both halves in the token, the private one with the same usage as one made there.

        The key may have been elsewhere, so the token shows it as neither local nor always
        sensitive.
        """
        algorithm = algorithm_of(key.public_key())
        handle = handle_of(label, algorithm)
        session, key_id = self._fresh(handle)
        named = {Attribute.TOKEN: True, Attribute.LABEL: handle, Attribute.ID: key_id}
        der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        if isinstance(key, rsa.RSAPrivateKey):
            flags = pkcs11.MechanismFlag
            private = decode_rsa_private_key(der, capabilities=flags.DECRYPT)
            spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
            public = decode_rsa_public_key(spki, capabilities=flags.ENCRYPT)
        else:
            private = decode_ec_private_key(der) | {Attribute.DERIVE: True, Attribute.SIGN: False}
            spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            public = decode_ec_public_key(spki)
        try:
            session.create_object(public | named)
            session.create_object({**private, **named, Attribute.PRIVATE: True, **_KEPT})
        except _REFUSED as error:
            self._destroy(handle)
            raise RefusedKeyError(
                f"the token takes over no {algorithm} key: {type(error).__name__}"
            ) from error
        return Made(algorithm, handle, self._public(handle))

    def _fresh(self, handle: str) -> tuple[pkcs11.Session, bytes]:
        """The session and the id for a new key; `KeyExistsError` when there is one of the name."""
        session = self._open()
        if any(True for _ in session.get_objects({Attribute.LABEL: handle})):
            raise KeyExistsError(handle)
        return session, hashlib.sha256(handle.encode()).digest()[:16]

    def _public(self, handle: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        key = self._find(handle, ObjectClass.PUBLIC_KEY)
        if not isinstance(key, pkcs11.PublicKey):
            raise CustodyError(f"no key {handle!r} in the token")
        of_curve = _algorithm(handle) in EC_ALGORITHMS
        encode = encode_ec_public_key if of_curve else encode_rsa_public_key
        public = load_der_public_key(encode(key))
        if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise CustodyError(f"{handle} is not an EC or RSA key")
        return public

    def _handles(self) -> Sequence[str]:
        found = self._open().get_objects({Attribute.TOKEN: True})
        labels = {str(key.label) for key in found if isinstance(key, pkcs11.Key)}
        return sorted(label for label in labels if "#" in label)

    def _destroy(self, handle: str) -> None:
        self._keys.pop(handle, None)
        for found in list(self._open().get_objects({Attribute.LABEL: handle})):
            found.destroy()

    def _usable(self, handle: str, operation: type[M]) -> M:
        """The secret or private key behind *handle*, which must offer *operation*."""
        if (key := self._keys.get(handle)) is None:
            secret = _algorithm(handle) == AES
            kind = ObjectClass.SECRET_KEY if secret else ObjectClass.PRIVATE_KEY
            key = self._keys[handle] = self._find(handle, kind)
        if not isinstance(key, operation):
            raise CustodyError(f"{handle} is a key of another kind")
        return key

    def _find(self, handle: str, kind: ObjectClass) -> pkcs11.Key:
        try:
            return self._open().get_key(object_class=kind, label=handle)
        except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned) as error:
            raise CustodyError(f"no key {handle!r} in the token") from error

    def _open(self) -> pkcs11.Session:
        """The session that is logged in; opened on first use and after a failure."""
        if self._session is None:
            library = pkcs11.lib(str(self._module))
            token = library.get_token(token_label=self._token_label)
            pin = self._pin_file.read_text("utf-8").strip()
            self._session = token.open(rw=True, user_pin=pin)
        return self._session

    def _forget(self) -> None:
        """Drop session, handles and library state, so that the next call begins anew."""
        session, self._session = self._session, None
        self._keys.clear()
        if session is None:
            return
        try:
            session.close()
        except pkcs11.PKCS11Error:
            return  # the token is gone, and its sessions with it
        finally:
            pkcs11.unload(str(self._module))


def _algorithm(handle: str) -> str:
    """The algorithm that a handle names after its `#`.

    Raises:
        CustodyError: The handle is none of ours.
    """
    algorithm = handle.rpartition("#")[2].replace("-", ":", 1)
    if algorithm not in CLASSIC:
        raise CustodyError(f"no key {handle!r} in the token")
    return algorithm


def _whole(output: bytes | Iterator[bytes]) -> bytes:
    return output if isinstance(output, bytes) else b"".join(output)
