"""What the KAS asks of a PDP: a signed decision, with the caller's own token as evidence.

The answer's reasons are for the ledger; only what is signed counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from envelock_formats.request import RequestedObject


@dataclass(frozen=True, slots=True)
class QuestionObject:
    """One object: its digests, and the base64 texts of policies for the PDP to read itself.

    *new_policy* is there to rebind, and only then.
    """

    asked: RequestedObject
    policy: str
    new_policy: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """May the bearer of *subject_token* do *act* with these objects, their keys sealed to a key?"""

    act: str
    tenant: str  # owner of the objects
    key_digest: bytes
    objects: Sequence[QuestionObject]
    subject_token: str = field(repr=False)
    address: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The signed decision, and per object id why it says no."""

    decision: str
    reasons: Mapping[str, str]


class DecisionPoint(Protocol):
    """A PDP that this KAS is a registered enforcement point of."""

    async def ask(self, question: Question) -> Answer:
        """Ask; raises `PdpUnavailableError` when there is no answer to act on."""
        ...
