"""How often each symmetric KEK has wrapped: counted durably, in ranges.

AES-GCM under random nonces is safe for 2^32 messages of one key (NIST SP 800-38D section 8.3). A
worker reserves a range of wraps with a record that moves the fence `wraps:KEYID`, uses it up, and
reserves the next. What a worker had left when it ended is never used, so the count is at least what
was wrapped. A version whose wraps are all reserved is rotated before anything else is wrapped; what
it wrapped before opens as ever.
"""

import asyncio
from collections import defaultdict
from contextlib import suppress

from envelock_formats.keyid import KeyPath
from envelock_kas.errors import KeyExistsError, StaleError
from envelock_kas.keys.lifecycle import Actor, Lifecycle
from envelock_kas.keys.registry import KeyVersion, Standing
from envelock_kas.ledger import Ledger
from envelock_kas.projection import WRAPS_TOPIC, Projection, wraps_fence
from envelock_kas.records import Scribe
from envelock_ledger.entry import Committed, Entry, Fenced
from envelock_ledger.errors import LedgerError

RECORD_TYPE = "key.wraps"
RANGE = 1 << 16
# 2^32, but for what is not counted: the few wraps of a worker that try whether a key works.
MAX_WRAPS = (1 << 32) - (1 << 20)
_ATTEMPTS = 5


class WrapBudget:
    """Says which version wraps, and counts it; one instance belongs to one worker.

    Args:
        ledger: Where ranges are recorded.
        projection: What was recorded.
        scribe: Writes the records.
        lifecycle: Makes the first version, and the next when one is used up.
        limit: Wraps of one version at most.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        projection: Projection,
        scribe: Scribe,
        lifecycle: Lifecycle,
        limit: int,
    ) -> None:
        self._ledger = ledger
        self._projection = projection
        self._scribe = scribe
        self._lifecycle = lifecycle
        self._limit = limit
        self._left: dict[str, int] = {}  # of this worker's ranges, by fence
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by fence

    async def reserve(self, path: KeyPath, count: int, actor: Actor) -> Standing:
        """The version of *path* that may wrap *count* times from now on, as `Lifecycle.ensure`.

        INVARIANT: the wraps are counted before any is made, whether or not they are made.

        Raises:
            TransitionError: The path is not active, or for offline sealing.
            StaleError: Others changed the path all the time.
            CustodyError, LedgerError: As their names say; nothing may be wrapped.
        """
        for _ in range(_ATTEMPTS):
            standing = await self._lifecycle.ensure(path, "online", actor)
            fence = wraps_fence(standing.version.id)
            if self._take(fence, count):
                return standing
            async with self._locks[fence]:
                if await self._refill(standing.version, count, actor):
                    return standing
                if self._projection.registry.newest(path) == standing.version:
                    with suppress(KeyExistsError):  # another worker was first
                        await self._lifecycle.rotate(path, Actor(actor.origin))
        raise StaleError(f"no version of {path} has wraps left")

    def _take(self, fence: str, count: int) -> bool:
        """Use *count* wraps of what this worker has; False when they are not there."""
        if self._left.get(fence, 0) < count:
            return False
        self._left[fence] -= count
        return True

    async def _refill(self, version: KeyVersion, count: int, actor: Actor) -> bool:
        """Reserve until *count* wraps can be used, and use them; False when none are left."""
        fence = wraps_fence(version.id)
        while not self._take(fence, count):
            size = min(RANGE, self._limit - self._projection.wraps(fence).upto)
            if size <= 0:
                return False
            reserved = await self._range(version, size, actor)
            self._left[fence] = self._left.get(fence, 0) + reserved
        return True

    async def _range(self, version: KeyVersion, size: int, actor: Actor) -> int:
        """Reserve *size* wraps; 0 when another worker reserved meanwhile."""
        fence = wraps_fence(version.id)
        known = self._projection.wraps(fence)
        body, openings = self._scribe.write(
            RECORD_TYPE,
            version.id.tenant,
            actor.origin,
            None,
            {
                "kid": str(version.id),
                "moves": {fence: known.number + 1},
                "topic": WRAPS_TOPIC,
                "upto": known.upto + size,
            },
        )
        match (await self._ledger.append([Entry(body, openings)]))[0]:
            case Committed():
                reserved = size
            case Fenced():
                reserved = 0
            case _:
                raise LedgerError(f"{version.id}: the ledger refused to count wraps")
        await self._projection.catch_up()
        if self._projection.wraps(fence).number <= known.number:
            raise StaleError(f"{version.id}: the reservations of wraps cannot be read")
        return reserved
