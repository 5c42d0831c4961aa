"""Keys as stock clients are told of them: the base key, and those that attributes are mapped to."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from envelock_formats.keyid import KeyId, KeyIdError
from envelock_formats.wire import PublishedKey
from envelock_kas.catalogue import KeyScope
from envelock_kas.errors import CustodyError, StaleError, TransitionError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.keys.registry import RegistryError
from envelock_kas.keys.states import WRAPS
from envelock_kas.naming import DEFAULT_DATASET, Naming
from envelock_kas.projection import Projection, shuts_out, tenant_fence
from envelock_kas.publish import Publisher
from envelock_kas.records import Origin
from envelock_ledger.errors import LedgerError
from envelock_service.problem import Problem

KNOWN_SECONDS = 60.0  # how long a key is told again without asking
REFUSED_SECONDS = 10.0  # the same for a refusal
MAX_KNOWN = 1024
DEFAULT_SCOPE = KeyScope(DEFAULT_DATASET)
_log = logging.getLogger(__name__)
ENUM = {
    "rsa:2048": "ALGORITHM_RSA_2048",
    "rsa:4096": "ALGORITHM_RSA_4096",
    "ec:secp256r1": "ALGORITHM_EC_P256",
    "ec:secp384r1": "ALGORITHM_EC_P384",
    "ec:secp521r1": "ALGORITHM_EC_P521",
    "hpqt:xwing": "ALGORITHM_HPQT_XWING",
    "hpqt:secp256r1-mlkem768": "ALGORITHM_HPQT_SECP256R1_MLKEM768",
    "hpqt:secp384r1-mlkem1024": "ALGORITHM_HPQT_SECP384R1_MLKEM1024",
    "mlkem:768": "ALGORITHM_MLKEM_768",
    "mlkem:1024": "ALGORITHM_MLKEM_1024",
}


class SimpleKasPublicKey(msgspec.Struct, frozen=True):
    """A public key; `algorithm` is a name of the enumeration `Algorithm`."""

    algorithm: str
    kid: str
    pem: str


class SimpleKasKey(msgspec.Struct, frozen=True):
    """A public key of a KAS, as attributes and the registry carry it."""

    kasUri: str  # noqa: N815 the protocol's own name
    publicKey: SimpleKasPublicKey  # noqa: N815 the protocol's own name
    kasId: str  # noqa: N815 the protocol's own name


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found, and when."""

    when: float  # monotonic seconds
    found: PublishedKey | Problem


@dataclass(slots=True)
class KasKeys:
    """Public keys by tenant and dataset, told again for a while. One worker owns it."""

    publisher: Publisher
    projection: Projection
    naming: Naming
    base_tenant: str
    kas_id: str  # a UUID, as clients expect one
    monotonic: Callable[[], float]
    _known: dict[tuple[str, KeyScope, str], _Known] = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def base(self) -> str | None:
        """The tenant whose key those get who name nobody; None where there is no such tenant."""
        if self.base_tenant:
            return self.base_tenant
        tenants = self.projection.epochs()
        return next(iter(tenants)) if len(tenants) == 1 else None

    def exists(self, tenant: str) -> bool:
        """Whether *tenant* has sealed by default already, as far as this worker knows."""
        try:
            path = self.naming.path(tenant, DEFAULT_DATASET)
        except KeyIdError:  # the template needs more than a dataset
            return False
        return self.projection.registry.newest(path) is not None

    async def published(
        self,
        tenant: str,
        origin: Origin,
        scope: KeyScope = DEFAULT_SCOPE,
        algorithm: str = "",
    ) -> PublishedKey:
        """The key that *tenant* seals under now in *scope*; a path's first is made on first use.

        Nobody stands behind the question, so the datasets are those that settings and policies
        name, never a caller's.

        Raises:
            Problem: 404 for an algorithm that there is no key of, 409 when nothing is sealed there,
                503 when custody or ledger do not answer. It is told again for a while, too.
        """
        if algorithm and algorithm not in ENUM:
            raise _unknown(algorithm)
        name = (tenant, scope, algorithm)
        known = self._known.get(name)
        if known is None or not self._holds(known):
            known = await self._found(name, origin)
        if isinstance(known.found, Problem):
            raise Problem(known.found.code, known.found.detail)
        return known.found

    async def _found(self, name: tuple[str, KeyScope, str], origin: Origin) -> _Known:
        """Look once for all who ask meanwhile."""
        async with self._asking:
            known = self._known.get(name)
            if known is None or not self._holds(known):
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                known = self._known[name] = await self._ask(*name, origin)
        return known

    def _holds(self, known: _Known) -> bool:
        """Whether what was found may be told again: a key, while nothing is known against it."""
        age = self.monotonic() - known.when
        if isinstance(known.found, Problem):
            return age < REFUSED_SECONDS
        key_id = KeyId.parse(known.found.kid)
        standing = self.projection.registry.standing(key_id, permitted=WRAPS)
        return age < KNOWN_SECONDS and standing is not None and standing.refusal is None

    async def _ask(self, tenant: str, scope: KeyScope, algorithm: str, origin: Origin) -> _Known:
        try:
            found: PublishedKey | Problem = await self._publish(tenant, origin, scope, algorithm)
        except Problem as problem:
            found = problem
        except (CustodyError, StaleError) as error:
            _log.warning("a key of %s is not to be had: %s", tenant, error)
            found = Problem("hsm_unavailable")
        except (LedgerError, RegistryError) as error:
            _log.warning("a key of %s is not to be had: %s", tenant, error)
            found = Problem("ledger_unavailable")
        return _Known(self.monotonic(), found)

    async def _publish(
        self, tenant: str, origin: Origin, scope: KeyScope, algorithm: str
    ) -> PublishedKey:
        fence = tenant_fence(tenant)
        number = self.projection.number(fence)
        if self.projection.policy(tenant) is None or shuts_out(number):
            raise Problem("conflict", "nothing is sealed there now")
        actor = Actor(origin, judged={fence: number})
        try:
            path = self.naming.path(tenant, scope.dataset, scope.domain)
            return await self.publisher.publish(path, algorithm, actor)
        except LookupError as error:
            raise _unknown(algorithm) from error
        except TransitionError as error:
            raise Problem("conflict", "nothing is sealed there now") from error

    def simple(self, key: PublishedKey) -> SimpleKasKey:
        """*key* as clients are told of it."""
        public = SimpleKasPublicKey(ENUM[key.algorithm], key.kid, key.pem)
        return SimpleKasKey(key.url, public, self.kas_id)


def _unknown(algorithm: str) -> Problem:
    return Problem("not_found", f"no key for algorithm {algorithm[:40]!r}")
