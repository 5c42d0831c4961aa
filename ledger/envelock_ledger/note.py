"""C2SP signed notes with Ed25519 (algorithm byte 0x01).

A note is text that ends in a newline, an empty line, and signature lines
`— NAME BASE64(key id | signature)`. The key id is the first four bytes of SHA-256 over the name, a
newline, the algorithm byte and the public key. Signatures by unknown keys are ignored; a bad
signature that claims a known key refuses the whole note.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, from_b64
from envelock_ledger.errors import ProofError

ED25519 = 0x01
KEY_SIZE = 32  # bytes of a public key
KEY_ID_SIZE = 4  # bytes
MAX_NOTE = 1 << 20  # characters
MAX_SIGNATURES = 100
_NAME = re.compile(r"[^\s+]+\Z")  # \s is every Unicode space
_KEY = re.compile(r"(?P<name>[^\s+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]+=*)\Z")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]")  # and halves of characters
_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<blob>[A-Za-z0-9+/]+=*)\Z")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a log's key, and the name it signs under.

    INVARIANT: `str(VerifierKey.parse(text)) == text` for every text accepted.
    """

    name: str
    public: bytes  # 32 bytes, Ed25519

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or _CONTROL.search(self.name):
            raise ProofError(f"key name {self.name[:100]!r}: no spaces and no '+'")
        if len(self.public) != KEY_SIZE:
            raise ProofError(f"public key of {len(self.public)} bytes, expected {KEY_SIZE}")

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([ED25519]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        """Four bytes that say which key a signature line claims."""
        material = self.name.encode() + b"\n" + bytes([ED25519]) + self.public
        return hashlib.sha256(material).digest()[:KEY_ID_SIZE]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME+HEXID+BASE64`; `ProofError` for anything else, or when the id is wrong."""
        found = _KEY.match(text)
        if found is None:
            raise ProofError(f"verifier key {text[:100]!r}: expected NAME+HEXID+BASE64")
        material = _bytes(found["key"], "verifier key")
        if material[0] != ED25519:
            raise ProofError(f"verifier key of algorithm {material[0]:#04x}, expected Ed25519")
        key = cls(found["name"], material[1:])
        if key.key_id.hex() != found["id"]:
            raise ProofError(f"verifier key {text[:100]!r}: id does not belong to the key")
        return key


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line; what *raw* means depends on the key, which may be unknown."""

    name: str
    key_id: bytes
    raw: bytes

    def __str__(self) -> str:
        return f"— {self.name} {b64(self.key_id + self.raw)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signature lines under it; nothing is verified yet.

    INVARIANT: `str(Note.parse(text)) == text` for every text accepted.
    """

    text: str  # ends in a newline
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(map(str, self.signatures))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split a note at its last empty line, strictly; `ProofError` otherwise."""
        if len(text) > MAX_NOTE or _CONTROL.search(text) or not text.endswith("\n"):
            raise ProofError("not a signed note")
        head, blank, tail = text.rpartition("\n\n")
        lines = tail.split("\n")[:-1]
        if not blank or not 0 < len(lines) <= MAX_SIGNATURES:
            raise ProofError("not a signed note: no signature lines")
        return cls(head + "\n", tuple(map(_signature, lines)))

    def verify(self, key: VerifierKey) -> str:
        """Return the text when *key* signed it.

        Raises:
            ProofError: No signature by *key*, or one that claims to be and does not verify.
        """
        public = _public(key)
        claimed = [s for s in self.signatures if (s.name, s.key_id) == (key.name, key.key_id)]
        if not claimed:
            raise ProofError(f"note is not signed by {key.name} ({key.key_id.hex()})")
        for signature in claimed:
            try:
                public.verify(signature.raw, self.text.encode())
            except (InvalidSignature, UnicodeEncodeError) as error:
                raise ProofError(f"signature of {key.name} does not verify") from error
        return self.text


class Signer:
    """Signs notes under one name with one Ed25519 key, which it keeps to itself."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier = VerifierKey(name, key.public_key().public_bytes_raw())
        self._key_id = self.verifier.key_id

    def sign(self, text: str) -> str:
        """Return the note over *text*, which must end in a newline. Equal texts, equal notes."""
        signature = Signature(self.verifier.name, self._key_id, self._key.sign(text.encode()))
        return str(Note(text, (signature,)))


def _public(key: VerifierKey) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(key.public)
    except ValueError as error:
        raise ProofError(f"public key of {key.name} is not an Ed25519 key") from error


def _signature(line: str) -> Signature:
    found = _LINE.match(line)
    if found is None:
        raise ProofError("malformed signature line")
    blob = _bytes(found["blob"], "signature line")
    if len(blob) <= KEY_ID_SIZE:
        raise ProofError("signature line without a signature")
    return Signature(found["name"], blob[:KEY_ID_SIZE], blob[KEY_ID_SIZE:])


def _bytes(text: str, what: str) -> bytes:
    try:
        return from_b64(text)
    except FormatError as error:
        raise ProofError(f"{what}: {error}") from error
