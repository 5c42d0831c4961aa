"""`Client` and `AsyncClient`: seal and open files under the policy of a key access server.

Both run the same protocol core; they differ in who waits. Nothing is sent before the first call,
and one client serves many threads or tasks. `with_token` acts for somebody else over the same pool
of connections: it shares the heads of ledgers, and neither tokens nor keys nor answers.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, overload

from envelock.errors import ConfigError
from envelock.exchange import Call, Done, Pause, Reply, Steps, TokenWanted, advance, drive
from envelock.files import Progress, Source, Target, refuse_large, refuse_text, size_hint
from envelock.opening import Unlocked, unlock
from envelock.reader import Reader, SealedFile
from envelock.sealing import planned
from envelock.session import open_session
from envelock.transport import AsyncTransport, SyncTransport
from envelock.writer import Sealed, seal, seal_bytes

FILE_THREADS = 4
CORE_THREADS = 2  # of their own: long work on files does not hold up requests
T = TypeVar("T")
SyncToken: TypeAlias = str | Callable[[], str]
AsyncToken: TypeAlias = str | Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened into a target: bytes of plaintext, what the file asks, and the receipt."""

    size: int
    attrs: tuple[str, ...]
    receipt: str | None


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
        token: SyncToken | None = None,
        ledger_key: str | None = None,
    ) -> None:
        self._token = token
        self._transport = SyncTransport()
        self.session = open_session(url, profile, ledger_key, brought=token is not None)

    def with_token(self, token: SyncToken) -> "Client":
        """A client that shows *token*, over the same pool; it shares no tokens and no keys."""
        other = object.__new__(type(self))
        other._token = token
        other._transport = self._transport
        other.session = self.session.for_another()
        return other

    @overload
    def encrypt(
        self,
        source: Source,
        out: None = None,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
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
        force: bool = False,
        progress: Progress | None = None,
    ) -> Sealed: ...
    def encrypt(
        self,
        source: Source,
        out: Target | None = None,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
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
            force: Replace an existing file.
            progress: Called with bytes done.

        Raises:
            EnvelockError: One of its family, by what went wrong.
        """
        refuse_text(source)
        ready = self.run(planned(self.session, attrs, dataset, online=online))
        if out is None:
            refuse_large(size_hint(source))
            return seal_bytes(source, ready)
        return seal(source, out, ready, force=force, progress=progress)

    @overload
    def decrypt(
        self, source: Source, out: None = None, *, legacy: bool = False, force: bool = False
    ) -> bytes: ...
    @overload
    def decrypt(
        self,
        source: Source,
        out: Target,
        *,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Opened: ...
    def decrypt(
        self,
        source: Source,
        out: Target | None = None,
        *,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> bytes | Opened:
        """Open *source*; no byte comes out before the root signature verified.

        Args:
            source: A sealed file: bytes, a path, or a binary file object.
            out: Where to; a file appears whole or not at all. Without it the bytes are returned.
            legacy: Accept files of format 4.2.2 and older.
            force: Replace an existing file.
            progress: Called with bytes done.

        Raises:
            EnvelockError: One of its family, by what went wrong.
        """
        with self.open(source, legacy=legacy) as reader:
            return _delivered(reader, out, force=force, progress=progress)

    def open(self, source: Source, *, legacy: bool = False) -> Reader:
        """Open *source* for reading anywhere in it: a seekable binary file."""
        refuse_text(source)
        sealed = SealedFile.open(source, legacy=legacy)
        try:
            unlocked = self.run(unlock(self.session, sealed))
            return sealed.unlock(unlocked.dek, receipt=unlocked.receipt)
        except BaseException:
            sealed.close()
            raise

    def run(self, steps: Steps[T]) -> T:
        """Run an operation of the protocol core."""
        return drive(steps, self._transport.send, time.sleep, self._shown)

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

    def _shown(self) -> str:
        token = self._token
        if token is None:
            raise ConfigError("no token was given")
        return token if isinstance(token, str) else token()


class AsyncClient:
    """The same for asyncio: everything but the network waits and computes in threads of its own."""

    def __init__(
        self,
        url: str | None = None,
        *,
        profile: str | Path | None = None,
        token: AsyncToken | None = None,
        ledger_key: str | None = None,
    ) -> None:
        self._token = token
        self._transport = AsyncTransport()
        self._threads = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="envelock")
        self._core = ThreadPoolExecutor(CORE_THREADS, thread_name_prefix="envelock-core")
        self.session = open_session(url, profile, ledger_key, brought=token is not None)

    def with_token(self, token: AsyncToken) -> "AsyncClient":
        """A client that shows *token*, over the same pool; it shares no tokens and no keys."""
        other = object.__new__(type(self))
        other._token = token
        other._transport = self._transport
        other._threads = self._threads
        other._core = self._core
        other.session = self.session.for_another()
        return other

    @overload
    async def encrypt(
        self,
        source: Source,
        out: None = None,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
        force: bool = False,
    ) -> bytes: ...
    @overload
    async def encrypt(
        self,
        source: Source,
        out: Target,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Sealed: ...
    async def encrypt(
        self,
        source: Source,
        out: Target | None = None,
        *,
        attrs: str | Sequence[str],
        dataset: str | None = None,
        online: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> bytes | Sealed:
        """Seal *source*; see `Client.encrypt`."""
        refuse_text(source)
        ready = await self.run(planned(self.session, attrs, dataset, online=online))
        if out is None:
            refuse_large(size_hint(source))
            return await self._in_thread(partial(seal_bytes, source, ready))
        return await self._in_thread(
            partial(seal, source, out, ready, force=force, progress=progress)
        )

    @overload
    async def decrypt(
        self, source: Source, out: None = None, *, legacy: bool = False, force: bool = False
    ) -> bytes: ...
    @overload
    async def decrypt(
        self,
        source: Source,
        out: Target,
        *,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Opened: ...
    async def decrypt(
        self,
        source: Source,
        out: Target | None = None,
        *,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> bytes | Opened:
        """Open *source*; see `Client.decrypt`."""
        reader = await self.open(source, legacy=legacy)
        with reader:
            return await self._in_thread(
                partial(_delivered, reader, out, force=force, progress=progress)
            )

    async def open(self, source: Source, *, legacy: bool = False) -> Reader:
        """Open *source* for reading anywhere in it; reading itself blocks."""
        refuse_text(source)
        sealed = await self._in_thread(partial(SealedFile.open, source, legacy=legacy))
        try:
            unlocked: Unlocked = await self.run(unlock(self.session, sealed))
            return sealed.unlock(unlocked.dek, receipt=unlocked.receipt)
        except BaseException:
            sealed.close()
            raise

    async def run(self, steps: Steps[T]) -> T:
        """Run an operation of the protocol core."""
        answer: Reply | str | None = None
        loop = asyncio.get_running_loop()
        while True:
            match step := await loop.run_in_executor(self._core, advance, steps, answer):
                case Done(value):
                    return value
                case Call():
                    answer = await self._transport.send(step)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                    answer = None
                case TokenWanted():
                    answer = await self._shown()

    async def aclose(self) -> None:
        """Close the pool and the threads; those made by `with_token` share them."""
        await self._transport.close()
        for threads in (self._threads, self._core):
            threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _shown(self) -> str:
        token = self._token
        if token is None:
            raise ConfigError("no token was given")
        if isinstance(token, str):
            return token
        given = token()
        return await given if inspect.isawaitable(given) else given


def _delivered(
    reader: Reader, out: Target | None, *, force: bool, progress: Progress | None
) -> bytes | Opened:
    if out is not None:
        size = reader.copy_to(out, force=force, progress=progress)
        return Opened(size, reader.attrs, reader.receipt)
    refuse_large(reader.size)
    return reader.read()
