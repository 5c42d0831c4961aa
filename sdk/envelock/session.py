"""The protocol core: what a client asks of KAS, PDP and issuer, without any I/O of its own.

One session belongs to one identity; its methods are generators (see `exchange`) and may run in
several threads at once. A rewrap that is tried again keeps its request token and ephemeral key and
makes a fresh proof, so the ledger can tell a retry from a second request.
"""

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlencode

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from envelock.addresses import origin, private_origin
from envelock.credentials import Credentials
from envelock.errors import ConfigError, UnavailableError
from envelock.exchange import Call, Pause, Reply, Steps, TokenSource, call, error_of
from envelock.profile import Profile, ProfileValues, load_peers, load_profile
from envelock.receipts import Witness
from envelock.state import Cache, Heads
from envelock_formats.canonical import convert, encode, plain
from envelock_formats.errors import FormatError
from envelock_formats.publickey import der_of_key, read_public_key
from envelock_formats.wire import (
    PublishedKey,
    RebindAnswer,
    RebindBody,
    RewrapAnswer,
    RewrapBody,
    SealAnswer,
    SealBody,
    WireError,
    read_answer,
    write_request_token,
)

TRIES = 3
FIRST_PAUSE_SECONDS = 0.1
FRESH_SECONDS = 300
OK = 200
UNAUTHORIZED = 401
_RETRIED = frozenset({0, 429, 502, 503, 504})
T = TypeVar("T")


class _Idp(msgspec.Struct, frozen=True):
    token_endpoint: str = ""


class _Ours(msgspec.Struct, frozen=True):
    kas_id: str
    url: str
    pdp: str = ""
    ledger_key: str = ""
    aliases: tuple[str, ...] = ()


class Configuration(msgspec.Struct, frozen=True):
    """What a KAS says of itself; `envelock` is there when it is one of ours."""

    idp: _Idp = _Idp()
    envelock: _Ours | None = None


class AttributeValueInfo(msgspec.Struct, frozen=True):
    """One value of an attribute, and whether any rule could open what asks for it."""

    fqn: str
    short: str
    openable: bool


class AttributeInfo(msgspec.Struct, frozen=True):
    """One attribute of the tenant's bundle."""

    short: str
    rule: str
    values: tuple[AttributeValueInfo, ...]


class Attributes(msgspec.Struct, frozen=True):
    """`GET /v1/attributes`: what the caller's tenant can ask for, and whom to ask."""

    epoch: int
    contact: str
    attributes: tuple[AttributeInfo, ...]


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """An answer that was read, and the id that its record has."""

    answer: T
    request_id: str | None
    jkt: str  # of the token that the request showed, or empty


@dataclass(frozen=True, slots=True)
class _Answered:
    """A reply, and the thumbprint that the token shown for it is bound to."""

    reply: Reply
    jkt: str


class Session:
    """One identity at one KAS, and beside it those whose KASes hold other shares of a file.

    Args:
        profile: Where the KAS is, and who asks.
        brought: The caller's own token, or what gives it; otherwise tokens are fetched.
        ledger_key: The ledger's key to pin; otherwise the profile's.
        entropy: n random bytes.
        heads: The newest heads of ledgers; otherwise those beside the profile.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        brought: TokenSource | None,
        ledger_key: str | None,
        entropy: Callable[[int], bytes],
        heads: Heads | None = None,
    ) -> None:
        if not profile.values.url:
            raise ConfigError("no URL of a KAS", hint="pass url=, or set ENVELOCK_URL")
        self.profile = profile
        self.url = private_origin(profile.values.url)
        self.heads = heads or Heads(profile.heads_file)
        # SECURITY: what a caller's token was answered may be another tenant's: never on disk.
        self._cache = Cache(None if brought is not None else profile.cache_file)
        self.credentials = Credentials(profile, brought=brought, entropy=entropy)
        self._entropy = entropy
        self.ledger_key = ledger_key or profile.values.ledger_key
        self._configurations: dict[str, Configuration] = {}
        self.peers: tuple[Session, ...] = ()

    def with_peers(self, peers: Sequence["Session"]) -> "Session":
        """The same session, with *peers* beside those that it has."""
        other = copy.copy(self)
        other.peers = (*self.peers, *peers)
        return other

    def for_another(self, brought: TokenSource) -> "Session":
        """The same KAS, pinned key and heads for an identity that brings its own token.

        SECURITY: without peers: those act as somebody else, who must not open for this one.
        """
        return Session(
            self.profile,
            brought=brought,
            ledger_key=self.ledger_key,
            entropy=self._entropy,
            heads=self.heads,
        )

    def configuration(self, url: str | None = None) -> Steps[Configuration]:
        """What the KAS at *url* says of itself; asked once."""
        base = url or self.url
        if (known := self._configurations.get(base)) is not None:
            return known
        request = Call("GET", f"{base}/.well-known/opentdf-configuration", {})
        reply = yield from self._patiently(lambda: request)
        if reply.status != OK:
            raise error_of(reply, f"KAS at {base}")
        configuration = _read(reply, Configuration, base)
        self._configurations[base] = configuration
        return configuration

    def witness(self, configuration: Configuration) -> Witness | None:
        """Who verifies receipts; None for a KAS that gives none and a profile that pins no key.

        Raises:
            ConfigError: The KAS is ours and no ledger key is pinned.
        """
        if self.ledger_key:
            return Witness(self.ledger_key, self.heads)
        if configuration.envelock is None:
            return None
        raise ConfigError(
            "no ledger key is pinned, so receipts cannot be verified",
            hint="run `envelock login`, or pass ledger_key=",
        )

    def rewrap(self, body: RewrapBody, url: str | None = None) -> Steps[Told[RewrapAnswer]]:
        """Ask a KAS for shares.

        Raises:
            EnvelockError: It refuses the request as a whole, or does not answer.
        """
        base = url or self.url
        message = self._signed(body)
        target = f"{base}/kas.AccessService/Rewrap"
        done = yield from self._asked("POST", target, message, "open")
        return _told(done, RewrapAnswer, "open")

    def data_keys(self, body: SealBody) -> Steps[Told[SealAnswer]]:
        """Ask for data keys made online. Not tried again: each request makes other keys."""
        message = self._signed(body)
        done = yield from self._once("POST", f"{self.url}/v1/datakeys", message, "data keys")
        told = _told(done, SealAnswer, "data keys")
        yield from self._require_ours(told.answer.url, "data keys")
        return told

    def rebind(self, body: RebindBody, url: str, *, again: bool) -> Steps[Told[RebindAnswer]]:
        """Ask a KAS for another policy on the keys of one object.

        Args:
            body: What is asked.
            url: The KAS.
            again: Whether the same request may be sent again: for an online wrap, whose replacement
                is the same each time.

        Raises:
            EnvelockError: It refuses, or does not answer.
        """
        send = self._asked if again else self._once
        done = yield from send("POST", f"{url}/v1/rebind", self._signed(body), "rebind")
        return _told(done, RebindAnswer, "rebind")

    def published_key(self, dataset: str | None) -> Steps[PublishedKey]:
        """The public key that new files are sealed to; verified once, then kept for a while.

        Of which algorithm it is, the KAS says.
        """
        query = urlencode({"dataset": dataset} if dataset else {})
        name = f"key {query}"
        if (kept := self._kept(name, PublishedKey)) is not None:
            return kept
        witness = self.witness((yield from self.configuration()))
        since = witness.newest() if witness is not None else None
        url = f"{self.url}/v1/publickeys" + (f"?{query}" if query else "")
        done = yield from self._asked("GET", url, b"", "public key")
        published = _read(done.reply, PublishedKey, "public key")
        yield from self._require_ours(published.url, "public key")
        if witness is not None:
            witness.require_key(published, _der(published), dataset, since)
        self._keep(name, published)
        return published

    def attributes(self) -> Steps[Attributes]:
        """What the tenant's bundle defines; kept for a while."""
        if (kept := self._kept("attributes", Attributes)) is not None:
            return kept
        ours = (yield from self.configuration()).envelock
        if ours is None or not ours.pdp:
            raise ConfigError(
                "this KAS names no decision point to look attributes up at",
                hint="name attributes in full: NAMESPACE/NAME=VALUE",
            )
        # SECURITY: the KAS names who is shown the token, so not somebody on a line in the clear.
        pdp = private_origin(ours.pdp)
        done = yield from self._asked("GET", f"{pdp}/v1/attributes", b"", "attributes")
        attributes = _read(done.reply, Attributes, "attributes")
        self._keep("attributes", attributes)
        return attributes

    def operate(self, method: str, path: str, body: Mapping[str, object]) -> Steps[bytes]:
        """Call the operators' API; not tried again when it changes something."""
        text = msgspec.json.encode(body) if method == "POST" else b""
        done = yield from self._once(method, f"{self.url}{path}", text, path)
        return done.reply.body

    def _require_ours(self, named: str, what: str) -> Steps[None]:
        """Files that are sealed here name this KAS, by the address that it says it has.

        Raises:
            UnavailableError: The answer would have them name another server.
        """
        ours = (yield from self.configuration()).envelock
        try:
            same = origin(named) == origin(ours.url if ours is not None else self.url)
        except ConfigError as error:
            raise UnavailableError(f"{what}: the answer names no address of a KAS") from error
        if not same:
            raise UnavailableError(f"{what}: the answer names another KAS than the one asked")

    def _signed(self, body: RewrapBody | SealBody | RebindBody) -> bytes:
        token = write_request_token(body, self.credentials.key, now=int(time.time()))
        return msgspec.json.encode({"signedRequestToken": token})

    def _asked(self, method: str, url: str, body: bytes, what: str) -> Steps[_Answered]:
        """An authenticated request, tried again while the server cannot answer."""
        pause = FIRST_PAUSE_SECONDS
        for last in (*[False] * (TRIES - 1), True):
            try:
                return (yield from self._once(method, url, body, what))
            except UnavailableError as error:
                if last:
                    raise
                yield Pause(min(error.retry_after or pause, 2.0))
                pause *= 4
        raise UnavailableError(f"{what}: no answer")

    def _once(self, method: str, url: str, body: bytes, what: str) -> Steps[_Answered]:
        """One authenticated request; a token that is not taken is fetched anew once."""
        done = yield from self._authenticated(method, url, body)
        if done.reply.status == UNAUTHORIZED:
            self.credentials.forget()
            done = yield from self._authenticated(method, url, body)
        if done.reply.status != OK:
            raise error_of(done.reply, what)
        return done

    def _authenticated(self, method: str, url: str, body: bytes) -> Steps[_Answered]:
        configuration = yield from self.configuration()
        token = yield from self.credentials.token(configuration.idp.token_endpoint)
        headers = self.credentials.headers(token, method, url)
        if body:
            headers |= {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}
        reply = yield from call(Call(method, url, headers, body))
        return _Answered(reply, token.jkt)

    def _patiently(self, request: Callable[[], Call]) -> Steps[Reply]:
        pause = FIRST_PAUSE_SECONDS
        reply = yield from call(request())
        for _ in range(TRIES - 1):
            if reply.status not in _RETRIED:
                break
            yield Pause(pause)
            pause *= 4
            reply = yield from call(request())
        return reply

    def _kept(self, name: str, shape: type[T]) -> T | None:
        """A value that was kept and is still fresh."""
        kept = self._cache.get(self._own(name), now=int(time.time()), seconds=FRESH_SECONDS)
        try:
            return None if kept is None else convert(kept, shape)
        except FormatError:
            return None

    def _keep(self, name: str, value: msgspec.Struct) -> None:
        self._cache.put(self._own(name), plain(value), now=int(time.time()))

    def _own(self, name: str) -> str:
        """What *name* is kept as: answers belong to one client of one issuer at one KAS.

        The environment may lay another client id over a profile whose file is the same.
        """
        values = self.profile.values
        return encode([self.url, values.token_endpoint, values.client_id, name]).decode()


def open_session(
    url: str | None,
    profile: str | Path | None,
    ledger_key: str | None,
    *,
    brought: TokenSource | None,
) -> Session:
    """The session of a client's arguments, and of the environment where they are silent.

    Raises:
        ConfigError: There is no such profile, or no URL.
    """
    if url is not None and profile is None and brought is not None:
        found = Profile(ProfileValues(url=url), "arguments")
    else:
        found = load_profile(profile, os.environ)
    if url is not None:
        found = replace(found, values=msgspec.structs.replace(found.values, url=url))
    session = Session(found, brought=brought, ledger_key=ledger_key, entropy=os.urandom)
    if brought is not None:
        return session
    peers = load_peers(found, os.environ)
    return session.with_peers(
        [Session(peer, brought=None, ledger_key=None, entropy=os.urandom) for peer in peers]
    )


def fresh_key() -> ec.EllipticCurvePrivateKey:
    """An ephemeral P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def _told(done: _Answered, shape: type[T], what: str) -> Told[T]:
    return Told(_read(done.reply, shape, what), done.reply.request_id, done.jkt)


def _read(reply: Reply, shape: type[T], what: str) -> T:
    try:
        return read_answer(reply.body, shape)
    except WireError as error:
        raise UnavailableError(f"{what}: the server's answer is malformed") from error


def _der(published: PublishedKey) -> bytes:
    try:
        return der_of_key(read_public_key(published.pem))
    except FormatError as error:
        raise UnavailableError("public key: the server's answer is malformed") from error
