"""What clients ask before anything else: configuration, health, and which servers there are."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web

from envelock_formats.canonical import Json
from envelock_formats.errors import FormatError
from envelock_formats.wire import PublishedKey
from envelock_kas.http import Surface
from envelock_kas.opentdf import opentdf_pb2 as pb
from envelock_kas.opentdf.asking import question_of
from envelock_kas.opentdf.connect import Empty, Method, nothing
from envelock_kas.opentdf.kaskeys import KasKeys, SimpleKasKey
from envelock_kas.records import Origin
from envelock_service.oidc import fetch_discovery
from envelock_service.problem import Problem

KNOWN_SECONDS = 600.0  # how long an issuer's document is told again
RETRY_SECONDS = 10.0
_IDP = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
)
_log = logging.getLogger(__name__)


class Configuration(msgspec.Struct, frozen=True):
    """The answer of `GetWellKnownConfiguration`."""

    configuration: dict[str, object]


class HealthRequest(msgspec.Struct, frozen=True):
    """The name of a service; all are of one health."""

    service: str = ""


class HealthResponse(msgspec.Struct, frozen=True):
    """`SERVING` or `NOT_SERVING`."""

    status: str


class KeyAccessServer(msgspec.Struct, frozen=True):
    """One address at which this KAS is reached, or was."""

    id: str
    uri: str
    name: str
    kasKeys: tuple[SimpleKasKey, ...] = ()  # noqa: N815 the protocol's own name


class _Page(msgspec.Struct, frozen=True, omit_defaults=True):
    total: int
    currentOffset: int = 0  # noqa: N815 the protocol's own name
    nextOffset: int = 0  # noqa: N815 the protocol's own name


class Servers(msgspec.Struct, frozen=True):
    """All servers in one page."""

    keyAccessServers: tuple[KeyAccessServer, ...]  # noqa: N815 the protocol's own name
    pagination: _Page


WELL_KNOWN = Method(
    "/wellknownconfiguration.WellKnownService/GetWellKnownConfiguration",
    Empty,
    pb.GetWellKnownConfigurationRequest,
    pb.GetWellKnownConfigurationResponse,
    nothing,
    safe=True,
)
CHECK = Method(
    "/grpc.health.v1.Health/Check",
    HealthRequest,
    pb.HealthCheckRequest,
    pb.HealthCheckResponse,
    lambda message: HealthRequest(message.service),
    safe=True,
)
LIST_SERVERS = Method(
    "/policy.kasregistry.KeyAccessServerRegistryService/ListKeyAccessServers",
    Empty,
    pb.ListKeyAccessServersRequest,
    pb.ListKeyAccessServersResponse,
    nothing,
    safe=True,
)


@dataclass(slots=True)
class IssuerDocument:
    """What an issuer says of itself, fetched when it is asked for, and kept for a while."""

    issuer: str
    monotonic: Callable[[], float]
    _found: Mapping[str, Json] = field(default_factory=dict)
    _until: float = float("-inf")

    async def idp(self) -> dict[str, Json]:
        """The addresses that clients need; without the issuer's own word, its usual ones."""
        if self.issuer and self.monotonic() >= self._until:
            self._until = self.monotonic() + RETRY_SECONDS
            try:
                self._found = await fetch_discovery(self.issuer)
                self._until = self.monotonic() + KNOWN_SECONDS
            except (aiohttp.ClientError, TimeoutError, FormatError) as error:
                _log.warning("issuer %s does not say where it is: %s", self.issuer, error)
        usual: dict[str, Json] = {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
        }
        return usual | {name: self._found[name] for name in _IDP if name in self._found}


class Discovery:
    """Configuration, health and the registry of servers.

    Args:
        surface: What the other handlers call.
        keys: Public keys.
        static: What of the configuration never changes.
        issuer: The issuer that clients get tokens from.
        addresses: Where this KAS is reached, the first; and where it was, as files may say.
    """

    def __init__(
        self,
        surface: Surface,
        keys: KasKeys,
        static: Mapping[str, Json],
        issuer: IssuerDocument,
        addresses: Sequence[str],
    ) -> None:
        self._surface = surface
        self._keys = keys
        self._static = static
        self._issuer = issuer
        self._addresses = addresses

    def routes(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/.well-known/opentdf-configuration", self.document)
        WELL_KNOWN.route(app, self.configuration)
        CHECK.route(app, self.check)
        LIST_SERVERS.serve(app, self.servers)

    async def document(self, request: web.Request) -> web.Response:
        """`GET /.well-known/opentdf-configuration`: the same, bare."""
        return web.json_response(await self._configuration(request))

    async def configuration(self, request: web.Request, _asked: Empty) -> Configuration:
        """Where everything is, for clients."""
        return Configuration(dict(await self._configuration(request)))

    async def check(self, _request: web.Request, _asked: HealthRequest) -> HealthResponse:
        """Whether this worker can release anything."""
        return HealthResponse("NOT_SERVING" if self._surface.health.down() else "SERVING")

    async def servers(self, request: web.Request) -> web.Response:
        """This KAS, under every address that a file may have it by."""
        await question_of(self._surface, request, LIST_SERVERS)
        base = await self._base(self._surface.origin_of(request))
        keys = (self._keys.simple(base),) if base is not None else ()
        listed = tuple(
            KeyAccessServer(self._keys.kas_id, address, self._surface.gate.kas_id, keys)
            for address in self._addresses
        )
        return LIST_SERVERS.answer(request, Servers(listed, _Page(len(listed))))

    async def _configuration(self, request: web.Request) -> dict[str, Json]:
        whole = dict(self._static) | {"idp": await self._issuer.idp()}
        if (base := await self._base(self._surface.origin_of(request))) is not None:
            public: dict[str, Json] = {
                "algorithm": base.algorithm,
                "kid": base.kid,
                "pem": base.pem,
            }
            whole["base_key"] = {
                "kas_uri": base.url,
                "kas_id": self._keys.kas_id,
                "public_key": public,
            }
        return whole

    async def _base(self, origin: Origin) -> PublishedKey | None:
        """The base key; None where there is none now, which keeps nobody from finding the rest."""
        tenant = self._keys.base()
        if tenant is None or not self._keys.exists(tenant):
            return None  # looking makes no key
        try:
            return await self._keys.published(tenant, origin)
        except Problem:
            return None
