"""What stock OpenTDF clients are served, put together."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from envelock_formats.canonical import Json
from envelock_kas.catalogue import Catalogue
from envelock_kas.http import Surface
from envelock_kas.opentdf.access import Access
from envelock_kas.opentdf.attributes import Attributes
from envelock_kas.opentdf.authorizing import Authorization
from envelock_kas.opentdf.discovery import Discovery, IssuerDocument
from envelock_kas.opentdf.kaskeys import KasKeys
from envelock_kas.opentdf.settings import OpenTdfSettings
from envelock_kas.settings import KasSettings
from envelock_service.problem import Problem


@dataclass(frozen=True, slots=True)
class OpenTdf:
    """The routes of stock clients.

    *static* is what of the configuration never changes.
    """

    surface: Surface
    kas: KasSettings
    settings: OpenTdfSettings
    static: Mapping[str, Json]
    catalogue: Catalogue

    def routes(self, app: web.Application) -> None:
        """Add the routes, and one for every procedure that there is none for."""
        surface, url = self.surface, self.kas.url
        keys = KasKeys(
            publisher=surface.publisher,
            projection=surface.gate.projection,
            naming=surface.naming,
            base_tenant=self.settings.base_tenant,
            kas_id=str(uuid.uuid5(uuid.NAMESPACE_URL, url)),
            monotonic=time.monotonic,
        )
        issuer = IssuerDocument(str(self.static.get("platform_issuer", "")), time.monotonic)
        Access(surface, keys).routes(app)
        Discovery(surface, keys, self.static, issuer, (url, *self.kas.kas_aliases)).routes(app)
        Attributes(surface, keys, self.catalogue).routes(app)
        Authorization(surface, self.catalogue).routes(app)
        app.router.add_route("*", r"/{service:(?:[a-z0-9_]+\.)+[A-Z]\w*}/{method:\w+}", _unknown)


async def _unknown(request: web.Request) -> web.Response:
    served = [one for one in request.app.router.resources() if one.canonical == request.path]
    if served:
        raise Problem("method_not_allowed")
    service, method = request.match_info["service"], request.match_info["method"]
    raise Problem("not_implemented", f"{service[:80]}/{method[:80]} is not served here")
