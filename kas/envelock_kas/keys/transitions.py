"""What a transition makes of a key version, and the record that says so."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from envelock_formats.canonical import Json, plain
from envelock_formats.framing import b64
from envelock_formats.publickey import der_of_key
from envelock_kas.custody import Made
from envelock_kas.errors import TransitionError
from envelock_kas.keys.registry import TOPIC, KeyVersion, Material
from envelock_kas.keys.states import FOLLOWERS, State

Change: TypeAlias = Literal["suspend", "resume", "destroy", "cancel"]


def moved(version: KeyVersion, state: State) -> KeyVersion:
    """*version* in *state*, one record on; `TransitionError` when that may not follow."""
    if state not in FOLLOWERS[version.state]:
        raise TransitionError(f"{version.id} is {version.state}: it cannot become {state}")
    return msgspec.structs.replace(version, number=version.number + 1, state=state)


def target(version: KeyVersion, change: Change, destroy_at: int) -> KeyVersion | None:
    """What *change* makes of one version; None when it does not apply to it."""
    aside = (State.SUSPENDED, State.PENDING_DESTRUCTION, State.DESTROYED)
    match change, version.state:
        case "suspend", state if state not in aside:
            away = moved(version, State.SUSPENDED)
            return msgspec.structs.replace(away, was=(*version.was, state))
        case "destroy", state if state not in aside[1:]:
            away = moved(version, State.PENDING_DESTRUCTION)
            return msgspec.structs.replace(away, was=(*version.was, state), destroy_at=destroy_at)
        case ("resume", State.SUSPENDED) | ("cancel", State.PENDING_DESTRUCTION):
            back = moved(version, version.was[-1])
            return msgspec.structs.replace(back, was=version.was[:-1], destroy_at=None)
        case _:
            return None


def material(made: Made) -> Material:
    """A key that was made, as its record states it."""
    if made.public is None:
        return Material(made.algorithm, made.handle)
    return Material(made.algorithm, made.handle, b64(der_of_key(made.public)))


def fields(op: str, versions: Sequence[KeyVersion], moves: Mapping[str, int]) -> dict[str, Json]:
    """What a `key.lifecycle` record states of *versions*, whose fences it *moves*."""
    return {"keys": plain(versions), "moves": dict(moves), "op": op, "topic": TOPIC}
