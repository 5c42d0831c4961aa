"""The KAS protocol as values: what a consumer asks and what it gets.

`kas.AccessService/Rewrap` carries a *request token*: a JWS whose claim `requestBody` is the JSON
text of `RewrapBody`. Ours carries two members more, `decision` and `seen`, which others leave out,
and a `receipt` in the metadata of the first result, which others pass over. `POST /v1/datakeys`
carries the same kind of token around `SealBody`, `POST /v1/rebind` around `RebindBody`.
"""

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from envelock_formats import jose
from envelock_formats.canonical import Json, decode
from envelock_formats.errors import FormatError
from envelock_formats.framing import digest, from_b64url
from envelock_formats.tdf.keyaccess import KeyAccess

MAX_REQUEST_TOKEN = 4 * 1024 * 1024
MAX_MESSAGE = 2 * MAX_REQUEST_TOKEN  # with a request token in it; one that is too long is told so
MAX_OBJECTS = 100
MAX_KEYS_OF_OBJECT = 20
MAX_KEYS = 120  # of a request, so that its record holds a row for each
MAX_DATA_KEYS = 100
OLDER_KEY, OLDER_POLICY = "kao-0", "policy"  # the ids in the answer to the older form
NONCE_SIZE = 16
_MAX_LIFETIME_SECONDS = 3 * 3600
_SKEW_SECONDS = 60
_MAX_MEMBERS = 64  # of a message around a request token; clients send one
T = TypeVar("T")


class WireError(FormatError):
    """A request or an answer that breaks the protocol; the message names the member."""


class KeyAccessEntry(msgspec.Struct, frozen=True):
    """One key access object under the id that its result is reported by."""

    keyAccessObjectId: str  # noqa: N815 the protocol's own name
    keyAccessObject: KeyAccess  # noqa: N815 the protocol's own name


class PolicyEntry(msgspec.Struct, frozen=True):
    """The policy of one object: an id that the answer repeats, and the base64 text."""

    id: str
    body: str


class ObjectEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object: its policy and its key access objects at this KAS."""

    keyAccessObjects: tuple[KeyAccessEntry, ...]  # noqa: N815 the protocol's own name
    policy: PolicyEntry
    algorithm: str | None = None

    @property
    def keys(self) -> tuple[KeyAccess, ...]:
        """The key access objects, in order."""
        return tuple(entry.keyAccessObject for entry in self.keyAccessObjects)


class RewrapRequest(msgspec.Struct, frozen=True):
    """The message around a request token."""

    signedRequestToken: str  # noqa: N815 the protocol's own name


class RewrapBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rewrap asks. `seen` is the tree size of the last checkpoint that the client saw.

    `keyAccess` and `policy` are the older form, of one key; some clients send both forms.
    """

    clientPublicKey: str  # noqa: N815 the protocol's own name
    requests: tuple[ObjectEntry, ...] = ()
    keyAccess: KeyAccess | None = None  # noqa: N815 the protocol's own name
    policy: str | None = None
    algorithm: str | None = None
    decision: str | None = None
    seen: int | None = None

    @property
    def older(self) -> bool:
        """Whether it is asked in the older form only, and answered so."""
        return not self.requests

    @property
    def objects(self) -> tuple[ObjectEntry, ...]:
        """The objects asked, in whichever form."""
        if self.requests or self.keyAccess is None or self.policy is None:
            return self.requests
        key = KeyAccessEntry(OLDER_KEY, self.keyAccess)
        return (ObjectEntry((key,), PolicyEntry(OLDER_POLICY, self.policy)),)


class SealBody(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What `POST /v1/datakeys` asks: *count* data keys for one policy under one dataset.

    `nonce` is base64url of 16 bytes; a repeat makes new keys.
    """

    clientPublicKey: str  # noqa: N815 as in a rewrap
    policy: str
    nonce: str
    count: int = 1
    dataset: str | None = None
    decision: str | None = None
    seen: int | None = None


class SealedKey(msgspec.Struct, frozen=True):
    """One data key: wrapped for the manifest, and sealed (HPKE) to the caller; both base64."""

    id: str
    wrappedKey: str  # noqa: N815 as in a manifest
    sealed: str


class SealAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `POST /v1/datakeys` answers; `digest` is the request digest in hex."""

    kid: str
    url: str
    digest: str
    keys: tuple[SealedKey, ...]
    receipt: str | None = None


class RebindBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `POST /v1/rebind` asks: *newPolicy* in place of *policy* for the keys of one object.

    `keyAccess` are its key access objects at this KAS, in the order of the manifest. `nonce` is
    base64url of 16 bytes, by which the tokens of equal requests are told apart.
    """

    keyAccess: tuple[KeyAccess, ...]  # noqa: N815 as in a manifest
    policy: str
    newPolicy: str  # noqa: N815 as in a rewrap
    nonce: str
    decision: str | None = None
    seen: int | None = None


class RebindAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `POST /v1/rebind` answers: the key access objects anew, in the order of the request."""

    id: str
    keyAccess: tuple[KeyAccess, ...]  # noqa: N815 as in a manifest
    receipt: str | None = None


class KeyResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one key access object; `status` is `permit` or `fail`."""

    keyAccessObjectId: str  # noqa: N815 the protocol's own name
    status: str
    metadata: dict[str, object] = {}
    kasWrappedKey: str | None = None  # noqa: N815 the protocol's own name
    error: str | None = None


class PolicyResult(msgspec.Struct, frozen=True):
    """The results of one object."""

    policyId: str  # noqa: N815 the protocol's own name
    results: tuple[KeyResult, ...]


class RewrapAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rewrap answers; the session key is there when the client's key is an EC key.

    `entityWrappedKey` answers the older form, beside the newer.
    """

    responses: tuple[PolicyResult, ...]
    sessionPublicKey: str | None = None  # noqa: N815 the protocol's own name
    entityWrappedKey: str | None = None  # noqa: N815 the protocol's own name


class PublishedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public wrapping key, with the receipt of the record that introduced it."""

    kid: str
    algorithm: str
    pem: str
    path: str
    url: str
    receipt: str


@dataclass(frozen=True, slots=True)
class RequestToken:
    """A parsed request token. `verified` tells whether its signature was checked."""

    body: bytes
    name: str  # spent in the ledger, bound to the request digest
    expires: int  # unix seconds


def read_request_token(token: str, key: jose.VerifyingKey | None, now: int) -> RequestToken:
    """Read a request token.

    Args:
        token: The JWS. Its `typ` is `JWT` or absent, as the released clients write it.
        key: The key that the caller's access token is bound to; None for an unbound token, whose
            request token then proves nothing and is only read.
        now: Unix seconds.

    Raises:
        WireError: Malformed, expired, of too long a life, or not signed by *key*.
    """
    try:
        jws = jose.read(token, typ=frozenset({None, "JWT"}), max_bytes=MAX_REQUEST_TOKEN)
        if key is not None:
            jose.verify(jws, key)
    except FormatError as error:
        raise WireError("request token does not verify") from error
    match jws.claims:
        case {"requestBody": str(body), "exp": int(exp)} if not isinstance(exp, bool):
            pass
        case _:
            raise WireError("request token lacks requestBody or exp")
    if not now - _SKEW_SECONDS < exp <= now + _MAX_LIFETIME_SECONDS:
        raise WireError("request token has expired, or lives too long")
    # The name covers what was signed, not the signature: ECDSA has more than one for a text.
    name = "srt:" + digest("envelock/request-token/v1", jws.signing_input).hex()
    return RequestToken(body.encode(), name, exp + _SKEW_SECONDS)


def write_request_token(
    body: msgspec.Struct, key: jose.SigningKey, *, now: int, seconds: int = 60
) -> str:
    """Sign a request token around *body*."""
    text = msgspec.json.encode(body).decode()
    claims: dict[str, Json] = {"requestBody": text, "iat": now, "exp": now + seconds}
    return jose.sign(key, claims, typ="JWT")


def read_request_message(body: bytes) -> RewrapRequest:
    """Read the message around a request token.

    SECURITY: it is flat, so that many brackets or commas in a long one are junk, which to parse
    would cost seconds.

    Raises:
        WireError: Malformed, too long, or full of other things.
    """
    if len(body) > MAX_MESSAGE or sum(map(body.count, (b"{", b"[", b","))) > _MAX_MEMBERS:
        raise WireError("expected a request token and little else")
    try:
        return decode(body, RewrapRequest, max_bytes=MAX_MESSAGE)
    except FormatError as error:
        raise WireError(str(error)) from error


def read_rewrap(body: bytes) -> RewrapBody:
    """Read and check the body of a rewrap.

    Raises:
        WireError: Malformed, no object, too many, an id that stands twice, a key access object that
            is no key at a KAS, or an older form beside the requests that differs from them.
    """
    try:
        asked = decode(body, RewrapBody, max_bytes=MAX_REQUEST_TOKEN)
    except FormatError as error:
        raise WireError(f"request body: {error}") from error
    objects = asked.objects
    if not 1 <= len(objects) <= MAX_OBJECTS:
        raise WireError(f"requests: 1 to {MAX_OBJECTS} objects")
    _require_distinct([entry.policy.id for entry in objects], "policy.id")
    for entry in objects:
        if not 1 <= len(entry.keyAccessObjects) <= MAX_KEYS_OF_OBJECT:
            raise WireError(f"keyAccessObjects: 1 to {MAX_KEYS_OF_OBJECT} in an object")
        _require_distinct([key.keyAccessObjectId for key in entry.keyAccessObjects], "object id")
    if sum(len(entry.keyAccessObjects) for entry in objects) > MAX_KEYS:
        raise WireError(f"keyAccessObjects: at most {MAX_KEYS} in a request")
    _require_same_older_form(asked)
    return asked


def read_seal(body: bytes) -> SealBody:
    """Read and check the body of a request for data keys; `WireError` says what is wrong."""
    try:
        asked = decode(body, SealBody, max_bytes=MAX_REQUEST_TOKEN)
    except FormatError as error:
        raise WireError(f"request body: {error}") from error
    if not 1 <= asked.count <= MAX_DATA_KEYS:
        raise WireError(f"count: 1 to {MAX_DATA_KEYS} data keys")
    return asked


def read_rebind(body: bytes) -> RebindBody:
    """Read and check the body of a request to rebind.

    Members of key access objects that are not known are ignored, as files of others may have some.

    Raises:
        FormatError: Malformed, no key or too many, a nonce of another size, or the same policy.
    """
    try:
        asked = decode(body, RebindBody, max_bytes=MAX_REQUEST_TOKEN)
    except FormatError as error:
        raise WireError(f"request body: {error}") from error
    if not 1 <= len(asked.keyAccess) <= MAX_KEYS_OF_OBJECT:
        raise WireError(f"keyAccess: 1 to {MAX_KEYS_OF_OBJECT} in an object")
    if len(from_b64url(asked.nonce)) != NONCE_SIZE:
        raise WireError(f"nonce: base64url of {NONCE_SIZE} bytes")
    if asked.policy == asked.newPolicy:
        raise WireError("newPolicy is the policy that the object has")
    return asked


def read_answer(answer: bytes, shape: type[T]) -> T:
    """Read an answer of a KAS; members that are not known are passed over.

    Raises:
        WireError: The answer is not of that shape.
    """
    try:
        return decode(answer, shape, max_bytes=2 * MAX_REQUEST_TOKEN)
    except FormatError as error:
        raise WireError(f"answer: {error}") from error


def receipt_of(answer: RewrapAnswer) -> str | None:
    """The receipt in the metadata of the first result, if the KAS gave one."""
    for response in answer.responses[:1]:
        for result in response.results[:1]:
            receipt = result.metadata.get("receipt")
            return receipt if isinstance(receipt, str) else None
    return None


def _require_distinct(ids: list[str], name: str) -> None:
    if len(set(ids)) != len(ids):
        raise WireError(f"{name} stands twice in one request")


def _require_same_older_form(asked: RewrapBody) -> None:
    """Two forms of one request that differ would let two readers see two requests."""
    first = asked.objects[0]
    if asked.policy is not None and asked.policy != first.policy.body:
        raise WireError("policy differs from requests")
    if asked.keyAccess is not None and asked.keyAccess != first.keyAccessObjects[0].keyAccessObject:
        raise WireError("keyAccess differs from requests")
    if (asked.policy or asked.keyAccess) and len(asked.requests) > 1:
        raise WireError("older form beside several requests")
