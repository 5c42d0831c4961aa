"""The conditions of rules, by name: what each asks of a value, in three answers.

True and False are certain. None means that the condition cannot be evaluated: the attribute is
absent, or of another type than the condition is about. A boolean is not a number; a list with an
element of a type that none of the condition's own values has is itself of another type. `Exists`
and `NotExists` ask for presence, so absence is an answer to them.

Where the name of a condition reads two ways, it answers only where both readings agree: `AllNotIn`
(none of them is in, or not all of them are) is None for a list of which some are in, or that is
empty. `AllIn` of an empty list is False.
"""

import ipaddress
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from typing import TypeAlias

from envelock_formats.canonical import Json
from envelock_pdp.paths import MALFORMED
from envelock_pdp.patterns import MAX_TEXT, compile_pattern
from envelock_pdp.values import Kind, identity, kind, same

Answer: TypeAlias = bool | None
Test: TypeAlias = Callable[[object], Answer]
Comparison: TypeAlias = Callable[[object, object], Answer]
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_TEXTS: frozenset[Kind | None] = frozenset({"string"})
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def negation(answer: Answer) -> Answer:
    """Kleene's not: what cannot be evaluated stays so."""
    return None if answer is None else not answer


def numeric(compare: Callable[[float, float], bool], bound: float) -> Test:
    """A test of a number against *bound*."""

    def test(value: object) -> Answer:
        if type(value) is int:  # not a boolean
            return compare(value, bound)
        return compare(value, bound) if isinstance(value, float) and isfinite(value) else None

    return test


def textual(compare: Callable[[str, str], bool], wanted: str, *, fold: bool) -> Test:
    """A test of a string against *wanted*; *fold* compares both in lower case."""
    wanted = wanted.lower() if fold else wanted

    def test(value: object) -> Answer:
        if not isinstance(value, str):
            return None
        return compare(value.lower() if fold else value, wanted)

    return test


def matching(pattern: str) -> Test:
    """A test of a whole string against a pattern of `patterns`."""
    compiled = compile_pattern(pattern)

    def test(value: object) -> Answer:
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            return None
        return compiled.fullmatch(value) is not None

    return test


def within(cidr: str) -> Test:
    """A test of an IP address in text against a network.

    SECURITY: an IPv4 address written as IPv6 (`::ffff:10.1.1.1`) is the IPv4 address, so it cannot
    escape a rule about an IPv4 network.

    Raises:
        ValueError: Host bits are set, no prefix length is given, or an IPv4 network is written as
            IPv6.
    """
    network = ipaddress.ip_network(cidr)
    if "/" not in cidr:
        raise ValueError(f"{cidr!r} has no prefix length")
    if isinstance(network, ipaddress.IPv6Network) and network.overlaps(_MAPPED):
        raise ValueError(f"{cidr!r} holds IPv4 addresses: write it as an IPv4 network")

    def test(value: object) -> Answer:
        return _contains(network, value) if isinstance(value, str) else None

    return test


def _contains(network: _Network, text: str) -> Answer:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    return address in network


def equal_to(wanted: Json) -> Test:
    """A test of an object against *wanted*, members in any order."""

    def test(value: object) -> Answer:
        return same(value, wanted)

    return test


def contained(values: Sequence[Json], *, inside: bool) -> Test:
    """A test of one value: is it, or is it not, among *values*."""
    kinds = frozenset(map(kind, values))
    wanted = frozenset(map(identity, values))

    def test(value: object) -> Answer:
        found = _identities((value,), kinds)
        return None if found is None else found.issubset(wanted) is inside

    return test


def overlapping(
    compare: Callable[[frozenset[object], frozenset[object]], Answer],
) -> Callable[[Sequence[Json]], Test]:
    """A family of tests that compare the elements of a list with the condition's values."""

    def build(values: Sequence[Json]) -> Test:
        kinds = frozenset(map(kind, values))
        wanted = frozenset(map(identity, values))

        def test(value: object) -> Answer:
            found = _identities(value, kinds) if isinstance(value, list) else None
            return None if found is None else compare(found, wanted)

        return test

    return build


def _identities(
    found: Collection[object], kinds: Collection[Kind | None]
) -> frozenset[object] | None:
    if kinds == _TEXTS:  # the common case, and a string is its own identity
        return frozenset(found) if all(type(item) is str for item in found) else None
    if not all(kind(item) in kinds for item in found):
        return None
    try:
        return frozenset(map(identity, found))
    except ValueError:
        return None


def _all_in(found: frozenset[object], wanted: frozenset[object]) -> Answer:
    return bool(found) and found <= wanted


def _all_not_in(found: frozenset[object], wanted: frozenset[object]) -> Answer:
    none_in, all_in = found.isdisjoint(wanted), found <= wanted
    return None if none_in is all_in else none_in


def _any_in(found: frozenset[object], wanted: frozenset[object]) -> Answer:
    return not found.isdisjoint(wanted)


def _any_not_in(found: frozenset[object], wanted: frozenset[object]) -> Answer:
    return found.isdisjoint(wanted)


def _present(value: object) -> Answer:
    return None if value is MALFORMED else value is not None


def _absent(value: object) -> Answer:
    return negation(_present(value))


def _any_value(value: object) -> Answer:
    return _present(value) or None


def _empty(value: object) -> Answer:
    return not value if isinstance(value, list) else None


def _not_empty(value: object) -> Answer:
    return negation(_empty(value))


def _is_in(value: object, others: object) -> Answer:
    if not isinstance(others, list) or kind(value) is None:
        return None
    kinds = frozenset(map(kind, others))
    if others and kind(value) not in kinds:
        return None
    found, wanted = _identities([value], {kind(value)}), _identities(others, kinds - {None})
    return None if found is None or wanted is None else found <= wanted


def _is_not_in(value: object, others: object) -> Answer:
    return negation(_is_in(value, others))


def _not_same(value: object, other: object) -> Answer:
    return negation(same(value, other))


def _lists(compare: Callable[[frozenset[object], frozenset[object]], Answer]) -> Comparison:
    def test(value: object, other: object) -> Answer:
        if not isinstance(value, list) or not isinstance(other, list):
            return None
        kinds = frozenset(map(kind, other)) or frozenset(map(kind, value))
        found, wanted = _identities(value, kinds - {None}), _identities(other, kinds - {None})
        return None if found is None or wanted is None else compare(found, wanted)

    return test


def _not_equal(text: str, wanted: str) -> bool:
    return text != wanted


def _contains_text(text: str, wanted: str) -> bool:
    return wanted in text


def _lacks_text(text: str, wanted: str) -> bool:
    return wanted not in text


NUMERIC: Mapping[str, Callable[[float, float], bool]] = {
    "Eq": operator.eq,
    "Neq": operator.ne,
    "Gt": operator.gt,
    "Gte": operator.ge,
    "Lt": operator.lt,
    "Lte": operator.le,
}
TEXTUAL: Mapping[str, Callable[[str, str], bool]] = {
    "Equals": operator.eq,
    "NotEquals": _not_equal,
    "StartsWith": str.startswith,
    "EndsWith": str.endswith,
    "Contains": _contains_text,
    "NotContains": _lacks_text,
}
LISTED: Mapping[str, Callable[[Sequence[Json]], Test]] = {
    "IsIn": lambda values: contained(values, inside=True),
    "IsNotIn": lambda values: contained(values, inside=False),
    "AllIn": overlapping(_all_in),
    "AllNotIn": overlapping(_all_not_in),
    "AnyIn": overlapping(_any_in),
    "AnyNotIn": overlapping(_any_not_in),
}
BARE: Mapping[str, Test] = {
    "Exists": _present,
    "NotExists": _absent,
    "Any": _any_value,
    "IsEmpty": _empty,
    "IsNotEmpty": _not_empty,
}
COMPARED: Mapping[str, Comparison] = {
    "EqualsAttribute": same,
    "NotEqualsAttribute": _not_same,
    "IsInAttribute": _is_in,
    "IsNotInAttribute": _is_not_in,
    "AllInAttribute": _lists(_all_in),
    "AllNotInAttribute": _lists(_all_not_in),
    "AnyInAttribute": _lists(_any_in),
    "AnyNotInAttribute": _lists(_any_not_in),
}
LOGICAL = frozenset({"AllOf", "AnyOf", "Not"})
PLAIN: Mapping[str, Callable[[str], Test]] = {"RegexMatch": matching, "CIDR": within}
NAMES = frozenset({*NUMERIC, *TEXTUAL, *LISTED, *BARE, *COMPARED, *LOGICAL, *PLAIN, "EqualsObject"})
