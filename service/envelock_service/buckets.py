"""Token buckets: how often somebody may ask, in one process's memory.

A bucket may be charged more than it holds: the debt is worked off before anything more is admitted,
so that no call is too large to ever be let in, and none comes for free.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

MAX_BUCKETS = 100_000


@dataclass(slots=True)
class _Bucket:
    level: float
    filled: float  # monotonic seconds


class Buckets:
    """One bucket for each name, all of one size, full at first.

    Args:
        per_second: How fast each fills.
        burst: How much each holds.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(self, per_second: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._monotonic = monotonic
        self._buckets: dict[Hashable, _Bucket] = {}

    def take(self, name: Hashable, cost: float = 1.0) -> bool:
        """Take *cost* when at least one is left; whether it was taken."""
        now = self._monotonic()
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room()
            bucket = self._buckets[name] = _Bucket(self._burst, now)
        gained = (now - bucket.filled) * self._per_second
        bucket.level, bucket.filled = min(self._burst, bucket.level + gained), now
        if bucket.level < 1.0:
            return False
        bucket.level -= cost
        return True

    def _make_room(self) -> None:
        """Forget the oldest half: a forgotten bucket is a full one, never an empty one."""
        if len(self._buckets) >= MAX_BUCKETS:
            for name in list(self._buckets)[: MAX_BUCKETS // 2]:
                del self._buckets[name]
