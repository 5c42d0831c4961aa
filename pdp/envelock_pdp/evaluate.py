"""One decision: pure, total, fail-closed.

| entitlement                    | a denial applies | a permit, no denial | none applies |
|--------------------------------|------------------|---------------------|--------------|
| attributes asked, all entitled | deny             | permit              | permit, unless `rules = required` |
| attributes asked, any not      | deny             | deny                | deny         |
| no attributes                  | deny             | permit              | deny         |

On top of it: the caller's home tenant is the owner's or one that the bundle's `sharing` names, and
when the policy's `dissem` is not empty the subject or its e-mail address stands in it.

What rules can ask about:

| element  | id              | attributes                                                        |
|----------|-----------------|-------------------------------------------------------------------|
| subject  | `sub`           | the claims of the token; `tenant` is always the verified home tenant |
| resource | the object's id | `tenant` (owner), `attributes` (list of FQNs), and by its name each attribute of the policy: its value, or a list when the policy asks for several; absent when two namespaces share the name |
| action   | `open`, `seal` or `rebind` | none                                                   |
| context  | -               | `time` (UTC): `iso`, `hour`, `minute`, `weekday` (1 Monday to 7), `epoch` (seconds); `network.ip` when known; `purpose` when the caller states one |
"""  # noqa: E501 a table has long lines

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from envelock_formats.tdf.policy import Policy
from envelock_pdp.attributes import AttributeSet, Entitlement
from envelock_pdp.compile import CompiledRule, Facts
from envelock_pdp.rules import Rule


class Rules(Protocol):
    """The rules of a bundle, by whichever engine reads them."""

    @property
    def rules(self) -> tuple[Rule, ...]: ...

    def applying(self, facts: Facts) -> Sequence[CompiledRule]:
        """The rules that decide about *facts*, in the order of the bundle; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Bundle:
    """The policies of one tenant. *digest* is 32 bytes, over the files that decide."""

    tenant: str
    namespaces: tuple[str, ...]
    contact: str
    rules_required: bool
    sharing: frozenset[str]  # home tenants that are admitted beside the owner
    attributes: AttributeSet
    rules: Rules
    digest: bytes


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """Who wants to do what with which object. Everything about the subject is verified."""

    subject: str
    tenant: str  # home tenant
    claims: Mapping[str, object] = field(repr=False)
    action: str
    object_id: str
    policy: Policy
    ip: str | None = None
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was decided, and why.

    *reason* is for the record, never for the caller; *permits* and *denials* are the ids of the
    rules that apply, whether or not they made the difference; *obligations* come with a permit.
    """

    permit: bool
    reason: str
    entitlements: tuple[Entitlement, ...] = ()
    permits: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that decided: the denials if there are any, else the permits."""
        return self.denials or self.permits

    @property
    def reasons(self) -> tuple[str, ...]:
        """*reason* and every other ground on the same side."""
        grounds = [found.reason for found in self.entitlements if not found.held]
        grounds += [f"rule: {uid}" for uid in self.rules]
        return (self.reason, *(ground for ground in grounds if ground != self.reason))


def evaluate(bundle: Bundle, request: AccessRequest, now: int) -> Outcome:
    """Decide *request* under *bundle*.

    Args:
        bundle: The owner's bundle.
        request: What is asked. That the subject is authentic is not checked here.
        now: Unix seconds.
    """
    if request.tenant != bundle.tenant and request.tenant not in bundle.sharing:
        return Outcome(permit=False, reason=f"tenant not admitted: {request.tenant}")
    claims = {**request.claims, "tenant": request.tenant}
    entitlements = bundle.attributes.entitlements(claims, request.policy.attributes)
    applying = bundle.rules.applying(facts_of(bundle, request, now))
    permits = tuple(rule.uid for rule in applying if rule.effect == "allow")
    denials = tuple(rule.uid for rule in applying if rule.effect == "deny")
    ground = _denial(bundle, request, entitlements, permits, denials)
    owed = [duty for rule in applying if rule.effect == "allow" for duty in rule.obligations]
    return Outcome(
        permit=ground is None,
        reason=ground or (f"rule: {permits[0]}" if permits else "entitled"),
        entitlements=entitlements,
        permits=permits,
        denials=denials,
        obligations=() if ground else tuple(dict.fromkeys(owed)),
    )


def _denial(
    bundle: Bundle,
    request: AccessRequest,
    entitlements: tuple[Entitlement, ...],
    permits: tuple[str, ...],
    denials: tuple[str, ...],
) -> str | None:
    """The first ground to deny; None when there is none."""
    for found in entitlements:
        if not found.held:
            return found.reason
    if denials:
        return f"rule: {denials[0]}"
    if not permits and (bundle.rules_required or not entitlements):
        return "rules: none applies"
    if request.policy.dissem and not named(request):
        return "dissem"
    return None


def named(request: AccessRequest) -> bool:
    """Whether `dissem` names the subject, or its address unless the issuer calls it unverified."""
    email = request.claims.get("email")
    if request.subject in request.policy.dissem:
        return True
    verified = request.claims.get("email_verified", True) is True
    return verified and isinstance(email, str) and email in request.policy.dissem


def facts_of(bundle: Bundle, request: AccessRequest, now: int) -> Facts:
    """What rules are asked about *request*."""
    return Facts(
        subject_id=request.subject,
        resource_id=request.object_id,
        action_id=request.action,
        subject={**request.claims, "tenant": request.tenant},
        resource=_resource(bundle, request.policy),
        action={},
        context=_context(request, now),
    )


def _resource(bundle: Bundle, policy: Policy) -> dict[str, object]:
    values: dict[str, list[str]] = {}
    namespaces: dict[str, set[str]] = {}
    for asked in policy.attributes:
        values.setdefault(asked.name, []).append(asked.value)
        namespaces.setdefault(asked.name, set()).add(asked.namespace)
    named: dict[str, object] = {
        name: found[0] if len(found) == 1 else found
        for name, found in values.items()
        if len(namespaces[name]) == 1
    }
    fqns = [asked.fqn for asked in policy.attributes]
    return named | {"tenant": bundle.tenant, "attributes": fqns}


def _context(request: AccessRequest, now: int) -> dict[str, object]:
    context: dict[str, object] = {"time": _time(now)}
    if request.ip is not None:
        context["network"] = {"ip": request.ip}
    if request.purpose is not None:
        context["purpose"] = request.purpose
    return context


@lru_cache(maxsize=2)  # one second has many decisions, and the same time for all of them
def _time(now: int) -> dict[str, object]:
    """Rules read this and nothing else does; it is never changed."""
    moment = datetime.fromtimestamp(now, UTC)
    return {
        "iso": moment.isoformat(),
        "hour": moment.hour,
        "minute": moment.minute,
        "weekday": moment.isoweekday(),
        "epoch": now,
    }
