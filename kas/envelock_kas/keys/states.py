"""The states of a key version, what each permits, and which may follow which."""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """A state, spelt as it stands in records."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"
    SUSPENDED = "suspended"
    PENDING_DESTRUCTION = "pending-destruction"
    DESTROYED = "destroyed"


WRAPS = frozenset({State.ACTIVE})
UNWRAPS = frozenset({State.ACTIVE, State.DEPRECATED})
# A retired key opens only what is wrapped anew in the same step.
REWRAPS = UNWRAPS | {State.RETIRED}
_LIVING = frozenset({State.PRE_ACTIVE, State.ACTIVE, State.DEPRECATED, State.RETIRED})
_AWAY = frozenset({State.SUSPENDED, State.PENDING_DESTRUCTION})

FOLLOWERS: Mapping[State, frozenset[State]] = {
    State.PRE_ACTIVE: frozenset({State.ACTIVE}) | _AWAY,
    State.ACTIVE: frozenset({State.DEPRECATED}) | _AWAY,
    State.DEPRECATED: frozenset({State.RETIRED}) | _AWAY,
    State.RETIRED: _AWAY,
    # From suspension or a scheduled destruction a version returns to where it was.
    State.SUSPENDED: _LIVING | {State.PENDING_DESTRUCTION},
    State.PENDING_DESTRUCTION: _LIVING | {State.SUSPENDED, State.DESTROYED},
    State.DESTROYED: frozenset(),
}
