"""From questions to verdicts and signed decisions.

A decision covers the questions of one asker about one act, KAS, client key, owner and request, up
to 100 objects. Its `policy_sha256` is computed here from the policy's own text: a caller cannot
have one policy decided and another one signed. A question that cannot be read or whose owner is
unclear is denied and stands in no decision; it never fails its neighbours.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from envelock_formats.decision import (
    MAX_BYTES,
    MAX_OBJECTS,
    Confirmation,
    DecidedBy,
    DecidedObject,
    Decision,
)
from envelock_formats.framing import b64url
from envelock_formats.request import Caller, policy_sha256
from envelock_formats.tdf.policy import Policy, PolicyError, parse_policy
from envelock_pdp import NotInForceError
from envelock_pdp.evaluate import AccessRequest, Outcome, evaluate
from envelock_pdp.inforce import InForce
from envelock_pdp.question import Question

JTI_BYTES = 16
MAX_RULES = 100  # named in one decision


class PoliciesInForce(Protocol):
    """The bundles to decide with."""

    def of(self, tenant: str) -> InForce:
        """The bundle of *tenant*; `NotInForceError` when there is none now."""
        ...

    def owner(self, namespaces: frozenset[str]) -> str | None:
        """The one tenant that has all *namespaces*."""
        ...


class Signer(Protocol):
    """Signs decisions."""

    def sign(self, claims: Decision) -> str:
        """Return the compact JWS."""
        ...


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose question it is. Only what a verified token proves is signed.

    *expires* is the end of the token in unix seconds, None when nothing was verified. *trusted_ip*
    says that the address was stated by a registered enforcement point.
    """

    caller: Caller
    claims: Mapping[str, object] = field(repr=False)
    expires: int | None
    trusted_ip: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one question.

    *decision* is the place of the signed decision that covers it. *error* is the code of a problem
    that kept it from being decided; such a verdict denies.
    """

    permit: bool
    reason: str
    rules: tuple[str, ...] = ()
    decision: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """All verdicts, in order, and the decisions that cover them."""

    verdicts: tuple[Verdict, ...]
    decisions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Answered:
    """One question that was decided under a bundle."""

    place: int
    question: Question
    asker: Asker
    policies: InForce
    outcome: Outcome

    @property
    def group(self) -> Hashable:
        asked, asker = self.question, self.asker
        owner = self.policies.bundle.tenant
        who = (asker.caller, asker.expires)
        return (who, asked.request, asked.act, asked.kas_id, asked.key_sha256, owner)

    @property
    def signable(self) -> bool:
        asked = self.question
        named = asked.kas_id is not None and asked.key_sha256 is not None
        return self.asker.expires is not None and named


class Decider:
    """Decides questions, and signs.

    Args:
        policies: The bundles in force.
        signer: The decision point's key.
        issuer: `iss` of the decisions.
        lifetime_seconds: At most this long is a decision good for; never longer than the token.
        clock: Unix seconds.
        entropy: Returns that many random bytes.
    """

    def __init__(
        self,
        policies: PoliciesInForce,
        signer: Signer,
        *,
        issuer: str,
        lifetime_seconds: int,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._policies = policies
        self._signer = signer
        self._issuer = issuer
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock
        self._entropy = entropy

    def decide(
        self, asked: Sequence[tuple[Question, Asker | str]], *, until: bool | None = None
    ) -> Decided:
        """Decide all of *asked*.

        Args:
            asked: Questions, each with its asker, or with the code of what is wrong with its token.
            until: Stop after the first verdict that permits (True) or denies (False).
        """
        now = int(self._clock())
        verdicts: list[Verdict] = []
        answered: list[_Answered] = []
        for place, (question, asker) in enumerate(asked):
            found = self._answer(place, question, asker, now)
            if isinstance(found, Verdict):
                verdicts.append(found)
            else:
                answered.append(found)
                outcome = found.outcome
                verdicts.append(Verdict(outcome.permit, outcome.reason, outcome.rules))
            if until is not None and verdicts[-1].permit is until:
                break
        decisions: list[str] = []
        for group in _groups(answered):
            signed = self._sign(group, now)
            for one in group:
                verdicts[one.place] = _covered(verdicts[one.place], signed, len(decisions))
            decisions += [signed] if signed is not None else []
        return Decided(tuple(verdicts), tuple(decisions))

    def _answer(
        self, place: int, question: Question, asker: Asker | str, now: int
    ) -> _Answered | Verdict:
        if isinstance(asker, str):
            return Verdict(permit=False, reason="token", error=asker)
        if asker.expires is not None and asker.expires <= now:
            return Verdict(permit=False, reason="token", error="invalid_token")
        try:
            policies = [parse_policy(text) for text in _texts(question)]
        except PolicyError:
            return Verdict(permit=False, reason="policy malformed")
        asked = frozenset().union(*(policy.namespaces for policy in policies))
        owner = question.tenant or self._policies.owner(asked)
        if owner is None:
            return Verdict(permit=False, reason="owner unknown")
        try:
            in_force = self._policies.of(owner)
        except NotInForceError:
            return Verdict(permit=False, reason="policy not in force", error="policy_stale")
        outcome = _evaluate(in_force, question, asker, policies, now)
        return _Answered(place, question, asker, in_force, outcome)

    def _sign(self, group: Sequence[_Answered], now: int) -> str | None:
        first = group[0]
        caller, expires = first.asker.caller, first.asker.expires or 0
        rules = {uid for one in group for uid in one.outcome.rules}
        claims = Decision(
            iss=self._issuer,
            aud=first.question.kas_id or "",
            sub=caller.subject,
            sub_iss=caller.issuer,
            sub_tenant=caller.tenant,
            tenant=first.policies.bundle.tenant,
            act=first.question.act,
            objs=tuple(map(_object, group)),
            key_sha256=first.question.key_sha256 or "",
            policy=DecidedBy(
                bundle=b64url(first.policies.bundle.digest),
                epoch=first.policies.epoch,
                rules=tuple(sorted(rules)[:MAX_RULES]),
            ),
            iat=now,
            nbf=now,
            exp=min(now + self._lifetime_seconds, expires),
            jti=b64url(self._entropy(JTI_BYTES)),
            cnf=Confirmation(caller.jkt) if caller.jkt else None,
        )
        signed = self._signer.sign(claims)
        return signed if len(signed) <= MAX_BYTES else None


def _evaluate(
    in_force: InForce, question: Question, asker: Asker, policies: Sequence[Policy], now: int
) -> Outcome:
    """Decide under every policy of the question: rebinding needs the old one and the new one."""
    outcomes = [
        evaluate(
            in_force.bundle,
            AccessRequest(
                subject=asker.caller.subject,
                tenant=asker.caller.tenant,
                claims=asker.claims,
                action=question.act,
                object_id=question.id,
                policy=policy,
                ip=question.ip if asker.trusted_ip else None,
                purpose=question.purpose,
            ),
            now,
        )
        for policy in policies
    ]
    refused = next((outcome for outcome in outcomes if not outcome.permit), None)
    if refused is not None:
        return refused
    duties = dict.fromkeys(duty for outcome in outcomes for duty in outcome.obligations)
    return Outcome(
        permit=True,
        reason=outcomes[0].reason,
        permits=tuple(dict.fromkeys(uid for found in outcomes for uid in found.permits)),
        obligations=tuple(duties),
    )


def _texts(question: Question) -> tuple[str, ...]:
    if question.new_policy is None:
        return (question.policy,)
    return (question.policy, question.new_policy)


def _object(one: _Answered) -> DecidedObject:
    new_policy = one.question.new_policy
    return DecidedObject(
        id=one.question.id,
        policy_sha256=b64url(policy_sha256(one.question.policy)),
        keys_sha256=one.question.keys_sha256,
        permit=one.outcome.permit,
        obligations=one.outcome.obligations,
        new_policy_sha256=None if new_policy is None else b64url(policy_sha256(new_policy)),
    )


def _groups(answered: Sequence[_Answered]) -> Iterator[list[_Answered]]:
    """What goes into one decision each; an object stands in a decision once."""
    open_groups: dict[Hashable, dict[str, _Answered]] = {}
    for one in answered:
        if not one.signable:
            continue
        group = open_groups.setdefault(one.group, {})
        if len(group) == MAX_OBJECTS or one.question.id in group:
            yield list(group.values())
            group.clear()
        group[one.question.id] = one
    yield from (list(group.values()) for group in open_groups.values())


def _covered(verdict: Verdict, signed: str | None, place: int) -> Verdict:
    if signed is None:
        return Verdict(permit=False, reason="decision too large", error="too_large")
    return Verdict(verdict.permit, verdict.reason, verdict.rules, decision=place)
