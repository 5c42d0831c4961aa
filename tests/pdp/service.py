"""A decision point on real sockets; the token issuer and the ledger behind it are fakes."""

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from pdp.world import NOON, files

from envelock_formats import decision
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64url, digest
from envelock_formats.request import Caller
from envelock_formats.tdf.policy import write_policy
from envelock_pdp import EpochsUnavailableError, RollbackError
from envelock_pdp.decide import Decider
from envelock_pdp.epochs import Epoch
from envelock_pdp.evaluate import Bundle
from envelock_pdp.http import Surface, internal_application, public_application
from envelock_pdp.inforce import Policies
from envelock_pdp.sign import Keys, load_keys
from envelock_pdp.watching import watched
from envelock_service import sockets
from envelock_service.buckets import Buckets
from envelock_service.health import Health
from envelock_service.oidc import IssuerUnavailableError, UnauthenticatedError
from envelock_service.problem import Problem
from envelock_service.server import runner

KAS_ID = "https://kas.example"
KEY = b64url(digest("test/key"))
KEYS = b64url(digest("test/keys"))
UUID = "00000000-0000-0000-0000-000000000000"
DOCTOR = {"sub": "doctor", "tenant": "clinic", "clearance": "secret", "departments": ["oncology"]}
ACCOUNTANT = {"sub": "accountant", "tenant": "clinic", "clearance": "public"}
STRANGER = {"sub": "stranger", "tenant": "globex", "clearance": "secret"}


async def _known() -> None:
    """The issuers' keys are known."""


class FakeEpochs:
    """Counts epochs as the ledger does: per tenant, never backwards unless confirmed."""

    def __init__(self) -> None:
        self.history: dict[str, list[bytes]] = {}
        self.records = itertools.count(1)
        self.down = False
        self.confirmed: list[bool] = []

    async def announce(self, bundle: Bundle, *, confirm: bool) -> Epoch:
        """Keep the contract of `Epochs.announce`."""
        self.confirmed.append(confirm)
        if self.down:
            raise EpochsUnavailableError("down")
        known = self.history.setdefault(bundle.tenant, [])
        if known and known[-1] == bundle.digest:
            return Epoch(len(known), 0)
        if bundle.digest in known and not confirm:
            raise RollbackError(b64url(bundle.digest))
        known.append(bundle.digest)
        return Epoch(len(known), next(self.records))


@dataclass(frozen=True)
class FakeToken:
    """A verified token."""

    caller: Caller
    claims: dict[str, Any]
    expires: int


@dataclass
class FakeTokens:
    """Tokens are JSON claims; `bad` verifies never, `away` finds its issuer down."""

    asked: list[str] = field(default_factory=list)

    async def verify(self, token: str) -> FakeToken:
        """Keep the contract of `Tokens.verify`."""
        self.asked.append(token)
        await asyncio.sleep(0)
        if token == "bad":
            raise UnauthenticatedError("bad")
        if token == "away":
            raise IssuerUnavailableError("away")
        claims = json.loads(token)
        caller = Caller("https://issuer", claims["sub"], claims["tenant"], claims.get("jkt", ""))
        return FakeToken(caller, claims, claims.get("exp", NOON + 3600))


@dataclass(frozen=True)
class FakeAuthenticated:
    """A caller that proved itself."""

    token: FakeToken


@dataclass(frozen=True)
class FakeCallers:
    """Reads the token from `Authorization: Bearer`."""

    tokens: FakeTokens

    async def authenticate(self, method: str, path: str, headers: Any) -> FakeAuthenticated:  # noqa: ARG002
        """Keep the contract of `Callers.authenticate`."""
        scheme, _, text = headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            raise Problem("invalid_token")
        try:
            return FakeAuthenticated(await self.tokens.verify(text))
        except UnauthenticatedError as error:
            raise Problem("invalid_token") from error


@dataclass
class Running:
    """A decision point that runs."""

    url: str
    socket: Path
    keys: Keys
    policies: Policies
    epochs: FakeEpochs
    tokens: FakeTokens
    clock: list[float]
    public: aiohttp.ClientSession
    internal: aiohttp.ClientSession
    health: Health

    async def ask(self, *items: Any, path: str = "evaluations", **rest: Any) -> Any:
        """Ask as an enforcement point."""
        body = {"evaluations": list(items), **rest} if path == "evaluations" else items[0]
        async with self.internal.post(f"http://pdp/access/v1/{path}", json=body) as response:
            return response.status, await response.json(content_type=None)

    async def ask_openly(self, body: Any, claims: Any = None, path: str = "evaluation") -> Any:
        """Ask as a caller with its own token."""
        headers = {"Authorization": f"Bearer {json.dumps(claims)}"} if claims else {}
        headers["Content-Type"] = "application/json"
        text = io.BytesIO(json.dumps(body).encode())
        url = f"{self.url}/access/v1/{path}"
        async with self.public.post(url, data=text, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    def verified(self, token: str) -> decision.Decision:
        """A decision as a KAS verifies it."""
        return decision.verify(
            token,
            self.keys.public,
            issuer="envelock-pdp",
            kas_id=KAS_ID,
            now=int(self.clock[0]),
        )


@asynccontextmanager
async def running(
    folder: Path, clock: float = NOON, burst: float = 2_000.0
) -> AsyncIterator[Running]:
    """Serve the bundles in `folder/policies`, loaded once."""
    async with AsyncExitStack() as stack:
        now = [clock]
        keys, epochs, tokens = load_keys(folder / "secrets"), FakeEpochs(), FakeTokens()
        policies = Policies(folder / "policies", epochs, (), lambda _line: None)
        counter = itertools.count(1)
        numbers = itertools.count(1)
        public = sockets_tcp()
        url = f"http://127.0.0.1:{public.getsockname()[1]}"
        surface = Surface(
            url=url,
            decider=Decider(
                policies,
                keys,
                issuer="envelock-pdp",
                lifetime_seconds=30,
                clock=lambda: now[0],
                entropy=lambda size: next(counter).to_bytes(size, "big"),
            ),
            policies=policies,
            tokens=tokens,
            callers=FakeCallers(tokens),
            buckets=Buckets(1.0, burst, lambda: now[0]),
            jwks=keys.jwks(),
            request_ids=lambda: f"r-{next(numbers)}",
            health=watched(policies, _known),
        )
        path = folder / "run" / "pdp.sock"
        internal = sockets.bind(path)
        stack.callback(sockets.unbind, internal, path)
        for app, listening in (
            (public_application(surface), public),
            (internal_application(surface), internal),
        ):
            serving = runner(app)
            await serving.setup()
            stack.push_async_callback(serving.cleanup)
            await web.SockSite(serving, listening).start()
        address = sockets.Address(path)
        stack.callback(address.close)
        connector = aiohttp.UnixConnector(path=address.text)
        inside = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        outside = await stack.enter_async_context(aiohttp.ClientSession())
        await policies.refresh()
        health = surface.health
        yield Running(url, path, keys, policies, epochs, tokens, now, outside, inside, health)


def sockets_tcp() -> Any:
    """A listening loopback socket on a free port."""
    import socket  # noqa: PLC0415 the name is taken above

    return socket.create_server(("127.0.0.1", 0))


def write_bundle(folder: Path, content: dict[str, bytes] | None = None) -> None:
    """Write a bundle's files."""
    for path, text in (content if content is not None else files()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)


def policy(*attrs: str, dissem: tuple[str, ...] = ()) -> str:
    """A policy that asks for *attrs* of the clinic, or of the namespace in front."""
    names = [name if "/" in name else f"clinic.example/{name}" for name in attrs]
    return write_policy(UUID, [AttributeValue.parse_short(name) for name in names], dissem)


def item(
    name: str = "o1",
    *attrs: str,
    claims: Any = None,
    act: str = "open",
    tenant: str | None = "clinic",
    **members: Any,
) -> dict[str, Any]:
    """One evaluation; *members* go into properties or context by their names."""
    context = {"kas_id": KAS_ID, "key_sha256": KEY}
    if claims is not None:
        context["subject_token"] = claims if isinstance(claims, str) else json.dumps(claims)
    properties: dict[str, Any] = {"policy": policy(*attrs), "keys_sha256": KEYS}
    if tenant is not None:
        properties["tenant"] = tenant
    for key, value in members.items():
        target = properties if key in {"policy", "new_policy", "keys_sha256"} else context
        target[key] = value
    return {
        "subject": {"type": "user", "id": "token"},
        "action": {"name": act},
        "resource": {"type": "tdf", "id": name, "properties": properties},
        "context": context,
    }
