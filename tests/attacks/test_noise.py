"""Requests that nobody would write, at every route of a KAS, from strangers and from callers.

T40. Half of them carry a good token and proof, so that they get as far as they can; some are good
messages with one value exchanged. None may be a fault of ours, and none may take long.
"""

import asyncio
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attacks.forging import Template
from attacks.places import Place, served
from cryptography.hazmat.primitives.asymmetric import ec

QUICK = 3_000
MANY = 10_000
AT_ONCE = 16
PATIENCE = 5.0  # seconds until an answer
GUARD = {
    "subject_per_second": 1e6,
    "subject_burst": 10**6,
    "paths_per_second": 1e6,
    "paths_burst": 10**5,
}
METHODS = (
    "GET",
    "POST",
    "POST",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "post",
    "A-B",
)
TYPES = (
    "application/json",
    "application/json; charset=utf-7",
    "application/proto",
    "application/connect+json",
    "application/grpc",
    "text/plain",
    "*/*",
    "",
)
PIECES = ("..", "%2e%2e", "/", "//", ";a=b", "%00", "%c0%af", "%", "é", "clinic", ":v1", "?a&&=%ff")
NAMES = (
    "signedRequestToken",
    "requestBody",
    "clientPublicKey",
    "requests",
    "keyAccessObjects",
    "keyAccessObjectId",
    "policy",
    "body",
    "id",
    "kid",
    "url",
    "type",
    "protocol",
    "wrappedKey",
    "policyBinding",
    "alg",
    "hash",
    "algorithm",
    "fmt",
    "v",
    "fqns",
    "entityIdentifier",
    "token",
    "jwt",
    "ephemeralId",
    "action",
    "name",
    "resource",
    "resources",
    "attributeValues",
    "dataset",
    "count",
    "nonce",
    "standing",
    "subject",
    "wraps",
    "algorithms",
    "keyAccess",
    "newPolicy",
    "decision",
    "seen",
    "message",
    "encoding",
    "connect",
    "base64",
    "compression",
    "entityChain",
    "entities",
    "claims",
    "emailAddress",
)
LEAVES: tuple[Any, ...] = (
    *("", "a", "clinic", "é\u0000", "\ud800", "x" * 3000, "eyJhbGciOiJub25lIn0..", "ec:secp256r1"),
    *(0, -1, 1, 2**31, 2**53, 10**30, 0.5, 1e308, True, False, None),
)


@dataclass
class Noise:
    """Makes requests at one KAS; the same ones for the same seed, but for keys and times."""

    place: Place
    chance: random.Random

    def __post_init__(self) -> None:
        found = self.place.world.worker.app.router.resources()
        self.paths = sorted(resource.canonical for resource in found)
        key, header, claims = self.place._access()  # noqa: SLF001 the parts of a good token
        claims |= {"exp": claims["iat"] + 3600, "scope": "envelock:decisions envelock:keys"}
        self.token = self.place.known(Template(key, header, claims).signed())

    def path(self) -> str:
        """A path of the KAS, or one that is nearly so."""
        path = self.chance.choice(self.paths)
        for name in ("path", "change", "service", "method"):
            path = path.replace(
                f"{{{name}}}", self.chance.choice(("clinic", "clinic:records:x", "a.B", "%3a"))
            )
        if self.chance.random() < 0.3:
            place = self.chance.randrange(len(path) + 1)
            path = path[:place] + self.chance.choice(PIECES) + path[place:]
        return path if path.startswith("/") else f"/{path}"

    def value(self, depth: int = 0) -> Any:
        """Any JSON, with names that mean something here."""
        kind = self.chance.random()
        if depth > 3 or kind < 0.3:
            return self.chance.choice(LEAVES)
        if kind < 0.5:
            return [self.value(depth + 1) for _ in range(self.chance.randrange(4))]
        names = self.chance.sample(NAMES, self.chance.randrange(1, 8))
        return {name: self.value(depth + 1) for name in names}

    def changed(self, value: Any) -> Any:
        """A good message with one value exchanged, or left out."""
        if isinstance(value, dict) and value and self.chance.random() < 0.9:
            name = self.chance.choice(sorted(value))
            if self.chance.random() < 0.1:
                return {key: one for key, one in value.items() if key != name}
            return value | {name: self.changed(value[name])}
        if isinstance(value, list) and value and self.chance.random() < 0.8:
            place = self.chance.randrange(len(value))
            return [*value[:place], self.changed(value[place]), *value[place + 1 :]]
        return self.value(2)

    def signed(self) -> bytes:
        """A rewrap whose body is signed, and is not quite what it should be."""
        key = ec.generate_private_key(ec.SECP256R1())
        body = self.changed(msgspec.to_builtins(self.place.body(key)))
        now = int(time.time())
        claims = {"requestBody": json.dumps(body), "iat": now, "exp": now + 60}
        token = Template(self.place.holder.key, {"alg": "ES256", "typ": "JWT"}, claims).signed()
        return json.dumps({"signedRequestToken": token}).encode()

    def body(self) -> bytes:
        """Bytes, JSON, or nearly a message."""
        kind = self.chance.random()
        if kind < 0.15:
            return b""
        if kind < 0.3:
            return self.chance.randbytes(self.chance.randrange(200))
        if kind < 0.55:
            return json.dumps(self.value()).encode()
        return self.signed()

    def request(self) -> bytes:
        """A whole request, as it goes over the wire."""
        chance, path = self.chance, self.path()
        method, body = chance.choice(METHODS), self.body()
        headers = {"Host": "a", "Connection": "close", "Content-Type": chance.choice(TYPES)}
        if chance.random() < 0.7:
            headers["Content-Type"] = "application/json"
        if chance.random() < 0.5:
            url = f"{self.place.origin}{path.split('?')[0]}"
            headers |= self.place.holder.headers(url, self.token, method)
        if chance.random() < 0.1:
            headers["Content-Encoding"] = chance.choice(("gzip", "br", "gzip, gzip", "é"))
            body = gzip.compress(body) if chance.random() < 0.7 else body
        if chance.random() < 0.1:
            headers[
                chance.choice(("Accept", "Origin", "Connect-Protocol-Version", "X-É", "DPoP"))
            ] = "*"
        headers["Content-Length"] = str(len(body))
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def answered(place: Place, sent: bytes) -> tuple[int, bytes, float]:
    """Status, body, and seconds until the end of the answer; 0 when the connection just ended."""
    host, port = place.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    begun = time.monotonic()
    writer.write(sent)
    raw = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head else 0
    return status, body, time.monotonic() - begun


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A KAS that is in nobody's way."""
    async with served(tmp_path, guard=GUARD) as found:
        yield found


async def told(place: Place, number: int, seed: int) -> Counter[int]:
    """Send noise; how often each status came. Fails at the first answer that must not be."""
    noise = Noise(place, random.Random(seed))  # noqa: S311 noise
    counted: Counter[int] = Counter()
    print("seed", seed)  # noqa: T201 to send the same again
    for _ in range(number // AT_ONCE):
        sent = [noise.request() for _ in range(AT_ONCE)]
        for request, (status, body, seconds) in zip(
            sent, await asyncio.gather(*(answered(place, one) for one in sent)), strict=True
        ):
            counted[status] += 1
            shown = f"seed {seed}, {seconds:.1f} s: {request!r}\n{status} {body!r}"
            unserved = status == 501 and (not body or b"not_implemented" in body)
            assert status < 500 or unserved or b" /healthz" in request, shown
            assert seconds < PATIENCE, shown
            assert b"Traceback" not in body, shown
            if status > 400 and body:  # what is no HTTP is told so by the library, in plain text
                assert isinstance(json.loads(body), dict), shown
    return counted


async def test_noise_is_refused_in_order(place: Place):
    """No fault of ours, and whoever asks in order is served as before."""
    counted = await told(place, QUICK, 1)

    assert {200, 400, 401, 404}.issubset(counted)
    assert counted[0] == 0
    assert await place.permitted()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_noise_at_length_is_refused_in_order(place: Place):
    """Other noise each time."""
    await told(place, MANY, random.SystemRandom().randrange(1 << 32))
