"""What stock clients send, byte by byte, and what they read of the answers.

Written from the protocol, without the server's own code: requests in JSON and protobuf, request
tokens and DPoP proofs by PyJWT, keys wrapped and unwrapped here.
"""

import gzip
import hashlib
import hmac
import json
import os
import time
import uuid
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import jwt
import urllib3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from interop.clients import Person

REWRAP = "/kas.AccessService/Rewrap"
PUBLIC_KEY = "/kas.AccessService/PublicKey"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), label=None)  # noqa: S303 the format's own
JSON, PROTO = "application/json", "application/proto"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    type: str
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def send(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] = {}
) -> Answer:
    """Send one request, over a connection of its own."""
    with urllib3.PoolManager() as pool:
        given = pool.request(method, url, body=body, headers=dict(headers), retries=False)
    return Answer(given.status, given.headers.get("Content-Type", ""), given.data)


def call(url: str, message: bytes, codec: str, headers: Mapping[str, str] = {}) -> Answer:
    """A unary Connect call."""
    sent = {"Content-Type": codec, "Connect-Protocol-Version": "1"} | dict(headers)
    return send("POST", url, message, sent)


def zipped(message: bytes) -> bytes:
    """A body as otdf-python sends it, with `Content-Encoding: gzip`."""
    return gzip.compress(message)


def text_field(number: int, text: str) -> bytes:
    """One string or message field of protobuf."""
    raw = text.encode()
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; all that clients read of answers."""
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        size, place = _read_varint(message, place)
        if tag & 7 != 2:
            raise ValueError(f"field {tag >> 3} is of wire type {tag & 7}")
        yield tag >> 3, message[place : place + size]
        place += size


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one key access object: field 4 is its key, 5 its error."""

    policy: str
    object: str
    status: str
    key: bytes
    error: str


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """`RewrapResponse`, as Go, Java and otdf-python read it."""

    entity_key: bytes
    session_key: str
    results: tuple[Result, ...]


def rewrapped(message: bytes) -> Rewrapped:
    """Read a `RewrapResponse` in protobuf."""
    whole = dict(fields(message))
    results = []
    for number, policy in fields(message):
        if number != 5:
            continue
        name = next(raw.decode() for at, raw in fields(policy) if at == 1)
        for at, raw in fields(policy):
            if at == 2:
                found = dict(fields(raw))
                results.append(
                    Result(
                        name,
                        found.get(2, b"").decode(),
                        found.get(3, b"").decode(),
                        found.get(4, b""),
                        found.get(5, b"").decode(),
                    )
                )
    return Rewrapped(whole.get(2, b""), whole.get(3, b"").decode(), tuple(results))


def _varint(number: int) -> bytes:
    raw = bytearray()
    while number > 0x7F:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)
    return bytes(raw)


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place


@dataclass(frozen=True)
class Caller:
    """A client's keys: RSA or P-256 for its proofs and request tokens."""

    person: Person
    kind: str = "RS256"
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        fresh = (
            rsa.generate_private_key(65537, 2048)
            if self.kind == "RS256"
            else ec.generate_private_key(ec.SECP256R1())
        )
        object.__setattr__(self, "key", fresh)

    def bearer(self) -> str:
        """A token that is bound to no key: credentials in the form."""
        given = {
            "grant_type": "client_credentials",
            "client_id": self.person.client_id,
            "client_secret": self.person.secret,
            "scope": "openid profile email",
        }
        with urllib3.PoolManager() as pool:
            answer = pool.request_encode_body(
                "POST", f"{self.person.issuer}/token", fields=given, encode_multipart=False
            )
        return str(answer.json()["access_token"])

    def bound(self) -> str:
        """A token that is bound to our key: Basic credentials and a proof, as Go and Java ask."""
        url = f"{self.person.issuer}/token"
        pair = b64encode(f"{self.person.client_id}:{self.person.secret}".encode()).decode()
        headers = {
            "Authorization": f"Basic {pair}",
            "Content-Type": "application/x-www-form-urlencoded",
            "DPoP": self.proof(url),
        }
        answer = send("POST", url, b"grant_type=client_credentials", headers).json
        if answer["token_type"] != "DPoP":
            raise ValueError(answer["token_type"])
        return str(answer["access_token"])

    def proof(self, url: str, token: str = "", **more: object) -> str:
        """A DPoP proof for a POST to *url*."""
        claims = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": uuid.uuid4().hex}
        if token:
            claims["ath"] = b64url(hashlib.sha256(token.encode()).digest())
        public = jwt.get_algorithm_by_name(self.kind).to_jwk(self.key.public_key(), as_dict=True)
        public.pop("key_ops", None)
        headers = {"typ": "dpop+jwt", "jwk": public | more}
        return jwt.encode(claims, self.key, self.kind, headers)

    def request_token(
        self, body: dict, *, ago: int = 0, ahead: int = 60, typ: str | None = "JWT"
    ) -> str:
        """The signed request token around *body*; some clients say no `typ`."""
        now = int(time.time())
        claims = {"requestBody": json.dumps(body), "iat": now - ago, "exp": now + ahead}
        return jwt.encode(claims, self.key, self.kind, {"typ": typ})


def b64url(raw: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """The public half, as PEM."""
    raw = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


@dataclass(frozen=True, slots=True)
class Object:
    """A key access object of a file that a stock client wrote, and the share in it."""

    policy: str  # base64 of JSON
    access: dict
    share: bytes


def sealed(server: str, attribute: str, **more: object) -> Object:
    """A share under the server's RSA key, as any stock client wraps it."""
    asked = json.dumps({"algorithm": "rsa:2048", "v": "2"}).encode()
    published = call(server + PUBLIC_KEY, asked, JSON).json
    share = os.urandom(32)
    body = {"dataAttributes": [{"attribute": attribute}], "dissem": []}
    policy = b64encode(json.dumps({"uuid": str(uuid.uuid4()), "body": body}).encode()).decode()
    binding = hmac.new(share, policy.encode(), hashlib.sha256).hexdigest()
    key = load_pem_public_key(published["publicKey"].encode())
    access = {
        "type": "wrapped",
        "url": server,
        "protocol": "kas",
        "kid": published["kid"],
        "wrappedKey": b64encode(key.encrypt(share, OAEP)).decode(),
        "policyBinding": {"alg": "HS256", "hash": b64encode(binding.encode()).decode()},
    }
    return Object(policy, access | more, share)


def unwrap_rsa(key: rsa.RSAPrivateKey, wrapped: bytes) -> bytes:
    """What an answer to an RSA key holds."""
    return key.decrypt(wrapped, OAEP)


def unwrap_ec(key: ec.EllipticCurvePrivateKey, session: str, wrapped: bytes) -> bytes:
    """What an answer to an EC key holds, with the server's ephemeral key."""
    agreed = key.exchange(ec.ECDH(), load_pem_public_key(session.encode()))
    salt = hashlib.sha256(b"TDF").digest()
    secret = HKDF(hashes.SHA256(), 32, salt, b"").derive(agreed)
    return AESGCM(secret).decrypt(wrapped[:12], wrapped[12:], None)


def decoded(text: str) -> bytes:
    """Base64."""
    return b64decode(text)
