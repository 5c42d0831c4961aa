"""`kas.AccessService`: public keys and rewraps, for stock clients and for ours."""

import json
from base64 import b64decode

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from envelock_formats import jose
from envelock_formats.wire import (
    MAX_MESSAGE,
    PublishedKey,
    RewrapAnswer,
    RewrapRequest,
    read_request_message,
)
from envelock_kas.custody import RSA, RSA_ALGORITHMS
from envelock_kas.http import Surface, authenticate, published, token_of
from envelock_kas.naming import DEFAULT_DATASET
from envelock_kas.opentdf import opentdf_pb2 as pb
from envelock_kas.opentdf.connect import Method
from envelock_kas.opentdf.kaskeys import KasKeys
from envelock_service.problem import Problem


class PublicKeyRequest(msgspec.Struct, frozen=True):
    """`v` of `1` leaves the key id out; `fmt` of `jwk` asks for an RSA key as a JWK."""

    algorithm: str = ""
    fmt: str = ""
    v: str = ""


class PublicKeyResponse(msgspec.Struct, frozen=True):
    """PEM text, or JSON of a JWK."""

    publicKey: str  # noqa: N815 the protocol's own name
    kid: str = ""


def _rewrapped(given: RewrapAnswer) -> pb.RewrapResponse:
    """The answer to a rewrap as protobuf, written field by field: there may be many."""
    message = pb.RewrapResponse(session_public_key=given.sessionPublicKey or "")
    if given.entityWrappedKey is not None:
        message.entity_wrapped_key = b64decode(given.entityWrappedKey)
    for response in given.responses:
        policy = message.responses.add(policy_id=response.policyId)
        for result in response.results:
            line = policy.results.add(
                key_access_object_id=result.keyAccessObjectId, status=result.status
            )
            if result.kasWrappedKey is not None:
                line.kas_wrapped_key = b64decode(result.kasWrappedKey)
            else:
                line.error = result.error or ""
            for name, value in result.metadata.items():
                if isinstance(value, list):
                    line.metadata[name].list_value.SetInParent()
                    line.metadata[name].list_value.extend(value)
                else:
                    line.metadata[name].string_value = str(value)
    return message


PUBLIC_KEY = Method(
    "/kas.AccessService/PublicKey",
    PublicKeyRequest,
    pb.PublicKeyRequest,
    pb.PublicKeyResponse,
    lambda message: PublicKeyRequest(message.algorithm, message.fmt, message.v),
    safe=True,
)
REWRAP = Method(
    "/kas.AccessService/Rewrap",
    RewrapRequest,
    pb.RewrapRequest,
    pb.RewrapResponse,
    lambda message: RewrapRequest(message.signed_request_token),
    write=_rewrapped,
    json=read_request_message,
    max_bytes=MAX_MESSAGE,
)


class Access:
    """The procedures of `kas.AccessService`."""

    def __init__(self, surface: Surface, keys: KasKeys) -> None:
        self._surface = surface
        self._keys = keys

    def routes(self, app: web.Application) -> None:
        """Add the routes; older clients have the address of the KAS with `/kas` at its end."""
        PUBLIC_KEY.route(app, self.public_key)
        REWRAP.serve(app, self.rewrap)
        for base in ("", "/kas"):
            app.router.add_post(f"{base}/v2/rewrap", self.rewrap)
            app.router.add_get(f"{base}/kas_public_key", self.older_public_key)
            app.router.add_get(f"{base}/v2/kas_public_key", self.older_public_key)

    async def public_key(self, request: web.Request, asked: PublicKeyRequest) -> PublicKeyResponse:
        """The key for new objects: of the caller's tenant, or the base key for who is nobody.

        Clients that name no algorithm can do RSA only.
        """
        found = await self._key(request, asked.algorithm or RSA)
        text = _jwk(found) if asked.fmt == "jwk" else found.pem
        return PublicKeyResponse(text, "" if asked.v == "1" else found.kid)

    async def older_public_key(self, request: web.Request) -> web.Response:
        """`GET /kas_public_key?algorithm=&v=&fmt=`: without `v=2` the PEM text alone, in JSON."""
        query = request.query
        asked = PublicKeyRequest(query.get("algorithm", ""), query.get("fmt", ""))
        found = await self.public_key(request, asked)
        return web.json_response(
            msgspec.to_builtins(found) if query.get("v") == "2" else found.publicKey
        )

    async def _key(self, request: web.Request, algorithm: str) -> PublishedKey:
        surface = self._surface
        base = self._keys.base()
        if "Authorization" in request.headers or base is None:
            caller = await authenticate(surface, request)
            return await published(surface, request, caller, DEFAULT_DATASET, algorithm)
        return await self._keys.published(base, surface.origin_of(request), algorithm=algorithm)

    async def rewrap(self, request: web.Request) -> web.Response:
        """Release keys.

        What a client says of obligations that it fulfils, in a header, counts for nothing.
        """
        caller, token = await token_of(self._surface, request, "open", REWRAP.read)
        origin = self._surface.origin_of(request)
        return REWRAP.answer(request, await self._surface.release(caller, token, origin))


def _jwk(key: PublishedKey) -> str:
    if key.algorithm not in RSA_ALGORITHMS:
        raise Problem("malformed_request", "only an RSA key is given as a JWK")
    loaded = load_pem_public_key(key.pem.encode())
    if not isinstance(loaded, rsa.RSAPublicKey):
        raise Problem("internal")
    return json.dumps(jose.public_jwk(loaded) | {"kid": key.kid})
