"""JSON values compared without surprises: a boolean is no number, and a type is part of a value."""

import math
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["string", "number", "boolean", "list", "object"]

MAX_DEPTH = 16
_KINDS: dict[type, Kind] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "list",
    dict: "object",
}


def kind(value: object) -> Kind | None:
    """The JSON type of *value*; None for null, for what is not JSON, for NaN and infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _KINDS.get(type(value))


def identity(value: object, depth: int = MAX_DEPTH) -> object:
    """A hashable stand-in: equal for two values exactly when they are the same JSON value.

    Raises:
        ValueError: Not JSON, or nested deeper than *depth*.
    """
    if isinstance(value, str):
        return value
    if depth == 0:
        raise ValueError("value is nested too deeply")
    if isinstance(value, list):
        return ("list", tuple(identity(item, depth - 1) for item in value))
    if isinstance(value, dict):
        members = ((name, identity(inner, depth - 1)) for name, inner in value.items())
        return ("object", frozenset(members))
    if value is not None and kind(value) is None:
        raise ValueError(f"{type(value).__name__} is not a JSON value")
    return (kind(value), value)


def same(one: object, other: object) -> bool | None:
    """Whether two values are the same; None when their types differ or one cannot be compared."""
    if kind(one) is None or kind(one) != kind(other):
        return None
    try:
        return identity(one) == identity(other)
    except ValueError:
        return None
