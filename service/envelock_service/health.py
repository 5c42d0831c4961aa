"""Which parts a server needs, whether each works, and since when.

What is known comes from actual use, and from a bounded probe wherever there was none. A part that
does not answer a probe in time is down, and so is one that was never heard of: that a process is
alive proves nothing. A part is up again as soon as a probe or a use says so, by itself.

What a use finds wrong may be something that a probe cannot see, such as a false answer. It then
counts for `hold_seconds`, unless a use succeeds before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from envelock_formats.canonical import Json
from envelock_formats.printable import printable

PROBE_SECONDS = 2.0
PAUSE_SECONDS = 1.0  # between two rounds
SOON_SECONDS = 0.25  # the same for a part that is down
FIRST_SECONDS = 0.05  # the same until it was up for the first time
HOLD_SECONDS = 10.0
MAX_DETAIL = 200  # characters
UNHEARD = "nothing was heard of it yet"


@dataclass(frozen=True, slots=True)
class Part:
    """Something without which this server does not do its work.

    Args:
        name: What people and monitors call it.
        probe: Raises whatever it likes when the part does not work; it is given up in time.
        seconds: How long the probe may take.
        hold_seconds: How long a failed use counts against probes that succeed.
    """

    name: str
    probe: Callable[[], Awaitable[object]]
    seconds: float = PROBE_SECONDS
    hold_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PartState:
    """How a part stands.

    Args:
        name: The part.
        up: Whether it works.
        since: When this began, in unix seconds: the first failure while it is down.
        succeeded: When it last worked, in unix seconds; None for never.
        detail: Why it is down. For operators: it may name files, addresses and tenants.
    """

    name: str
    up: bool
    since: float
    succeeded: float | None
    detail: str = ""

    @property
    def word(self) -> str:
        """`up` or `down`."""
        return "up" if self.up else "down"

    def told(self) -> dict[str, Json]:
        """What anybody may hear."""
        return {"name": self.name, "state": self.word, "since": int(self.since)}

    def shown(self) -> dict[str, Json]:
        """What operators may hear."""
        last = None if self.succeeded is None else int(self.succeeded)
        return {**self.told(), "succeeded": last, "detail": self.detail}


@dataclass(slots=True)
class _Watched:
    part: Part
    state: PartState
    held: float = float("-inf")  # monotonic seconds until which a probe cannot say "up"
    used: bool = False  # with success, since the last round


class Health:
    """The parts of one server. It belongs to one event loop.

    Args:
        parts: What to watch.
        clock: Unix seconds.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._clock, self._monotonic = clock, monotonic
        now = clock()
        self._watched = {
            part.name: _Watched(part, PartState(part.name, up=False, since=now, succeeded=None))
            for part in parts
        }
        for watched in self._watched.values():
            self._set(watched, up=False, detail=UNHEARD)

    def parts(self) -> tuple[PartState, ...]:
        """How every part stands."""
        return tuple(watched.state for watched in self._watched.values())

    def down(self) -> tuple[PartState, ...]:
        """The parts that do not work."""
        return tuple(state for state in self.parts() if not state.up)

    def answer(self) -> dict[str, Json]:
        """The body of `/healthz`: `ok`, or the parts that are down without why."""
        if down := self.down():
            return {"status": "unavailable", "parts": [state.told() for state in down]}
        return {"status": "ok"}

    def worked(self, name: str) -> None:
        """A use of the part *name* succeeded."""
        watched = self._watched[name]
        watched.used, watched.held = True, float("-inf")
        if not watched.state.up:
            self._set(watched, up=True)

    def doubt(self, name: str) -> None:
        """A use of the part *name* failed, perhaps not for its fault: the next round probes it."""
        self._watched[name].used = False

    def failed(self, name: str, detail: str) -> None:
        """A use of the part *name* failed, and the part is to blame."""
        watched = self._watched[name]
        watched.used = False
        watched.held = self._monotonic() + watched.part.hold_seconds
        self._set(watched, up=False, detail=detail)

    async def watch(self) -> None:
        """Look again and again; ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for watched in self._watched.values():
                group.create_task(self._watch(watched))

    async def look(self) -> None:
        """Probe every part once."""
        await asyncio.gather(*(self._probe(watched) for watched in self._watched.values()))

    async def _watch(self, watched: _Watched) -> None:
        while True:
            if not watched.used:
                await self._probe(watched)
            watched.used = False
            await asyncio.sleep(_pause(watched.state))

    async def _probe(self, watched: _Watched) -> None:
        watched.used = False
        try:
            async with asyncio.timeout(watched.part.seconds):
                await watched.part.probe()
        except TimeoutError:
            detail = f"no answer in {watched.part.seconds:g} s"
        except Exception as error:  # noqa: BLE001 whatever a probe fails of, the part does not work
            detail = str(error) or type(error).__name__
        else:
            if watched.state.up or self._monotonic() >= watched.held:
                self._set(watched, up=True)
            return
        if not watched.used:  # a use that succeeded meanwhile knows better
            self._set(watched, up=False, detail=detail)

    def _set(self, watched: _Watched, *, up: bool, detail: str = "") -> None:
        before, now = watched.state, self._clock()
        watched.state = PartState(
            name=before.name,
            up=up,
            since=before.since if before.up == up else now,
            succeeded=now if up else before.succeeded,
            detail=printable(detail)[:MAX_DETAIL],
        )


def _pause(state: PartState) -> float:
    if state.up:
        return PAUSE_SECONDS
    return FIRST_SECONDS if state.succeeded is None else SOON_SECONDS
