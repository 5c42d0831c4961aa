"""Every place where a KAS reads a token of somebody else, over HTTP, with its custody counted."""

import asyncio
import io
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientSession, web
from attacks.forging import Template, compact
from cryptography.hazmat.primitives.asymmetric import ec
from kas.world import Person, SealedObject, World, running_world
from multidict import CIMultiDict, CIMultiDictProxy
from service.world import Authority, Holder, running_authority

from envelock_formats import jose
from envelock_formats.canonical import Json
from envelock_formats.framing import b64url
from envelock_formats.request import Caller
from envelock_formats.wire import RewrapBody
from envelock_formats.wrap import public_pem
from envelock_service.callers import Callers
from envelock_service.problem import Problem
from envelock_service.server import runner

REWRAP = "/kas.AccessService/Rewrap"
MAX_HEADER = 15_000  # what an HTTP client may send in one line
RECORDED = frozenset({"request", "decision"})  # places whose caller is known by then


@dataclass(frozen=True)
class Outcome:
    """What a caller is told, without what differs from request to request."""

    status: int
    words: dict[str, Any]
    challenge: bool

    @property
    def permitted(self) -> bool:
        """Whether a key came along."""
        return "kasWrappedKey" in json.dumps(self.words)


@dataclass(frozen=True)
class Traces:
    """What a request leaves behind."""

    custody: Counter[str]
    asked: int
    records: int
    refused: int


@dataclass
class Place:
    """A KAS, an issuer, somebody with a key, and an object that they may open."""

    world: World
    authority: Authority
    origin: str
    holder: Holder
    sealed: SealedObject
    knocked: list[str]
    listener: str
    session: ClientSession
    _references: dict[str, Outcome] = field(default_factory=dict)

    @cached_property
    def caller(self) -> Caller:
        """Who the holder is to the KAS."""
        return Caller(self.authority.url, "doctor", "clinic", self.holder.jkt)

    def template(self, place: str) -> Template:
        """The parts of a token that is accepted at *place*."""
        made = getattr(self, f"_{place}")()
        return Template(*made, listener=self.listener)

    async def present(self, place: str, token: str) -> Outcome:
        """Send a request with *token* at *place* and everything else in order."""
        if place in RECORDED or fits(token):
            return await self._by_http(place, token)
        return await self._in_process(place, token)

    async def reference(self, place: str) -> Outcome:
        """What is told of plain garbage there."""
        if place not in self._references:
            self._references[place] = await self.present(place, "x.y.z")
        return self._references[place]

    async def traces(self) -> Traces:
        """What is there so far."""
        size = int((await self.world.ledger.head()).splitlines()[1])
        counts = self.world.worker.counts
        refused = sum(counts.get(code, 0) for code in ("invalid_token", "invalid_dpop_proof"))
        return Traces(Counter(self.world.custody.operations), self.world.pdp.asked, size, refused)

    async def newest(self) -> Mapping[str, Json]:
        """The record that was written last."""
        size = int((await self.world.ledger.head()).splitlines()[1])
        receipt = await self.world.ledger.prove(size - 1)
        return receipt.verify(self.world.parts.ledger_key).fields

    async def permitted(self) -> bool:
        """Whether somebody with everything in order still gets a key."""
        outcome = await self.present("access", self.template("access").signed())
        return outcome.status == 200 and outcome.permitted

    def body(self, key: ec.EllipticCurvePrivateKey, presented: str | None = None) -> RewrapBody:
        """What is asked."""
        entries = (self.sealed.entry(),)
        return RewrapBody(public_pem(key.public_key()), entries, decision=presented)

    def _access(self) -> tuple[ec.EllipticCurvePrivateKey, dict[str, Any], dict[str, Any]]:
        kid = jose.thumbprint(jose.public_jwk(self.authority.key.public_key()))
        header = {"alg": "ES256", "typ": "at+jwt", "kid": kid}
        return self.authority.key, header, self.claims()

    def claims(self) -> dict[str, Any]:
        """Claims of a good access token."""
        now = int(time.time())
        return {
            "iss": self.authority.url,
            "sub": "doctor",
            "tenant": "clinic",
            "aud": "envelock",
            "iat": now,
            "exp": now + 600,
            "jti": b64url(compact(time.time_ns())),
            "cnf": {"jkt": self.holder.jkt},
        }

    def _proof(self) -> tuple[ec.EllipticCurvePrivateKey, dict[str, Any], dict[str, Any]]:
        made = self.holder.proof(f"{self.origin}{REWRAP}", self.access_token)
        head, claims, _ = (jose_part(part) for part in made.split("."))
        return self.holder.key, head, claims

    @cached_property
    def access_token(self) -> str:
        """One access token that is good for as long as the tests run."""
        key, header, claims = self._access()
        long = claims | {"exp": claims["iat"] + 3600}
        return self.known(Template(key, header, long).signed())

    def _request(self) -> tuple[ec.EllipticCurvePrivateKey, dict[str, Any], dict[str, Any]]:
        now = int(time.time())
        body = msgspec.json.encode(self.body(ec.generate_private_key(ec.SECP256R1()))).decode()
        claims = {"requestBody": body, "iat": now, "exp": now + 60}
        return self.holder.key, {"alg": "ES256", "typ": "JWT"}, claims

    def _decision(self) -> tuple[ec.EllipticCurvePrivateKey, dict[str, Any], dict[str, Any]]:
        made = self.world.decide(self.person, self.holder.key, self.sealed)
        head, claims, _ = (jose_part(part) for part in made.split("."))
        return self.world.pdp.key, head, claims

    @property
    def person(self) -> Person:
        """The holder, as the PDP of the world knows it."""
        caller, key = self.caller, self.holder.key

        class Issued(Person):
            @property
            def caller(self) -> Caller:
                return caller

        return Issued("doctor", "clinic", key)

    def known(self, token: str) -> str:
        """Have the PDP know whose token this is, whoever lets it through."""
        self.world.pdp.people[token] = self.person
        return token

    async def _by_http(self, place: str, token: str) -> Outcome:
        url = f"{self.origin}{REWRAP}"
        headers, body = self._message(place, token, url)
        async with self.session.post(url, data=io.BytesIO(body), headers=headers) as answer:
            words = await answer.json(content_type=None)
            return Outcome(answer.status, stripped(words), "WWW-Authenticate" in answer.headers)

    def _message(self, place: str, token: str, url: str) -> tuple[dict[str, str], bytes]:
        access = self.known(token) if place == "access" else self.access_token
        proof = token if place == "proof" else self.holder.proof(url, access)
        request = token if place == "request" else self._signed(place, token)
        body = json.dumps({"signedRequestToken": request}).encode()
        headers = {"Authorization": f"DPoP {access}", "DPoP": proof}
        return headers | {"Content-Type": "application/json"}, body

    def _signed(self, place: str, token: str) -> str:
        if place != "decision":
            return self.template("request").signed()
        key, header, claims = self._request()
        body = msgspec.json.encode(self.body(self.holder.key, token)).decode()
        return Template(key, header, claims | {"requestBody": body}).signed()

    async def _in_process(self, place: str, token: str) -> Outcome:
        """What no HTTP client sends, put where the server would have it."""
        url = f"{self.origin}{REWRAP}"
        headers, _ = self._message(place, token, url)
        callers, worker = self.world.parts.callers, self.world.worker
        try:
            await callers.authenticate("POST", REWRAP, CIMultiDictProxy(CIMultiDict(headers)))
        except Problem as problem:
            worker.surface.count(problem.code)
            words = {"reason": problem.code}
            if problem.detail:
                words["message"] = problem.detail
            return Outcome(problem.status, words, challenge=True)
        return Outcome(200, {}, challenge=False)


def fits(token: str) -> bool:
    """Whether a header can carry *token* as it is."""
    printable = token.isascii() and token.isprintable()
    return printable and len(token) < MAX_HEADER and token == token.strip()


def jose_part(text: str) -> Any:
    """One part of a token of ours."""
    try:
        return json.loads(jose.from_b64url(text))
    except ValueError:
        return None


def stripped(words: Any) -> dict[str, Any]:
    """An answer without its request id."""
    return {name: value for name, value in words.items() if name != "request_id"}


@asynccontextmanager
async def served(folder: Path, **settings: object) -> AsyncIterator[Place]:
    """A KAS with an issuer, and a listener beside it that nobody has reason to ask."""
    knocked: list[str] = []

    async def knock(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.append("connection")
        writer.close()

    listening = await asyncio.start_server(knock, "127.0.0.1", 0)
    listener = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    bound = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{bound.getsockname()[1]}"
    async with running_authority() as authority, ClientSession() as session:
        callers = Callers(authority.tokens, [origin], time.time)
        async with running_world(folder, callers, **settings) as world:
            running = runner(world.worker.app)
            await running.setup()
            await web.SockSite(running, bound).start()
            sealed = await world.seal()
            found = Place(world, authority, origin, Holder(), sealed, knocked, listener, session)
            try:
                yield found
            finally:
                await running.cleanup()
                listening.close()
