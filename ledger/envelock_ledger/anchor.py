"""The last checkpoints, kept apart from the database.

A database that is restored from yesterday agrees with itself; only something outside can tell that
it ends too early. The file is lines of text: first `envelock-anchor/1 VKEY`, then for every batch
`SIZE ROOT SIGNATURE`, root and signature blob in base64. Every line is a checkpoint signed by the
log. A last line without its newline, or with zeros in it, was never answered for and is dropped.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, from_b64
from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.errors import DamageError, LedgerUnavailableError, ProofError
from envelock_ledger.note import KEY_ID_SIZE, Note, Signature, Signer, VerifierKey
from envelock_ledger.store.files import FILE_MODE, Pinned, sync_folder, write_new

MAGIC = "envelock-anchor/1"
MAX_BYTES = 4 << 20  # then the file is replaced by one that begins with its last line
_LINE_PARTS = 3
_MEND = "do not start from this copy: follow the recovery procedure"


@dataclass(frozen=True, slots=True)
class Anchored:
    """The last line of an anchor file."""

    key: VerifierKey
    checkpoint: Checkpoint
    note: str  # the signed checkpoint


def create_anchor(path: Path, signer: Signer, empty: Checkpoint) -> None:
    """Create the file with the checkpoint of the empty log, durably; before genesis only."""
    write_new(path, f"{MAGIC} {signer.verifier}\n{_line(empty.sign(signer))}".encode())


def read_anchor(path: Path) -> Anchored:
    """Read and verify the last complete line.

    Raises:
        LedgerUnavailableError: The file cannot be read.
        DamageError: It is missing, malformed, or its last line is not signed by its key.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Anchored, int]:
    """The last line, and the length of the file up to its end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DamageError(f"anchor {path} is missing", _MEND) from error
    except OSError as error:
        raise LedgerUnavailableError(f"{path}: {error.strerror}") from error
    length = _whole(content)
    try:
        return _parse(content[:length]), length
    except (FormatError, ProofError, ValueError) as error:
        raise DamageError(f"anchor {path}: {error}", _MEND) from error


def _whole(content: bytes) -> int:
    """The length of *content* up to the end of its last complete line.

    A power cut may leave the end of a line that was being written, and zeros in front of it.
    """
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    return start if b"\0" in content[start:end] else end


class Anchor:
    """The open file, owned by the writer's thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, and drop a torn last line.

        Raises:
            LedgerUnavailableError: The file cannot be opened or written.
            DamageError: As for `read_anchor`.
        """
        self.path = path
        self.last, self._length = _read(path)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            os.ftruncate(self._descriptor, self._length)
        except OSError as error:
            raise LedgerUnavailableError(f"{path}: {error.strerror}") from error
        self._pin = Pinned(path)

    def append(self, note: str) -> None:
        """Add a signed checkpoint; it is durable when this returns.

        Raises:
            LedgerUnavailableError: It may or may not be; the anchor must be opened anew.
        """
        self._pin.check()
        line = _line(note).encode()
        try:
            if self._length > MAX_BYTES:
                self._restart()
            if os.write(self._descriptor, line) != len(line):
                raise LedgerUnavailableError(f"{self.path}: no space for a line")
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise LedgerUnavailableError(f"{self.path}: {error.strerror}") from error
        self._length += len(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _restart(self) -> None:
        """Replace the file by one that begins with the last line of this one."""
        last, _ = _read(self.path)
        content = f"{MAGIC} {last.key}\n{_line(last.note)}".encode()
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.unlink(missing_ok=True)
        write_new(beside, content)
        descriptor = os.open(beside, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        beside.rename(self.path)
        sync_folder(self.path.parent)
        os.close(self._descriptor)
        self._descriptor, self._length = descriptor, len(content)
        self._pin = Pinned(self.path)


def _line(note: str) -> str:
    parsed = Note.parse(note)
    checkpoint, [signature] = Checkpoint.parse(parsed.text), parsed.signatures
    blob = b64(signature.key_id + signature.raw)
    return f"{checkpoint.size} {b64(checkpoint.root)} {blob}\n"


def _parse(content: bytes) -> Anchored:
    lines = content.decode("ascii").split("\n")
    magic, _, key_text = lines[0].partition(" ")
    parts = lines[-2].split(" ") if len(lines) > 2 else []  # noqa: PLR2004 - head, line, rest
    if magic != MAGIC or len(parts) != _LINE_PARTS:
        raise ProofError("malformed")
    key = VerifierKey.parse(key_text)
    blob = from_b64(parts[2])
    signature = Signature(key.name, blob[:KEY_ID_SIZE], blob[KEY_ID_SIZE:])
    note = str(Note(f"{key.name}\n{parts[0]}\n{parts[1]}\n", (signature,)))
    return Anchored(key, open_checkpoint(note, key), note)
