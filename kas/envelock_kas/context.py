"""One request on its way through the steps: who asks, from where, and what is known so far."""

from dataclasses import dataclass, field

from envelock_formats.decision import Decision
from envelock_formats.request import Caller
from envelock_kas.records import Origin
from envelock_ledger.entry import Once
from envelock_service.callers import Authenticated


@dataclass(slots=True)
class Context:
    """What every record of the request needs. One task owns it.

    `owner` is the tenant whose chain the records join: the caller's home until the owner is known.
    """

    authenticated: Authenticated
    origin: Origin
    act: str
    owner: str
    digest: bytes | None = None
    decision: Decision | None = None
    request_token: Once | None = None  # its digest is filled in with the request's
    judged: dict[str, int] = field(default_factory=dict)  # fences by which nobody was shut out

    @property
    def caller(self) -> Caller:
        """The verified caller."""
        return self.authenticated.token.caller

    @property
    def proof(self) -> tuple[Once, ...]:
        """The name that the proof of possession spends: by every outcome, denials too."""
        proof = self.authenticated.proof
        return (Once(proof.name, None, proof.expires),) if proof is not None else ()
