"""Cases: what a bundle is expected to decide, written beside it.

A case is `{name, as | claims, act, attrs, at, context, expect, because}`. `as` names somebody in
`people.json`, `claims` spells the claims out; `attrs` is one or several `NAME=VALUE`, with the
namespace in front where the name alone is not unique; `at` is `HH:MM` (UTC, a Monday) or an RFC
3339 time, and noon when left out; `context` may hold `purpose` and `ip`; `expect` is `permit` or
`deny`; each text of `because` must be among the outcome's reasons. `dissem` and `object` may be
given too. Pure, like the bundle: the files come as bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from envelock_formats.canonical import Json
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeValue
from envelock_formats.tdf.policy import Policy
from envelock_pdp import BundleError
from envelock_pdp.bundle import fit, read_json
from envelock_pdp.evaluate import AccessRequest, Bundle, Outcome, evaluate

_NOBODY = "00000000-0000-0000-0000-000000000000"
_A_MONDAY = "2026-01-05"
_CLOCK_LENGTH = len("03:00")
_SHOWN_RULES = 3


class _Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    purpose: str | None = None
    ip: str | None = None


class _Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    expect: Literal["permit", "deny"]
    as_: str | None = msgspec.field(name="as", default=None)
    claims: dict[str, Any] | None = None  # JSON; msgspec knows no recursive types
    act: Literal["open", "seal", "rebind"] = "open"
    attrs: str | tuple[str, ...] = ()
    dissem: tuple[str, ...] = ()
    object: str = "case"
    at: str = "12:00"
    context: _Context = _Context()
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation; *now* is in unix seconds."""

    file: str
    name: str
    permit: bool
    request: AccessRequest
    now: int
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a case gave."""

    case: Case
    outcome: Outcome

    @property
    def missing(self) -> tuple[str, ...]:
        """Expected reasons that the outcome does not have."""
        return tuple(text for text in self.case.because if text not in self.outcome.reasons)

    @property
    def passed(self) -> bool:
        """Whether decision and reasons are as expected."""
        return self.outcome.permit is self.case.permit and not self.missing


def read_people(text: bytes) -> dict[str, dict[str, Json]]:
    """Read `people.json`: claims by name, each with a text `sub` and `tenant`.

    Raises:
        BundleError: Malformed.
    """
    path = "people.json"
    people = fit(path, read_json(path, text), dict[str, dict[str, Any]])
    for name, claims in people.items():
        if not isinstance(claims.get("sub"), str) or not isinstance(claims.get("tenant"), str):
            raise BundleError(f"{path} /{name}", '"sub" and "tenant" are needed, as texts')
    return people


def read_cases(bundle: Bundle, files: Mapping[str, bytes]) -> tuple[Case, ...]:
    """Read all cases of a bundle, in the order of their files.

    Args:
        bundle: Resolves names of attributes.
        files: `people.json`, when there is one, and `cases/*.json`; others are passed over.

    Raises:
        BundleError: Malformed; names the file and the place.
    """
    people = read_people(files["people.json"]) if "people.json" in files else {}
    found: list[Case] = []
    for path in sorted(path for path in files if path.startswith("cases/")):
        document = read_json(path, files[path])
        for place, item in enumerate(document if isinstance(document, list) else [document]):
            at = f"{path} /{place}" if isinstance(document, list) else path
            found.append(_case(bundle, people, path, at, fit(at, item, _Case)))
    return tuple(found)


def run_cases(bundle: Bundle, cases: Iterable[Case]) -> tuple[Result, ...]:
    """Decide every case."""
    return tuple(Result(case, evaluate(bundle, case.request, case.now)) for case in cases)


def never_decided(bundle: Bundle, results: Sequence[Result]) -> tuple[str, ...]:
    """The rules that decided no case."""
    decided = {uid for result in results for uid in result.outcome.rules}
    return tuple(rule.uid for rule in bundle.rules.rules if rule.uid not in decided)


def failure_lines(bundle: Bundle, result: Result) -> tuple[str, str]:
    """Two lines about a failed case: what differs, and how the decision came about."""
    words = {True: "permit", False: "deny"}
    expected, got = words[result.case.permit], words[result.outcome.permit]
    difference = f"expected {expected}, got {got}"
    if expected == got:
        wanted = ", ".join(f'"{text}"' for text in result.missing)
        difference = f'{got} as expected, but because of "{result.outcome.reason}", not of {wanted}'
    head = f'FAIL {result.case.file} "{result.case.name}": {difference}'
    return head, f"     {explain(bundle, result.outcome)}"


def explain(bundle: Bundle, outcome: Outcome) -> str:
    """How a decision came about, in one line."""
    parts = [
        f"entitlement {found.name}={value.value} {'yes' if found.held else 'no'}"
        for found in outcome.entitlements
        for value in found.asked
    ]
    if outcome.permits:
        parts.append(f"permit by {', '.join(outcome.permits)}")
    if outcome.denials:
        parts.append(f"denied by {', '.join(outcome.denials)}")
    applied = {*outcome.permits, *outcome.denials}
    idle = [rule.uid for rule in bundle.rules.rules if rule.uid not in applied]
    if idle:
        more = len(idle) - _SHOWN_RULES
        shown = ", ".join(idle[:_SHOWN_RULES]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{shown} did not apply")
    if not outcome.permit and not outcome.reason.startswith(("rule: ", "entitlement: ")):
        parts.append(outcome.reason)
    return "; ".join(parts)


def resolve(bundle: Bundle, text: str) -> AttributeValue:
    """Read `NAME=VALUE`, `NAMESPACE/NAME=VALUE` or a fully qualified name.

    Raises:
        ValueError: Malformed, or the name alone is not that of exactly one attribute.
    """
    try:
        if text.startswith("https://"):
            return AttributeValue.parse_fqn(text)
        if "/" in text:
            return AttributeValue.parse_short(text)
        name, _, value = text.partition("=")
        owners = [one.namespace for one in bundle.attributes.definitions if one.name == name]
        if len(owners) != 1:
            raise ValueError(f"{text!r} names {len(owners) or 'no'} attributes of this bundle")
        return AttributeValue(owners[0], name, value)
    except FormatError as error:
        raise ValueError(str(error)) from error


def _case(
    bundle: Bundle, people: Mapping[str, dict[str, Json]], path: str, at: str, case: _Case
) -> Case:
    attrs = (case.attrs,) if isinstance(case.attrs, str) else case.attrs
    try:
        asked = tuple(resolve(bundle, text) for text in attrs)
        now = _moment(case.at)
    except ValueError as error:
        raise BundleError(at, str(error)) from error
    claims = _claims(people, at, case)
    request = AccessRequest(
        subject=str(claims.get("sub", "")),
        tenant=str(claims.get("tenant", bundle.tenant)),
        claims=claims,
        action=case.act,
        object_id=case.object,
        policy=Policy(_NOBODY, asked, case.dissem),
        ip=case.context.ip,
        purpose=case.context.purpose,
    )
    return Case(path, case.name, case.expect == "permit", request, now, case.because)


def _claims(people: Mapping[str, dict[str, Json]], at: str, case: _Case) -> dict[str, Json]:
    if (case.as_ is None) == (case.claims is None):
        raise BundleError(at, 'a case has either "as" or "claims"')
    if case.claims is not None:
        return case.claims
    if (claims := people.get(str(case.as_))) is None:
        raise BundleError(f"{at}/as", f'"{case.as_}" is not in people.json')
    return claims


def _moment(text: str) -> int:
    spelt = f"{_A_MONDAY}T{text}:00Z" if len(text) == _CLOCK_LENGTH else text
    moment = datetime.fromisoformat(spelt)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return int(moment.astimezone(UTC).timestamp())
