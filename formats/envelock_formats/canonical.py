"""Strict JSON in, canonical JSON out.

In: UTF-8 without a byte-order mark, no duplicate names, no lone surrogates, no NaN or Infinity by
name or by size, integers within +-(2**53 - 1), bounded depth. Two parsers that follow these rules
cannot read one text differently, which is what a signature or a MAC over the text needs.

Out: RFC 8785 over the subset that this project writes. Fractions are refused: nothing here needs
them, and their shortest spelling is where implementations differ.
"""

import json
from collections.abc import Hashable, Iterable
from functools import lru_cache
from itertools import chain
from math import isfinite
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import msgspec
import orjson

from envelock_formats.errors import FormatError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
T = TypeVar("T")

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16


class CanonicalError(FormatError):
    """JSON that is malformed, ambiguous, or outside what may be written."""


def parse(text: bytes, *, max_depth: int = MAX_DEPTH, max_bytes: int = 1 << 20) -> Json:
    """Parse JSON that has exactly one reading.

    Args:
        text: UTF-8, without a byte-order mark.
        max_depth: Deepest nesting of arrays and objects.
        max_bytes: Longest text.

    Raises:
        CanonicalError: The text breaks a rule of the module docstring.
    """
    if len(text) > max_bytes:
        raise CanonicalError(f"JSON of {len(text)} bytes, at most {max_bytes} are read")
    value = _one_spelling(text) if text.isascii() else _UNSURE
    if value is _UNSURE:
        value = _parse_slowly(text)
    if text.count(b"[") + text.count(b"{") > max_depth:  # else none can be deeper
        refuse_depth(value, max_depth)
    return value


def _one_spelling(text: bytes) -> Json:
    """Parse ASCII that is spelled as it would be written; anything else is `_UNSURE`.

    What comes out as it went in repeats no name, has no integer that is too large, and hides
    nothing behind a parser's leniency: whatever any parser would have dropped is missing.
    """
    try:
        value: Json = _FAST.decode(text)
        again = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except (ValueError, TypeError, RecursionError):
        return _UNSURE
    return value if again == text else _UNSURE


def _parse_slowly(text: bytes) -> Json:
    try:
        value: Json = _DECODER.decode(text.decode())
        if b"\\u" in text:
            _refuse_surrogates(value)
    except (ValueError, RecursionError) as error:
        raise CanonicalError("not strict JSON") from error
    return value


def parse_object(
    text: bytes, *, max_depth: int = MAX_DEPTH, max_bytes: int = 1 << 20
) -> dict[str, Json]:
    """Parse strictly; anything but a JSON object is a `CanonicalError`."""
    value = parse(text, max_depth=max_depth, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise CanonicalError("not a JSON object")
    return value


def plain(value: object) -> Json:
    """A message (a `msgspec.Struct`, or a container of such) as plain JSON values."""
    built: Json = msgspec.to_builtins(value)
    return built


def decode(
    text: bytes, shape: type[T], *, max_depth: int = MAX_DEPTH, max_bytes: int = 1 << 20
) -> T:
    """Parse strictly into *shape*, a `msgspec.Struct` or any type that msgspec converts to.

    Raises:
        CanonicalError: The text is not strict JSON, or does not fit; the message names the path.
    """
    parse(text, max_depth=max_depth, max_bytes=max_bytes)  # from here on it has one reading
    decoder = _decoder(cast("Hashable", shape))
    try:
        value: T = decoder.decode(text)
    except msgspec.DecodeError as error:
        raise CanonicalError(str(error)) from error
    return value


@lru_cache(maxsize=256)
def _decoder(shape: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(shape)


def convert(value: Json, shape: type[T]) -> T:
    """Fit an already parsed value to *shape*; `CanonicalError` names the path that does not."""
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        raise CanonicalError(str(error)) from error


def refuse_depth(value: Json, left: int) -> None:
    """Refuse arrays and objects nested deeper than *left*; `CanonicalError` says so."""
    level: list[Json] = [value]
    for _ in range(left + 1):
        level = [found for found in level if isinstance(found, (dict, list))]
        if not level:
            return
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = list(chain.from_iterable(cast("Iterable[Iterable[Json]]", inside)))
    raise CanonicalError("JSON nested too deep")


def encode(value: Json) -> bytes:
    """Write RFC 8785 canonical JSON.

    Raises:
        CanonicalError: A fraction, an integer beyond 2**53 - 1, or a lone surrogate is inside.
    """
    try:
        if _is_plain(value):
            text = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER | orjson.OPT_SORT_KEYS)
            if text.isascii():  # code points sort as UTF-16 units do while all of them are ASCII
                return text
        return orjson.dumps(_writable(value), option=orjson.OPT_STRICT_INTEGER)
    except (TypeError, ValueError) as error:  # orjson's own error is a TypeError
        raise CanonicalError("value has no canonical JSON") from error


def _is_plain(value: Json) -> bool:
    """Whether *value* is built of nothing but the types that canonical JSON is written from."""
    levels: list[Iterable[Json]] = [(value,)]
    for members in levels:  # which grows
        kinds = set(map(type, members))
        if kinds <= _SCALARS:
            continue
        if not kinds <= _PLAIN:
            return False
        for member in members:
            kind: type[object] = type(member)
            if kind is dict:
                levels.append(cast("dict[str, Json]", member).values())
            elif kind is list or kind is tuple:
                levels.append(cast("list[Json]", member))
    return True


def _writable(value: Json) -> Json:
    """Check *value* and order its names as RFC 8785 section 3.2.3 does, by UTF-16 code units."""
    if isinstance(value, dict):
        return {name: _writable(value[name]) for name in sorted(value, key=_utf16)}
    if isinstance(value, (list, tuple)):  # structs turned into builtins hold tuples
        return [_writable(item) for item in value]
    if value is None or isinstance(value, (str, int)):  # bool is an int
        return value
    raise CanonicalError(f"{type(value).__name__} has no canonical JSON here")


def _utf16(name: str) -> bytes | str:
    return name.encode("utf-16-be")


def _refuse_surrogates(value: Json) -> None:
    json.dumps(value, ensure_ascii=False).encode()


def _members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CanonicalError("a JSON object repeats a name")
    return members


def _integer(digits: str) -> int:
    if len(digits) > len("-9007199254740991") or abs(value := int(digits)) > MAX_INTEGER:
        raise CanonicalError("integer beyond 2**53 - 1")
    return value


def _fraction(digits: str) -> float:
    if not isfinite(value := float(digits)):
        raise CanonicalError("number beyond what a double holds")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise CanonicalError(f"{name} is not JSON")


_SCALARS = frozenset({str, int, bool, type(None)})
_PLAIN = _SCALARS | {dict, list, tuple}
_UNSURE: Json = ["no value: compared by identity"]
_FAST = msgspec.json.Decoder()
_DECODER = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_integer,
    parse_float=_fraction,
    parse_constant=_refuse_constant,
)
