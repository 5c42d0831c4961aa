"""What this worker knows from the ledger: keys, policies, and who is shut out.

It is read at start and read on when a fence says that something moved. A record counts only when
its receipt verifies under the pinned log key, so a worker cannot be told of a key that was never
recorded.

INVARIANT: nothing here is fresher than the ledger, and nothing is released on it alone: the numbers
go into the entry as expectations, and the ledger refuses the entry when one has moved.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from envelock_formats.canonical import Json, convert
from envelock_formats.errors import FormatError
from envelock_formats.keyid import KeyId
from envelock_kas.keys.registry import TOPIC as KEY_TOPIC
from envelock_kas.keys.registry import Registry, RegistryError
from envelock_kas.ledger import Ledger
from envelock_ledger.note import VerifierKey

POLICY_TOPIC = "policy"
STANDING_TOPIC = "standing"
WRAPS_TOPIC = "wraps"


class PolicyChange(msgspec.Struct, frozen=True):
    """What a `policy.change` record states of a tenant's bundle; `bundle` is its digest in hex."""

    tn: str
    bundle: str
    namespaces: tuple[str, ...]
    sharing: tuple[str, ...]
    moves: dict[str, int]

    @property
    def epoch(self) -> int:
        """The number that the record moved the tenant's policy fence to."""
        return self.moves[policy_fence(self.tn)]


class WrapsReserved(msgspec.Struct, frozen=True):
    """What a `key.wraps` record states: how often a key version may have wrapped, at most."""

    upto: int
    moves: dict[str, int]


class Reserved(NamedTuple):
    """The latest reservation of wraps: the number of its fence, and how many there are."""

    number: int
    upto: int


@dataclass(frozen=True, slots=True)
class PolicyState:
    """The bundle in force for a tenant, and every digest that ever was."""

    current: PolicyChange
    index: int
    earlier: frozenset[str]


def policy_fence(tenant: str) -> str:
    """The ledger's name for the policy epoch of a tenant."""
    return f"policy:{tenant}"


def tenant_fence(tenant: str) -> str:
    """The ledger's name for whether a tenant is open."""
    return f"tenant:{tenant}"


def wraps_fence(key_id: KeyId) -> str:
    """The ledger's name for the wraps that were reserved of a key version."""
    return f"wraps:{key_id}"


def shuts_out(number: int) -> bool:
    """Whether a subject's or tenant's fence at *number* shuts out: odd numbers do."""
    return number % 2 == 1


class Projection:
    """The worker's view. `catch_up` is its one writer."""

    def __init__(self, ledger: Ledger, ledger_key: VerifierKey) -> None:
        self.registry = Registry()
        self._ledger = ledger
        self._ledger_key = ledger_key
        self._policies: dict[str, PolicyState] = {}
        self._standing: dict[str, int] = {}
        self._wraps: dict[str, Reserved] = {}
        self._next = {POLICY_TOPIC: 0, STANDING_TOPIC: 0, WRAPS_TOPIC: 0}
        self._reading: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None

    def policy(self, tenant: str) -> PolicyState | None:
        """The bundle in force for *tenant*."""
        return self._policies.get(tenant)

    def epochs(self) -> dict[str, int]:
        """The policy epoch of every tenant."""
        return {tenant: state.current.epoch for tenant, state in self._policies.items()}

    def owner_of(self, namespace: str) -> str | None:
        """The tenant whose bundle holds *namespace*."""
        for tenant, state in self._policies.items():
            if namespace in state.current.namespaces:
                return tenant
        return None

    def number(self, fence: str) -> int:
        """The number of a subject's or tenant's fence."""
        return self._standing.get(fence, 0)

    def wraps(self, fence: str) -> Reserved:
        """What was reserved of the key version whose `wraps_fence` this is."""
        return self._wraps.get(fence, Reserved(0, 0))

    async def catch_up(self) -> None:
        """Read all topics to their ends; whoever comes meanwhile shares one further reading.

        Raises:
            LedgerUnavailableError: The ledger does not answer.
            ProofError: A receipt does not verify.
            RegistryError: The records do not fit together.
        """
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._read_after(self._reading))
        await asyncio.shield(self._waiting)

    async def _read_after(self, earlier: asyncio.Task[None] | None) -> None:
        """Read once *earlier* is through: what it has passed may have grown since."""
        if earlier is not None:
            await asyncio.wait({earlier})
        self._reading, self._waiting = self._waiting, None
        await self._read()

    async def _read(self) -> None:
        registry = self.registry
        while page := await self._page(KEY_TOPIC, registry.next_index):
            for index, fields in page:
                registry.apply(index, fields)
        for topic, apply in (
            (POLICY_TOPIC, self._apply_policy),
            (STANDING_TOPIC, self._apply_standing),
            (WRAPS_TOPIC, self._apply_wraps),
        ):
            while page := await self._page(topic, self._next[topic]):
                for index, fields in page:
                    apply(index, fields)
                    self._next[topic] = index + 1

    async def _page(self, topic: str, since: int) -> list[tuple[int, Mapping[str, Json]]]:
        receipts = await self._ledger.topic(topic, since)
        verified = [receipt.verify(self._ledger_key) for receipt in receipts]
        return [(record.index, record.fields) for record in verified]

    def _apply_policy(self, index: int, fields: Mapping[str, Json]) -> None:
        try:
            change = convert(dict(fields), PolicyChange)
        except FormatError as error:
            raise RegistryError(f"record {index}: malformed policy change") from error
        before = self._policies.get(change.tn)
        earlier = before.earlier | {before.current.bundle} if before else frozenset()
        self._policies[change.tn] = PolicyState(change, index, earlier)

    def _apply_standing(self, index: int, fields: Mapping[str, Json]) -> None:
        try:
            self._standing.update(convert(fields.get("moves"), dict[str, int]))
        except FormatError as error:
            raise RegistryError(f"record {index}: malformed moves") from error

    def _apply_wraps(self, index: int, fields: Mapping[str, Json]) -> None:
        try:
            found = convert(dict(fields), WrapsReserved)
        except FormatError as error:
            raise RegistryError(f"record {index}: malformed reservation of wraps") from error
        self._wraps |= {name: Reserved(number, found.upto) for name, number in found.moves.items()}
