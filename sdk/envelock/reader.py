"""Open a sealed file: verified before the first byte, at any offset after that.

`SealedFile` reads container and manifest and says what a key access server must be asked for.
`unlock` takes the data key, verifies the root signature, and gives a `Reader`. A segment is opened
when it is read, checked against the list that the root signature covers, and delivered only then.
"""

import io
import itertools
import os
from bisect import bisect_right
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from envelock.assertions import CheckedAssertion, Demands
from envelock.errors import FormatError, TamperedError, sealed_file_error
from envelock.files import Progress, RandomAccess, Source, Target, output, random_access, read_at
from envelock_formats import errors as formats
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.keyaccess import KeyAccess
from envelock_formats.tdf.manifest import OVERHEAD, Manifest, parse_manifest
from envelock_formats.tdf.policy import Policy
from envelock_formats.tdf.segments import SegmentCipher, verify_root
from envelock_formats.wrap import combine

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on


class SealedFile:
    """A sealed file whose container and manifest are well-formed; nothing is verified yet."""

    def __init__(
        self,
        source: RandomAccess,
        payload_offset: int,
        manifest: Manifest,
        demands: Demands | None = None,
    ) -> None:
        self.manifest = manifest
        self.demands = demands or Demands()
        self.payload_offset = payload_offset  # bytes
        self.source = source

    @classmethod
    def open(cls, source: Source, *, legacy: bool = False, demands: Demands | None = None) -> Self:
        """Read the container and the manifest of *source*.

        Args:
            source: Bytes, path or binary file object, from its position to its end. What cannot
                seek is spooled, still sealed, to disk. A file object stays the caller's to close.
            legacy: Accept version 4.2.2 and files without a version.
            demands: What the caller demands of the assertions; otherwise that all verify.

        Raises:
            FormatError: Not a sealed file, or not of an accepted form.
            TamperedError: The manifest contradicts the payload, or lacks a required assertion.
            TypeError: *source* is a `str`, or a file in text mode.
            OSError: Reading failed.
        """
        opened = random_access(source)
        try:
            found = cls.over(opened, legacy=legacy, demands=demands)
        except BaseException as error:
            opened.close()
            if isinstance(error, formats.FormatError):
                raise sealed_file_error(error) from error
            raise
        return found

    @classmethod
    def over(
        cls, source: RandomAccess, *, legacy: bool = False, demands: Demands | None = None
    ) -> Self:
        """As `open`, of bytes that are open already, which the file then owns.

        Raises:
            FormatError: Of the formats, not yet the consumer's.
        """
        if not source.size:
            hint = "a file object is read from its position; seek(0) first"
            raise FormatError("no bytes where a sealed file was expected", hint=hint)
        found = read_container(lambda start, count: read_at(source, start, count), source.size)
        manifest = parse_manifest(found.manifest, legacy=legacy)
        # SECURITY: sizes are not signed; any other sum would map offsets to wrong segments.
        if manifest.payload_size != found.payload_size:
            raise formats.IntegrityError("tampered: segments do not add up to the payload")
        made = cls(source, found.payload_offset, manifest, demands)
        made.demands.require_present(manifest)
        return made

    @property
    def policy_text(self) -> str:
        """The policy as base64: what the bindings cover, and what a key access server is sent."""
        return self.manifest.policy

    @property
    def policy(self) -> Policy:
        """The policy, parsed; as stated by the file, not verified."""
        return self.manifest.asks

    @property
    def key_access(self) -> tuple[KeyAccess, ...]:
        """Every wrapped share, in manifest order."""
        return self.manifest.key_access

    @property
    def size(self) -> int:
        """Bytes of plaintext, as stated by the file, not verified."""
        return self.manifest.size

    def join(self, shares: Mapping[int, bytes]) -> bytes:
        """Join shares, by position in `key_access`, to the data key.

        Raises:
            TamperedError: A share is missing, of another length, contradicts another, or all of
                them cancel out.
        """
        try:
            return combine(self.key_access, shares)
        except formats.FormatError as error:
            raise sealed_file_error(error) from error

    def unlock(
        self, dek: bytes, *, receipts: tuple[str, ...] = (), metadata: bytes | None = None
    ) -> "Reader":
        """Verify root signature and assertions under *dek*; the reader returned owns this file.

        Args:
            dek: Data key.
            receipts: Carried along as `Reader.receipts`.
            metadata: Carried along as `Reader.metadata`.

        Raises:
            TamperedError: The root signature does not hold under this key, or an assertion is not
                as the caller demands.
        """
        try:
            cipher = SegmentCipher(dek, self.manifest.segment_hash)
            verify_root(dek, self.manifest)
        except formats.FormatError as error:
            raise sealed_file_error(error) from error
        assertions = self.demands.check(self.manifest, dek)
        return Reader(self, cipher, receipts, assertions=assertions, metadata=metadata)

    def close(self) -> None:
        """Close what `open` opened; a file object of the caller's stays open."""
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Reader(io.RawIOBase):
    """The plaintext of a sealed file: read, seek, context manager. One thread at a time.

    A read returns all the bytes asked for, fewer only at the end. The last opened segment is kept.

    INVARIANT: no byte is delivered before its segment is verified, and none at all after a segment
    has failed.
    """

    def __init__(
        self,
        sealed: SealedFile,
        cipher: SegmentCipher,
        receipts: tuple[str, ...],
        *,
        assertions: tuple[CheckedAssertion, ...] = (),
        metadata: bytes | None = None,
    ) -> None:
        super().__init__()
        self.sealed = sealed
        self.receipts = receipts  # one of each ledger that is pinned, the profile's own first
        self.assertions = assertions  # in the order of the manifest
        self.metadata = metadata  # as it was encrypted beside the key shares; None without
        self.size = sealed.size  # bytes; verified segment by segment
        self._cipher = cipher
        self._segments = sealed.manifest.segments
        sizes = (segment.size for segment in self._segments)
        self._starts = list(itertools.accumulate(sizes, initial=0))
        largest = max((segment.size for segment in self._segments), default=0)
        self._sealed_buffer = memoryview(bytearray(largest + OVERHEAD))
        self._kept = memoryview(bytearray(largest))
        self._kept_index: int | None = None
        self._position = 0
        self._failed = False

    @property
    def receipt(self) -> str | None:
        """The receipt of the release, the first where there are several; None where none was."""
        return self.receipts[0] if self.receipts else None

    @property
    def attrs(self) -> tuple[str, ...]:
        """FQNs of the attribute values that the policy asks for."""
        return tuple(value.fqn for value in self.sealed.policy.attributes)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in the plaintext, bytes."""
        self._refuse_closed()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to *offset* from start, position or end; beyond the end there is nothing to read."""
        self._refuse_closed()
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if origin is None or origin + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: "Buffer", /) -> int:
        """Fill *buffer* from the position on; returns fewer bytes only at the end.

        Raises:
            TamperedError: A segment on the way does not verify. The position is then unchanged.
        """
        self._refuse_closed()
        view = memoryview(buffer).cast("B")
        position = self._position
        wanted = max(0, min(len(view), self.size - position))
        done = 0
        while done < wanted:
            done += self._deliver(position + done, view[done:wanted])
        self._position = position + done
        return done

    def read(self, size: int | None = -1, /) -> bytes:
        """Read *size* bytes, or to the end."""
        left = max(0, self.size - self._position)
        buffer = bytearray(left if size is None or size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def readall(self) -> bytes:
        """Read to the end."""
        return self.read()

    def copy_to(
        self, target: Target, *, force: bool = False, progress: Progress | None = None
    ) -> int:
        """Write everything from the position to the end into *target*; returns the bytes written.

        A path appears complete or not at all. A file object or pipe has got the segments that were
        good, when a later one is not.

        Args:
            target: Path or binary file object.
            force: Replace an existing path.
            progress: Called after each segment with the bytes written so far.

        Raises:
            ConfigError: The path exists and *force* is not set.
            TamperedError: A segment does not verify.
            OSError: Reading or writing failed.
        """
        buffer = memoryview(bytearray(len(self._kept)))
        done = 0
        with output(target, force=force) as sink:
            while self._position < self.size:
                end = self._starts[self._index(self._position) + 1]
                part = buffer[: end - self._position]
                self.readinto(part)
                sink.write(part)
                done += len(part)
                if progress is not None:
                    progress(done)
        return done

    def close(self) -> None:
        """Close the sealed file too, unless it is a file object of the caller's."""
        if not self.closed:
            self.sealed.close()
        super().close()

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ValueError("reader is closed")

    def _index(self, position: int) -> int:
        """The segment that holds *position*, which lies before the end."""
        return bisect_right(self._starts, position) - 1

    def _deliver(self, position: int, view: memoryview) -> int:
        """Put bytes of one segment into *view*; whole segments go there without a copy."""
        index = self._index(position)
        size, skip = self._segments[index].size, position - self._starts[index]
        if index != self._kept_index and not skip and len(view) >= size:
            self._open(index, view[:size])
            return size
        if index != self._kept_index:
            self._kept_index = None
            self._open(index, self._kept[:size])
            self._kept_index = index
        part = self._kept[skip : min(size, skip + len(view))]
        view[: len(part)] = part
        return len(part)

    def _open(self, index: int, out: memoryview) -> None:
        if self._failed:
            raise TamperedError("tampered: an earlier segment did not verify")
        segment = self._segments[index]
        sealed = self._sealed_buffer[: segment.sealed_size]
        offset = self.sealed.payload_offset + self._starts[index] + OVERHEAD * index
        try:
            if self.sealed.source.read_into(offset, sealed) != len(sealed):
                raise formats.IntegrityError("tampered: the file became shorter")
            self._cipher.open_into(segment, sealed, out)
        except formats.FormatError as error:
            self._failed, self._kept_index = True, None
            raise sealed_file_error(error) from error
