"""Paths to attributes: `$.name.name`, the part of ObjectPath that names one value.

ObjectPath is an expression language: `tenant` is a constant there, `1 + 1` computes, `$..x` yields
a generator that every test of presence accepts. None of these is a path here. JSON null counts as
absent. An attribute of something that is not an object is neither present nor absent: `MALFORMED`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str, ...]
Lookup: TypeAlias = Callable[[Mapping[str, object]], object]

_PATH = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_-]*)+\Z")
_MAX_PATH = 200


class _Malformed:
    """The type of `MALFORMED`; equal to nothing that JSON can hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MALFORMED"


MALFORMED: Final = _Malformed()


def parse_path(text: str) -> Path:
    """Split `$.a.b` into its names.

    Raises:
        ValueError: Any other expression.
    """
    if len(text) > _MAX_PATH or not _PATH.match(text):
        raise ValueError(f"{text[:_MAX_PATH]!r} is not a path: expected $.name or $.name.name")
    return tuple(text.split(".")[1:])


def show_path(path: Path) -> str:
    """Write the path as it stands in rules."""
    return ".".join(("$", *path))


def lookup(path: Path) -> Lookup:
    """Compile a path to a function: mapping -> value, None when absent, or `MALFORMED`."""
    if len(path) == 1:
        return _member(path[0])
    *parents, last = path

    def find(root: Mapping[str, object]) -> object:
        for name in parents:
            inner = root.get(name)
            if inner is None:
                return None
            if not isinstance(inner, dict):
                return MALFORMED
            root = inner
        return root.get(last)

    return find


def _member(name: str) -> Lookup:
    def find(root: Mapping[str, object]) -> object:
        return root.get(name)

    return find
