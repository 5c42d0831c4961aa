"""Receipts: one record, and everything that proves it is in the log.

As text a receipt is a C2SP `.tlog-proof`: a header, an `extra` line, the index, the inclusion path,
an empty line and the signed checkpoint. The `extra` line is base64 of the canonical JSON
`{"consistency": {"from", "hashes"}?, "openings": {field: [salt, value]}, "record", "v": 1}`, with
bytes in base64. Nothing in it is signed by itself: the record is covered by the path, openings by
the commitments in the record, the consistency proof by both checkpoints.

Not checked here: that the record is about the reader's request, or that others see this same log.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import msgspec

from envelock_formats import canonical
from envelock_formats.canonical import Json
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, from_b64
from envelock_ledger import merkle, record
from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.commitments import check
from envelock_ledger.errors import ProofError, RecordError
from envelock_ledger.note import VerifierKey

HEADER = "c2sp.org/tlog-proof@v1"
VERSION = 1
MAX_HASHES = 63
MAX_TEXT = 1 << 20  # characters
MAX_EXTRA = 768 << 10  # bytes of JSON
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Consistency:
    """Proof that the tree of the receipt's checkpoint extends an earlier one."""

    size: int  # of the earlier tree, at least 1
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record that a log's key vouches for; made by `Receipt.verify` alone."""

    index: int
    raw: bytes
    fields: dict[str, Json]  # the record, parsed
    openings: dict[str, Json] = field(repr=False)  # personal fields that the receipt opens
    checkpoint: Checkpoint
    consistency: Consistency | None  # not checked yet: `check_extends`

    def check_extends(self, size: int, root: bytes) -> None:
        """Check that this log only grew since an earlier checkpoint of *size* and *root*.

        Raises:
            ProofError: It did not, or the receipt does not prove it from that size.
        """
        same = self.checkpoint.size == size
        if not same and (self.consistency is None or self.consistency.size != size):
            raise ProofError(f"receipt does not prove consistency with the {size} records seen")
        hashes = () if same or self.consistency is None else self.consistency.hashes
        merkle.check_consistency(size, self.checkpoint.size, root, self.checkpoint.root, hashes)


class _Earlier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)] = msgspec.field(name="from")
    hashes: Annotated[list[str], msgspec.Meta(max_length=MAX_HASHES)]


class _Extra(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1] = msgspec.field(name="v")
    record: str
    openings: dict[str, tuple[str, object]]
    consistency: _Earlier | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """One record with its proofs; nothing is verified until `verify` returns.

    INVARIANT: `Receipt.parse(text).text() == text` for every text accepted.
    """

    index: int
    record: bytes
    openings: Mapping[str, tuple[bytes, Json]] = field(repr=False)  # field to (salt, value)
    path: tuple[bytes, ...]  # sibling hashes, from the leaf upwards
    checkpoint: str  # signed note
    consistency: Consistency | None = None

    def text(self) -> str:
        """Write the receipt as `.tlog-proof` text."""
        path = "".join(f"{b64(sibling)}\n" for sibling in self.path)
        extra = b64(canonical.encode(self._extra()))
        return f"{HEADER}\nextra {extra}\nindex {self.index}\n{path}\n{self.checkpoint}"

    def _extra(self) -> dict[str, Json]:
        openings: dict[str, Json] = {
            name: [b64(salt), value] for name, (salt, value) in self.openings.items()
        }
        extra: dict[str, Json] = {
            "openings": openings,
            "record": b64(self.record),
            "v": VERSION,
        }
        if self.consistency is not None:
            hashes: list[Json] = [b64(item) for item in self.consistency.hashes]
            extra["consistency"] = {"from": self.consistency.size, "hashes": hashes}
        return extra

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `.tlog-proof` text that has our `extra` line.

        Raises:
            ProofError: The text is not a receipt in its one spelling.
        """
        if len(text) > MAX_TEXT:
            raise ProofError(f"receipt of {len(text)} characters")
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not blank or lines[0] != HEADER or len(lines) < 3:  # noqa: PLR2004 - three fixed lines
            raise ProofError("not a receipt: expected a tlog-proof with an extra line")
        try:
            receipt = cls._read(lines, checkpoint)
            again = receipt.text()
        except FormatError as error:
            raise ProofError(f"receipt: {error}") from error
        if again != text:
            raise ProofError("receipt is not in its canonical spelling")
        return receipt

    @classmethod
    def _read(cls, lines: list[str], checkpoint: str) -> Self:
        found = _INDEX.match(lines[2])
        if found is None or not lines[1].startswith("extra ") or len(lines) > MAX_HASHES + 3:
            raise ProofError("receipt: malformed extra or index line")
        raw = from_b64(lines[1].removeprefix("extra "))
        extra = canonical.decode(raw, _Extra, max_bytes=MAX_EXTRA)
        parsed = canonical.parse(raw, max_bytes=MAX_EXTRA)
        return cls(
            index=int(found[1]),
            record=from_b64(extra.record),
            openings=_openings(parsed),
            path=tuple(map(_hash, lines[3:])),
            checkpoint=checkpoint,
            consistency=_consistency(extra.consistency),
        )

    def verify(self, key: VerifierKey) -> VerifiedRecord:
        """Check everything that the receipt proves, under the pinned key of the log.

        The checkpoint's signature and origin, the path from the record's bytes to its root, the
        index inside the record, the record's canonical form, and every opening. Not checked: that
        the log grew from what was seen before (`VerifiedRecord.check_extends`).

        Raises:
            ProofError: One of them does not hold.
        """
        checkpoint = open_checkpoint(self.checkpoint, key)
        leaf = merkle.leaf_hash(self.record)
        merkle.check_inclusion(leaf, self.index, checkpoint.size, self.path, checkpoint.root)
        try:
            parsed = record.parse(self.record)
        except RecordError as error:
            raise ProofError(f"receipt of record {self.index}: {error}") from error
        if parsed.envelope.index != self.index:
            raise ProofError(f"record says it is {parsed.envelope.index}, receipt {self.index}")
        return VerifiedRecord(
            index=self.index,
            raw=self.record,
            fields=parsed.fields,
            openings=self._opened(parsed.envelope.commitments),
            checkpoint=checkpoint,
            consistency=self.consistency,
        )

    def _opened(self, commitments: Mapping[str, str]) -> dict[str, Json]:
        for name, (salt, value) in self.openings.items():
            if name not in commitments:
                raise ProofError(f"receipt opens {name!r}, which the record does not hide")
            check(name, value, salt, commitments[name])
        return {name: value for name, (_, value) in self.openings.items()}


def _openings(extra: Json) -> dict[str, tuple[bytes, Json]]:
    match extra:
        case {"openings": dict() as openings}:
            return {name: _salted(pair) for name, pair in openings.items()}
    raise ProofError("receipt: malformed openings")


def _salted(pair: Json) -> tuple[bytes, Json]:
    match pair:
        case [str() as salt, value]:
            return from_b64(salt), value
    raise ProofError("receipt: malformed opening")


def _consistency(earlier: _Earlier | None) -> Consistency | None:
    if earlier is None:
        return None
    return Consistency(earlier.size, tuple(map(_hash, earlier.hashes)))


def _hash(text: str) -> bytes:
    raw = from_b64(text)
    if len(raw) != merkle.HASH_SIZE:
        raise ProofError("receipt: a hash of another length")
    return raw
