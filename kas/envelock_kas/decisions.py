"""Step 6 of a release: the decision, presented by the caller or asked from the PDP.

Either way its signature, issuer, audience, type and times are verified, and it is held against what
is asked. A PDP that answers garbage is a PDP that did not answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from envelock_formats import jose
from envelock_formats.decision import (
    DecidedObject,
    DecisionError,
    DecisionMismatchError,
    require_match,
    verify,
)
from envelock_formats.request import RequestedObject
from envelock_kas.context import Context
from envelock_kas.errors import PdpUnavailableError
from envelock_kas.pdp import DecisionPoint, Question, QuestionObject
from envelock_kas.recorder import Recorder
from envelock_service.problem import Problem


class PdpKeys(Protocol):
    """The pinned public keys of the PDP."""

    def current(self) -> Mapping[str, jose.VerifyingKey]:
        """The keys by `kid`."""
        ...


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the decision says of each object asked, by id, and the reasons as far as known."""

    decided: Mapping[str, DecidedObject]
    reasons: Mapping[str, str]

    def refusal(self, object_id: str) -> str | None:
        """Why the object is refused; None when it is permitted and nothing is owed for it."""
        decided = self.decided[object_id]
        if not decided.permit:
            return self.reasons.get(object_id, "decision: deny")
        if decided.obligations:
            # No obligation can be fulfilled here, and one that is not must deny.
            return f"obligation {decided.obligations[0]}"
        return None

    def obligations(self, object_id: str) -> tuple[str, ...]:
        """What the decision asks of whoever gets the object; nothing without one."""
        decided = self.decided.get(object_id)
        return () if decided is None else decided.obligations


class Decisions:
    """Obtains and verifies decisions."""

    def __init__(
        self,
        *,
        pdp: DecisionPoint,
        keys: PdpKeys,
        issuer: str,
        kas_id: str,
        recorder: Recorder,
        clock: Callable[[], float],
    ) -> None:
        self._pdp = pdp
        self._keys = keys
        self._issuer = issuer
        self._kas_id = kas_id
        self._recorder = recorder
        self._clock = clock

    async def decide(
        self,
        context: Context,
        key_digest: bytes,
        objects: Sequence[QuestionObject],
        presented: str | None,
    ) -> Verdicts:
        """Verify the decision and hold it against the request; sets `context.decision`.

        Raises:
            Problem: The PDP is not there (503), or the presented decision does not verify or was
                made for another request (403). The refusal is on record.
        """
        if presented is not None:
            return await self._hold(context, key_digest, objects, presented)
        question = Question(
            act=context.act,
            tenant=context.owner,
            key_digest=key_digest,
            objects=objects,
            subject_token=context.authenticated.text,
            address=context.origin.address,
        )
        try:
            answer = await self._pdp.ask(question)
            decided = self._verify(
                context, key_digest, [item.asked for item in objects], answer.decision
            )
        except (PdpUnavailableError, DecisionError, DecisionMismatchError) as error:
            await self._recorder.report(context, f"pdp: {error}")
            raise Problem("pdp_unavailable") from error
        return Verdicts(decided, answer.reasons)

    async def _hold(
        self,
        context: Context,
        key_digest: bytes,
        objects: Sequence[QuestionObject],
        presented: str,
    ) -> Verdicts:
        try:
            asked = [item.asked for item in objects]
            return Verdicts(self._verify(context, key_digest, asked, presented), {})
        except DecisionMismatchError as error:
            await self._recorder.refuse(context, f"decision mismatch: {error}")
            raise Problem("decision_mismatch") from error
        except DecisionError as error:
            await self._recorder.refuse(context, f"decision: {error}")
            raise Problem("access_denied") from error

    def _verify(
        self,
        context: Context,
        key_digest: bytes,
        objects: Sequence[RequestedObject],
        token: str,
    ) -> Mapping[str, DecidedObject]:
        decision = verify(
            token,
            self._keys.current(),
            issuer=self._issuer,
            kas_id=self._kas_id,
            now=int(self._clock()),
        )
        decided = require_match(
            decision,
            caller=context.caller,
            tenant=context.owner,
            act=context.act,
            key_digest=key_digest,
            objects=objects,
        )
        context.decision = decision
        return decided
