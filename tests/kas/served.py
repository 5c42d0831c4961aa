"""A KAS on a real port, with a real issuer, and somebody who calls it."""

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientSession, web
from kas.world import Person, World, running_world
from service.world import Authority, Holder, running_authority

from envelock_kas.opentdf.settings import OpenTdfSettings
from envelock_service.callers import Callers
from envelock_service.server import runner

REWRAP = "/kas.AccessService/Rewrap"


@dataclass
class Served:
    """A KAS on a port, and somebody with a bound token."""

    world: World
    authority: Authority
    origin: str
    holder: Holder

    @property
    def person(self) -> Person:
        """The holder as the PDP of the world knows it."""
        return Person("doctor", "clinic", self.holder.key)

    async def call(self, method: str, path: str, body: bytes = b"", **changes: object):
        """An authenticated call; `token` and `headers` can be replaced."""
        token = str(changes.get("token") or self.authority.token(self.holder.jkt))
        url = f"{self.origin}{path}"
        headers = {"Content-Type": "application/json"}
        headers |= dict(changes.get("headers") or self.holder.headers(url, token, method))
        self.world.pdp.people[token] = _with_issuer(self.person, self.authority.url)
        send = {"data": body or None, "headers": headers}
        async with ClientSession() as session, session.request(method, url, **send) as answer:
            return answer.status, await answer.read(), answer.headers

    async def rewrap(self, **changes: object):
        """Open a fresh object; returns status, answer and headers."""
        sealed = await self.world.seal()
        request = self.world.request(self.person, sealed)
        body = json.dumps({"signedRequestToken": request.token}).encode()
        return await self.call("POST", REWRAP, body, **changes)


def _with_issuer(person: Person, issuer: str) -> Person:
    """The person whose caller is of another issuer."""

    class Issued(Person):
        @property
        def caller(self):
            caller = super().caller
            return type(caller)(issuer, caller.subject, caller.tenant, caller.jkt)

    return Issued(person.subject, person.tenant, person.key)


@asynccontextmanager
async def running_served(
    folder: Path, opentdf: OpenTdfSettings | None = None, **settings: object
) -> AsyncIterator[Served]:
    """A KAS with a real issuer, over HTTP."""
    bound = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{bound.getsockname()[1]}"
    async with running_authority() as authority:
        callers = Callers(authority.tokens, [origin], time.time)
        async with running_world(folder, callers, opentdf=opentdf, **settings) as world:
            running = runner(world.worker.app)
            await running.setup()
            await web.SockSite(running, bound).start()
            try:
                yield Served(world, authority, origin, Holder())
            finally:
                await running.cleanup()
