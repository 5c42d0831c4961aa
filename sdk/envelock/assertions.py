"""Assertions of a file: what a caller demands of them, and what became of each.

A file opens when every assertion in it verifies, and when those are there that the caller requires.
A caller who names a key for an id trusts that key alone for it. Without one an assertion verifies
under the data key, which everybody has who could ever open the file: it tells that the statement
belongs to this payload, not who made it.

SECURITY: assertions can be removed from a file without a trace. Only a caller who requires one
notices, and only under a key of its author does it say who spoke.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from envelock.errors import ConfigError, FormatError, TamperedError
from envelock_formats import errors as formats
from envelock_formats import jose
from envelock_formats.tdf.assertions import (
    MAX_ASSERTIONS,
    Assertion,
    SigningKey,
    StatedAssertion,
    Statement,
    VerifyingKey,
    aggregate,
    read_assertion,
    verify_assertion,
)
from envelock_formats.tdf.manifest import Manifest
from envelock_formats.tdf.shared_secret import Secret

__all__ = [
    "Assertion",
    "AssertionKey",
    "CheckedAssertion",
    "Demands",
    "Secret",
    "Statement",
    "signing_key",
    "verifying_key",
]

# A key object, a shared secret, or a key as PEM or DER: the path of its file, or its bytes.
AssertionKey: TypeAlias = SigningKey | VerifyingKey | PathLike[str] | bytes
_PEM = b"-----BEGIN"
_MAX_KEY_FILE = 64 * 1024
_SHOWN = 100  # characters of a stranger's id in a message


@dataclass(frozen=True, slots=True)
class CheckedAssertion:
    """One assertion of a file, and whether it verified.

    `signer` is `data key` (anybody who could ever open the file), `named key` (the one that the
    caller named for this id), or None; then `problem` says why.
    """

    id: str
    type: str
    scope: str
    applies_to: str
    statement: Statement | None
    signer: str | None
    problem: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the signature holds, for this payload."""
        return self.signer is not None


@dataclass(frozen=True, slots=True)
class Demands:
    """What a caller demands of the assertions in a file.

    With *strict* any assertion that does not verify refuses the file; without it they are listed
    with their problems. What is required must be there and verify either way.

    Args:
        required_assertions: Ids of those that must be there.
        keys: Whose signature an assertion must bear, by its id.
        strict: Refuse a file with any assertion that does not verify.

    Raises:
        ConfigError: A key cannot be read, or the ids are one text.
    """

    required_assertions: Collection[str] = ()  # ids
    keys: Mapping[str, AssertionKey] = field(default_factory=dict, repr=False)  # by id
    strict: bool = True
    _named: Mapping[str, VerifyingKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.required_assertions, str):
            raise ConfigError("required assertions are a list of ids, not one text")
        named = {name: verifying_key(key) for name, key in self.keys.items()}
        object.__setattr__(self, "_named", named)

    def require_present(self, manifest: Manifest) -> None:
        """Refuse a file that lacks what is required, before any server is asked for its key.

        Raises:
            FormatError: There are more assertions than are read.
            TamperedError: A required assertion is missing.
        """
        if len(manifest.assertions) > MAX_ASSERTIONS:
            raise FormatError(f"more than {MAX_ASSERTIONS} assertions")
        stated = {_id_of(value) for value in manifest.assertions} - {""}
        for name in sorted(set(self.required_assertions) - stated):
            raise _missing(name, "is missing")

    def check(self, manifest: Manifest, dek: bytes) -> tuple[CheckedAssertion, ...]:
        """Verify every assertion of a file whose root signature holds under *dek*.

        Raises:
            TamperedError: One that is required is missing or does not verify, or with *strict* any.
        """
        self.require_present(manifest)
        sums = aggregate(manifest.segments, legacy=manifest.legacy) if manifest.assertions else b""
        found = tuple(self._checked(value, manifest, sums, dek) for value in manifest.assertions)
        for checked in found:
            if not checked.verified and (self.strict or checked.id in self.required_assertions):
                raise _missing(checked.id, checked.problem or "does not verify")
        return found

    def _checked(
        self, value: object, manifest: Manifest, sums: bytes, dek: bytes
    ) -> CheckedAssertion:
        try:
            stated = read_assertion(value)
        except formats.FormatError as error:
            return CheckedAssertion(_id_of(value), "", "", "", None, None, str(error))
        signer, problem = self._verified(stated, manifest, sums, dek)
        return CheckedAssertion(
            *(stated.id, stated.type, stated.scope, stated.applies_to, stated.statement),
            signer=signer,
            problem=problem,
        )

    def _verified(
        self, stated: StatedAssertion, manifest: Manifest, sums: bytes, dek: bytes
    ) -> tuple[str | None, str | None]:
        """Who signed, or why nobody did."""
        if sum(_id_of(value) == stated.id for value in manifest.assertions) > 1:
            return None, "stands there twice"
        named = self._named.get(stated.id)
        if named is None and stated.algorithm not in {"HS256", ""}:
            return None, "is signed by somebody's key, and none was named for it"
        key = dek if named is None else named
        try:
            verify_assertion(stated, sums, key, legacy=manifest.legacy)
        except formats.FormatError as error:
            return None, str(error)
        return "data key" if named is None else "named key", None


def signing_key(key: AssertionKey) -> SigningKey:
    """The key that an assertion is signed with.

    Args:
        key: A private key of RSA or P-256, also as PEM or DER (bytes, or the path of a file), or a
            `Secret` for HS256.

    Raises:
        ConfigError: It is anything else, a public key say, or cannot be read.
    """
    found = _loaded(key)
    if isinstance(found, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise ConfigError("an assertion is signed with a private key, and this is a public one")
    return found


def with_checked_key(assertion: Assertion) -> Assertion:
    """*assertion* with its key as `signing_key` reads it."""
    return (
        assertion if assertion.key is None else replace(assertion, key=signing_key(assertion.key))
    )


def verifying_key(key: AssertionKey) -> VerifyingKey:
    """The key that an assertion must verify under; of a private key its public half.

    Args:
        key: A key of RSA or P-256, also as PEM or DER (bytes, or the path of a file; a public key
            as SubjectPublicKeyInfo), or a `Secret` for HS256.

    Raises:
        ConfigError: It is anything else, or cannot be read.
    """
    found = _loaded(key)
    if isinstance(found, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        return found.public_key()
    return found


def secret_of(path: Path) -> Secret:
    """The shared secret that the bytes of a file are, all of them.

    Raises:
        ConfigError: It cannot be read, is short, or is a key of another kind.
    """
    try:
        return Secret(_file(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _loaded(key: AssertionKey) -> SigningKey | VerifyingKey:
    if isinstance(key, Secret):
        return key
    if isinstance(key, PathLike):
        key = _file(Path(key))
    # SECURITY: bytes are a key or nothing. Were those of a public key taken for a secret, everybody
    # could sign with them.
    found = _parsed(key) if isinstance(key, bytes) else key
    if not isinstance(
        found,
        rsa.RSAPublicKey
        | rsa.RSAPrivateKey
        | ec.EllipticCurvePublicKey
        | ec.EllipticCurvePrivateKey,
    ):
        raise ConfigError("a key for assertions is of RSA or P-256, or a shared secret")
    _refuse_weak(found)
    return found


def _refuse_weak(key: SigningKey | VerifyingKey) -> None:
    public = key if isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)) else None
    if isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        public = key.public_key()
    try:
        if public is not None:
            jose.algorithm(public)
    except formats.FormatError as error:
        raise ConfigError(f"key for assertions: {error}") from error


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            found = stream.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise ConfigError(f"key for assertions {path}: {error.strerror}") from error
    if len(found) > _MAX_KEY_FILE:
        raise ConfigError(f"key for assertions {path}: more than {_MAX_KEY_FILE} bytes")
    return found


def _parsed(data: bytes) -> object:
    """The key that PEM or DER is."""
    try:
        if _PEM not in data:
            return _from_der(data)
        if b"PUBLIC KEY-----" in data:
            return load_pem_public_key(data)
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "key for assertions: neither PEM nor DER of a key without a password",
            hint="name a shared secret as ID=secret:FILE, in Python as envelock.Secret(bytes)",
        ) from error


def _from_der(data: bytes) -> object:
    try:
        return load_der_public_key(data)
    except ValueError:
        return load_der_private_key(data, password=None)


def _id_of(value: object) -> str:
    name = value.get("id") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _missing(name: str, problem: str) -> TamperedError:
    return TamperedError(
        f"assertion {name[:_SHOWN]!r}: {problem}",
        code="assertion",
        hint="name the key of its author, or fetch the file anew from its source",
    )
