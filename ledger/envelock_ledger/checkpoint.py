"""C2SP tlog checkpoints: what a log commits to, as the text that it signs.

Three lines: origin, size in decimal, root in base64. Extension lines are neither written nor read:
cosignatures do not cover them, so they would be a claim that nobody can audit.
"""

import re
from dataclasses import dataclass
from typing import Self

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, from_b64
from envelock_ledger.errors import ProofError
from envelock_ledger.merkle import EMPTY_ROOT, HASH_SIZE
from envelock_ledger.note import Note, Signer, VerifierKey

MAX_SIZE = 2**53 - 1
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z", re.ASCII)
_ORIGIN = re.compile(r"[^\x00-\x1f\x7f]+\Z")
_LINES = 4  # origin, size, root, and what follows the last newline


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A commitment to the first *size* records of the log *origin*.

    INVARIANT: `str(Checkpoint.parse(text)) == text` for every text accepted, so a signature over
    the text is a signature over the value.
    """

    origin: str  # one non-empty line
    size: int  # records
    root: bytes  # 32 bytes

    def __post_init__(self) -> None:
        if not _ORIGIN.match(self.origin) or len(self.root) != HASH_SIZE:
            raise ProofError("checkpoint with a malformed origin or root")
        if not 0 <= self.size <= MAX_SIZE:
            raise ProofError(f"checkpoint of size {self.size}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise ProofError("checkpoint of an empty tree with another root")

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a checkpoint without extension lines; `ProofError` for any other text."""
        lines = text.split("\n")
        if len(lines) != _LINES or lines[3] or not _SIZE.match(lines[1]):
            raise ProofError("not a checkpoint: expected origin, size and root")
        try:
            return cls(lines[0], int(lines[1]), from_b64(lines[2]))
        except FormatError as error:
            raise ProofError(f"checkpoint root: {error}") from error

    def sign(self, signer: Signer) -> str:
        """Return the signed note over this checkpoint."""
        return signer.sign(str(self))


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """Verify a signed checkpoint and return it.

    Raises:
        ProofError: The note does not parse, *key* did not sign it, or it is of another log: the
            origin must equal the name of the key.
    """
    checkpoint = Checkpoint.parse(Note.parse(note).verify(key))
    if checkpoint.origin != key.name:
        raise ProofError(f"checkpoint of {checkpoint.origin!r}, expected {key.name!r}")
    return checkpoint
