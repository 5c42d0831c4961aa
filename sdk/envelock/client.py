"""`Client`: seal and open files under the policy of a key access server.

It runs the protocol core as the asynchronous client does (`aio`); they differ in who waits. Nothing
is sent before the first call, and one client serves many threads. `with_token` acts for somebody
else over the same pool of connections: it shares the heads of ledgers, and neither tokens nor keys
nor answers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, overload

from envelock.assertions import Assertion, CheckedAssertion, Demands
from envelock.exchange import Steps, drive
from envelock.files import Progress, Source, Target, refuse_large, refuse_text, size_hint
from envelock.opening import unlock
from envelock.reader import Reader, SealedFile
from envelock.rebinding import Rebound, rebound, replaced, rewriting, target_of
from envelock.rebinding import planned as planned_rebind
from envelock.sealing import planned
from envelock.session import Session, open_session
from envelock.transport import SyncTransport
from envelock.writer import Sealed, seal, seal_bytes

T = TypeVar("T")
Token: TypeAlias = str | Callable[[], str]
Splits: TypeAlias = Sequence["Client | Sequence[Client]"]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened into a target: bytes of plaintext, what the file asks and says, the receipts.

    A file whose key is split has a receipt of each ledger that is pinned, the profile's own first.
    """

    size: int
    attrs: tuple[str, ...]
    receipts: tuple[str, ...]
    assertions: tuple[CheckedAssertion, ...] = ()
    metadata: bytes | None = field(default=None, repr=False)

    @property
    def receipt(self) -> str | None:
        """The first receipt; None where none was required."""
        return self.receipts[0] if self.receipts else None


class Client:
    """Blocking client.

    Args:
        url: The KAS; otherwise the profile's.
        profile: A profile's name, or the path of its file; otherwise as the environment says.
        token: An access token, or what gives one; otherwise fetched with the profile's secret.
        ledger_key: The ledger's verifier key to pin; otherwise the profile's.

    Raises:
        ConfigError: There is no such profile, or no URL.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        profile: str | Path | None = None,
        token: Token | None = None,
        ledger_key: str | None = None,
    ) -> None:
        self._transport = SyncTransport()
        self.session = open_session(url, profile, ledger_key, brought=token)

    def with_token(self, token: Token) -> "Client":
        """A client that shows *token*, over the same pool; it shares no tokens and no keys.

        It has no peers: those would act as somebody else.
        """
        return self._over(self.session.for_another(token))

    def with_peers(self, *peers: "Client") -> "Client":
        """A client that also asks the KASes of *peers*, as whoever each of them acts.

        For files whose key is split over several; a profile can name its `peers` itself.
        """
        return self._over(self.session.with_peers([peer.session for peer in peers]))

    @overload
    def encrypt(
        self,
        source: Source,
        out: None = None,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
        splits: Splits | None = None,
        assertions: Sequence[Assertion] = (),
        metadata: str | bytes | None = None,
        force: bool = False,
    ) -> bytes: ...
    @overload
    def encrypt(
        self,
        source: Source,
        out: Target,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
        splits: Splits | None = None,
        assertions: Sequence[Assertion] = (),
        metadata: str | bytes | None = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Sealed: ...
    def encrypt(  # noqa: PLR0913 all but two go by name
        self,
        source: Source,
        out: Target | None = None,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
        splits: Splits | None = None,
        assertions: Sequence[Assertion] = (),
        metadata: str | bytes | None = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> bytes | Sealed:
        """Seal *source*.

        Args:
            source: Bytes, a path, or a binary file object; a pipe will do.
            out: Where to; without it the sealed bytes are returned.
            attrs: What the file asks of who opens it, such as `clearance=secret`; `()` for nothing,
                which then only rules can permit.
            dataset: Which of the tenant's key paths to seal under.
            online: Let the KAS make the key, so that no reader can replace the policy.
            splits: Split the key: one random share for each item, and all are needed to open. An
                item is a client, at whose KAS the share is, or several that are alternatives.
            assertions: Statements that are bound to the content, each signed with the data key, or
                with the key that it brings.
            metadata: A short text that only those read who may open the file, at most 64 KiB.
            force: Replace an existing file.
            progress: Called with bytes done.

        Raises:
            EnvelockError: One of its family, by what went wrong.
        """
        refuse_text(source)
        over = None if splits is None else [_sessions(item) for item in splits]
        ready = self.run(
            planned(
                self.session,
                attrs,
                dataset,
                online=online,
                splits=over,
                assertions=assertions,
                metadata=metadata,
            )
        )
        if out is None:
            refuse_large(size_hint(source))
            return seal_bytes(source, ready)
        return seal(source, out, ready, force=force, progress=progress)

    @overload
    def decrypt(
        self,
        source: Source,
        out: None = None,
        *,
        demands: Demands | None = None,
        legacy: bool = False,
        force: bool = False,
    ) -> bytes: ...
    @overload
    def decrypt(
        self,
        source: Source,
        out: Target,
        *,
        demands: Demands | None = None,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Opened: ...
    def decrypt(
        self,
        source: Source,
        out: Target | None = None,
        *,
        demands: Demands | None = None,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> bytes | Opened:
        """Open *source*; no byte comes out before the root signature verified.

        Args:
            source: A sealed file: bytes, a path, or a binary file object.
            out: Where to; a file appears whole or not at all. Without it the bytes are returned.
            demands: Which assertions must be there, and under whose keys; without it all that are
                there must verify under the data key.
            legacy: Accept files of format 4.2.2 and older.
            force: Replace an existing file.
            progress: Called with bytes done.

        Raises:
            EnvelockError: One of its family, by what went wrong.
        """
        with self.open(source, demands=demands, legacy=legacy) as reader:
            return delivered(reader, out, force=force, progress=progress)

    @overload
    def rebind(
        self, file: PathLike[str], *, attrs: str | Sequence[str], progress: Progress | None = None
    ) -> Rebound: ...
    @overload
    def rebind(
        self,
        file: bytes | bytearray | memoryview,
        *,
        attrs: str | Sequence[str],
        progress: Progress | None = None,
    ) -> bytes: ...
    def rebind(
        self,
        file: PathLike[str] | bytes | bytearray | memoryview,
        *,
        attrs: str | Sequence[str],
        progress: Progress | None = None,
    ) -> Rebound | bytes:
        """Give a sealed file another policy, without opening it.

        A path is rewritten in its place, whole or not at all; of bytes the new ones are returned.
        Nobody reads the content for it: payload and root signature stay as they are.

        Files that were sealed `online` open under the new policy alone, wherever copies are. Of any
        other file the former copies open as before. When this is cut short, the same again with the
        former file completes it.

        Args:
            file: A sealed file: a path, or bytes.
            attrs: What it asks from now on; names that it lists (`dissem`) stay.
            progress: Called with bytes copied.

        Raises:
            EnvelockError: One of its family, by what went wrong.
        """
        refuse_text(file)
        target = target_of(file)
        with SealedFile.open(file) as sealed:
            plan = self.run(planned_rebind(self.session, sealed, attrs))
            with rewriting(sealed, target, progress) as writing:
                done = self.run(replaced(sealed, plan))
                writing.finish(plan.policy, done.keys)
            return rebound(sealed, plan, done, target)

    def open(
        self, source: Source, *, demands: Demands | None = None, legacy: bool = False
    ) -> Reader:
        """Open *source* for reading anywhere in it: a seekable binary file."""
        refuse_text(source)
        sealed = SealedFile.open(source, legacy=legacy, demands=demands)
        try:
            unlocked = self.run(unlock(self.session, sealed))
            return sealed.unlock(
                unlocked.dek, receipts=unlocked.receipts, metadata=unlocked.metadata
            )
        except BaseException:
            sealed.close()
            raise

    def run(self, steps: Steps[T]) -> T:
        """Run an operation of the protocol core."""
        return drive(steps, self._transport.send, time.sleep)

    def close(self) -> None:
        """Close the pool; those made by `with_token` share it."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _over(self, session: Session) -> "Client":
        """Another client over the same pool."""
        other = object.__new__(type(self))
        other._transport = self._transport
        other.session = session
        return other


def _sessions(item: Client | Sequence[Client]) -> list[Session]:
    return [client.session for client in ([item] if isinstance(item, Client) else item)]


def delivered(
    reader: Reader, out: Target | None, *, force: bool, progress: Progress | None
) -> bytes | Opened:
    """Everything that *reader* has: written to *out*, or returned.

    Raises:
        EnvelockError: The target exists, the file is too large to return, or does not verify.
    """
    if out is not None:
        size = reader.copy_to(out, force=force, progress=progress)
        return Opened(size, reader.attrs, reader.receipts, reader.assertions, reader.metadata)
    refuse_large(reader.size)
    return reader.read()
