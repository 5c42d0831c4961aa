"""Step 4 of a release: how often, and how much, one subject and one tenant may ask.

Token buckets, in this worker's memory, before anything that costs an fsync. What is refused here is
counted, and the count becomes one record for each subject and interval.
"""

from collections.abc import Callable

import msgspec

from envelock_formats.request import Caller
from envelock_service.buckets import Buckets

COST_BYTES = 4096  # of a request token: as many more cost as much as a request


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one worker: requests per second, and how many may come at once.

    A large request counts as several, one more for each whole `COST_BYTES` of its token.
    `paths` limits how many key paths one subject may bring into being by sealing under them.
    """

    subject_per_second: float = 1_000.0
    subject_burst: int = 5_000
    tenant_per_second: float = 10_000.0
    tenant_burst: int = 40_000
    paths_per_second: float = 0.1
    paths_burst: int = 20


class Guard:
    """Admits or refuses; `take_refused` hands over what to record."""

    def __init__(self, settings: GuardSettings, monotonic: Callable[[], float]) -> None:
        self._subjects = Buckets(settings.subject_per_second, settings.subject_burst, monotonic)
        self._tenants = Buckets(settings.tenant_per_second, settings.tenant_burst, monotonic)
        self._paths = Buckets(settings.paths_per_second, settings.paths_burst, monotonic)
        self._refused: dict[Caller, int] = {}

    def admit(self, caller: Caller, size: int = 0) -> bool:
        """Whether *caller* may ask now, with a request token of *size* bytes; refusals are counted.

        SECURITY: a request may have a hundred policies, which take the PDP as long as hundreds of
        small requests: who may ask often may not for that reason ask so much.
        """
        cost = 1 + size // COST_BYTES
        admitted = self._subjects.take(_subject(caller), cost) and self._tenants.take(
            caller.tenant, cost
        )
        if not admitted:
            self.put_back(caller, 1)
        return admitted

    def admit_new_path(self, caller: Caller) -> bool:
        """Whether *caller* may have a key made by naming a path that has none."""
        return self._paths.take(_subject(caller))

    def take_refused(self) -> dict[Caller, int]:
        """What was refused since the last call, by caller."""
        refused, self._refused = self._refused, {}
        return refused

    def put_back(self, caller: Caller, number: int) -> None:
        """Count again what could not be recorded."""
        self._refused[caller] = self._refused.get(caller, 0) + number


def _subject(caller: Caller) -> tuple[str, str, str]:
    return caller.tenant, caller.issuer, caller.subject
