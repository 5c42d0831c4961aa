"""`AsyncClient`: what `client.Client` does, for asyncio.

Everything but the network waits and computes in threads of its own; one client serves many tasks.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, overload

from envelock.assertions import Assertion, Demands
from envelock.client import Opened, delivered
from envelock.exchange import Call, Done, Pause, Reply, Steps, TokenWanted, advance
from envelock.files import Progress, Source, Target, refuse_large, refuse_text, size_hint
from envelock.opening import Unlocked, unlock
from envelock.reader import Reader, SealedFile
from envelock.rebinding import Rebound, rebound, replaced, rewriting, target_of
from envelock.rebinding import planned as planned_rebind
from envelock.sealing import planned
from envelock.session import Session, open_session
from envelock.transport import AsyncTransport
from envelock.writer import Sealed, seal, seal_bytes

FILE_THREADS = 4
CORE_THREADS = 2  # of their own: long work on files does not hold up requests
T = TypeVar("T")
Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
Splits: TypeAlias = Sequence["AsyncClient | Sequence[AsyncClient]"]


class AsyncClient:
    """The same for asyncio: everything but the network waits and computes in threads of its own."""

    def __init__(
        self,
        url: str | None = None,
        *,
        profile: str | Path | None = None,
        token: Token | None = None,
        ledger_key: str | None = None,
    ) -> None:
        self._transport = AsyncTransport()
        self._threads = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="envelock")
        self._core = ThreadPoolExecutor(CORE_THREADS, thread_name_prefix="envelock-core")
        self.session = open_session(url, profile, ledger_key, brought=token)

    def with_token(self, token: Token) -> "AsyncClient":
        """A client that shows *token*, over the same pool; see `Client.with_token`."""
        return self._over(self.session.for_another(token))

    def with_peers(self, *peers: "AsyncClient") -> "AsyncClient":
        """A client that also asks the KASes of *peers*; see `Client.with_peers`."""
        return self._over(self.session.with_peers([peer.session for peer in peers]))

    @overload
    async def encrypt(
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
    async def encrypt(
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
    async def encrypt(  # noqa: PLR0913 all but two go by name
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
        """Seal *source*; see `Client.encrypt`."""
        refuse_text(source)
        over = None if splits is None else [_sessions(item) for item in splits]
        ready = await self.run(
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
            return await self._in_thread(partial(seal_bytes, source, ready))
        return await self._in_thread(
            partial(seal, source, out, ready, force=force, progress=progress)
        )

    @overload
    async def decrypt(
        self,
        source: Source,
        out: None = None,
        *,
        demands: Demands | None = None,
        legacy: bool = False,
        force: bool = False,
    ) -> bytes: ...
    @overload
    async def decrypt(
        self,
        source: Source,
        out: Target,
        *,
        demands: Demands | None = None,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Opened: ...
    async def decrypt(
        self,
        source: Source,
        out: Target | None = None,
        *,
        demands: Demands | None = None,
        legacy: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> bytes | Opened:
        """Open *source*; see `Client.decrypt`."""
        reader = await self.open(source, demands=demands, legacy=legacy)
        with reader:
            return await self._in_thread(
                partial(delivered, reader, out, force=force, progress=progress)
            )

    @overload
    async def rebind(
        self, file: PathLike[str], *, attrs: str | Sequence[str], progress: Progress | None = None
    ) -> Rebound: ...
    @overload
    async def rebind(
        self,
        file: bytes | bytearray | memoryview,
        *,
        attrs: str | Sequence[str],
        progress: Progress | None = None,
    ) -> bytes: ...
    async def rebind(
        self,
        file: PathLike[str] | bytes | bytearray | memoryview,
        *,
        attrs: str | Sequence[str],
        progress: Progress | None = None,
    ) -> Rebound | bytes:
        """Give a sealed file another policy, without opening it; see `Client.rebind`."""
        refuse_text(file)
        target = target_of(file)
        sealed = await self._in_thread(partial(SealedFile.open, file))
        with sealed:
            plan = await self.run(planned_rebind(self.session, sealed, attrs))
            work = rewriting(sealed, target, progress)
            writing = await self._in_thread(work.__enter__)
            try:
                done = await self.run(replaced(sealed, plan))
                await self._in_thread(partial(writing.finish, plan.policy, done.keys))
            except BaseException as error:
                work.__exit__(type(error), error, error.__traceback__)
                raise
            await self._in_thread(partial(work.__exit__, None, None, None))
            return rebound(sealed, plan, done, target)

    async def open(
        self, source: Source, *, demands: Demands | None = None, legacy: bool = False
    ) -> Reader:
        """Open *source* for reading anywhere in it; reading itself blocks."""
        refuse_text(source)
        sealed = await self._in_thread(
            partial(SealedFile.open, source, legacy=legacy, demands=demands)
        )
        try:
            unlocked: Unlocked = await self.run(unlock(self.session, sealed))
            return await self._in_thread(
                partial(
                    sealed.unlock,
                    unlocked.dek,
                    receipts=unlocked.receipts,
                    metadata=unlocked.metadata,
                )
            )
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
                case TokenWanted(source):
                    given = source if isinstance(source, str) else source()
                    answer = await given if inspect.isawaitable(given) else given

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

    def _over(self, session: Session) -> "AsyncClient":
        """Another client over the same pool and threads."""
        other = object.__new__(type(self))
        other._transport = self._transport
        other._threads = self._threads
        other._core = self._core
        other.session = session
        return other


def _sessions(item: AsyncClient | Sequence[AsyncClient]) -> list[Session]:
    return [client.session for client in ([item] if isinstance(item, AsyncClient) else item)]
