"""From questions to verdicts and signed decisions.

A decision covers the questions of one asker about one act, KAS, client key, owner and request, up
to 100 objects. Its `policy_sha256` is computed here from the policy's own text: a caller cannot
have one policy decided and another one signed. A question that cannot be read or whose owner is
unclear is denied and stands in no decision; it never fails its neighbours.

What one call repeats costs once: each distinct policy text is read and hashed once, and a question
that is repeated whole is answered by its first verdict. The same object asked about in two ways for
one decision is denied the second time, since a decision says one thing of an object.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

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
    obligations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """All verdicts, in order, and the decisions that cover them."""

    verdicts: tuple[Verdict, ...]
    decisions: tuple[str, ...]


Asked: TypeAlias = tuple[Question, Asker] | Verdict  # a verdict: it cannot be decided, and why


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    """One question that was decided under a bundle; each is equal to itself alone."""

    question: Question
    asker: Asker
    policies: InForce
    outcome: Outcome

    @property
    def group(self) -> Hashable:
        return (_purpose(self.question, self.asker), self.policies.bundle.tenant)


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call remembers; written by `Decider.decide` alone."""

    now: int  # unix seconds
    policies: dict[str, Policy | None] = field(default_factory=dict)  # by text; None: malformed
    digests: dict[str, str] = field(default_factory=dict)  # of policies by text, base64url
    answers: dict[Hashable, tuple[Question, _Answered | Verdict]] = field(default_factory=dict)

    def policy(self, text: str) -> Policy | None:
        """Read a policy, once."""
        if text not in self.policies:
            try:
                self.policies[text] = parse_policy(text)
            except PolicyError:
                self.policies[text] = None
        return self.policies[text]

    def digest(self, text: str) -> str:
        """Hash a policy, once."""
        if text not in self.digests:
            self.digests[text] = b64url(policy_sha256(text))
        return self.digests[text]


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

    def decide(self, asked: Sequence[Asked], *, until: bool | None = None) -> Decided:
        """Decide all of *asked*.

        Args:
            asked: Questions, each with its asker; or the verdict on what is no question.
            until: Stop after the first verdict that permits (True) or denies (False).
        """
        call = _Call(int(self._clock()))
        found: list[_Answered | Verdict] = []
        for one in asked:
            found.append(one if isinstance(one, Verdict) else self._once(*one, call))
            if until is not None and _said(found[-1]).permit is until:
                break
        answered = dict.fromkeys(one for one in found if isinstance(one, _Answered))
        decisions: list[str] = []
        verdicts: dict[_Answered, Verdict] = {}
        for group in _groups(answered):
            signed = self._sign(group, call)
            verdicts |= {one: _covered(_said(one), signed, len(decisions)) for one in group}
            decisions += [signed] if signed is not None else []
        said = (
            verdicts[one] if isinstance(one, _Answered) and one in verdicts else _said(one)
            for one in found
        )
        return Decided(tuple(said), tuple(decisions))

    def _once(self, question: Question, asker: Asker, call: _Call) -> _Answered | Verdict:
        """Answer what may be signed once; an unsigned answer binds nobody to the one before."""
        if not _signable(question, asker):
            return self._answer(question, asker, call)
        name = (_purpose(question, asker), question.id)
        if name not in call.answers:
            call.answers[name] = question, self._answer(question, asker, call)
        first, answer = call.answers[name]
        if first != question:
            return Verdict(
                permit=False, reason="object asked about in two ways", error="malformed_request"
            )
        return answer

    def _answer(self, question: Question, asker: Asker, call: _Call) -> _Answered | Verdict:
        if asker.expires is not None and asker.expires <= call.now:
            return Verdict(permit=False, reason="token", error="invalid_token")
        read = [call.policy(text) for text in _texts(question)]
        policies = [policy for policy in read if policy is not None]
        if len(policies) != len(read):
            return Verdict(permit=False, reason="policy malformed")
        asked = frozenset().union(*(policy.namespaces for policy in policies))
        owner = question.tenant or self._policies.owner(asked)
        if owner is None:
            return Verdict(permit=False, reason="owner unknown")
        try:
            in_force = self._policies.of(owner)
        except NotInForceError:
            return Verdict(permit=False, reason="policy not in force", error="policy_stale")
        outcome = _evaluate(in_force, question, asker, policies, call.now)
        return _Answered(question, asker, in_force, outcome)

    def _sign(self, group: Sequence[_Answered], call: _Call) -> str | None:
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
            objs=tuple(_object(one, call) for one in group),
            key_sha256=first.question.key_sha256 or "",
            policy=DecidedBy(
                bundle=b64url(first.policies.bundle.digest),
                epoch=first.policies.epoch,
                rules=tuple(sorted(rules)[:MAX_RULES]),
            ),
            iat=call.now,
            nbf=call.now,
            exp=min(call.now + self._lifetime_seconds, expires),
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


def _purpose(question: Question, asker: Asker) -> Hashable:
    """What one decision is for, beside the owner."""
    asked = question
    who = (asker.caller, asker.expires)
    return (who, asked.request, asked.act, asked.kas_id, asked.key_sha256)


def _signable(question: Question, asker: Asker) -> bool:
    named = question.kas_id is not None and question.key_sha256 is not None
    return asker.expires is not None and named


def _said(one: _Answered | Verdict) -> Verdict:
    if isinstance(one, Verdict):
        return one
    outcome = one.outcome
    return Verdict(outcome.permit, outcome.reason, outcome.rules, obligations=outcome.obligations)


def _object(one: _Answered, call: _Call) -> DecidedObject:
    new_policy = one.question.new_policy
    return DecidedObject(
        id=one.question.id,
        policy_sha256=call.digest(one.question.policy),
        keys_sha256=one.question.keys_sha256,
        permit=one.outcome.permit,
        obligations=one.outcome.obligations,
        new_policy_sha256=None if new_policy is None else call.digest(new_policy),
    )


def _groups(answered: Iterable[_Answered]) -> Iterator[list[_Answered]]:
    """What goes into one decision each.

    INVARIANT: an object stands in a decision once; `Decider._once` answers it once for its purpose.
    """
    groups: dict[Hashable, list[_Answered]] = {}
    for one in answered:
        if _signable(one.question, one.asker):
            groups.setdefault(one.group, []).append(one)
    for group in groups.values():
        for start in range(0, len(group), MAX_OBJECTS):
            yield group[start : start + MAX_OBJECTS]


def _covered(verdict: Verdict, signed: str | None, place: int) -> Verdict:
    if signed is None:
        return Verdict(permit=False, reason="decision too large", error="too_large")
    return replace(verdict, decision=place)
