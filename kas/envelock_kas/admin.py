"""What operators do, and the PDP's announcements: each is one record before it is in force.

An operator has the scope `envelock:keys` and acts on its own tenant only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from envelock_formats.canonical import Json
from envelock_formats.framing import from_b64url
from envelock_formats.keyid import KeyPath
from envelock_formats.request import Caller
from envelock_kas.errors import StaleError, TransitionError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.ledger import Ledger
from envelock_kas.projection import (
    POLICY_TOPIC,
    STANDING_TOPIC,
    Projection,
    policy_fence,
    shuts_out,
    tenant_fence,
)
from envelock_kas.records import Origin, Scribe, subject_fence
from envelock_ledger.entry import Committed, Entry

Standing: TypeAlias = Literal["shut", "open"]
_ATTEMPTS = 5


class RollbackError(Exception):
    """A bundle that was in force before is announced again, and no operator confirmed it."""


class Announcement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a PDP announces of a tenant's bundle; `bundle` is its digest, base64url."""

    tenant: str
    bundle: str
    namespaces: tuple[str, ...]
    sharing: tuple[str, ...] = ()
    confirm: bool = False


class Epoch(msgspec.Struct, frozen=True):
    """The epoch that a bundle is in force under, and the record that says so."""

    epoch: int
    record: int


@dataclass(frozen=True, slots=True)
class _Move:
    typ: str
    tenant: str
    topic: str
    fence: str
    number: int
    fields: Mapping[str, Json]


class Administration:
    """Records changes of policies, subjects and tenants."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        projection: Projection,
        scribe: Scribe,
        subject_secret: bytes,
        request_ids: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._projection = projection
        self._scribe = scribe
        self._subject_secret = subject_secret
        self._request_ids = request_ids

    async def announce(self, announced: Announcement) -> Epoch:
        """Put a bundle in force; the one that already is keeps its epoch.

        Raises:
            RollbackError: The bundle was in force before and is not confirmed.
            TransitionError: The tenant is no tenant's name, or a namespace is another tenant's.
            StaleError: Others kept moving the epoch.
            LedgerError: The ledger did not answer.
            FormatError: The digest is not base64url.
        """
        KeyPath(announced.tenant)
        bundle = from_b64url(announced.bundle).hex()  # as every digest in a record
        for _ in range(_ATTEMPTS):
            await self._projection.catch_up()
            self._require_free(announced.tenant, announced.namespaces)
            state = self._projection.policy(announced.tenant)
            if state is not None and state.current.bundle == bundle:
                return Epoch(state.current.epoch, state.index)
            if state is not None and bundle in state.earlier and not announced.confirm:
                raise RollbackError(announced.bundle)
            number = (state.current.epoch if state is not None else 0) + 1
            fields: dict[str, Json] = {
                "bundle": bundle,
                "confirmed": announced.confirm,
                "namespaces": list(announced.namespaces),
                "sharing": list(announced.sharing),
            }
            fence = policy_fence(announced.tenant)
            move = _Move("policy.change", announced.tenant, POLICY_TOPIC, fence, number, fields)
            index = await self._commit(move, Actor(Origin(self._request_ids())))
            if index is not None:
                await self._projection.catch_up()
                return Epoch(number, index)
        raise StaleError(f"policy of {announced.tenant}: the epoch kept moving")

    async def set_subject(self, subject: Caller, standing: Standing, actor: Actor) -> int:
        """Shut out a subject of the operator's tenant, or let it in again; returns the record.

        Raises:
            TransitionError: It already is so.
        """
        names = (subject.tenant, subject.issuer, subject.subject)
        fence = subject_fence(self._subject_secret, *names)
        return await self._set("subject.revoke", subject.tenant, fence, standing, actor)

    async def set_tenant(self, tenant: str, standing: Standing, actor: Actor) -> int:
        """Close a tenant, or open it again; returns the record.

        Raises:
            TransitionError: It already is so.
        """
        return await self._set("admin", tenant, tenant_fence(tenant), standing, actor)

    async def _set(
        self, typ: str, tenant: str, fence: str, standing: Standing, actor: Actor
    ) -> int:
        for _ in range(_ATTEMPTS):
            await self._projection.catch_up()
            number = self._projection.number(fence)
            if shuts_out(number) == (standing == "shut"):
                raise TransitionError(f"already {standing}")
            op: dict[str, Json] = {"op": standing}
            move = _Move(typ, tenant, STANDING_TOPIC, fence, number + 1, op)
            if (index := await self._commit(move, actor)) is not None:
                await self._projection.catch_up()
                return index
        raise StaleError("others kept changing it")

    async def _commit(self, move: _Move, actor: Actor) -> int | None:
        """Record a move; None when the fence had moved already."""
        fields = dict(move.fields) | {"moves": {move.fence: move.number}, "topic": move.topic}
        body, openings = self._scribe.write(
            move.typ, move.tenant, actor.origin, actor.caller, fields
        )
        judged = {name: number for name, number in actor.judged.items() if name != move.fence}
        entry = Entry(body, openings, actor.proof, judged)
        outcome = (await self._ledger.append([entry]))[0]
        return outcome.receipt.index if isinstance(outcome, Committed) else None

    def _require_free(self, tenant: str, namespaces: Sequence[str]) -> None:
        for namespace in namespaces:
            owner = self._projection.owner_of(namespace)
            if owner not in {None, tenant}:
                raise TransitionError(f"namespace {namespace} is another tenant's")
