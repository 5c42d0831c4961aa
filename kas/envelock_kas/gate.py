"""What release and issue check alike: the request token, the rate, the tenants, the key's state.

It reads the worker's projection, and says which numbers the ledger must still have when the record
is committed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from envelock_formats.keyid import KeyPath
from envelock_formats.request import Caller
from envelock_formats.tdf.policy import Policy
from envelock_formats.wire import read_request_token
from envelock_kas.context import Context
from envelock_kas.errors import CustodyError, StaleError, TransitionError
from envelock_kas.guard import Guard
from envelock_kas.keys.budget import WrapBudget
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.keys.registry import RegistryError, Standing
from envelock_kas.owner import OwnershipError, require_ownership
from envelock_kas.projection import Projection, policy_fence, shuts_out, tenant_fence
from envelock_kas.recorder import Recorder
from envelock_kas.records import subject_fence
from envelock_ledger.entry import Once
from envelock_ledger.errors import LedgerError
from envelock_service.problem import Problem

TENANT_CLOSED = "tenant closed"


@dataclass(frozen=True, slots=True)
class Gate:
    """The checks that need to know this worker's view of the ledger."""

    kas_id: str
    projection: Projection
    guard: Guard
    recorder: Recorder
    budget: WrapBudget
    clock: Callable[[], float]
    subject_secret: bytes = field(repr=False)

    def admit(self, caller: Caller, size: int = 0) -> None:
        """Let *caller* ask, with a request token of *size* bytes, or refuse for the rate of it.

        Raises:
            Problem: 429; the refusal is counted and recorded later, with others.
        """
        if not self.guard.admit(caller, size):
            raise Problem("rate_limited")

    def read_token(self, context: Context, token: str) -> bytes:
        """Read the request token; its name will be spent with the record.

        Raises:
            WireError: The token is malformed, or not signed by the caller's key.
        """
        proof = context.authenticated.proof
        key = proof.key if proof is not None else None
        read = read_request_token(token, key, int(self.clock()))
        context.request_token = Once(read.name, None, read.expires)
        return read.body

    async def require_open(self, context: Context, owner: str, policies: Iterable[Policy]) -> None:
        """Check that the tenants fit together, and that nobody concerned is shut out.

        Sets `context.owner` once the owner is known to exist.

        Raises:
            Problem: 403; the refusal is on record.
        """
        asked = tuple(policies)
        try:
            self._require_open(context, owner, asked)
        except OwnershipError:
            # What this worker knows may be old: read on before refusing.
            await self.catch_up()
        else:
            return
        try:
            self._require_open(context, owner, asked)
        except OwnershipError as error:
            await self.recorder.refuse(context, str(error))
            raise Problem("access_denied") from error

    def fences(self, context: Context) -> dict[str, int]:
        """The numbers that everything but the keys was judged by.

        INVARIANT: they are those of the judgement, never read again: this worker may have read on
        meanwhile, and a number that came later would let pass what it forbids.
        """
        numbers = dict(context.judged)
        if (decision := context.decision) is not None:
            numbers[policy_fence(decision.tenant)] = decision.policy.epoch
        return numbers

    async def require_foreign_key(self, context: Context, der: bytes) -> None:
        """Refuse to seal anything to the public half of a KEK.

        Raises:
            Problem: 403; the refusal is on record.
        """
        if self.projection.registry.is_ours(der):
            await self.recorder.refuse(context, "client key is one of our own")
            raise Problem("access_denied")

    async def require_wraps(self, context: Context, path: KeyPath, count: int) -> Standing:
        """The version of *path* that wraps *count* keys online, which are counted from now on.

        Raises:
            Problem: 409 or 503; the refusal is on record.
        """
        try:
            return await self.budget.reserve(path, count, Actor(context.origin))
        except TransitionError as error:
            await self.recorder.refuse(context, str(error))
            raise Problem("conflict", str(error)) from error
        except CustodyError as error:
            await self.recorder.report(context, f"custody: {error}")
            raise Problem("hsm_unavailable") from error
        except StaleError as error:
            await self.recorder.report(context, str(error))
            raise Problem("policy_stale") from error
        except LedgerError as error:
            raise Problem("ledger_unavailable") from error

    async def require_operator(self, context: Context, scope: str, *, reopens: bool) -> None:
        """Check that the caller may operate on its own tenant's keys.

        Args:
            context: The request; `context.judged` is set.
            scope: What the token must have.
            reopens: Whether this is the request that opens a closed tenant again.

        Raises:
            Problem: 403; the refusal is on record.
        """
        self.admit(context.caller)
        if scope not in context.authenticated.token.scopes:
            await self.recorder.refuse(context, f"operator: lacks the scope {scope}")
            raise Problem("access_denied", f"operating on keys needs the scope {scope}")
        await self.catch_up()
        try:
            self._require_not_shut_out(context)
        except OwnershipError as error:
            if not (reopens and str(error) == TENANT_CLOSED):
                await self.recorder.refuse(context, str(error))
                raise Problem("access_denied") from error

    async def read_on(self, context: Context, moved: str) -> None:
        """Read on after the fence *moved* refused a record.

        Raises:
            Problem: 503 when the policy moved, so that the caller asks again under the new one; 403
                when somebody was shut out. The refusal is on record.
        """
        await self.catch_up()
        if moved == policy_fence(context.owner):
            await self.recorder.refuse(context, "policy epoch is no longer in force")
            raise Problem("policy_stale")
        if moved.startswith("object:"):
            await self.recorder.refuse(context, "object has another policy now")
            raise Problem("access_denied")
        try:
            self._require_not_shut_out(context)
        except OwnershipError as error:
            await self.recorder.refuse(context, str(error))
            raise Problem("access_denied") from error

    async def catch_up(self) -> None:
        """Read the ledger's topics to their ends.

        Raises:
            Problem: 503 when the ledger does not answer, or what it says does not hold.
        """
        try:
            await self.projection.catch_up()
        except (LedgerError, RegistryError) as error:
            raise Problem("ledger_unavailable") from error

    def _require_open(self, context: Context, owner: str, policies: tuple[Policy, ...]) -> None:
        if self.projection.policy(owner) is not None:
            context.owner = owner
        home = context.caller.tenant
        require_ownership(self.projection, owner=owner, home=home, policies=policies)
        self._require_not_shut_out(context)

    def shut_out(self, caller: Caller, owner: str) -> str | None:
        """Why *caller* may have nothing of *owner*, as far as this worker knows."""
        return _shut_out(self._standing(caller, owner))

    def _require_not_shut_out(self, context: Context) -> None:
        standing = self._standing(context.caller, context.owner)
        if (kind := _shut_out(standing)) is not None:
            raise OwnershipError(kind)
        context.judged = {name: number for name, number, _ in standing}

    def _standing(self, caller: Caller, owner: str) -> list[tuple[str, int, str]]:
        """The fences that may shut out: name, number, and what it means when it does."""
        subject = subject_fence(self.subject_secret, caller.tenant, caller.issuer, caller.subject)
        return [
            (name, self.projection.number(name), kind)
            for name, kind in (
                (subject, "subject revoked"),
                (tenant_fence(owner), TENANT_CLOSED),
                (tenant_fence(caller.tenant), TENANT_CLOSED),
            )
        ]


def _shut_out(standing: Iterable[tuple[str, int, str]]) -> str | None:
    return next((kind for _, number, kind in standing if shuts_out(number)), None)
