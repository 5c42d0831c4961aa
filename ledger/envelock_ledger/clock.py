"""The ledger's clock: the time of day, as long as it does not leap ahead.

The log's time never runs backwards, so one record from a clock that was set far ahead by mistake
would hold the log there, and every name that is spent later would count as expired until the real
time has caught up. Time of day is therefore held against the time that passed since it was asked
last.

Not noticed: a clock that is wrong from the start, or that creeps.
"""

import time
from collections.abc import Callable

from envelock_ledger.errors import LedgerUnavailableError

MAX_LEAP_SECONDS = 300
_NANOSECONDS = 1_000_000_000


class Clock:
    """Microseconds since 1970.

    A clock that is set back is not refused: the log stays at its latest time until it is passed.

    Args:
        of_day: Nanoseconds since 1970, as the system has them.
        passed: Nanoseconds that nobody can set, since whenever; they pass during sleep as well.
    """

    def __init__(self, of_day: Callable[[], int], passed: Callable[[], int]) -> None:
        self._of_day, self._passed = of_day, passed
        self._last = of_day(), passed()

    def __call__(self) -> int:
        """The time.

        Raises:
            LedgerUnavailableError: It leapt ahead, and has not come back.
        """
        now = self._of_day(), self._passed()
        leap = (now[0] - self._last[0]) - (now[1] - self._last[1])
        if leap > MAX_LEAP_SECONDS * _NANOSECONDS:
            raise LedgerUnavailableError(
                f"the clock leapt ahead by {leap // _NANOSECONDS} s",
                "set it right; if it is right now, start the ledger again",
            )
        self._last = now
        return now[0] // 1000


def system_clock() -> Clock:
    """The clock of this machine."""
    # CLOCK_BOOTTIME, where there is one, goes on while the machine is suspended.
    source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Clock(time.time_ns, lambda: time.clock_gettime_ns(source))
