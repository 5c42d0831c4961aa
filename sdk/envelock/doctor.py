"""Say what is wrong with a sealed file, who refuses it, and repair what needs no key.

Nothing is verified, no server is asked. `examine` looks at the container, the manifest and, where
hashes can be compared without a key, the payload. `repair` writes the file anew: the zip as every
reader takes it, and in the manifest the members that say nothing that is not known anyway. What is
signed or bound stays as it is: policy, hashes of bindings, wraps, segment hashes, root signature,
assertions.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import msgspec
from isal.isal_zlib import crc32

from envelock.ailments import ENVELOCK, OF_MANIFEST, Finding, Findings, refusing
from envelock.anatomy import Anatomy, Entry, check_payload, dissect, manifest_bytes
from envelock.errors import ConfigError, EnvelockError, FormatError
from envelock.examining import TagAt, examine_manifest, parse_patiently
from envelock.files import Progress, RandomAccess, Sink, Source, output, random_access, read_at
from envelock.reader import SealedFile
from envelock.repairing import mended
from envelock.shapes import Members
from envelock_formats import errors as formats
from envelock_formats.tdf import container
from envelock_formats.wrap import TAG_SIZE

_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong with a file; in the order of `ailments.AILMENTS`."""

    findings: tuple[Finding, ...]

    @property
    def refused_by(self) -> tuple[str, ...]:
        """The readers that refuse the file."""
        return refusing(self.findings)

    @property
    def healthy(self) -> bool:
        """Whether no reader refuses the file."""
        return not self.refused_by


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was changed, and what is wrong with the file that was written."""

    changed: tuple[str, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class _Patient:
    anatomy: Anatomy
    manifest: bytes | None
    members: Members | None  # None as well when they have more than one reading
    findings: tuple[Finding, ...]


def examine(source: Source, *, progress: Progress | None = None) -> Report:
    """Find what is wrong with *source*, whatever it is.

    Args:
        source: Bytes, path or binary file object; a pipe is spooled.
        progress: Called with bytes of payload read.

    Raises:
        TypeError: *source* is a `str`, or a file in text mode.
        OSError: Reading failed.
    """
    opened = random_access(source)
    try:
        return Report(_examined(opened, progress).findings)
    finally:
        opened.close()


def repair(
    source: PathLike[str],
    target: PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Repaired:
    """Write *source* anew into *target*, which appears complete or not at all.

    Args:
        source: The file; it stays as it is.
        target: Another path.
        force: Replace an existing target.
        progress: Called with bytes of payload done.

    Raises:
        ConfigError: The target is the source, or exists and *force* is not set.
        FormatError: Nothing of it can be repaired.
        OSError: Reading or writing failed.
    """
    if Path(target).exists() and Path(source).samefile(target):
        raise ConfigError("a file is not repaired in its place", hint="name another with -o OUT")
    opened = random_access(source)
    try:
        patient = _examined(opened, progress)
        payload, manifest = patient.anatomy.payload, patient.manifest
        curable = [finding for finding in patient.findings if finding.repairable]
        if not curable or payload is None or manifest is None:
            raise FormatError(
                "nothing of it can be repaired", code="not_repairable",
                hint="fetch the file anew from its source",
            )  # fmt: skip
        changed = [finding.what for finding in curable if finding.code.startswith("zip")]
        if patient.members is not None:
            members, edits = mended(patient.members, payload.size)
            manifest = msgspec.json.encode(members) if edits else manifest
            changed += edits
        with output(target, force=force) as sink:
            _rewrite(opened, payload, manifest, sink, progress)
    finally:
        opened.close()
    return Repaired(tuple(changed), examine(target))


def _examined(source: RandomAccess, progress: Progress | None) -> _Patient:
    findings = Findings()
    anatomy = dissect(source, findings)
    payload, raw, members = anatomy.payload, None, None
    if payload is not None and payload.start + payload.packed > source.size:
        findings.add("payload-truncated", "0.payload")
        payload = None
    if anatomy.manifest is not None:
        raw = manifest_bytes(source, anatomy.manifest, findings)
    if raw is not None and (members := parse_patiently(raw, findings)) is not None:
        size = None if payload is None else payload.size
        examine_manifest(members, findings, size, _tags(source, payload))
    if payload is not None:
        check_payload(source, payload, findings, progress)
    _ask_reader(source, findings)
    if "manifest-shape" in findings:
        members = None
        findings.give_up(*OF_MANIFEST)
    return _Patient(Anatomy(payload, anatomy.manifest), raw, members, tuple(findings))


def _tags(source: RandomAccess, payload: Entry | None) -> TagAt | None:
    """Reads the 16 bytes of payload that end at an offset; None where that cannot be done."""
    if payload is None or payload.deflated:
        return None
    start = payload.start
    return lambda end: read_at(source, start + end - TAG_SIZE, TAG_SIZE)


def _ask_reader(source: RandomAccess, findings: Findings) -> None:
    """What our own reader refuses is never called healthy, whatever else was seen."""
    try:
        SealedFile.over(source, legacy="legacy" in findings)
    except (formats.FormatError, EnvelockError) as error:
        if ENVELOCK not in refusing(item for item in findings if item.code != "legacy"):
            findings.add("refused", str(error))


def _rewrite(
    source: RandomAccess, payload: Entry, manifest: bytes, sink: Sink, progress: Progress | None
) -> None:
    head = container.payload_header(payload.size)
    sink.write(head)
    crc = done = 0
    for piece in _pieces(source, payload):
        sink.write(piece)
        crc, done = crc32(piece, crc), done + len(piece)
        if progress is not None:
            progress(done)
    if done != payload.size:
        raise FormatError("the payload has another size than the zip says", code="not_repairable")
    kept = crc if payload.crc is None else payload.crc
    sink.write(container.trailer(start=len(head), size=done, crc=kept, manifest=manifest))


def _pieces(source: RandomAccess, payload: Entry) -> Iterator[bytes]:
    """The payload in pieces, unpacked where it is compressed.

    Raises:
        FormatError: It does not unpack, or has more bytes than the zip says.
    """
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS) if payload.deflated else None
    made = 0
    for offset in range(0, payload.packed, _STEP):
        piece = read_at(source, payload.start + offset, min(_STEP, payload.packed - offset))
        while piece:
            try:
                out = piece if unpacking is None else unpacking.decompress(piece, _STEP)
            except zlib.error as error:
                raise FormatError("the payload does not unpack", code="not_repairable") from error
            piece = b"" if unpacking is None else unpacking.unconsumed_tail
            made += len(out)
            if made > payload.size:
                raise FormatError("the payload unpacks to more than it says", code="not_repairable")
            yield out
