"""Step 4 of a release: how often one subject, and one tenant, may ask.

Token buckets, in this worker's memory, before anything that costs an fsync. What is refused here is
counted, and the count becomes one record for each subject and interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from envelock_formats.request import Caller

MAX_BUCKETS = 100_000


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one worker: requests per second, and how many may come at once.

    `paths` limits how many key paths one subject may bring into being by sealing under them.
    """

    subject_per_second: float = 1_000.0
    subject_burst: int = 5_000
    tenant_per_second: float = 10_000.0
    tenant_burst: int = 40_000
    paths_per_second: float = 0.1
    paths_burst: int = 20


@dataclass(slots=True)
class _Bucket:
    level: float
    filled: float


class Guard:
    """Admits or refuses; `take_refused` hands over what to record."""

    def __init__(self, settings: GuardSettings, monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}
        self._refused: dict[Caller, int] = {}

    def admit(self, caller: Caller) -> bool:
        """Whether *caller* may ask now; a refusal is counted."""
        limits = self._settings
        subject = (caller.tenant, caller.issuer, caller.subject)
        tenant = (caller.tenant, "", "")
        admitted = self._take(subject, limits.subject_per_second, limits.subject_burst)
        admitted = admitted and self._take(tenant, limits.tenant_per_second, limits.tenant_burst)
        if not admitted:
            self._refused[caller] = self._refused.get(caller, 0) + 1
        return admitted

    def take_refused(self) -> dict[Caller, int]:
        """What was refused since the last call, by caller."""
        refused, self._refused = self._refused, {}
        return refused

    def put_back(self, caller: Caller, number: int) -> None:
        """Count again what could not be recorded."""
        self._refused[caller] = self._refused.get(caller, 0) + number

    def admit_new_path(self, caller: Caller) -> bool:
        """Whether *caller* may have a key made by naming a path that has none."""
        limits = self._settings
        name = (caller.tenant, caller.issuer, f"{caller.subject}\0paths")
        return self._take(name, limits.paths_per_second, limits.paths_burst)

    def _take(self, name: tuple[str, str, str], per_second: float, burst: int) -> bool:
        now = self._monotonic()
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room()
            bucket = self._buckets[name] = _Bucket(float(burst), now)
        bucket.level = min(float(burst), bucket.level + (now - bucket.filled) * per_second)
        bucket.filled = now
        if bucket.level < 1.0:
            return False
        bucket.level -= 1.0
        return True

    def _make_room(self) -> None:
        """Forget the oldest half: a forgotten bucket is a full one, never an empty one."""
        if len(self._buckets) >= MAX_BUCKETS:
            for name in list(self._buckets)[: MAX_BUCKETS // 2]:
                del self._buckets[name]
