"""Step 10 of a release: the record, and what the ledger says of it.

A record means *committed*, not delivered. A refused entry appends nothing, and a `denied` record
with the reason follows. When the outcome is unknown nothing is released: the caller asks again with
the same request token, and the ledger then knows whether the first one was recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envelock_formats.canonical import Json
from envelock_formats.framing import digest, from_b64url
from envelock_formats.printable import printable
from envelock_formats.request import Caller
from envelock_kas.context import Context
from envelock_kas.ledger import Ledger
from envelock_kas.records import Origin, Scribe, decision_name
from envelock_ledger.entry import Committed, Entry, Expired, Fenced, Once, Opening, Repeated, Spent
from envelock_ledger.errors import LedgerError
from envelock_ledger.proof import Receipt
from envelock_service.problem import Problem

MAX_REASON = 200
MAX_REASON_OF_OBJECT = 100  # a request may have many


@dataclass(frozen=True, slots=True)
class RefusedObject:
    """One object that was refused: its row in the record, with the reason."""

    row: Mapping[str, Json]
    reason: str


class MovedError(Exception):
    """A fence had moved; nothing was recorded. The argument is the fence's name."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A record about to be committed.

    Args:
        typ: `release` or `issue`.
        fields: What the record states beside what `Context` knows.
        bound_to: Hex digest that decision and request token are spent on.
        fences: Expected numbers: those of the evidence that was used.
        refused: Objects of the same request that were refused; they get a `denied` record.
        seen: Tree size that the caller saw last.
        repeatable: Whether the same request again is answered again.
    """

    typ: str
    fields: Mapping[str, Json]
    bound_to: str
    fences: Mapping[str, int]
    refused: Sequence[RefusedObject] = ()
    seen: int | None = None
    repeatable: bool = True


class Recorder:
    """Writes what the KAS decided into the ledger."""

    def __init__(self, ledger: Ledger, scribe: Scribe) -> None:
        self._ledger = ledger
        self._scribe = scribe

    async def commit(self, context: Context, draft: Draft) -> Receipt:
        """Commit a release; returns its receipt.

        Raises:
            MovedError: A fence had moved: what was known must be read again.
            Problem: The decision or proof was spent on something else, or the ledger is not there.
        """
        try:
            outcome = (await self._ledger.append([self._entry(context, draft)]))[0]
        except LedgerError as error:
            raise Problem("ledger_unavailable") from error
        match outcome:
            case Committed(receipt) | Repeated(receipt):
                if draft.refused:  # the release has spent the proof
                    await self._deny(context, draft.refused[0].reason, draft.refused, ())
                return receipt
            case Fenced(name):
                raise MovedError(name)
            case Spent():
                await self.refuse(context, "replayed")
                raise Problem("decision_replayed")
            case Expired():
                await self.refuse(context, "expired")
                raise Problem("decision_replayed", "the decision or request expired on the way")

    async def refuse(
        self, context: Context, reason: str, objects: Sequence[RefusedObject] = ()
    ) -> None:
        """Record a refusal before it is told; spends the proof of possession.

        Raises:
            Problem: The refusal could not be recorded. The caller then hears only that.
        """
        await self._deny(context, reason, objects, context.proof)

    async def _deny(
        self,
        context: Context,
        reason: str,
        objects: Sequence[RefusedObject],
        spends: tuple[Once, ...],
    ) -> None:
        try:
            entry = self._denial(context, reason, objects, spends)
            if isinstance((await self._ledger.append([entry]))[0], Spent | Expired):
                # The proof was used before; the refusal is recorded all the same.
                await self._ledger.append([self._denial(context, reason, objects, ())])
        except LedgerError as error:
            raise Problem("ledger_unavailable") from error

    async def report(self, context: Context, reason: str) -> None:
        """Record that something of ours failed, if the ledger can; never raises for it."""
        try:
            body, openings = self._write(context, "error", {"rsn": bounded(reason)})
            await self._ledger.append([Entry(body, openings)])
        except LedgerError:
            return

    async def note_refused(self, caller: Caller, origin: Origin, number: int) -> bool:
        """Record that the rate guard refused *number* requests of one caller; whether it could."""
        fields: dict[str, Json] = {"home": caller.tenant, "n": number, "rsn": "rate"}
        try:
            body, openings = self._scribe.write("denied", caller.tenant, origin, caller, fields)
            await self._ledger.append([Entry(body, openings)])
        except LedgerError:
            return False
        return True

    def _entry(self, context: Context, draft: Draft) -> Entry:
        body, openings = self._write(context, draft.typ, draft.fields)
        once = (*self._spends(context, draft.bound_to), *context.proof)
        repeat = "retry" if draft.repeatable else None
        return Entry(body, openings, once, draft.fences, repeat, draft.seen)

    def _spends(self, context: Context, bound_to: str) -> list[Once]:
        names: list[Once] = []
        if (decision := context.decision) is not None:
            name = decision_name(decision.iss, decision.tenant, decision.jti)
            names.append(Once(name, bound_to, decision.exp))
        if (token := context.request_token) is not None:
            names.append(Once(token.name, bound_to, token.expires))
        return names

    def _denial(
        self,
        context: Context,
        reason: str,
        objects: Sequence[RefusedObject],
        spends: tuple[Once, ...],
    ) -> Entry:
        fields: dict[str, Json] = {"rsn": bounded(reason)}
        if objects:
            fields["objs"] = [
                dict(refused.row) | {"rsn": bounded(refused.reason, MAX_REASON_OF_OBJECT)}
                for refused in objects
            ]
        body, openings = self._write(context, "denied", fields)
        return Entry(body, openings, once=spends)

    def _write(
        self, context: Context, typ: str, fields: Mapping[str, Json]
    ) -> tuple[bytes, tuple[Opening, ...]]:
        whole: dict[str, Json] = {"act": context.act, "home": context.caller.tenant, **fields}
        if context.digest is not None:
            whole["rh"] = context.digest.hex()
        if (decision := context.decision) is not None:
            whole |= {
                "bundle": from_b64url(decision.policy.bundle).hex(),
                "dec": decision.jti,
                "epoch": decision.policy.epoch,
                "rules": list(decision.policy.rules),
            }
        return self._scribe.write(typ, context.owner, context.origin, context.caller, whole)


def bounded(text: str, size: int = MAX_REASON) -> str:
    """A reason as it may stand in a record: printable, and no longer than *size*.

    Reasons quote what callers send; no caller can make its refusal too large to be recorded.
    """
    return printable(text)[:size]


def row(object_id: str, kid: str, policy: bytes) -> dict[str, Json]:
    """An object's row in a record."""
    return {"id": object_id, "kid": kid, "pol": policy.hex()}


def bound_to(context: Context, ids: Sequence[str]) -> str:
    """What decision and request token are spent on: this request, and what of it is handed out.

    A repeat may open neither more nor less than the first time: with another outcome it is another
    use of the same decision, and refused as such.
    """
    handed_out = [object_id.encode() for object_id in ids]
    return digest("envelock/release/v1", context.digest or b"", *handed_out).hex()
